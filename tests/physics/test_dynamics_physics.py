"""Dynamics against theory and against ASE: equipartition, energy conservation, trajectories, normal modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.morse import MorsePotential
from ase.data import atomic_masses
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from ase.vibrations import Vibrations

from alsys.dynamics.integrators import Langevin, degrees_of_freedom, kinetic_temperature
from alsys.dynamics.vibrations import hessian_of
from alsys.exploration.initial import relax, sample_modes, xtb_potential
from alsys.frames import FloatArray, Frame
from alsys.units import ACCELERATION, BOLTZMANN

BONDS = (0, 1), (0, 2), (1, 2)
LENGTHS = np.array([0.97, 0.97, 1.53])
WATER = molecule("H2O")


def springs(positions: FloatArray, stiffness: float = 15.0) -> tuple[FloatArray, FloatArray]:
    """Energies ``(...,)`` and forces ``(..., 3, 3)`` of triatomics held by three anharmonic springs."""
    forces = np.zeros_like(positions)
    energy = np.zeros(positions.shape[:-2])
    for (i, j), length in zip(BONDS, LENGTHS, strict=True):
        vector = positions[..., i, :] - positions[..., j, :]
        distance = np.linalg.norm(vector, axis=-1, keepdims=True)
        stretch = distance - length
        energy = energy + (0.5 * stiffness * stretch**2 - 5.0 * stretch**3)[..., 0]
        pull = (stiffness * stretch - 15.0 * stretch**2) * vector / distance
        forces[..., i, :] -= pull
        forces[..., j, :] += pull
    return energy, forces


def run_nve(timestep: float, n_steps: int) -> FloatArray:
    """Total energies of a vibrating triatomic."""
    masses = atomic_masses[WATER.numbers]
    rng = np.random.default_rng(0)
    dynamics = Langevin(masses, np.full(3, 800.0), timestep, friction=0.0, n_atoms=[3])
    positions, velocities = WATER.positions.copy(), dynamics.maxwell(rng)
    energy, forces = springs(positions)
    energies = []
    for _ in range(n_steps):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        energy, forces = springs(positions)
        velocities = dynamics.second_half(velocities, forces)
        energies.append(float(energy) + 0.5 * float((masses[:, None] * velocities**2).sum()) / ACCELERATION)
    return np.array(energies)


def test_energy_is_conserved_to_second_order_in_the_time_step() -> None:
    coarse, fine = run_nve(0.4, 2_500), run_nve(0.2, 5_000)
    ratio = coarse.std() / fine.std()
    assert 3.5 < ratio < 4.5
    slope = np.polyfit(np.arange(fine.size) * 0.2, fine, 1)[0]
    assert abs(slope) * 1e6 < 5.0  # meV/ps for three atoms
    assert fine.std() < 2e-3


def test_trajectory_is_that_of_ase_velocity_verlet() -> None:
    atoms = Atoms("Ar4", positions=[[0, 0, 0], [1.1, 0, 0], [0, 1.05, 0], [0.1, 0.2, 1.1]])
    start = atoms.positions.copy()
    velocities = np.random.default_rng(1).normal(scale=0.005, size=(4, 3))  # Angstrom/fs
    atoms.calc = MorsePotential(epsilon=1.0, rho0=6.0, r0=1.0)
    atoms.set_velocities(velocities / fs)
    VelocityVerlet(atoms, timestep=1.0 * fs).run(300)

    ours = Atoms("Ar4", positions=start, calculator=MorsePotential(epsilon=1.0, rho0=6.0, r0=1.0))
    dynamics = Langevin(ours.get_masses(), np.full(4, 300.0), timestep=1.0, friction=0.0)
    rng = np.random.default_rng(0)
    positions, forces = start, ours.get_forces()
    for _ in range(300):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        ours.positions = positions
        forces = ours.get_forces()
        velocities = dynamics.second_half(velocities, forces)
    assert np.abs(positions - start).max() > 0.3
    np.testing.assert_allclose(positions, atoms.positions, atol=1e-5)
    np.testing.assert_allclose(velocities, atoms.get_velocities() * fs, atol=1e-7)


def test_walkers_are_canonical_with_their_centres_of_mass_at_rest() -> None:
    temperatures = np.repeat([200.0, 500.0], 100)
    n_walkers, n_blocks = temperatures.size, 6
    masses = np.tile(atomic_masses[WATER.numbers], n_walkers)
    n_atoms = np.full(n_walkers, 3)
    starts = np.arange(n_walkers) * 3
    dynamics = Langevin(masses, np.repeat(temperatures, 3), timestep=0.5, friction=0.02, n_atoms=n_atoms)
    rng = np.random.default_rng(2)
    positions, velocities = np.tile(WATER.positions, (n_walkers, 1)), dynamics.maxwell(rng)
    centres = (masses[:, None] * positions).reshape(n_walkers, 3, 3).sum(axis=1)
    forces = springs(positions.reshape(-1, 3, 3))[1].reshape(-1, 3)
    samples = []
    for step in range(400 + n_blocks * 200):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        forces = springs(positions.reshape(-1, 3, 3))[1].reshape(-1, 3)
        velocities = dynamics.second_half(velocities, forces)
        if step >= 400 and step % 200 == 0:
            samples.append(kinetic_temperature(masses, velocities, starts, n_atoms, degrees_of_freedom(n_atoms)))
    moved = (masses[:, None] * positions).reshape(n_walkers, 3, 3).sum(axis=1) - centres
    assert np.abs(moved).max() < 1e-9
    measured = np.array(samples).reshape(n_blocks, 2, 100).transpose(1, 0, 2).reshape(2, -1)
    for values, wanted in zip(measured, (200.0, 500.0), strict=True):
        assert abs(values.mean() - wanted) < 3 * wanted * np.sqrt(2 / 6) / np.sqrt(values.size)
        assert values.std() == pytest.approx(wanted * np.sqrt(2 / 6), rel=0.15)  # canonical, not only warm


def test_a_lone_atom_keeps_its_thermal_motion() -> None:
    dynamics = Langevin([4.0, 1.0, 16.0], np.full(3, 300.0), 0.5, 0.01, n_atoms=[1, 2])
    velocities = dynamics.maxwell(np.random.default_rng(3))
    assert np.abs(velocities[0]).min() > 0
    np.testing.assert_allclose(velocities[1] * 1.0 + velocities[2] * 16.0, 0.0, atol=1e-15)
    assert degrees_of_freedom([1, 2]).tolist() == [3, 3]


def test_normal_mode_samples_obey_equipartition() -> None:
    def potential(positions: FloatArray) -> tuple[float, FloatArray]:
        energy, forces = springs(positions)
        return float(energy), forces

    frame = relax(Frame.molecule(WATER.numbers, WATER.positions), potential, f_max=1e-5)
    matrix = hessian_of(frame, potential)
    samples = sample_modes(frame, potential, 300.0, 2_000, np.random.default_rng(4))
    shifts = np.array([(s.positions - frame.positions).ravel() for s in samples])
    energies = 0.5 * np.einsum("si,ij,sj->s", shifts, matrix, shifts)
    wanted = 1.5 * BOLTZMANN * 300.0  # three vibrations, kT / 2 each
    assert abs(energies.mean() - wanted) < 3 * energies.std() / np.sqrt(energies.size)
    masses = atomic_masses[frame.numbers][:, None]
    moved = (masses * shifts.reshape(-1, 3, 3)).sum(axis=1)
    assert np.abs(moved).max() < 1e-6  # no translation


def test_frequencies_of_water_are_those_of_ase(tmp_path: Path) -> None:
    ase = pytest.importorskip("tblite.ase")
    potential = xtb_potential(Frame.molecule(WATER.numbers, WATER.positions))
    frame = relax(Frame.molecule(WATER.numbers, WATER.positions), potential, f_max=1e-4)
    masses = np.repeat(atomic_masses[frame.numbers], 3)
    values = np.linalg.eigvalsh(hessian_of(frame, potential) / np.sqrt(masses[:, None] * masses[None]))
    ours = np.sqrt(values[-3:] * ACCELERATION) / (2 * np.pi) * 33356.41  # 1/fs to 1/cm
    atoms = Atoms(frame.numbers, frame.positions, calculator=ase.TBLite(method="GFN2-xTB", verbosity=0))
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.01)
    vibrations.run()
    np.testing.assert_allclose(ours, vibrations.get_frequencies()[-3:].real, rtol=2e-3)
    assert 1400 < ours[0] < 1700  # the bend; experiment: 1595
    assert (ours[1:] > 3500).all()
    assert (ours[1:] < 4000).all()
