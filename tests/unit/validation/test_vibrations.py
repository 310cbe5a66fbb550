from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.data import atomic_masses
from ase.optimize import BFGS
from ase.vibrations import Vibrations as ASEVibrations

from alsys.dynamics.vibrations import Vibrations, displaced, hessian_from, vibrations
from alsys.frames import FloatArray, Frame
from alsys.units import ACCELERATION, PLANCK_LIGHT, SPEED_OF_LIGHT
from alsys.validation.vibrations import committee_hessian, compare_vibrations


def frame_of(atoms: Atoms) -> Frame:
    return Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def emt_vibrations(atoms: Atoms, step: float) -> Vibrations:
    frame = frame_of(atoms)
    forces: list[FloatArray] = []
    for moved in displaced(frame, step):
        copy = atoms.copy()
        copy.positions, copy.calc = np.array(moved.positions), EMT()
        forces.append(copy.get_forces())
    return vibrations(frame, hessian_from(forces, step))


def relaxed(name: str) -> Atoms:
    atoms = molecule(name)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-4)
    return atoms


@pytest.mark.parametrize(("name", "n_modes"), [("N2", 1), ("H2O", 3), ("CH4", 9)])
def test_wavenumbers_are_those_of_ase(name: str, n_modes: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    atoms = relaxed(name)
    peer = ASEVibrations(atoms, name=str(tmp_path_factory.mktemp("vib") / "cache"), delta=0.01)
    peer.run()
    found = emt_vibrations(atoms, 0.01)
    assert found.wavenumbers.shape == (n_modes,)
    # ASE keeps translations and rotations, the smallest of its modes; EMT's methane has imaginary ones
    raw = np.array(peer.get_frequencies())
    signed = np.real(raw) - np.abs(np.imag(raw))
    expected = np.sort(signed[np.argsort(np.abs(signed))[-n_modes:]])
    np.testing.assert_allclose(found.wavenumbers, expected, rtol=2e-3, atol=1.0)
    masses = np.repeat(atomic_masses[atoms.numbers], 3)
    np.testing.assert_allclose(found.modes @ found.modes.T, np.eye(n_modes), atol=1e-9)
    translation = np.sqrt(masses) * np.tile([1.0, 0.0, 0.0], len(atoms))
    np.testing.assert_allclose(found.modes @ translation, 0.0, atol=1e-6)


def test_a_diatomic_spring() -> None:
    frame = Frame.molecule([6, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
    stiffness, axis = 100.0, np.diag([0.0, 0.0, 1.0])
    hessian = stiffness * np.kron(np.array([[1.0, -1.0], [-1.0, 1.0]]), axis)
    found = vibrations(frame, hessian)
    reduced = 1.0 / (1.0 / atomic_masses[6] + 1.0 / atomic_masses[8])
    omega = np.sqrt(stiffness * ACCELERATION / reduced)
    assert found.wavenumbers == pytest.approx([omega / (2 * np.pi * SPEED_OF_LIGHT)])
    assert found.zero_point_energy == pytest.approx(0.5 * PLANCK_LIGHT * found.wavenumbers[0])
    assert vibrations(frame, -hessian).n_imaginary == 1


def test_a_crystal_keeps_its_rotations_and_loses_its_translations() -> None:
    atoms = bulk("Cu", cubic=True)
    found = emt_vibrations(atoms, 0.01)
    assert found.wavenumbers.shape == (9,)
    assert found.n_imaginary == 0
    assert found.wavenumbers[0] > 50.0


def test_a_committee_and_modes_that_change_places(morse_committee: Any, molecule_frame: Any) -> None:
    from alsys.dynamics.minima import relaxed
    from alsys.validation.minima import committee_potential

    start = molecule_frame("H2O")
    soft, stiff = morse_committee([1.0, 1.0]), morse_committee([1.21, 1.21])
    minimum = relaxed(start, committee_potential(soft, start), 1e-4, 200).frame
    first, second = (vibrations(minimum, committee_hessian(c, minimum, 0.005)) for c in (soft, stiff))
    np.testing.assert_allclose(second.wavenumbers, 1.1 * first.wavenumbers, rtol=1e-4)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    turned = minimum.with_positions(minimum.positions @ turn + 1.0)
    other = vibrations(turned, committee_hessian(soft, turned, 0.005))
    same = compare_vibrations(first, other, minimum, turned)
    assert same.mean < 0.05
    assert same.assigned_mean < 0.05
    swapped = Vibrations(other.wavenumbers, other.modes[[1, 0, 2]])
    compared = compare_vibrations(first, swapped, minimum, turned)
    assert compared.mean < 0.05, "in their order they still agree"
    gap = abs(float(first.wavenumbers[1] - first.wavenumbers[0]))
    assert compared.assigned_mean == pytest.approx(2.0 * gap / 3.0, abs=0.1), "by their displacements they do not"
