"""Walkers in one batch under a committee's mean force, stopped by what the committee does not know.

A walker starts from a trusted frame with Maxwell velocities. Where its force deviation first crosses the lower edge of
the trust band it yields a candidate, then at most one every `spacing_steps` while it stays in the band. Above the upper
edge, or where the geometry stops making sense, it ends and starts again elsewhere; the wreck is never proposed. A walk
that begins above the band (a young model) yields its frame where that is physically sound, once it has moved. Frames of
the random arm are drawn as (walker, step) pairs before the chunk starts, whatever the committee thinks of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from alsys.config.schema import CampaignConfig
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.geometry import BONDED, BROKEN, pair_ratios
from alsys.exploration.integrators import Langevin, kinetic_temperature
from alsys.exploration.selection import select
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.potentials.base import Committee, CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee

RESTART_TRIES = 8


@dataclass(slots=True)
class Walker:
    """One trajectory.

    Attributes:
        system: Name of its system.
        start: The system's structure, which says what is bonded.
        temperature: K.
        trajectory: Identity of the trajectory since the last restart.
        step: Steps on it.
        last_candidate: Step of its last candidate; None before the first.
    """

    system: str
    start: Frame
    temperature: float
    trajectory: int = 0
    step: int = 0
    last_candidate: int | None = None


class WalkerExplorer:
    """Moves a batch of walkers.

    Args:
        config: The campaign.
        systems: Start structure of each system.
        seed: Seed of all that is random.
        build: Makes a committee from its state.
    """

    def __init__(
        self,
        config: CampaignConfig,
        systems: Mapping[str, Frame],
        seed: int,
        build: Callable[[CommitteeState], Committee] | None = None,
    ) -> None:
        self._settings = config.exploration
        self._is_random = config.selection.strategy == "random"
        self._systems = dict(systems)
        self._build = build or (lambda state: build_committee(state, threads=self._settings.threads))
        self._rng = np.random.default_rng([seed, 2])
        self._committee: Committee | None = None
        self._seeds: dict[str, list[Frame]] = {name: [frame] for name, frame in systems.items()}
        names, temperatures = list(systems), self._settings.temperatures
        self._walkers = [
            Walker(
                names[i % len(names)], systems[names[i % len(names)]], temperatures[i // len(names) % len(temperatures)]
            )
            for i in range(self._settings.walkers)
        ]
        self._numbers = np.concatenate([w.start.numbers for w in self._walkers])
        self._n_atoms = np.array([w.start.n_atoms for w in self._walkers], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._n_atoms)[:-1]])
        self._masses = atomic_masses[self._numbers]
        self._dynamics = Langevin(
            self._masses,
            np.repeat([w.temperature for w in self._walkers], self._n_atoms),
            self._settings.timestep,
            self._settings.friction,
        )
        self._pairs = [_Contacts(w.start) for w in self._walkers]
        self._cell = np.stack([w.start.cell for w in self._walkers])
        self._pbc = np.stack([w.start.pbc for w in self._walkers])
        self._positions: FloatArray = np.zeros((len(self._numbers), 3))
        self._velocities: FloatArray = np.zeros_like(self._positions)
        self._prediction: CommitteePrediction | None = None
        self._next_trajectory = 0
        self._is_placed = False

    def advance(self, order: ExplorationOrder) -> ExplorationReport:
        """Loads weights where given, moves every walker by a chunk, and reports."""
        started = time.perf_counter()
        self._next_trajectory = order.trajectory_base
        if order.state is not None:
            if self._committee is None:
                self._committee = self._build(order.state)
            else:
                self._committee.load(order.state)
            self._prediction = None
        if self._committee is None:
            raise RuntimeError("the first order needs weights")
        for name, frame in order.seeds:
            if name in self._seeds:
                self._seeds[name] = [*self._seeds[name][-255:], frame]
        if not self._is_placed:
            for k in range(len(self._walkers)):
                self._restart(k)
            self._is_placed = True
        chunk = _Chunk()
        self._run(order, chunk)
        rescored = self._rescore(order.rescore)
        chosen = select(chunk.candidates, order.max_candidates, self._rng if self._is_random else None)
        return ExplorationReport(
            model_version=self._committee.version,
            candidates=(*chosen, *chunk.random),
            n_steps=order.n_steps,
            walker_steps=chunk.walker_steps,
            n_above=chunk.n_above,
            wall_s=time.perf_counter() - started,
            stops=chunk.stops,
            deviation_max=chunk.deviation_max,
            deviation_mean=chunk.deviation_sum / max(chunk.walker_steps, 1),
            rescored=rescored,
        )

    def _run(self, order: ExplorationOrder, chunk: _Chunk) -> None:
        n_walkers = len(self._walkers)
        draws = self._rng.integers(0, n_walkers * order.n_steps, order.n_random)
        wanted: dict[int, list[int]] = {}
        for draw in draws:
            wanted.setdefault(int(draw) // n_walkers, []).append(int(draw) % n_walkers)
        trust = self._settings.trust
        if self._prediction is None:
            self._prediction = self._evaluate()
        for step in range(order.n_steps):
            self._positions, velocities = self._dynamics.first_half(
                self._positions, self._velocities, self._prediction.forces, self._rng
            )
            self._prediction = self._evaluate()
            self._velocities = self._dynamics.second_half(velocities, self._prediction.forces)
            problems = self._problems()
            deviations = self._prediction.frame_deviation
            is_stopped = False
            for k, walker in enumerate(self._walkers):
                walker.step += 1
                if problems[k] is not None:
                    chunk.stop(problems[k] or "")
                    self._restart(k)
                    is_stopped = True
                    continue
                deviation = float(deviations[k])
                chunk.count(deviation)
                if k in wanted.get(step, ()):
                    chunk.random.append(self._candidate(k, Arm.RANDOM, deviation))
                if self._is_random:
                    self._propose(k, deviation, chunk)
                elif deviation >= trust.accurate_below:
                    chunk.n_above += 1
                    self._propose(k, deviation, chunk)
                if deviation >= trust.failed_above and walker.step >= self._settings.spacing_steps:
                    chunk.stop("failed")
                elif walker.step >= self._settings.max_steps:
                    chunk.stop("max-steps")
                else:
                    continue
                self._restart(k)
                is_stopped = True
            if is_stopped:
                self._prediction = self._evaluate()

    def _propose(self, k: int, deviation: float, chunk: _Chunk) -> None:
        """A candidate where the band is first crossed, then every `spacing_steps`; a fresh start must move first."""
        walker, spacing = self._walkers[k], self._settings.spacing_steps
        is_due = walker.step >= spacing // 2 if walker.last_candidate is None else (
            walker.step - walker.last_candidate >= spacing
        )  # fmt: skip
        if is_due:
            walker.last_candidate = walker.step
            chunk.candidates.append(self._candidate(k, Arm.UNCERTAIN, deviation))

    def _candidate(self, k: int, arm: Arm, deviation: float) -> Candidate:
        walker = self._walkers[k]
        version = self._committee.version if self._committee is not None else 0
        source = Source(
            system=walker.system,
            arm=arm,
            method="langevin",
            trajectory=walker.trajectory,
            model_version=version,
            step=walker.step,
            deviation=deviation,
            temperature=walker.temperature,
        )
        return Candidate(walker.start.with_positions(self._positions[self._atoms(k)]), source)

    def _problems(self) -> list[str | None]:
        """Why each walker must stop; None where it makes sense."""
        settings = self._settings
        prediction = self._prediction
        assert prediction is not None
        temperatures = kinetic_temperature(self._masses, self._velocities, self._starts, self._n_atoms)
        problems: list[str | None] = []
        for k, walker in enumerate(self._walkers):
            part = self._atoms(k)
            positions = self._positions[part]
            if not (np.isfinite(positions).all() and np.isfinite(prediction.forces[part]).all()):
                problems.append("not-finite")
            elif temperatures[k] > settings.max_temperature_ratio * walker.temperature:
                problems.append("too-hot")
            else:
                problems.append(self._pairs[k].problem(positions, settings.min_distance))
        return problems

    def _restart(self, k: int) -> None:
        """Puts a walker on a trusted frame, one that itself makes sense, with new velocities."""
        walker = self._walkers[k]
        seeds = self._seeds[walker.system]
        frame = walker.start
        for _ in range(RESTART_TRIES):
            chosen = seeds[int(self._rng.integers(len(seeds)))]
            if self._pairs[k].problem(chosen.positions, self._settings.min_distance) is None:
                frame = chosen
                break
        part = self._atoms(k)
        velocities = self._dynamics.thermal[part] * self._rng.normal(size=(frame.n_atoms, 3))
        masses = self._masses[part][:, None]
        self._velocities[part] = velocities - (masses * velocities).sum(axis=0) / masses.sum()
        self._positions[part] = frame.positions
        walker.trajectory = self._next_trajectory
        self._next_trajectory += 1
        walker.step, walker.last_candidate = 0, None

    def _rescore(self, frames: Sequence[Frame]) -> dict[str, float]:
        if not frames or self._committee is None:
            return {}
        deviations = self._committee.evaluate(FrameBatch.of(frames)).frame_deviation
        return {frame.frame_id: float(d) for frame, d in zip(frames, deviations, strict=True)}

    def _evaluate(self) -> CommitteePrediction:
        assert self._committee is not None
        batch = FrameBatch(self._n_atoms, self._numbers, self._positions, self._cell, self._pbc)
        return self._committee.evaluate(batch)

    def _atoms(self, k: int) -> slice:
        start = int(self._starts[k])
        return slice(start, start + int(self._n_atoms[k]))


class _Chunk:
    """What happened in one chunk."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.random: list[Candidate] = []
        self.stops: dict[str, int] = {}
        self.walker_steps = 0
        self.n_above = 0
        self.deviation_max = 0.0
        self.deviation_sum = 0.0

    def stop(self, reason: str) -> None:
        self.stops[reason] = self.stops.get(reason, 0) + 1

    def count(self, deviation: float) -> None:
        self.walker_steps += 1
        self.deviation_sum += deviation
        self.deviation_max = max(self.deviation_max, deviation)


class _Contacts:
    """What is bonded in a start structure, and whether a geometry still has it. Periodic systems: contacts only."""

    def __init__(self, start: Frame) -> None:
        self._numbers = start.numbers
        self._is_periodic = bool(start.pbc.any())
        self._bonds = np.zeros(0, dtype=np.bool_)
        if start.n_atoms > 1:
            self._bonds = pair_ratios(start.numbers, start.positions)[2] < BONDED

    def problem(self, positions: FloatArray, min_distance: float) -> str | None:
        """``too-close``, ``broken``, or None."""
        if len(self._numbers) < 2 or self._is_periodic:
            return None
        ratio = pair_ratios(self._numbers, positions)[2]
        if ratio.min() < min_distance:
            return "too-close"
        if (ratio[self._bonds] > BROKEN).any():
            return "broken"
        return None
