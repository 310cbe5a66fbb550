from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.geometry.rdf import get_rdf

from alsys.frames import Frame
from alsys.validation.distances import ALL, DistanceHistogram, differences, integrated_difference


def test_an_ideal_gas_has_no_structure() -> None:
    rng = np.random.default_rng(0)
    frame = Frame([18] * 40 + [10] * 20, np.zeros((60, 3)) + np.arange(60)[:, None], np.eye(3) * 12.0, [True] * 3)
    histogram = DistanceHistogram(frame, width=0.5)
    histogram.add(rng.uniform(0.0, 12.0, size=(300, 60, 3)))
    found = histogram.distributions()
    assert found.keys() == {"Ar-Ar", "Ne-Ar", "Ne-Ne", ALL} or found.keys() == {"Ne-Ne", "Ne-Ar", "Ar-Ar", ALL}
    assert histogram.edges[-1] == pytest.approx(6.0), "half the cell"
    # random atoms are no partners of themselves: (n - 1) / n of like pairs
    np.testing.assert_allclose(found["Ne-Ar"][2:], 1.0, atol=0.05)
    np.testing.assert_allclose(found["Ar-Ar"][2:], 39 / 40, atol=0.06)


def test_a_crystal_against_ase() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(3)
    atoms.positions += np.random.default_rng(1).normal(scale=0.1, size=atoms.positions.shape)
    frame = Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    histogram = DistanceHistogram(frame, width=0.1, longest=8.0)
    histogram.add(frame.positions[None])
    found = histogram.distributions()
    for name, elements in (("Na-Cl", [11, 17]), ("Na-Na", [11, 11]), ("Cl-Cl", [17, 17])):
        expected, r = get_rdf(atoms, 8.0, 80, elements=elements)
        assert r.size == found[name].size
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-12)


def test_a_molecule_has_a_density_that_integrates_to_one(molecule_frame: Any) -> None:
    water = molecule_frame("H2O")
    histogram = DistanceHistogram(water)
    assert histogram.distributions() == {}
    histogram.add(np.stack([water.positions, water.positions @ np.diag([1.0, -1.0, 1.0])]))
    found = histogram.distributions()
    assert found.keys() == {"H-H", "H-O", ALL}
    for density in found.values():
        assert (density * np.diff(histogram.edges)).sum() == pytest.approx(1.0)
    oh = float(np.linalg.norm(water.positions[0] - water.positions[1]))
    assert found["H-O"][int(oh / 0.05)] == pytest.approx(1.0 / 0.05)
    two_thirds = (found[ALL] * np.diff(histogram.edges))[int(oh / 0.05)]
    assert two_thirds == pytest.approx(2.0 / 3.0)


def test_the_difference_of_two_gaussians() -> None:
    edges = np.linspace(-8.0, 8.0, 1601)
    r = 0.5 * (edges[1:] + edges[:-1])
    first, second = (np.exp(-0.5 * (r - m) ** 2) / np.sqrt(2 * np.pi) for m in (0.0, 1.0))
    # 2 (2 Phi(1/2) - 1): the total variation distance of two normal laws one standard deviation apart, doubled
    assert integrated_difference(first, second, edges) == pytest.approx(2 * 0.3829249, abs=1e-4)
    assert differences({"a": first, "b": first}, {"a": first, "c": second}, edges) == {"a": 0.0}
