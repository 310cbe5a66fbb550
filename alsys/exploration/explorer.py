"""Walkers in one batch under a committee's mean force, stopped by what the committee does not know.

A walker starts from a trusted frame with Maxwell velocities, and its first candidate comes no sooner than half a
spacing later, since nearer frames only repeat that one. Then it yields the frame where its force deviation crosses the
lower edge of the trust band, and at most one every `spacing_steps` while it stays above that edge. Above the upper
edge the walk ends: the frame proposed is the last one in the band or, for a walk that jumps over the band or begins
above it (a young model), the first one above. Where the geometry stops making sense the walk ends at once and nothing
is proposed.

Frames of the random arm are drawn as (walker, step) pairs before the chunk starts, whatever the committee thinks of
them; no frame within a spacing of one of them on the same trajectory is proposed for training. With the strategy
`random`, walkers move and stop alike, and every spacing of every walker yields a candidate, of which a random choice
is returned. A chunk is decided by the seed, the order and the number of chunks before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alsys.config.schema import CampaignConfig
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.geometry import is_sound
from alsys.exploration.selection import select
from alsys.exploration.shares import shares_of, spread
from alsys.exploration.walkers import NEVER, Walkers
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.calibration import n_distinct_members, sample_atoms
from alsys.potentials.factory import build_committee

RESCORE_BATCH = 64
"""Frames that are scored at once."""


class WalkerExplorer:
    """Moves a batch of walkers.

    Args:
        config: The campaign.
        starts: Start structures of each system; the first is the reference for its geometry.
        seed: Seed of all that is random.
        build: Makes a committee from its state.
    """

    def __init__(
        self,
        config: CampaignConfig,
        starts: Mapping[str, Sequence[Frame]],
        seed: int,
        build: Callable[[CommitteeState], Committee] | None = None,
    ) -> None:
        self._settings = settings = config.exploration
        self._is_random = config.selection.strategy == "random"
        self._systems = systems = {name: frames[0] for name, frames in starts.items()}
        self._build = build or (
            lambda state: build_committee(state, threads=settings.threads, is_compiled=settings.compile)
        )
        self._seed = seed
        self._n_chunks = 0
        self._committee: Committee | None = None
        self._seeds: dict[str, list[Frame]] = {name: list(frames) for name, frames in starts.items()}
        temperatures = settings.temperatures
        counts = spread(shares_of(config, systems), settings.walkers)
        chosen = [(name, i) for name, count in zip(systems, counts, strict=True) for i in range(count)]
        self._walkers = Walkers(
            [name for name, _ in chosen],
            [systems[name] for name, _ in chosen],
            [temperatures[i % len(temperatures)] for _, i in chosen],
            settings,
        )
        self._next_trajectory = 0
        self._n_members = self._n_distinct = 0
        self._rng = np.random.default_rng(seed)

    def advance(self, order: ExplorationOrder) -> ExplorationReport:
        """Loads weights where given, moves every walker by a chunk, and reports."""
        started = time.perf_counter()
        if order.state is not None and self._committee is not None:
            self._committee.load(order.state)
        elif order.state is not None:
            self._committee = self._build(order.state)
        if self._committee is None:
            raise RuntimeError("the first order needs weights")
        self._rng = np.random.default_rng([self._seed, order.trajectory_base, self._n_chunks])
        self._next_trajectory = order.trajectory_base
        self._take_seeds(order.seeds)
        if self._n_chunks == 0:
            for k in range(len(self._walkers)):
                self._restart(k)
        if self._n_chunks == 0 or order.state is not None:
            forces = self._walkers.evaluate(self._committee).member_forces
            if forces is not None:
                self._n_members, self._n_distinct = len(forces), n_distinct_members(forces)
            self._walkers.was_in_band[:] = False  # that was another committee's band
        self._n_chunks += 1
        chunk = self._run(order, self._committee)
        chosen = select(
            chunk.for_training(self._settings.spacing_steps),
            order.max_candidates,
            self._rng if self._is_random else None,
        )
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
            rescored=_rescore(self._committee, order.rescore),
            compared=_compare(self._committee, order.compare),
            trust=order.trust,
            n_members=self._n_members,
            n_distinct=self._n_distinct,
        )

    def _run(self, order: ExplorationOrder, committee: Committee) -> _Chunk:
        chunk, walkers = _Chunk(), self._walkers
        drawn = self._draw_random_arm(order)
        (accurate_below, failed_above), spacing = order.trust, self._settings.spacing_steps
        for step in range(order.n_steps):
            stops = walkers.move(committee, self._rng)
            deviation = walkers.deviation
            is_sane = np.ones(len(walkers), dtype=np.bool_)
            is_sane[list(stops)] = False
            is_above = is_sane & (deviation >= accurate_below)
            is_failed = is_sane & (deviation >= failed_above)
            chunk.count(deviation[is_sane], int(is_above.sum()))
            for k in drawn.get(step, ()):
                if is_sane[k]:
                    chunk.random.append(self._candidate(k, Arm.RANDOM))
            is_wanted = is_sane if self._is_random else is_above
            for k in np.flatnonzero(is_wanted & self._is_due()).tolist():
                has_left_band = is_failed[k] and walkers.was_in_band[k] and not self._is_random
                chunk.candidates.append(self._candidate(k, Arm.UNCERTAIN, steps_ago=1 if has_left_band else 0))
                walkers.last_candidate[k] = walkers.step[k]
            walkers.was_in_band = is_above & ~is_failed
            for k in np.flatnonzero(is_failed & (walkers.step >= spacing)).tolist():
                stops[k] = "failed"
            for k in np.flatnonzero(walkers.step >= self._settings.max_steps).tolist():
                stops.setdefault(k, "max-steps")
            for k, reason in stops.items():
                chunk.stops[reason] = chunk.stops.get(reason, 0) + 1
                self._restart(k)
            if stops:
                walkers.evaluate(committee, list(stops))
        return chunk

    def _is_due(self) -> NDArray[np.bool_]:
        """``(n_walkers,)`` walkers that may yield a candidate now."""
        walkers, spacing = self._walkers, self._settings.spacing_steps
        since = walkers.step - walkers.last_candidate
        return np.where(walkers.last_candidate == NEVER, walkers.step >= spacing // 2, since >= spacing)

    def _draw_random_arm(self, order: ExplorationOrder) -> dict[int, list[int]]:
        """Walkers whose frame is taken, by step: pairs drawn uniformly, none twice."""
        n_walkers = len(self._walkers)
        n_pairs = n_walkers * order.n_steps
        drawn: dict[int, list[int]] = {}
        for pair in self._rng.choice(n_pairs, min(order.n_random, n_pairs), replace=False).tolist():
            drawn.setdefault(pair // n_walkers, []).append(pair % n_walkers)
        return drawn

    def _candidate(self, k: int, arm: Arm, steps_ago: int = 0) -> Candidate:
        walkers = self._walkers
        deviation = walkers.previous_deviation if steps_ago else walkers.deviation
        source = Source(
            system=walkers.systems[k],
            arm=arm,
            method="langevin",
            trajectory=int(walkers.trajectory[k]),
            model_version=0 if self._committee is None else self._committee.version,
            step=int(walkers.step[k]) - steps_ago,
            deviation=float(deviation[k]),
            temperature=float(walkers.temperatures[k]),
        )
        return Candidate(walkers.previous_frame(k) if steps_ago else walkers.frame(k), source)

    def _restart(self, k: int) -> None:
        """Puts a walker on a trusted frame of its system, as a new trajectory."""
        seeds = self._seeds[self._walkers.systems[k]]
        frame = seeds[int(self._rng.integers(len(seeds)))]
        self._walkers.place(k, frame, self._next_trajectory, self._rng)
        self._next_trajectory += 1

    def _take_seeds(self, seeds: Sequence[tuple[str, Frame]]) -> None:
        """Replaces the seeds of the systems named, by those that make sense; a system without any keeps its own."""
        fresh: dict[str, list[Frame]] = {}
        for name, frame in seeds:
            start = self._systems.get(name)
            if (
                start is not None
                and np.array_equal(frame.numbers, start.numbers)
                and is_sound(start, frame.positions, self._settings.min_distance)
            ):
                fresh.setdefault(name, []).append(frame)
        self._seeds.update(fresh)


def _rescore(committee: Committee, frames: Sequence[Frame]) -> dict[str, float]:
    """Deviation of each frame by its identity, eV/Angstrom."""
    deviations: dict[str, float] = {}
    for start in range(0, len(frames), RESCORE_BATCH):
        part = frames[start : start + RESCORE_BATCH]
        values = committee.evaluate(FrameBatch.of(part)).frame_deviation.tolist()
        deviations.update(zip((frame.frame_id for frame in part), values, strict=True))
    return deviations


def _compare(
    committee: Committee, labelled: Sequence[tuple[Frame, FloatArray]]
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Force deviation and length of the force error of atoms of labelled frames, by the frame's identity."""
    compared: dict[str, tuple[FloatArray, FloatArray]] = {}
    for start in range(0, len(labelled), RESCORE_BATCH):
        part = labelled[start : start + RESCORE_BATCH]
        prediction = committee.evaluate(FrameBatch.of([frame for frame, _ in part]))
        ends = np.cumsum([frame.n_atoms for frame, _ in part])[:-1]
        predicted = np.split(prediction.forces, ends)
        deviations = np.split(prediction.force_deviation, ends)
        for (frame, forces), force, deviation in zip(part, predicted, deviations, strict=True):
            error = np.sqrt(np.square(force - forces).sum(axis=1))
            compared[frame.frame_id] = (sample_atoms(deviation), sample_atoms(error))
    return compared


@dataclass(slots=True)
class _Chunk:
    """What happened in one chunk; wrecks are in `stops` only."""

    candidates: list[Candidate] = field(default_factory=list)
    random: list[Candidate] = field(default_factory=list)
    stops: dict[str, int] = field(default_factory=dict)
    walker_steps: int = 0
    n_above: int = 0
    deviation_max: float = 0.0
    deviation_sum: float = 0.0

    def count(self, deviations: FloatArray, n_above: int) -> None:
        """Deviations of the walkers that made sense after a step."""
        self.walker_steps += deviations.size
        self.n_above += n_above
        self.deviation_sum += float(deviations.sum())
        self.deviation_max = max(self.deviation_max, float(deviations.max(initial=0.0)))

    def for_training(self, spacing: int) -> list[Candidate]:
        """Candidates without those that lie within a spacing of a frame of the random arm on the same trajectory."""
        taken: dict[int, list[int]] = {}
        for candidate in self.random:
            taken.setdefault(candidate.source.trajectory, []).append(candidate.source.step)
        return [
            c
            for c in self.candidates
            if all(abs(c.source.step - step) >= spacing for step in taken.get(c.source.trajectory, ()))
        ]
