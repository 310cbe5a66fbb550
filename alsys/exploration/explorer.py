"""Walkers in one batch under a committee's mean force, stopped by what the committee does not know.

A walker starts where its method says, with Maxwell velocities, and its first candidate comes no sooner than half a
spacing later, since nearer frames only repeat that one. Then it yields the frame where its force deviation crosses the
lower edge of the trust band, and at most one every `spacing_steps` while it stays above that edge. Above the upper
edge the walk ends: the frame proposed is the last one in the band or, for a walk that jumps over the band or begins
above it (a young model), the first one above. Where the geometry stops making sense the walk ends at once and nothing
is proposed. A walk that ended goes on from its last trusted frame with new velocities, `max_rewinds` times at most.

Frames of the random arm are drawn as (walker, step) pairs before the chunk starts, whatever the committee thinks of
them; where the campaign has a target ensemble, from walkers in it, which go on wherever geometry makes sense, and only
frames in the band whose energy that ensemble reaches are proposed for training, as long as there are any. No frame
within a spacing of one of them on the same trajectory is proposed for training, and one that was proposed in the chunk
before is withdrawn. With the strategy `random`, walkers move and stop alike, and every spacing of every walker yields a
candidate, of which a random choice is returned. On multiple time steps walkers are looked at, counted and stopped
between moves only. A chunk is decided by the seed, the order and the number of chunks before it.

Where the campaign carves (`exploration.carve`), what is returned of a periodic or large frame is the neighbourhood of
its least certain atom, and of a random one for the random arm; frames that cannot be carved count as ``not-carved``.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alsys.config.schema import CampaignConfig, EquivariantModel
from alsys.dynamics.geometry import is_sound
from alsys.exploration import safe_pickle
from alsys.exploration.allocation import TARGET, WalkerAllocation
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.comparison import compare, counting, predict
from alsys.exploration.neighbourhoods import Neighbourhoods
from alsys.exploration.relevance import ThermalBound
from alsys.exploration.walkers import NEVER, Walkers
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.potentials.arrays import HOST, Arrays
from alsys.potentials.base import Committee, CommitteeState, arrays_for
from alsys.potentials.calibration import n_distinct_members
from alsys.potentials.factory import build_committee, device_of
from alsys.potentials.scored import scored
from alsys.selection.chunks import ChunkSelection, pick_at_random
from alsys.selection.strata import stratum

NOT_CARVED = "not-carved"
"""Among the stops of a report: frames that were left out because they could not be carved."""
_OF_PROCESS = (
    "_committee", "_inner", "_build", "_settings", "_is_random", "_decorrelation", "_bound", "_is_judged", "_systems",
    "_seed", "_neighbourhoods",
)  # fmt: skip
"""Attributes of an explorer that are no part of its state: they come with its config, or with an order."""


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
        target = config.target
        self._decorrelation = None if target is None else max(1, round(target.decorrelation / settings.timestep))
        self._bound = None if target is None else ThermalBound(target.temperature, starts)
        self._is_judged = config.labeling.quality.enabled
        self._systems = {name: frames[0] for name, frames in starts.items()}
        if isinstance(config.model, EquivariantModel):
            device_of(settings.device)  # refused now, not once a first fit is paid for
        self._build = build or self._built
        self._seed = seed
        self._n_chunks = 0
        self._committee: Committee | None = None
        self._inner: Committee | None = None
        self._seeds: dict[str, list[Frame]] = {name: list(frames) for name, frames in starts.items()}
        self._selection = ChunkSelection(config.selection, seed)
        self._neighbourhoods = Neighbourhoods(config.exploration.carve)
        self._allocation = WalkerAllocation(config, self._systems, seed)
        self._walkers = self._allocation.walkers({})
        self._next_trajectory = 0
        self._n_members = self._n_distinct = 0
        self._proposed: dict[int, Candidate] = {}
        self._rng = np.random.default_rng(seed)

    @property
    def walkers(self) -> Walkers:
        """The batch between two orders, to be looked at only: positions, velocities, methods and what they add."""
        return self._walkers

    def state(self) -> bytes:
        """As `alsys.exploration.base.Resumable`: walkers, their methods' hills and biases, seeds, shares."""
        return pickle.dumps({name: value for name, value in vars(self).items() if name not in _OF_PROCESS})

    def go_on(self, state: bytes) -> None:
        """As `alsys.exploration.base.Resumable`."""
        packages = {type(group.method).__module__.partition(".")[0] for group in self._walkers.steering.groups}
        vars(self).update(safe_pickle.loads(state, packages - {"alsys"}))

    def run(self, order: ExplorationOrder) -> ExplorationReport:
        """Loads weights where given, moves every walker by a chunk, and reports."""
        started = time.perf_counter()
        if order.state is not None:
            self._committee = self._loaded(self._committee, order.state)
            inner = order.state.inner if self._settings.multiple_time_step is not None else None
            self._inner = None if inner is None else self._loaded(self._inner, inner)
        if self._committee is None:
            raise RuntimeError("the first order needs weights")
        self._rng = np.random.default_rng([self._seed, order.trajectory_base, self._n_chunks])
        self._next_trajectory = order.trajectory_base
        self._take_seeds(order.seeds)
        is_regrouped = order.state is not None and self._allocation.is_new(order.shares)
        if is_regrouped:
            before, self._walkers = self._walkers, self._allocation.walkers(order.shares)
            self._proposed = {}
        if self._n_chunks == 0 or is_regrouped:
            for k in range(len(self._walkers)):
                self._restart(k)
        if self._n_chunks and is_regrouped:
            for k, j in zip(self._in_target(self._walkers), self._in_target(before), strict=False):
                self._walkers.go_on(k, before, j, self._rng)
        if self._n_chunks == 0 or order.state is not None:
            forces = self._walkers.evaluate(self._committee, inner=self._inner).member_forces
            if forces is not None:
                self._n_members, self._n_distinct = len(forces), n_distinct_members(forces)
            if self._bound is not None:
                self._bound.load(self._committee)
            self._walkers.was_in_band[:] = False  # that was another committee's band
        self._n_chunks += 1
        self._walkers.to(self._place_of(self._committee), self._rng)
        try:
            chunk = self._run(order, self._committee)
        finally:
            self._walkers.to(HOST, self._rng)
        if self._bound is not None and self._bound.takes_others(bool(chunk.candidates), bool(chunk.others)):
            chunk.candidates += chunk.others
        found = chunk.for_training(self._settings.spacing_steps)
        if self._is_random:
            chosen = pick_at_random(found, order.max_candidates, self._rng)
        else:
            chosen = self._selection.select(found, order.max_candidates, self._committee)
        returned = self._neighbourhoods.of_all(chosen, self._rng, None if self._is_random else self._committee)
        tests = self._neighbourhoods.of_all(chunk.random, self._rng)
        proposed = [labelled for _, labelled in (*returned, *tests)]
        n_refused = len(chosen) + len(chunk.random) - len(proposed)
        if n_refused:
            chunk.stops[NOT_CARVED] = n_refused
        by_frame = {candidate.frame.frame_id: labelled for candidate, labelled in returned}
        latest = {k: by_frame.get(c.frame.frame_id) for k, c in chunk.latest.items()}
        self._proposed.update((k, c) for k, c in latest.items() if c is not None)
        rescored = predict(self._committee, order.rescore)
        whole = [c.frame for c in proposed if c.mask is None]
        expected = predict(self._committee, whole) if self._is_judged else {}
        if self._is_judged:  # labels of carved frames are not judged by a committee that learns but a part of them
            expected |= {k: p for k, p in rescored.items() if k not in order.masks}
        return ExplorationReport(
            model_version=self._committee.version,
            candidates=tuple(proposed),
            n_steps=chunk.n_steps,
            walker_steps=chunk.walker_steps,
            n_above=chunk.n_above,
            wall_s=time.perf_counter() - started,
            stops=chunk.stops,
            deviation_max=chunk.deviation_max,
            deviation_mean=chunk.deviation_sum / max(chunk.n_looks, 1),
            rescored={k: float(counting(p.deviations, k, order.masks).max()) for k, p in rescored.items()},
            compared=compare(self._committee, order.compare, order.masks),
            withdrawn=tuple(chunk.withdrawn),
            trust=order.trust,
            n_members=self._n_members,
            n_distinct=self._n_distinct,
            predictions=expected,
            method_steps={name: count * chunk.n_steps for name, count in Counter(self._walkers.steering.names).items()},
        )

    def _run(self, order: ExplorationOrder, committee: Committee) -> _Chunk:
        walkers, n_each = self._walkers, self._settings.steps_per_look
        n_moves = -(-order.n_steps // n_each)
        chunk = _Chunk(n_moves * n_each)
        drawn = self._draw_random_arm(order.n_random, n_moves)
        accurate_below, failed_above = order.trust
        spacing = self._settings.spacing_steps
        is_target = np.array([name == TARGET for name in walkers.steering.names])
        for move in range(n_moves):
            stops = walkers.move(committee, self._rng, self._inner)
            is_sane = np.ones(len(walkers), dtype=np.bool_)
            is_sane[list(stops)] = False
            chunk.walker_steps += int(is_sane.sum()) * n_each
            for k in drawn.get(move, ()):
                if is_sane[k] and self._is_independent(k):
                    chunk.random.append(self._candidate(k, Arm.RANDOM))
                    proposed = self._proposed.get(k)
                    if proposed is not None and chunk.random[-1].is_beside(proposed, spacing):
                        chunk.withdrawn.append(proposed.frame.frame_id)
                        del self._proposed[k]
                    walkers.last_random[k], walkers.age[k], walkers.restarts[k] = walkers.step[k], 0, 0
            if walkers.is_fresh:
                deviation = walkers.deviation
                is_above = is_sane & (deviation >= accurate_below)
                is_failed = is_sane & (deviation >= failed_above)
                chunk.count(deviation[is_sane], int(is_above.sum()))
                is_wanted = is_sane if self._is_random else is_above & ~(is_failed & is_target)
                for k in np.flatnonzero(is_wanted & self._is_due()).tolist():
                    has_left_band = bool(is_failed[k] and walkers.was_in_band[k] and not self._is_random)
                    candidate = self._candidate(k, Arm.UNCERTAIN, is_earlier=has_left_band)
                    is_known_wrong = bool(is_failed[k]) and not has_left_band and not self._is_random
                    is_wanted_most = self._bound is None or (not is_known_wrong and self._is_likely(k, has_left_band))
                    (chunk.candidates if is_wanted_most else chunk.others).append(candidate)
                    chunk.latest[k] = candidate
                    walkers.last_candidate[k] = walkers.step[k]
                    if not is_target[k]:
                        walkers.restarts[k] = 0
                walkers.was_in_band = is_above & ~is_failed
                walkers.trust(is_sane & ~is_above, spacing)
                for k in np.flatnonzero(is_failed & ~is_target & (walkers.step >= spacing)).tolist():
                    stops[k] = "failed"
            for k in np.flatnonzero(walkers.step >= self._settings.max_steps).tolist():
                stops.setdefault(k, "max-steps")
            for k, reason in stops.items():
                chunk.stops[reason] = chunk.stops.get(reason, 0) + 1
                self._recover(k, reason)
            if stops:
                walkers.evaluate(committee, list(stops))
        return chunk

    def _is_likely(self, k: int, is_earlier: bool) -> bool:
        """Whether the target ensemble reaches the energy of the frame that walker `k` yields."""
        assert self._bound is not None
        walkers = self._walkers
        energy = (walkers.last_energy if is_earlier else walkers.energy)[k]
        return self._bound.is_likely(walkers.systems[k], int(walkers.n_atoms[k]), float(energy))

    def _is_due(self) -> NDArray[np.bool_]:
        """``(n_walkers,)`` walkers that may yield a candidate now.

        Half as early each time that one began anew without a candidate: where a model breaks all walks, no campaign
        waits for ever.
        """
        walkers, spacing = self._walkers, self._settings.spacing_steps
        since = walkers.step - walkers.last_candidate
        first = np.maximum((spacing // 2) >> np.minimum(walkers.restarts, 30), 1)
        due = np.where(walkers.last_candidate == NEVER, walkers.step >= first, np.abs(since) >= spacing)
        is_near_test = (walkers.last_random != NEVER) & (np.abs(walkers.step - walkers.last_random) < spacing)
        is_due: NDArray[np.bool_] = due & ~is_near_test
        return is_due

    def _built(self, state: CommitteeState) -> Committee:
        settings, steps = self._settings, self._settings.multiple_time_step
        is_compiled = settings.compile
        if steps is not None and state.baseline is None:  # the small network: committees are differences there
            is_compiled |= steps.compile
        committee = build_committee(
            state, settings.threads, is_compiled=is_compiled, device=settings.device, accelerate=settings.accelerate
        )
        return scored(committee, state)

    def _place_of(self, committee: Committee) -> Arrays:
        """Where walkers move during a chunk: on the committee's device, where the small network is there too."""
        arrays = arrays_for(committee)
        return HOST if self._inner is not None and arrays_for(self._inner).is_on_host else arrays

    def _loaded(self, committee: Committee | None, state: CommitteeState) -> Committee:
        """The committee with these weights; a new one where there is none."""
        if committee is None:
            return self._build(state)
        committee.load(state)
        return committee

    def _in_target(self, walkers: Walkers) -> list[int]:
        """Walkers in the target ensemble, those of a system in order."""
        rows = [k for k, name in enumerate(walkers.steering.names) if name == TARGET]
        return sorted(rows, key=lambda k: walkers.systems[k])

    def _draw_random_arm(self, n_random: int, n_moves: int) -> dict[int, list[int]]:
        """Walkers whose frame is taken, by move: pairs drawn uniformly, none twice.

        In a target ensemble one frame at most of each walker that has gone on for long enough.
        """
        if self._decorrelation is not None:
            return self._draw_in_target(n_random, n_moves)
        n_walkers = len(self._walkers)
        n_pairs = n_walkers * n_moves
        drawn: dict[int, list[int]] = {}
        for pair in self._rng.choice(n_pairs, min(n_random, n_pairs), replace=False).tolist():
            drawn.setdefault(pair // n_walkers, []).append(pair % n_walkers)
        return drawn

    def _is_independent(self, k: int) -> bool:
        """Whether walker `k` has gone on for long enough now: it may have begun anew since its frame was drawn."""
        return self._decorrelation is None or int(self._walkers.age[k]) >= self._between_tests(k)

    def _between_tests(self, k: int) -> int:
        """Steps that walker `k` goes on before it is taken: half as many each time it broke before it had made them.

        Where a model breaks all walks it is measured on short ones, and no campaign waits for ever.
        """
        steps = self._decorrelation or 0
        return max(steps >> min(int(self._walkers.restarts[k]), 30), min(steps, self._settings.spacing_steps))

    def _draw_in_target(self, n_random: int, n_moves: int) -> dict[int, list[int]]:
        walkers, drawn, n_each = self._walkers, dict[int, list[int]](), self._settings.steps_per_look
        for k in self._rng.permutation(self._in_target(walkers)).tolist():
            left = self._between_tests(k) - int(walkers.age[k])
            first = max(-(-left // n_each) - 1, 0)  # a walker is a move on when it is looked at
            if first < n_moves and sum(map(len, drawn.values())) < n_random:
                drawn.setdefault(int(self._rng.integers(first, n_moves)), []).append(k)
        return drawn

    def _candidate(self, k: int, arm: Arm, is_earlier: bool = False) -> Candidate:
        """The frame of walker `k` now, or where the committee was looked at before."""
        walkers = self._walkers
        frame = walkers.last_frame(k) if is_earlier else walkers.frame(k)
        source = Source(
            system=walkers.systems[k],
            arm=arm,
            method=walkers.steering.names[k],
            trajectory=int(walkers.trajectory[k]),
            model_version=0 if self._committee is None else self._committee.version,
            step=int(walkers.last_step[k] if is_earlier else walkers.step[k]),
            deviation=float((walkers.last_deviation if is_earlier else walkers.deviation)[k]),
            temperature=float(walkers.temperatures[k]),
            stratum=stratum(frame, walkers.starts[k], f"{100 * round(float(walkers.temperatures[k]) / 100)}K"),
        )
        return Candidate(frame, source)

    def _recover(self, k: int, reason: str) -> None:
        """After a stop: back to the last trusted frame, or to a new trajectory."""
        walkers = self._walkers
        trusted = walkers.trusted_frame(k)
        is_endless = walkers.steering.names[k] == TARGET  # a long walk, whatever stops it
        is_used_up = walkers.rewinds[k] >= self._settings.max_rewinds and not is_endless
        if reason == "max-steps" or trusted is None or is_used_up:
            walkers.restarts[k] += reason != "max-steps"
            self._restart(k)
            return
        frame = walkers.steering.start(k, [trusted], self._rng)
        if frame is trusted:
            walkers.rewind(k, frame, self._rng)
        else:  # the method begins elsewhere
            walkers.place(k, frame, self._new_trajectory(), self._rng)

    def _restart(self, k: int) -> None:
        """Begins a new trajectory where the walker's method wants it."""
        frame = self._walkers.steering.start(k, self._seeds[self._walkers.systems[k]], self._rng)
        self._walkers.place(k, frame, self._new_trajectory(), self._rng)

    def _new_trajectory(self) -> int:
        self._next_trajectory += 1
        return self._next_trajectory - 1

    def _take_seeds(self, seeds: Sequence[tuple[str, Frame]]) -> None:
        """Replaces the seeds of the systems named, by those that make sense; a system without any keeps its own."""
        fresh: dict[str, list[Frame]] = {}
        settings = self._settings
        for name, frame in seeds:
            start = self._systems.get(name)
            if (
                start is not None
                and np.array_equal(frame.numbers, start.numbers)
                and is_sound(start, frame, settings.min_distance, settings.reactive)
            ):
                fresh.setdefault(name, []).append(frame)
        self._seeds.update(fresh)
        if fresh:
            self._selection.labelled = [frame for frames in self._seeds.values() for frame in frames]


@dataclass(slots=True)
class _Chunk:
    """What happened in one chunk of so many steps; wrecks are in `stops` only."""

    n_steps: int
    candidates: list[Candidate] = field(default_factory=list)
    others: list[Candidate] = field(default_factory=list)
    random: list[Candidate] = field(default_factory=list)
    latest: dict[int, Candidate] = field(default_factory=dict)
    withdrawn: list[str] = field(default_factory=list)
    stops: dict[str, int] = field(default_factory=dict)
    walker_steps: int = 0
    n_looks: int = 0
    n_above: int = 0
    deviation_max: float = 0.0
    deviation_sum: float = 0.0

    def count(self, deviations: FloatArray, n_above: int) -> None:
        """Deviations of the walkers that made sense when the committee was looked at."""
        self.n_looks += deviations.size
        self.n_above += n_above
        self.deviation_sum += float(deviations.sum())
        self.deviation_max = max(self.deviation_max, float(deviations.max(initial=0.0)))

    def for_training(self, spacing: int) -> list[Candidate]:
        """Candidates without those that lie within a spacing of a frame of the random arm on the same trajectory."""
        return [c for c in self.candidates if not any(c.is_beside(test, spacing) for test in self.random)]
