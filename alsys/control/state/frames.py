"""The frames: where every proposed frame is, and how it gets from there to the next place.

A frame is pending, in flight or settled. Pending ones wait in one of two places: the candidate set, or those whose
label is to be verified. After every call ``len(records) == sum(counts.values())``. What is to be rescored, is below the
trust band or has failed is a mark on pending frames. Part of the ledger: events change it, nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern

from alsys.control.settings import PolicySettings
from alsys.control.state.candidates import CandidateSet
from alsys.control.state.models import ModelVersions
from alsys.control.state.records import FINAL, FrameRecord, Status
from alsys.errors import FailureKind
from alsys.events import FrameProposed, FramesRescored, LabelFailed, LabelNotReproduced, LabelStarted
from alsys.frames import Arm
from alsys.selection.label_cost import FALLBACK_ELECTRONS, LabelCostModel


@dataclass(frozen=True, slots=True)
class FrameStates:
    """Frames of one campaign. Its containers are never replaced, so the ledger can hold them too.

    Attributes:
        settings: Of the campaign.
        models: For reading: frames that were seen by another version than the champion are to be rescored.
        to_verify: Frames whose label waits to be verified, with the labeler that gave it.
        records: All frames.
        pending: Frames that a labeler can have.
        counts: Frames by status.
        in_flight_by_arm: Frames in flight by arm.
        in_flight: Calls of each labeler, each with its frames.
        to_rescore: Uncertain frames whose deviation is not the champion's.
        failed: Frames that wait after an attempt that gave no label, or a wrong one, with the last such attempt.
        below_trust: Uncertain frames that the champion knows well enough.
    """

    settings: PolicySettings
    models: ModelVersions
    to_verify: dict[str, str]
    records: dict[str, FrameRecord] = field(default_factory=dict)
    pending: CandidateSet = field(default_factory=CandidateSet)
    counts: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    in_flight_by_arm: dict[Arm, int] = field(default_factory=lambda: dict.fromkeys(Arm, 0))
    in_flight: dict[str, list[dict[str, None]]] = field(default_factory=dict)
    to_rescore: dict[str, None] = field(default_factory=dict)
    failed: dict[str, LabelFailed | LabelNotReproduced] = field(default_factory=dict)
    below_trust: dict[str, None] = field(default_factory=dict)
    _worker_of: dict[str, str] = field(default_factory=dict)
    _costs: LabelCostModel = field(default_factory=LabelCostModel)

    @property
    def is_balanced(self) -> bool:
        """The invariant of the module docstring."""
        return (
            len(self.records) == sum(self.counts.values())
            and self.counts[Status.PENDING] == len(self.pending) + len(self.to_verify)
            and self.counts[Status.IN_FLIGHT] == sum(len(call) for calls in self.in_flight.values() for call in calls)
        )

    # --- from one status to another

    def propose(self, event: FrameProposed) -> None:
        """A frame that nobody has proposed before is pending."""
        if event.frame_id in self.records:
            return
        record = FrameRecord(
            event.arm,
            intern(event.system),  # the same few words, a million times
            event.deviation,
            event.model_version,
            intern(event.method),
            intern(event.stratum),
            event.n_electrons,
        )
        self.records[event.frame_id] = record
        self.counts[Status.PENDING] += 1
        self._enqueue(event.frame_id, record)

    def start(self, event: LabelStarted) -> None:
        """One call to a labeler: its frames are in flight."""
        for frame_id in event.frame_ids:
            record = self.records[frame_id]
            self._unqueue(frame_id)
            self.failed.pop(frame_id, None)
            if not record.unverified_of:
                record.chosen_by = self.models.champion if record.arm is Arm.RANDOM else record.seen_by
            self.move(record, Status.IN_FLIGHT)
            self.in_flight_by_arm[record.arm] += 1
            self._worker_of[frame_id] = event.worker
        self.in_flight.setdefault(event.worker, []).append(dict.fromkeys(event.frame_ids))

    def again(self, frame_id: str) -> None:
        """Makes a frame in flight pending again."""
        record = self.records[frame_id]
        if record.status is Status.IN_FLIGHT:
            self._land(frame_id)
            self.move(record, Status.PENDING)
            self._enqueue(frame_id, record)

    def settle(self, frame_id: str, status: Status) -> FrameRecord:
        """Takes a frame out of wherever it waits, into a final status."""
        record = self.records[frame_id]
        if record.status is Status.IN_FLIGHT:
            self._land(frame_id)
        self._unqueue(frame_id)
        self.failed.pop(frame_id, None)
        self.move(record, status)
        return record

    def retry(self, frame_id: str) -> None:
        """A user asks for a quarantined frame again: it starts afresh."""
        record = self.records[frame_id]
        if record.status is not Status.QUARANTINED:
            return
        record.attempts = record.kills = record.n_not_reproduced = 0
        record.verdict, record.last_worker = None, ""
        self.move(record, Status.PENDING)
        self._enqueue(frame_id, record)

    def reopen(self) -> None:
        """A new driver: nothing is in flight, and labels under suspicion went with the old one."""
        for frame_id in list(self._worker_of):
            self.again(frame_id)
        for frame_id in list(self.to_verify):
            self._clear(frame_id)

    def move(self, record: FrameRecord, status: Status) -> None:
        """Gives a frame that waits nowhere another status."""
        self.counts[record.status] -= 1
        self.counts[status] += 1
        record.status = status

    # --- what goes wrong with a label

    def fail(self, event: LabelFailed) -> None:
        """An attempt gave no label: the frame is pending again; whether it is given up is not decided here."""
        record = self.records[event.frame_id]
        if record.status in FINAL:
            return
        self.again(event.frame_id)
        record.attempts += not event.failure.is_nobodys_fault
        record.kills += event.failure in (FailureKind.WORKER_LOST, FailureKind.CRASHED)
        record.last_worker = event.worker if event.failure.is_lost_computing else ""
        self.failed[event.frame_id] = event

    def failed_gate(self, frame_id: str, worker: str) -> None:
        """The label that `worker` gave waits to be verified."""
        record = self.records[frame_id]
        record.unverified_of = worker
        if record.status is Status.IN_FLIGHT:
            self.again(frame_id)
        else:  # folded from a log, which does not say what was in flight
            self._unqueue(frame_id)
            self._enqueue(frame_id, record)

    def not_reproduced(self, event: LabelNotReproduced) -> None:
        """A second label at tighter settings disagreed: the frame is labelled afresh, unless it is given up."""
        self.records[event.frame_id].n_not_reproduced += 1
        self.again(event.frame_id)
        self._clear(event.frame_id)
        self.failed[event.frame_id] = event

    # --- what a label would teach

    def rescore(self, event: FramesRescored, trusted_below: float) -> None:
        """A committee has looked at frames again; those that it knows well are below the trust band."""
        for frame_id, deviation in event.deviations.items():
            record = self.records[frame_id]
            record.deviation = deviation
            record.seen_by = event.model_version
            if frame_id in self.pending and record.arm is Arm.UNCERTAIN:
                self.to_rescore.pop(frame_id, None)
                self._enqueue(frame_id, record)
                if deviation < trusted_below and not self.settings.is_random:
                    self.below_trust[frame_id] = None

    def outdate(self) -> None:
        """There is a new champion, which has seen none of the candidates."""
        self.to_rescore.clear()
        self.to_rescore.update(dict.fromkeys(self.pending.ranked()))

    def observe_cost(self, record: FrameRecord, wall_s: float) -> None:
        """Learns what labels cost from one that took `wall_s`, where that matters.

        All pending frames are then ranked anew, or those that came when costs were thought to be others would be
        labelled too early or too late.
        """
        if not self.settings.is_cost_aware or record.n_electrons < 1 or record.arm is Arm.ATOM:
            return
        if self._costs.observe(record.n_electrons, wall_s):
            self.pending.rerank(lambda frame_id: self._worth(self.records[frame_id]))

    def _worth(self, record: FrameRecord) -> float:
        """What a label would teach: the deviation, per expected second where costs matter."""
        deviation = 0.0 if self.settings.is_random else record.deviation
        if not self.settings.is_cost_aware:
            return deviation
        # A bare proton has no electron, nor has a frame of a log from before they were written.
        return deviation / self._costs.predict(record.n_electrons if record.n_electrons > 0 else FALLBACK_ELECTRONS)

    # --- places

    def _enqueue(self, frame_id: str, record: FrameRecord) -> None:
        if record.unverified_of:
            self.to_verify[frame_id] = record.unverified_of
            return
        self.pending.add(frame_id, record.arm, self._worth(record), record.stratum)
        if record.arm is Arm.UNCERTAIN and record.seen_by != self.models.champion:
            self.to_rescore[frame_id] = None

    def _unqueue(self, frame_id: str) -> None:
        self.pending.discard(frame_id)
        self.to_rescore.pop(frame_id, None)
        self.below_trust.pop(frame_id, None)
        self.to_verify.pop(frame_id, None)

    def _clear(self, frame_id: str) -> None:
        """A frame whose label failed the gate is to be labelled afresh."""
        record = self.records[frame_id]
        self.to_verify.pop(frame_id, None)
        record.unverified_of = ""
        self._enqueue(frame_id, record)

    def _land(self, frame_id: str) -> None:
        worker = self._worker_of.pop(frame_id)
        calls = self.in_flight[worker]
        call = next(call for call in calls if frame_id in call)
        del call[frame_id]
        if not call:
            calls.remove(call)
        if not calls:
            del self.in_flight[worker]
        self.in_flight_by_arm[self.records[frame_id].arm] -= 1
