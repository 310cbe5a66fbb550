"""What explorers are sent, and what becomes of what they return.

An order is put together from frames at hand; a committee and seeds go along only where the explorer does not have that
version yet. A report ends as events, which are recorded at once; its frames are proposed in one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alsys.control.commands import Explore
from alsys.control.handlers.event_sink import EventSink
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.events import (
    DropReason,
    ErrorsObserved,
    ExplorationReported,
    ExplorationStarted,
    FrameDropped,
    FrameProposed,
    FramesRescored,
)
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.frames import Candidate, Frame
from alsys.potentials.base import CommitteeState


@dataclass(kw_only=True)
class ExplorationHandler:
    """Orders and reports of explorers.

    Attributes:
        ledger: For reading.
        memory: Frames.
        record: Takes events.
        state: The committee of a version.
        epoch: Of the store: trajectories of different drivers have different numbers.
        clock: Unix time.
    """

    ledger: Ledger
    memory: FrameMemory
    record: EventSink
    state: Callable[[int], CommitteeState]
    epoch: int
    clock: Callable[[], float]
    _loaded: dict[str, int] = field(default_factory=dict, init=False)
    _orders: int = field(default=0, init=False)

    def forget(self, worker: str) -> None:
        """An explorer was lost, or is new: it has no committee."""
        self._loaded.pop(worker, None)

    def order(self, command: Explore, now: float) -> ExplorationOrder:
        """A chunk, which is recorded as started."""
        state = None
        seeds: tuple[tuple[str, Frame], ...] = ()
        if self._loaded.get(command.worker) != command.version:
            state = self.state(command.version)
            seeds = tuple((c.source.system, c.frame) for c in self.memory.candidates(command.seeds))
            self._loaded[command.worker] = command.version
        compare = tuple((c.frame, forces) for c, forces in self.memory.with_forces(command.compare))
        rescore = self.memory.candidates(command.rescore)
        looked_at = (*rescore, *self.memory.candidates([frame.frame_id for frame, _ in compare]))
        self._orders += 1
        order = ExplorationOrder(
            n_steps=command.n_steps,
            n_random=command.n_random,
            max_candidates=command.max_candidates,
            state=state,
            seeds=seeds,
            rescore=tuple(c.frame for c in rescore),
            compare=compare,
            masks={c.frame.frame_id: c.mask for c in looked_at if c.mask is not None},
            trust=command.trust,
            shares=command.shares,
            trajectory_base=(self.epoch << 44) + (self._orders << 20),
        )
        self.record(
            ExplorationStarted(
                t=now,
                worker=command.worker,
                n_steps=command.n_steps,
                n_random=command.n_random,
                rescored=command.rescore,
                compared=tuple(frame.frame_id for frame, _ in compare),
            )
        )
        return order

    def take(self, worker: str, report: ExplorationReport) -> None:
        """A chunk came back."""
        now = self.clock()
        self.record(
            ExplorationReported(
                t=now,
                worker=worker,
                model_version=report.model_version,
                n_steps=report.n_steps,
                walker_steps=report.walker_steps,
                n_candidates=len(report.candidates),
                n_above=report.n_above,
                wall_s=report.wall_s,
                stops=report.stops,
                deviation_max=report.deviation_max,
                deviation_mean=report.deviation_mean,
                trust=report.trust,
                n_members=report.n_members,
                n_distinct=report.n_distinct,
                method_steps=report.method_steps,
            )
        )
        if report.compared:
            self.record(_errors_observed(report, now))
        if report.rescored:
            trusted_below, _ = self.ledger.trust_band
            self.record(
                FramesRescored(
                    t=now, model_version=report.model_version, deviations=report.rescored, trusted_below=trusted_below
                )
            )
        for frame_id in report.withdrawn:
            record = self.ledger.frames.get(frame_id)
            if record is not None and record.status is Status.PENDING:
                self.record(FrameDropped(t=now, frame_id=frame_id, reason=DropReason.NEAR_TEST))
        self.propose(report.candidates)
        self.memory.expect(report.predictions)

    def propose(self, candidates: Sequence[Candidate]) -> None:
        """Proposes frames in one commit; a frame that was ever proposed is ignored."""
        now = self.clock()
        fresh = {c.frame.frame_id: c for c in candidates if c.frame.frame_id not in self.ledger.frames}
        events = [
            FrameProposed(
                t=now,
                frame_id=frame_id,
                arm=c.source.arm,
                system=c.source.system,
                deviation=c.source.deviation,
                model_version=c.source.model_version,
                trajectory=c.source.trajectory,
                method=c.source.method,
                stratum=c.source.stratum,
                n_electrons=int(c.frame.numbers.sum()) - c.frame.charge,
            )
            for frame_id, c in fresh.items()
        ]
        if events:
            self.memory.add(fresh)
            self.record.together(events, list(fresh.values()))


def _errors_observed(report: ExplorationReport, now: float) -> ErrorsObserved:
    """Four significant digits are enough for a calibration, and keep the log small."""
    pairs = list(report.compared.values())
    return ErrorsObserved(
        t=now,
        model_version=report.model_version,
        frame_ids=tuple(report.compared),
        n_atoms=tuple(deviation.size for deviation, _ in pairs),
        deviations=tuple(float(f"{value:.4g}") for deviation, _ in pairs for value in deviation),
        errors=tuple(float(f"{value:.4g}") for _, error in pairs for value in error),
    )
