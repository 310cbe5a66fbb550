"""Learned densities are proper, turn with the molecule, save iterations, and leave energies where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from pyscf import dft, gto
from scipy.spatial.transform import Rotation

from alsys.config.labeling import PySCFLabeling
from alsys.frames import Frame
from alsys.labeling.densities import DensityMemory, regression
from alsys.labeling.pyscf import PySCFEngine, remembering_engine
from alsys.labels import Label
from alsys.units import HARTREE

LEVEL = "ab" * 16
pytestmark = pytest.mark.dft


def frames(n: int, name: str = "H2O", multiplicity: int = 1, charge: int = 0, scale: float = 0.06) -> list[Frame]:
    """Distorted molecules, each turned another way."""
    atoms = molecule(name)
    rng = np.random.default_rng(4)
    turns = Rotation.random(n, random_state=4).as_matrix()
    return [
        Frame.molecule(
            atoms.numbers, (atoms.positions + rng.normal(0, scale, (len(atoms), 3))) @ turn.T, charge, multiplicity
        )
        for turn in turns
    ]


def field_of(frame: Frame, basis: str = "def2-svp", unrestricted: bool = False, **more: Any) -> Any:
    mol = gto.M(
        atom=list(zip(frame.numbers.tolist(), frame.positions, strict=True)),
        basis=basis,
        charge=frame.charge,
        spin=frame.multiplicity - 1,
        verbose=0,
        **more,
    )
    is_open = unrestricted or frame.multiplicity > 1
    field = (dft.UKS if is_open else dft.RKS)(mol, xc="pbe").density_fit()
    field.grids.level = 0
    field.conv_tol = 1e-9
    return field


def solved(frame: Frame, density: Any = None, **more: Any) -> Any:
    field = field_of(frame, **more)
    field.kernel(dm0=density)
    assert field.converged
    return field


@pytest.mark.parametrize(("charge", "multiplicity"), [(0, 1), (1, 2)])
def test_learned_densities_save_iterations_and_leave_energies_where_they_were(charge: int, multiplicity: int) -> None:
    memory = DensityMemory(LEVEL)
    *known, new = frames(9, charge=charge, multiplicity=multiplicity)
    plain = [solved(frame) for frame in known]
    for frame, field in zip(known, plain, strict=True):
        memory.keep(frame, field)
    fresh = field_of(new)
    density = memory.guess(new, fresh)
    assert density is not None
    overlap = fresh.get_ovlp()
    spins = density if density.ndim == 3 else np.array([density / 2] * 2)
    for spin, n in zip(spins, fresh.mol.nelec, strict=True):
        assert np.trace(spin @ overlap) == pytest.approx(n)
        np.testing.assert_allclose(spin @ overlap @ spin, spin, atol=1e-10)
    fresh.kernel(dm0=density)
    default = solved(new)
    assert fresh.converged
    assert abs(fresh.e_tot - default.e_tot) < 1e-8
    assert fresh.cycles <= 0.85 * default.cycles


@pytest.mark.parametrize("method", ["nearest", "learned"])
def test_a_frame_that_is_known_is_solved_at_once_however_it_is_turned(method: Any) -> None:
    memory = DensityMemory(LEVEL, method)
    known = frames(3, "CH3OH")
    for frame in known:
        memory.keep(frame, solved(frame))
    turned = known[1].with_positions(known[1].positions @ Rotation.random(random_state=9).as_matrix().T + 1.0)
    fresh = field_of(turned)
    density = memory.guess(turned, fresh)
    exact = solved(turned).make_rdm1()
    assert np.abs(density - exact).max() < 1e-3  # the grid of another orientation, and noise of the regression
    fresh.kernel(dm0=density)
    assert fresh.cycles <= 5


def test_nothing_is_guessed_for_another_state_or_order() -> None:
    first, new = frames(2)
    memory = DensityMemory(LEVEL)
    assert memory.guess(first, field_of(first)) is None
    memory.keep(first, solved(first))
    assert memory.guess(new, field_of(new)) is not None
    cation = Frame.molecule(new.numbers, new.positions, 1, 2)
    assert memory.guess(cation, field_of(cation)) is None
    triplet = Frame.molecule(new.numbers, new.positions, 0, 3)
    assert memory.guess(triplet, field_of(triplet)) is None
    swapped = Frame.molecule(new.numbers[::-1], new.positions[::-1])
    assert memory.guess(swapped, field_of(swapped)) is None
    assert memory.guess(new, field_of(new, unrestricted=True)) is None
    assert memory.guess(new, field_of(new, basis="sto-3g")) is None


def test_what_is_unsafe_is_not_kept() -> None:
    first, new = frames(2)
    memory = DensityMemory(LEVEL)
    memory.keep(first, solved(first, unrestricted=True))
    assert memory.guess(new, field_of(new, unrestricted=True)) is None
    memory.keep(first, solved(first, cart=True))
    assert memory.guess(new, field_of(new, cart=True)) is None
    unconverged = field_of(first)
    unconverged.max_cycle = 1
    unconverged.kernel()
    memory.keep(first, unconverged)
    assert memory.guess(new, field_of(new)) is None
    degenerate = solved(first)
    filled = int((degenerate.mo_occ > 0).sum())
    degenerate.mo_energy[filled] = degenerate.mo_energy[filled - 1] + 0.01
    memory.keep(first, degenerate)
    assert memory.guess(new, field_of(new)) is None
    excited = solved(first)
    excited.mo_occ[[filled - 1, filled]] = excited.mo_occ[[filled, filled - 1]]
    memory.keep(first, excited)
    assert memory.guess(new, field_of(new)) is None
    memory.keep(first, solved(first))
    assert memory.guess(new, field_of(new)) is not None


@pytest.mark.parametrize("choice", ["default", "nearest", "auto"])
def test_the_engine_remembers_as_its_config_says(choice: Any, tmp_path: Path) -> None:
    config = PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-svp", grid_level=0, conv_tol=1e-9, initial_guess=choice)
    known, new = frames(2, scale=0.02)
    first = remembering_engine((config, tmp_path / "densities")).label(known)
    label = remembering_engine((config, tmp_path / "densities")).label(new)  # a child that was started anew
    plain = PySCFEngine(config).label(new)
    assert isinstance(first, Label)
    assert isinstance(label, Label)
    assert isinstance(plain, Label)
    assert label.level_id == plain.level_id
    assert label.energy == pytest.approx(plain.energy, abs=1e-8 * HARTREE)
    np.testing.assert_allclose(label.forces, plain.forces, atol=2e-4)
    assert (label.cost.scf_cycles < plain.cost.scf_cycles) == (choice != "default")
    assert (tmp_path / "densities").exists() == (choice != "default")


def test_effective_core_potentials_are_learned_without_superposed_atoms() -> None:
    memory = DensityMemory(LEVEL)
    made = [Frame.molecule([1, 53], [[0, 0, 0], [0, 0, z]]) for z in (1.5, 1.6, 1.7, 1.62)]
    more = {"ecp": {"I": "def2-svp"}}
    for frame in made[:3]:
        memory.keep(frame, solved(frame, **more))
    fresh = field_of(made[3], **more)
    density = memory.guess(made[3], fresh)
    assert density is not None
    fresh.kernel(dm0=density)
    default = solved(made[3], **more)
    assert abs(fresh.e_tot - default.e_tot) < 1e-8
    assert fresh.cycles < default.cycles


def test_a_later_process_learns_from_the_folder(tmp_path: Path) -> None:
    first, new = frames(2)
    DensityMemory(LEVEL, folder=tmp_path).keep(first, solved(first))
    mine = DensityMemory(LEVEL, folder=tmp_path).guess(new, field_of(new))
    assert mine is not None
    assert DensityMemory("cd" * 16, folder=tmp_path).guess(new, field_of(new)) is None


def test_regression_interpolates_and_returns_to_the_mean() -> None:
    x = np.linspace(0, 1, 9)[:, None]
    values = np.sin(3 * x[:, 0]) + 5
    assert regression(x, x[4]) @ values == pytest.approx(values[4], abs=1e-3)
    assert regression(x, np.array([0.31])) @ values == pytest.approx(np.sin(0.93) + 5, abs=1e-3)
    for new in (0.3, 50.0):
        assert regression(x, np.array([new])).sum() == pytest.approx(1.0)
    assert 5 < regression(x, np.array([50.0])) @ values < 6.5
    np.testing.assert_allclose(regression(np.zeros((3, 2)), np.ones(2)), 1 / 3)
