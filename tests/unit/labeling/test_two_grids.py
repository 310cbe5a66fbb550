"""An SCF on two grids ends at the solution of the fine one, for what a label may be, or says that it did not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import COARSE_GRID, PySCFLabeling
from alsys.frames import Frame, PointCharges
from alsys.labeling.pyscf import PySCFEngine
from alsys.labeling.two_grids import coarse_copy, refine
from alsys.labels import Label

pytestmark = pytest.mark.dft


def frame_of(name: str, charge: int = 0, multiplicity: int = 1, environment: PointCharges | None = None) -> Frame:
    atoms = molecule(name)
    positions = atoms.positions + np.random.default_rng(0).normal(0, 0.05, (len(atoms), 3))
    return replace(Frame.molecule(atoms.numbers, positions, charge, multiplicity), environment=environment)


def labels_of(frame: Frame, **settings: Any) -> tuple[Label, Label]:
    """On two grids, and on one to much tighter convergence."""
    base: dict[str, Any] = {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "grid_level": 3, **settings}
    labels = []
    for change in ({}, {"two_grids": False, "conv_tol": 1e-12}):
        label = PySCFEngine(PySCFLabeling.model_validate({**base, **change})).label(frame)
        assert isinstance(label, Label), label
        labels.append(label)
    return labels[0], labels[1]


CHARGES = PointCharges(np.array([[0.0, 0.0, 3.5]]), np.array([-0.8]))
CASES = {
    "pbe": (frame_of("H2O"), {}),
    "radical": (frame_of("NH2", multiplicity=2), {}),
    "triplet": (frame_of("O2", multiplicity=3), {"xc": "b3lyp"}),
    "cation": (frame_of("H2O", charge=1, multiplicity=2), {"xc": "r2scan"}),
    "range-separated": (frame_of("H2O"), {"xc": "camb3lyp"}),
    "vv10": (frame_of("H2O"), {"xc": "wb97m-v", "grid_level": 2, "nlc_grid_level": 0}),
    "vv10 of a radical": (frame_of("NH2", multiplicity=2), {"xc": "wb97m-v", "grid_level": 2, "nlc_grid_level": 0}),
    "dispersion": (frame_of("H2O"), {"dispersion": "d3bj"}),
    "solvent": (frame_of("H2O"), {"solvent_model": "cpcm", "solvent": "water"}),
    "charges": (frame_of("H2O", environment=CHARGES), {}),
    "level shift": (frame_of("H2O"), {"level_shift": 0.2}),
    "core potentials": (frame_of("HCl"), {"basis": "lanl2dz"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_label_is_that_of_the_stated_grid(case: str) -> None:
    frame, settings = CASES[case]
    found, expected = labels_of(frame, **settings)
    assert found.energy == pytest.approx(expected.energy, abs=1e-6)
    assert 1e3 * np.abs(found.forces - expected.forces).mean() < 0.1
    assert found.cost.rescue_rung == expected.cost.rescue_rung == 0
    assert found.diagnostics.gap == pytest.approx(expected.diagnostics.gap, abs=1e-3)


def test_it_is_of_the_stated_grid_and_not_of_the_coarse_one() -> None:
    frame = CASES["pbe"][0]
    found, _ = labels_of(frame)
    coarse, _ = labels_of(frame, grid_level=COARSE_GRID)
    assert abs(found.energy - coarse.energy) > 1e-4


def field_of(level: int) -> Any:
    from pyscf import dft, gto

    field = dft.RKS(gto.M(atom="C 0 0 0; O 0 0 1.15", basis="def2-svp", verbose=0), xc="pbe").density_fit()
    field.grids.level = level
    return field


def test_what_does_not_converge_is_said_and_nothing_is_given() -> None:
    coarse = coarse_copy(field_of(3))
    coarse.kernel()
    fine = field_of(3)
    is_solution, cycles = refine(coarse, lambda: coarse_copy(field_of(3)), fine, max_cycles=1)
    assert not is_solution
    assert cycles >= 1
    assert fine.mo_coeff is None
    is_solution, _ = refine(coarse, lambda: coarse_copy(field_of(3)), fine, max_cycles=50)
    assert is_solution
    assert fine.converged


def test_a_label_whose_refinement_fails_is_made_on_one_grid() -> None:
    """At two cycles a rung, only the ladder's second-order rungs converge, on either grid."""
    frame = frame_of("H2O")
    config = PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-svp", grid_level=2, max_cycles=4)
    label = PySCFEngine(config).label(frame)
    plain = PySCFEngine(config.model_copy(update={"two_grids": False})).label(frame)
    assert isinstance(label, Label)
    assert isinstance(plain, Label)
    assert label.energy == pytest.approx(plain.energy, abs=1e-5)
