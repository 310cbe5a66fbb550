"""Short molecular dynamics with a new committee, before anybody else gets it: does it keep energy, and does it survive?

Walkers at constant energy and hot ones move together, in one batch, under the mean force of the committee, for so many
steps as the deadline allows, and long enough to say anything if that is not far off. A walker that is lost (not finite,
too hot, forces beyond bounds, atoms that fused or came apart, a baseline that failed) is counted with its reason, put
back to its start and not moved any more; the limits are those of the explorers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from alsys.dynamics.geometry import GeometryCheck
from alsys.dynamics.integrators import Langevin, VelocityVerlet
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, CommitteePrediction, FrameBatch
from alsys.units import BOLTZMANN

FRICTION = 0.02
"""Of the thermostat of hot walkers, 1/fs: strong enough to hold the temperature within a run of 100 fs."""
MAX_FORCE = 50.0
"""Mean force beyond which a walker is lost, eV/Angstrom; as for explorers."""
PICOSECOND = 1e3
"""fs."""
PERIOD = 10.0
"""Time over which the total energy forgets how it oscillated, fs: the period of the stiffest bonds."""
MIN_PERIODS = 3.0
"""Such periods before a slope is a drift, and before walkers that were not lost mean anything."""
MOST_LATE = 5.0
"""Budgets that a run may take to get that far."""


@dataclass(frozen=True, slots=True)
class TrialWalker:
    """One walker of a trial run.

    Attributes:
        system: Name of its system.
        start: Where it starts.
        reference: A frame of the same atoms that says what is bonded.
        temperature: Of its first velocities, and of its thermostat where it is hot, K.
        is_hot: Thermostatted; else at constant energy.
        excess: Energy of the start above that of the reference, which may turn into heat, eV.
    """

    system: str
    start: Frame
    reference: Frame
    temperature: float
    is_hot: bool
    excess: float = 0.0


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What became of the walkers.

    Attributes:
        n_steps: Steps made.
        n_constant, n_hot: Walkers of each kind.
        lost_constant, lost_hot: Reasons of those that were lost, by their place in the list that was given.
        drift: Of systems with a walker at constant energy that survived: drift of the total energy, eV per atom and ps;
            the mean over walkers of least-squares slopes.
        drift_low: What of that is certain: two standard errors less, at least 0. In a short run the total energy of
            velocity Verlet oscillates more than it drifts.
    """

    n_steps: int
    n_constant: int
    n_hot: int
    lost_constant: Mapping[int, str] = field(default_factory=dict)
    lost_hot: Mapping[int, str] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)
    drift_low: Mapping[str, float] = field(default_factory=dict)


def run_trial(
    committee: Committee,
    walkers: Sequence[TrialWalker],
    *,
    timestep: float,
    n_steps: int,
    budget_s: float,
    min_distance: float,
    max_temperature_ratio: float,
    is_reactive: bool,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> TrialOutcome:
    """Runs all walkers together.

    Args:
        committee: With its baseline, if it has one.
        walkers: At least one.
        timestep: fs.
        n_steps: Steps wanted.
        budget_s: Seconds after which no further step is begun; of a run shorter than `shortest_run` five times as many.
        min_distance: Closest contact allowed, as a share of the covalent sum.
        max_temperature_ratio: Kinetic temperature over `TrialWalker.temperature` beyond which a walker is lost, but
            for its excess.
        is_reactive: Bonds may break and form.
        seed: Of velocities and noise.
        clock: Seconds.

    Raises:
        InputError: The committee does not know an element.
    """
    run = _Run(committee, walkers, timestep, min_distance, max_temperature_ratio, is_reactive, seed)
    started, n_least = clock(), min(shortest_run(timestep), n_steps)
    while run.n_steps < n_steps and run.is_alive.any():
        if clock() - started >= budget_s * (MOST_LATE if run.n_steps < n_least else 1.0):
            break
        run.step()
    return run.outcome()


def shortest_run(timestep: float) -> int:
    """Steps of `timestep` fs from which a run says something of drift and of walkers that were not lost."""
    return math.ceil(MIN_PERIODS * PERIOD / timestep)


class _Run:
    """All walkers, those at constant energy first."""

    def __init__(
        self,
        committee: Committee,
        walkers: Sequence[TrialWalker],
        timestep: float,
        min_distance: float,
        max_temperature_ratio: float,
        is_reactive: bool,
        seed: int,
    ) -> None:
        self._committee = committee
        self._places = sorted(range(len(walkers)), key=lambda k: walkers[k].is_hot)
        self._walkers = [walkers[k] for k in self._places]
        self._rng = np.random.default_rng(seed)
        self._geometry = GeometryCheck([w.reference for w in self._walkers], min_distance, is_reactive)
        self._start = FrameBatch.of([w.start for w in self._walkers])
        n_atoms, temperatures = self._start.n_atoms, np.array([w.temperature for w in self._walkers])
        masses = atomic_masses[self._start.numbers]
        self._n_constant = sum(not w.is_hot for w in self._walkers)
        self._split = int(n_atoms[: self._n_constant].sum())
        n = self._n_constant
        self._parts: list[tuple[slice, VelocityVerlet]] = []
        if n:
            part = slice(0, self._split)
            self._parts.append((part, VelocityVerlet(masses[part], temperatures[:n], timestep, n_atoms[:n])))
        if n < len(self._walkers):
            part = slice(self._split, masses.size)
            self._parts.append((part, Langevin(masses[part], temperatures[n:], timestep, FRICTION, n_atoms[n:])))
        degrees = np.concatenate([dynamics.n_degrees for _, dynamics in self._parts])
        excess = np.array([w.excess for w in self._walkers])
        self._most_kinetic = 0.5 * degrees * BOLTZMANN * max_temperature_ratio * temperatures + excess
        self._timestep = timestep
        self._starts = np.concatenate([[0], np.cumsum(n_atoms)[:-1]])
        self._positions = self._start.positions.copy()
        self._velocities = np.concatenate([dynamics.maxwell(self._rng) for _, dynamics in self._parts])
        self._lost: dict[int, str] = {}
        self.is_alive: NDArray[np.bool_] = np.ones(len(self._walkers), dtype=np.bool_)
        self.n_steps = 0
        prediction = self._evaluate()
        self._forces: FloatArray = np.where(np.isfinite(prediction.forces), prediction.forces, 0.0)
        self._lose(self._wrong(prediction))
        self._energies = [self._total(prediction)]

    def step(self) -> None:
        """One step of all walkers that are left."""
        positions, velocities = np.empty_like(self._positions), np.empty_like(self._velocities)
        for part, dynamics in self._parts:
            positions[part], velocities[part] = dynamics.first_half(
                self._positions[part], self._velocities[part], self._forces[part], self._rng
            )
        lost = {int(k): "not-finite" for k in np.flatnonzero(self._any_atom(~np.isfinite(positions.sum(axis=1))))}
        self._positions, self._velocities = positions, velocities
        self._lose(lost)  # before the geometry is looked at, and the committee sees them
        self._lose(self._geometry.problems(self._positions, self._start.cell))
        prediction = self._evaluate()
        forces = np.where(np.isfinite(prediction.forces), prediction.forces, 0.0)
        for part, dynamics in self._parts:
            self._velocities[part] = dynamics.second_half(self._velocities[part], forces[part])
        self._forces = forces
        self._lose(self._wrong(prediction))
        self.n_steps += 1
        self._energies.append(self._total(prediction))

    def outcome(self) -> TrialOutcome:
        """What became of them."""
        n, drifts = self._n_constant, self._drift()
        return TrialOutcome(
            n_steps=self.n_steps,
            n_constant=n,
            n_hot=len(self._walkers) - n,
            lost_constant={self._places[k]: reason for k, reason in sorted(self._lost.items()) if k < n},
            lost_hot={self._places[k]: reason for k, reason in sorted(self._lost.items()) if k >= n},
            drift={system: drift for system, (drift, _) in drifts.items()},
            drift_low={system: max(0.0, drift - 2.0 * error) for system, (drift, error) in drifts.items()},
        )

    def _drift(self) -> dict[str, tuple[float, float]]:
        """Drift of each system and its standard error, from the scatter in time and between walkers.

        None of a run that is too short to tell it from an oscillation.
        """
        if self.n_steps < shortest_run(self._timestep):
            return {}
        time_ps = self._timestep * np.arange(len(self._energies)) / PICOSECOND
        away, energies = time_ps - time_ps.mean(), np.stack(self._energies)
        spread = np.square(away).sum()
        slopes = away @ energies / spread
        rest = energies - energies.mean(axis=0) - away[:, None] * slopes
        n_independent = time_ps[-1] * PICOSECOND / PERIOD
        variances = np.square(rest).mean(axis=0) / (spread / away.size) / n_independent
        rows_of: dict[str, list[int]] = {}
        for k in np.flatnonzero(self.is_alive[: self._n_constant]).tolist():
            rows_of.setdefault(self._walkers[k].system, []).append(k)
        drifts = {}
        for system, rows in rows_of.items():
            between = float(slopes[rows].var(ddof=1)) if len(rows) > 1 else 0.0
            error = float(np.sqrt((variances[rows].mean() + between) / len(rows)))
            drifts[system] = abs(float(slopes[rows].mean())), error
        return drifts

    def _evaluate(self) -> CommitteePrediction:
        start = self._start
        batch = FrameBatch(
            start.n_atoms, start.numbers, self._positions, start.cell, start.pbc, start.charge, start.multiplicity
        )
        return self._committee.evaluate(batch)

    def _wrong(self, prediction: CommitteePrediction) -> dict[int, str]:
        """Walkers whose prediction or motion is out of bounds; the crudest reason wins."""
        with np.errstate(over="ignore", invalid="ignore"):
            kinetic = self._kinetic()
            squared = np.square(prediction.forces).sum(axis=1)
        is_broken = self._any_atom(~np.isfinite(squared)) | ~np.isfinite(prediction.energy)
        problems: dict[int, str] = {}
        for reason, mask in (
            ("too-hot", kinetic > self._most_kinetic),
            ("force-too-large", self._any_atom(squared > MAX_FORCE**2)),
            ("not-finite", is_broken),
        ):
            problems.update((int(k), reason) for k in np.flatnonzero(mask))
        if prediction.is_failed is not None:
            problems.update((int(k), "baseline-failed") for k in np.flatnonzero(prediction.is_failed))
        return problems

    def _lose(self, problems: Mapping[int, str]) -> None:
        """Takes walkers out: from here on they stand at their start."""
        for k, reason in problems.items():
            if self.is_alive[k]:
                self._lost[k] = reason
                self.is_alive[k] = False
        atoms = np.repeat(~self.is_alive, self._start.n_atoms)
        if atoms.any():
            self._positions[atoms] = self._start.positions[atoms]
            self._velocities[atoms] = 0.0
            self._forces[atoms] = 0.0

    def _kinetic(self) -> FloatArray:
        return np.concatenate([dynamics.kinetic_energy(self._velocities[part]) for part, dynamics in self._parts])

    def _total(self, prediction: CommitteePrediction) -> FloatArray:
        """``(n_constant,)`` total energy per atom, eV."""
        n = self._n_constant
        total = (prediction.energy + self._kinetic())[:n] / self._start.n_atoms[:n]
        return np.where(np.isfinite(total), total, 0.0)  # of lost walkers only

    def _any_atom(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.logical_or.reduceat(mask, self._starts)
