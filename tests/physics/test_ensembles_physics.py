"""Ensembles against ASE, exact distributions and the published Lennard-Jones fluid; all in argon's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet as AseVerlet
from ase.units import fs

from alsys.dynamics.barostat import StochasticCellRescaling
from alsys.dynamics.ensembles import build_integrator
from alsys.dynamics.integrators import Integrator, Langevin, VelocityVerlet
from alsys.dynamics.nose_hoover import NoseHooverChains
from alsys.dynamics.ramps import Ramp
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import CommitteePrediction, FrameBatch
from alsys.units import ACCELERATION, BOLTZMANN
from support.lennard_jones import LennardJonesCommittee

EPSILON, SIGMA, MASS = 0.0104, 3.4, 39.948
TAU = SIGMA * np.sqrt(MASS / EPSILON / ACCELERATION)
"""Unit of time of the Lennard-Jones fluid, fs."""


def heptamer() -> Atoms:
    """A pentagonal bipyramid near its minimum."""
    angles = 2 * np.pi * np.arange(5) / 5
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1) * 0.96
    return Atoms("Ar7", positions=np.concatenate([ring, [[0, 0, 0.57], [0, 0, -0.57]]]) * SIGMA)


@dataclass
class Batch:
    """Walkers and the potential that moves them."""

    structures: Sequence[Atoms]
    committee: LennardJonesCommittee

    def __post_init__(self) -> None:
        frames = [Frame(a.numbers.astype(np.int32), a.positions, a.cell.array, a.pbc) for a in self.structures]
        self.batch = FrameBatch.of(frames)
        self.n_atoms = self.batch.n_atoms
        self.masses = np.full(self.batch.numbers.size, MASS)

    def evaluate(self, positions: FloatArray, cell: FloatArray | None = None) -> CommitteePrediction:
        batch = self.batch
        lattice = batch.cell if cell is None else cell
        return self.committee.evaluate(FrameBatch(batch.n_atoms, batch.numbers, positions, lattice, batch.pbc))


def block_errors(samples: FloatArray, n_blocks: int = 20) -> FloatArray:
    """Standard errors of the means of ``(n_samples, n_walkers)`` correlated samples."""
    blocks = np.array([part.mean(axis=0) for part in np.array_split(samples, n_blocks)])
    errors: FloatArray = blocks.std(axis=0, ddof=1) / np.sqrt(n_blocks)
    return errors


def test_drift_at_constant_energy_is_that_of_ase() -> None:
    """Three clusters, one of them hot enough to evaporate, and a crystal, in one batch and one by one in ASE."""
    timestep, n_steps, cutoff = 10.0, 800, 2.5 * SIGMA
    crystal = bulk("Ar", "fcc", a=5.35, cubic=True) * (2, 2, 1)
    structures = [heptamer(), heptamer(), heptamer(), crystal]
    temperatures = [20.0, 40.0, 80.0, 40.0]
    walkers = Batch(structures, LennardJonesCommittee(EPSILON, SIGMA, cutoff))
    dynamics = VelocityVerlet(walkers.masses, temperatures, timestep, walkers.n_atoms)
    rng = np.random.default_rng(1)
    positions, velocities = walkers.batch.positions, dynamics.maxwell(rng)
    theirs = []
    offsets = np.concatenate([[0], np.cumsum(walkers.n_atoms)])
    for k, atoms in enumerate(structures):
        atoms.set_masses([MASS] * len(atoms))
        atoms.set_velocities(velocities[offsets[k] : offsets[k + 1]] / fs)
        atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=cutoff, smooth=False)
        energies: list[float] = []
        verlet = AseVerlet(atoms, timestep=timestep * fs)
        verlet.attach(lambda atoms=atoms, energies=energies: energies.append(atoms.get_total_energy()))
        verlet.run(n_steps)
        theirs.append(energies)
    prediction = walkers.evaluate(positions)
    ours = [prediction.energy + dynamics.kinetic_energy(velocities)]
    for _ in range(n_steps):
        positions, velocities = dynamics.first_half(positions, velocities, prediction.forces, rng)
        prediction = walkers.evaluate(positions)
        velocities = dynamics.second_half(velocities, prediction.forces)
        ours.append(prediction.energy + dynamics.kinetic_energy(velocities))
    a, b = np.array(ours) - ours[0], np.array(theirs).T - np.array(theirs)[:, 0]
    for measure in (
        lambda e: np.sqrt(np.square(e).mean(axis=0)),
        lambda e: np.abs(e).max(axis=0),
        lambda e: np.abs(np.polyfit(np.arange(n_steps + 1), e, 1)[0]) + e.std(axis=0) / n_steps,
    ):
        assert measure(b).min() > 0
        np.testing.assert_allclose(measure(a), measure(b), rtol=0.1)


@pytest.mark.parametrize("thermostat", ["langevin", "nose-hoover"])
def test_kinetic_energy_of_every_walker_is_canonical(thermostat: str) -> None:
    """Mean and variance of a Gamma distribution of ``n_degrees / 2``: within two standard errors but for chance.

    Of 24 walkers, one or two lie outside two standard errors by chance; more than six do once in 2000 runs.
    """
    temperatures = np.repeat([15.0, 20.0, 25.0, 30.0], 6)
    walkers = Batch([heptamer()] * 24, LennardJonesCommittee(EPSILON, SIGMA, 4.0 * SIGMA))
    dynamics = build_integrator(
        thermostat, walkers.masses, temperatures, 5.0, walkers.n_atoms, friction=0.005, relaxation=150.0
    )  # type: ignore[arg-type]
    rng = np.random.default_rng(2)
    positions, velocities = walkers.batch.positions, dynamics.maxwell(rng)
    for k in range(24):
        dynamics.reset(k, rng)
    forces = walkers.evaluate(positions).forces
    samples = []
    for step in range(13_000):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        forces = walkers.evaluate(positions).forces
        velocities = dynamics.second_half(velocities, forces)
        if step >= 1_000 and step % 10 == 0:
            samples.append(dynamics.kinetic_energy(velocities))
    mean = 0.5 * dynamics.n_degrees * BOLTZMANN * temperatures
    reduced = np.array(samples) / mean
    squares = np.square(reduced - 1.0) / (2.0 / dynamics.n_degrees)  # 1 on average
    for values in (reduced, squares):
        errors = block_errors(values)
        off = (values.mean(axis=0) - 1.0) / errors
        assert (np.abs(off) > 2.0).sum() <= 6
        assert np.abs(off).max() < 5.0
        assert errors.max() < 0.15
        assert abs(values.mean() - 1.0) < 3.0 * values.mean(axis=0).std(ddof=1) / np.sqrt(24)
        assert values.mean() == pytest.approx(1.0, abs=0.03)


def test_chains_conserve_their_extended_energy_to_second_order() -> None:
    temperatures = [20.0, 40.0, 30.0]
    crystal = bulk("Ar", "fcc", a=5.35, cubic=True) * (2, 2, 1)
    walkers = Batch([heptamer(), heptamer(), crystal], LennardJonesCommittee(EPSILON, SIGMA, 4.0 * SIGMA))
    spreads, exchanged = [], []
    for timestep in (10.0, 5.0):
        rng = np.random.default_rng(3)
        dynamics = NoseHooverChains(walkers.masses, temperatures, timestep, 150.0, walkers.n_atoms)
        positions, velocities = walkers.batch.positions, 1.3 * dynamics.maxwell(rng)
        prediction = walkers.evaluate(positions)
        energies, totals = [], []
        for _ in range(round(8_000 / timestep)):
            positions, velocities = dynamics.first_half(positions, velocities, prediction.forces, rng)
            prediction = walkers.evaluate(positions)
            velocities = dynamics.second_half(velocities, prediction.forces)
            totals.append(prediction.energy + dynamics.kinetic_energy(velocities))
            energies.append(totals[-1] + dynamics.thermostat_energy())
        spreads.append(np.std(energies, axis=0))
        exchanged.append(np.std(totals, axis=0))
    ratio = spreads[0] / spreads[1]
    assert (ratio > 3.0).all()
    assert (ratio < 5.5).all()
    assert (spreads[1] < 0.02 * exchanged[1]).all()


def test_temperatures_follow_a_ramp() -> None:
    """Atoms on springs, heated and cooled slowly: mean kinetic energies are those of the targets of the moment."""
    n_walkers, n_atoms, n_steps = 20, 10, 4_000
    ramp = Ramp.of([(0.4, 100.0), (1.2, 500.0), (1.6, 300.0)], timestep=0.5, field="temperature", above=0.0)
    delay = 200 * np.arange(2).repeat(n_walkers // 2)  # two groups of walkers at different steps
    masses = np.full(n_walkers * n_atoms, 12.0)
    dynamics = Langevin(masses, ramp.at(-delay), 0.5, 0.1, np.full(n_walkers, n_atoms))
    rng = np.random.default_rng(4)
    positions, velocities = np.zeros((masses.size, 3)), dynamics.maxwell(rng)
    forces = np.zeros_like(positions)
    measured, wanted = [], []
    for step in range(n_steps):
        dynamics.set_temperatures(ramp.at(step - delay))
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        forces = -5.0 * positions
        velocities = dynamics.second_half(velocities, forces)
        measured.append(dynamics.kinetic_energy(velocities) / (0.5 * dynamics.n_degrees * BOLTZMANN))
        wanted.append(ramp.at(step - delay))
    for group in (slice(0, 10), slice(10, 20)):
        for window in (slice(300, 800), slice(1_400, 1_800), slice(2_000, 2_300), slice(3_500, 4_000)):
            found = np.array(measured)[window, group].mean()
            assert found == pytest.approx(np.array(wanted)[window, group].mean(), rel=0.07)


@dataclass
class Fluid:
    """What a run at constant pressure gave, in reduced units.

    Attributes:
        density, density_error: ``(n_walkers,)``.
        compressibility: ``(n_walkers,)`` from the fluctuations of the volume.
        n_independent: ``(n_walkers,)`` about how many independent volumes were seen.
    """

    density: FloatArray
    density_error: FloatArray
    compressibility: FloatArray
    n_independent: FloatArray


def fluid_at(
    temperature: float,
    pressures: Sequence[float],
    cutoff: float,
    beyond: str,
    *,
    n_cells: int,
    n_steps: int,
    thermostat: str,
    seed: int,
) -> Fluid:
    """Fluids of ``4 n_cells^3`` atoms, one for each pressure, melted from a dilute lattice; all in reduced units."""
    lattice = bulk("Ar", "fcc", a=(4 / 0.65) ** (1 / 3) * SIGMA, cubic=True) * (n_cells, n_cells, n_cells)
    committee = LennardJonesCommittee(EPSILON, SIGMA, cutoff * SIGMA, beyond)  # type: ignore[arg-type]
    walkers = Batch([lattice] * len(pressures), committee)
    timestep = 0.005 * TAU
    targets = np.full(len(pressures), temperature * EPSILON / BOLTZMANN)
    dynamics: Integrator = build_integrator(
        thermostat, walkers.masses, targets, timestep, walkers.n_atoms, friction=2.0 / TAU, relaxation=0.2 * TAU
    )  # type: ignore[arg-type]
    barostat = StochasticCellRescaling(
        dynamics,
        walkers.batch.pbc,
        np.array(pressures) * EPSILON / SIGMA**3,
        timestep,
        relaxation=0.5 * TAU,
        compressibility=0.08 * SIGMA**3 / EPSILON,
    )
    rng = np.random.default_rng(seed)
    positions, velocities, cell = walkers.batch.positions, dynamics.maxwell(rng), walkers.batch.cell
    for k in range(len(pressures)):
        dynamics.reset(k, rng)
    prediction = walkers.evaluate(positions)
    volumes = []
    for step in range(n_steps):
        assert prediction.stress is not None
        positions, velocities = dynamics.first_half(positions, velocities, prediction.forces, rng)
        positions, velocities, cell = barostat.rescale(positions, velocities, cell, prediction.stress, rng)
        prediction = walkers.evaluate(positions, cell)
        velocities = dynamics.second_half(velocities, prediction.forces)
        if step >= n_steps // 8 and step % 10 == 0:
            volumes.append(np.linalg.det(cell) / SIGMA**3)
    samples = np.array(volumes)
    mean, error, variance = samples.mean(axis=0), block_errors(samples), samples.var(axis=0)
    density = walkers.n_atoms / mean
    return Fluid(density, density * error / mean, variance / (mean * temperature), variance / error**2)


def test_density_of_the_cut_and_shifted_fluid() -> None:
    """Cut and shifted at 2.5 sigma, T* = 1.0: density 0.75 at P* = 0.9897.

    The equation of state of M. Thol et al., Int. J. Thermophys. 36, 25 (2015), made for this very potential; the value
    at this point is tabulated by M. P. Allen and D. J. Tildesley with the programs of their book (2nd ed., 2017). It
    rises by 0.0011 for each 0.01 in the pressure.
    """
    fluid = fluid_at(1.0, [0.9897], 2.5, "shift", n_cells=3, n_steps=9_000, thermostat="langevin", seed=5)
    assert fluid.density_error[0] < 0.006
    assert abs(fluid.density[0] - 0.75) < 3.0 * fluid.density_error[0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_densities_and_compressibilities_of_the_full_fluid() -> None:
    """T* = 0.85, truncated at 3 sigma with tail corrections, two walkers of one batch at two pressures.

    NIST Standard Reference Simulation Website, Lennard-Jones fluid, NVT Monte Carlo at T* = 0.85: at densities of 0.780
    and 0.820 the pressure is 0.047924 and 0.55355. Its slope gives the compressibility, ``1 / (rho dP/drho)``.
    """
    pressures, densities = np.array([0.047924, 0.55355]), np.array([0.780, 0.820])
    fluid = fluid_at(0.85, pressures.tolist(), 3.0, "tail", n_cells=4, n_steps=16_000, thermostat="nose-hoover", seed=6)
    assert fluid.density_error.max() < 0.004
    assert (np.abs(fluid.density - densities) < 3.0 * fluid.density_error).all()
    slope = (pressures[1] - pressures[0]) / (densities[1] - densities[0])
    wanted = 1.0 / (densities.mean() * slope)
    found = fluid.compressibility.mean()
    assert abs(found - wanted) < 3.0 * wanted * np.sqrt(2.0 / fluid.n_independent.sum())
