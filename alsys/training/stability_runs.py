"""Short molecular dynamics with a new committee, before anybody else gets it: does it keep energy, and does it survive?

Walkers at constant energy and hot ones move together, in one batch, under the mean force of the committee, for so many
steps as the deadline allows, and long enough to say anything if that is not far off. A walker that is lost (the rule of
all dynamics stops it, `alsys.dynamics.stopping`, with the limits of the explorers; or a baseline failed) is counted
with its reason, and stands at its start from then on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alsys.dynamics.runner import FRICTION, Evaluation, Runner, thermostatted
from alsys.dynamics.stopping import Limits, StopRule
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, FrameBatch, arrays_for

PICOSECOND = 1e3
"""fs."""
PERIOD = 10.0
"""Time over which the total energy forgets how it oscillated, fs: the period of the stiffest bonds."""
MIN_PERIODS = 3.0
"""Such periods before a slope is a drift, and before walkers that were not lost mean anything."""
MOST_LATE = 5.0
"""Budgets that a run may take to get that far."""


@dataclass(frozen=True, slots=True)
class StabilityWalker:
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
class StabilityOutcome:
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
    walkers: Sequence[StabilityWalker],
    *,
    timestep: float,
    n_steps: int,
    budget_s: float,
    limits: Limits,
    seed: int,
    clock: Callable[[], float] = time.thread_time,
    hydrogen_mass: float | None = None,
) -> StabilityOutcome:
    """Runs all walkers together.

    Args:
        committee: With its baseline, if it has one.
        walkers: At least one.
        timestep: fs.
        n_steps: Steps wanted.
        budget_s: Seconds after which no further step is begun; of a run shorter than `shortest_run` five times as many.
        limits: Beyond which a walker is lost; its excess may make it hotter.
        seed: Of velocities and noise.
        clock: Seconds.
        hydrogen_mass: As of `alsys.dynamics.masses.masses_of`.

    Raises:
        InputError: The committee does not know an element.
    """
    run = _Run(committee, walkers, timestep, limits, seed, hydrogen_mass)
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
        walkers: Sequence[StabilityWalker],
        timestep: float,
        limits: Limits,
        seed: int,
        hydrogen_mass: float | None,
    ) -> None:
        self._committee = committee
        self._places = sorted(range(len(walkers)), key=lambda k: walkers[k].is_hot)
        self._walkers = [walkers[k] for k in self._places]
        self._rng = np.random.default_rng(seed)
        self._n_constant = sum(not w.is_hot for w in self._walkers)
        self._timestep = timestep
        starts = [w.start for w in self._walkers]
        temperatures = np.array([w.temperature for w in self._walkers])
        friction = np.array([FRICTION if w.is_hot else 0.0 for w in self._walkers])
        integrator = thermostatted(starts, temperatures, timestep, friction, hydrogen_mass)
        self._arrays = arrays_for(committee)
        (self._excess,) = self._arrays.of([np.array([w.excess for w in self._walkers])])
        rule = StopRule([w.reference for w in self._walkers], integrator.n_degrees, limits)
        self._runner = Runner(starts, integrator, rule)
        self._runner.velocities = integrator.maxwell(self._rng)
        self._arrays.seed(self._rng)
        self._runner.to(self._arrays)
        self._lost: dict[int, str] = {}
        self.is_alive: NDArray[np.bool_] = np.ones(len(self._walkers), dtype=np.bool_)
        self.n_steps = 0
        self._lose(self._runner.evaluate(self._potential))
        self._energies = [self._total()]

    def step(self) -> None:
        """One step of all walkers that are left."""
        self._lose(self._runner.step(self._potential, self._rng))
        self.n_steps += 1
        self._energies.append(self._total())

    def outcome(self) -> StabilityOutcome:
        """What became of them."""
        n, drifts = self._n_constant, self._drift()
        return StabilityOutcome(
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

    def _potential(self, batch: FrameBatch) -> Evaluation:
        found = self._committee.evaluate(batch)
        failed = [] if found.is_failed is None else np.flatnonzero(found.is_failed).tolist()
        missing = dict.fromkeys(failed, "baseline-failed")
        return Evaluation(found.forces, found.energy, excess=self._excess, missing=missing, told=(found.energy,))

    def _lose(self, problems: Mapping[int, str]) -> None:
        """Takes walkers out: from here on they stand at their start."""
        for k, reason in problems.items():
            if self.is_alive[k]:
                self._lost[k] = reason
                self.is_alive[k] = False
        for k in self._lost:
            self._runner.put(k, self._walkers[k].start, np.zeros_like(self._walkers[k].start.positions))

    def _total(self) -> FloatArray:
        """``(n_constant,)`` total energy per atom, eV."""
        n, runner = self._n_constant, self._runner
        (energy,), (kinetic,) = runner.told, self._arrays.read([runner.kinetic_energy()])
        total = (energy + kinetic)[:n] / runner.batch.n_atoms[:n]
        return np.where(np.isfinite(total), total, 0.0)  # of lost walkers only
