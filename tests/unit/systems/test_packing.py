"""Boxes and clusters: the right number of whole molecules, apart from each other across the boundary too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alsys.config.systems import BoxConfig, ClusterConfig
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.systems.packing import APART, Recipe, pack, recipe

WATER = molecule("H2O")
MASS = 18.015


def box(*components: dict[str, Any], **fields: Any) -> BoxConfig:
    return BoxConfig.model_validate({"components": components, **fields})


def between_molecules(frame: Frame, sizes: list[int]) -> float:
    """Smallest distance between molecules, measured with ASE's minimum image."""
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    distance = atoms.get_all_distances(mic=bool(frame.pbc.any()))
    return float(distance[owner[:, None] != owner[None]].min())


# --- what is packed into which volume


def test_density_gives_the_edge() -> None:
    made = recipe(box({"molecule": "H2O", "count": 64}, density=0.997), [MASS])
    assert made.counts == (64,)
    assert made.edge == pytest.approx(12.43, abs=0.01)  # the usual box of 64 waters at 298 K


def test_a_component_without_a_number_fills_up() -> None:
    made = recipe(box({"smiles": "CCO", "count": 1}, {"molecule": "H2O"}, edge=15.0, density=1.0), [46.07, MASS])
    assert made.edge == pytest.approx(15.0)
    mass = made.counts[0] * 46.07 + made.counts[1] * MASS
    assert mass / 0.602214 / 15.0**3 == pytest.approx(1.0, abs=0.5 * MASS / 0.602214 / 15.0**3)


def test_concentrations_count_in_a_given_edge_and_beside_a_density() -> None:
    pure = recipe(box({"molecule": "H2O", "concentration": 55.34}, edge=12.43), [MASS])
    assert pure.counts == (64,)  # 0.997 g/cm3 again
    ions = [{"smiles": "[Na+]", "charge": 1, "concentration": 1.0}, {"smiles": "[Cl-]", "charge": -1, "count": 4}]
    made = recipe(box(*ions, {"molecule": "H2O", "count": 200}, density=1.04), [22.99, 35.45, MASS])
    mass = sum(n * m for n, m in zip(made.counts, (22.99, 35.45, MASS), strict=True))
    assert made.counts[0] == pytest.approx(made.volume * 6.02214e-4, abs=0.5)
    assert mass / made.volume / 0.602214 == pytest.approx(1.04, rel=3e-3)


def test_a_sphere_of_that_density() -> None:
    config = ClusterConfig.model_validate({"components": [{"molecule": "H2O", "count": 20}], "density": 1.0})
    made = recipe(config, [MASS])
    assert 4 / 3 * np.pi * made.radius**3 == pytest.approx(20 * MASS / 0.602214, rel=1e-6)
    config = ClusterConfig.model_validate({"components": [{"molecule": "H2O", "count": 20}], "radius": 6.0})
    assert recipe(config, [MASS]).radius == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (box({"molecule": "H2O", "concentration": 0.1}, edge=5.0), ["components[0]", "no molecule", "larger volume"]),
        (box({"molecule": "H2O"}, edge=2.0, density=1.0), ["components[0]", "no molecule"]),
        (
            box({"molecule": "H2O", "concentration": 60.0}, {"smiles": "C", "count": 1}, density=1.0),
            ["density", "dissolved", "more than 1.08 g/cm3"],
        ),
    ],
)
def test_impossible_recipes_say_why(config: BoxConfig, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        recipe(config, [MASS, 16.04][: len(config.components)])
    for word in words:
        assert word in str(caught.value)


# --- packing


@pytest.mark.parametrize("is_periodic", [True, False])
def test_molecules_stay_whole_and_apart(is_periodic: bool) -> None:
    made = Recipe((2, 14), volume=500.0)
    methanol = molecule("CH3OH")
    frame = pack(made, [methanol, WATER], is_periodic=is_periodic, seed=1, charge=0, multiplicity=1)
    assert frame.n_atoms == 2 * 6 + 14 * 3
    assert bool(frame.pbc.all()) is is_periodic
    assert abs(np.linalg.det(frame.cell)) == pytest.approx(500.0 if is_periodic else 0.0)
    assert between_molecules(frame, [6] * 2 + [3] * 14) >= APART
    inside = Atoms("H3", positions=WATER.positions).get_all_distances()
    for first in range(12, frame.n_atoms, 3):  # without images: not split by the boundary
        whole = Atoms("H3", positions=frame.positions[first : first + 3]).get_all_distances()
        np.testing.assert_allclose(whole, inside, atol=1e-4)
    if not is_periodic:
        assert np.linalg.norm(frame.positions, axis=1).max() < made.radius + 0.1


def test_a_seed_gives_one_packing_and_another_seed_another() -> None:
    first, same, other = (
        pack(Recipe((4,), 150.0), [WATER], is_periodic=True, seed=seed, charge=0, multiplicity=1) for seed in (5, 5, 6)
    )
    assert first == same != other
    assert first.with_positions(other.positions) == other


@pytest.mark.parametrize(("is_periodic", "word"), [(True, "edge 3.00"), (False, "radius 1.86")])
def test_what_does_not_fit_is_refused(is_periodic: bool, word: str) -> None:
    with pytest.raises(InputError, match=f"cannot be packed.*{word}.*larger.*lower density"):
        pack(Recipe((6,), 27.0), [WATER], is_periodic=is_periodic, seed=1, charge=0, multiplicity=1)


def test_a_molecule_that_meets_its_own_image_is_refused() -> None:
    rod = Atoms("C6", positions=[[1.3 * i, 0, 0] for i in range(6)])
    with pytest.raises(InputError, match=r"box: .*larger edge"):
        pack(Recipe((1,), 5.0**3), [rod], is_periodic=True, seed=1, charge=0, multiplicity=1)


def test_a_machine_without_packmol_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "packmol", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=r"pip install 'alsys\[boxes\]'"):
        pack(Recipe((2,), 100.0), [WATER], is_periodic=True, seed=1, charge=0, multiplicity=1)
    program = tmp_path / "packmol"
    program.write_text("not a program")
    program.chmod(0o755)
    with pytest.raises(EnvironmentProblem, match="cannot run packmol"):
        pack(Recipe((2,), 100.0), [WATER], is_periodic=True, seed=1, charge=0, multiplicity=1)
