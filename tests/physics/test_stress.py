"""The calculator's stress is the strain derivative of its energy, in ASE's order, and moves cells as ASE expects."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress
from tblite.ase import TBLite

from alsys.interop.calculator import AlsysCalculator
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model, weights_of

SPEC = {
    "elements": ["H", "O", "Ar"], "r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 4, "parity": True,
    "dtype": "float64", "avg_num_neighbors": 8.0, "zbl": True,
}  # fmt: skip
GFN1 = {"engine": "tblite", "method": "GFN1-xTB", "accuracy": 0.01}
VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def calculator(baseline: dict[str, object] | None = None) -> AlsysCalculator:
    members = tuple(weights_of(build_model(SPEC, seed=seed)) for seed in (1, 2))
    return AlsysCalculator(build_committee(CommitteeState(1, "nequip", SPEC, members, baseline=baseline)))


@pytest.fixture(scope="module")
def argon() -> Atoms:
    """Two atoms in a skewed cell that is smaller than the cutoff, so that images of images count."""
    cell = [[2.9, 0.1, -0.2], [0.3, 3.1, 0.2], [-0.4, 0.2, 3.3]]
    return Atoms("ArO", scaled_positions=[[0.02, 0.01, 0.0], [0.5, 0.55, 0.46]], cell=cell, pbc=True)


@pytest.fixture(scope="module")
def box() -> Atoms:
    """One molecule of water in a box, for xTB."""
    atoms = molecule("H2O")
    atoms.rattle(0.04, seed=1)
    atoms.set_cell([[3.6, 0.0, 0.0], [0.2, 3.7, 0.0], [0.1, -0.2, 3.8]])
    atoms.pbc = True
    return atoms


def by_strain(atoms: Atoms, row: int, column: int, step: float) -> float:
    """dE/d(strain) / volume from two energies, eV/Angstrom^3."""
    energies = []
    for sign in (1.0, -1.0):
        strain = np.eye(3)
        strain[row, column] += 0.5 * sign * step
        strain[column, row] += 0.5 * sign * step
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        strained.calc = atoms.calc
        energies.append(strained.get_potential_energy())
    return float(energies[0] - energies[1]) / (2.0 * step * atoms.get_volume())


def test_it_is_the_strain_derivative_of_the_energy(argon: Atoms) -> None:
    atoms = argon.copy()
    atoms.calc = calculator()
    stress = atoms.get_stress()
    assert stress.shape == (6,)
    assert len(set(np.abs(stress).round(4))) == 6  # all different, so that an order that is wrong is seen
    expected = [by_strain(atoms, row, column, 1e-4) for row, column in VOIGT]
    np.testing.assert_allclose(stress, expected, rtol=0, atol=1e-6)


def test_it_turns_with_the_cell(argon: Atoms) -> None:
    turned = argon.copy()
    turned.rotate(50.0, (1.0, 2.0, -1.0), rotate_cell=True)
    turn = np.linalg.solve(argon.cell.array, turned.cell.array).T
    stress = []
    for atoms in (argon.copy(), turned):
        atoms.calc = calculator()
        stress.append(atoms.get_stress(voigt=False))
    np.testing.assert_allclose(stress[1], turn @ stress[0] @ turn.T, atol=1e-9)
    assert np.abs(stress[1] - stress[0]).max() > 0.05


def test_a_cell_relaxes_to_the_pressure_that_is_asked_for() -> None:
    """Network and repulsion against an external pressure: there the stress is minus the pressure, in all directions."""
    pressure = 60.0 * units.GPa
    atoms = bulk("Ar", "hcp", a=2.6, c=4.6)
    atoms.rattle(0.05, seed=0)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.triu(np.ones((3, 3)), 1)), scale_atoms=True)
    atoms.calc = calculator()
    before = atoms.get_potential_energy() + pressure * atoms.get_volume()
    relaxed = BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure), logfile=None).run(fmax=1e-3, steps=150)
    assert relaxed
    np.testing.assert_allclose(atoms.get_stress(voigt=False), -pressure * np.eye(3), atol=1e-4)
    assert np.abs(atoms.get_forces()).max() < 1e-3
    assert atoms.get_potential_energy() + pressure * atoms.get_volume() < before - 0.01


def test_a_difference_adds_the_stress_of_its_baseline(box: Atoms) -> None:
    stress = []
    for one in (calculator(), calculator(GFN1), TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0)):
        atoms = box.copy()
        atoms.calc = one
        stress.append(atoms.get_stress())
    network, total, xtb = stress
    np.testing.assert_allclose(total, network + xtb, atol=1e-7)
    assert min(np.abs(network).max(), np.abs(xtb).max()) > 1e-3
    atoms = box.copy()
    atoms.calc = calculator(GFN1)
    full = voigt_6_to_full_3x3_stress(total)
    for row, column in ((0, 0), (1, 2)):
        assert by_strain(atoms, row, column, 2e-3) == pytest.approx(full[row, column], abs=1e-4)
