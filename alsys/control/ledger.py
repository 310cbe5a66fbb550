"""The ledger: the state of a campaign, folded from its events, and the decisions that follow from it.

`apply(event)` is the only mutator; `decide(now, idle)` returns commands and changes nothing. There is no clock, no
I/O, no Ray and no torch in here. After every event
``proposed == pending + in_flight + labelled + dropped + quarantined + retracted``. Folding the durable events of a log
gives the state of the campaign that wrote it, except that work in flight is pending again. A retracted label is as if
it had never been, except that it counts as one more reason to fit again and that its frame is never labelled again.
Imported labels are counts: their frames were never proposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from alsys.control import policies
from alsys.control.assurance import Assurance, Audit, assure
from alsys.control.candidates import CandidateSet
from alsys.control.commands import Command, Emit, Finish, Idle, LabelFrames
from alsys.control.settings import PolicySettings
from alsys.errors import FailureKind
from alsys.events import (
    AlarmCleared,
    AlarmRaised,
    AuditStarted,
    CampaignOpened,
    CampaignStopped,
    CanaryChecked,
    CanaryStarted,
    DataImported,
    ErrorsObserved,
    Event,
    ExplorationFailed,
    ExplorationReported,
    ExplorationStarted,
    FrameDropped,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    FramesRescored,
    Heartbeat,
    LabelAbandoned,
    LabelAccepted,
    LabelAudited,
    LabelDisputed,
    LabelDoubted,
    LabelFailed,
    LabelRepeated,
    LabelRetracted,
    LabelStarted,
    LabelSuspected,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    StopRequested,
    TrainingFailed,
    TrainingStarted,
    WorkerLost,
)
from alsys.exploration import bandit
from alsys.exploration.bandit import Tally
from alsys.exploration.label_cost import LabelCostModel
from alsys.frames import TRAINING_ARMS, Arm
from alsys.potentials.calibration import ForceCalibration

MAX_COMPARED = 200
"""Random-arm frames that each new champion is calibrated on: the latest ones."""


MAX_WAITING = 512
"""Labelled frames that wait to be compared; where labels are faster than explorers, the oldest are left out."""
REWARD_CAP = 3.0
"""Error, in units of the one that is tolerated, from which a label earns its method all there is to earn."""
REWARD_HALF_LIFE = 100.0
"""Labels after which what a method earned counts half."""


class Status(StrEnum):
    """Where a proposed frame is."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    LABELLED = "labelled"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"
    RETRACTED = "retracted"


_FINAL = (Status.LABELLED, Status.DROPPED, Status.QUARANTINED, Status.RETRACTED)


@dataclass(slots=True)
class FrameRecord:
    """What the ledger knows of a frame.

    Attributes:
        seen_by: Version of the committee that gave `deviation`.
        attempts: Failed attempts so far.
        kills: Workers lost while they worked on it.
        verdict: Why it must be quarantined next, or was; None where it need not.
        last_worker: Worker that lost the computing of its last attempt.
        label_id: Its label, retracted or not; empty for none.
        suspected: Labeler whose label of it waits to be verified; empty where none does.
        disputes: Labels of it that turned out wrong.
    """

    arm: Arm
    system: str
    deviation: float
    seen_by: int
    method: str = ""
    stratum: str = ""
    n_electrons: int = 0
    status: Status = Status.PENDING
    attempts: int = 0
    kills: int = 0
    verdict: tuple[FailureKind, str] | None = None
    last_worker: str = ""
    label_id: str = ""
    suspected: str = ""
    disputes: int = 0


@dataclass(slots=True)
class ModelRecord:
    """What the ledger knows of a model version. `promoted` is None until it is decided.

    Attributes:
        reasons: What spoke against it, one by one.
        is_probation: Promoted in spite of that.
        parent: Champion when its fit began, which it started from and was compared with; 0 for none.
        n_train: Labels it was trained on.
        n_seen: Training labels accepted up to its dataset version, retracted ones included, imported ones not.
        n_changes: `Ledger.n_changes` of its dataset version.
    """

    version: int
    n_labels: int
    n_train: int
    n_seen: int
    n_changes: int
    metrics: dict[str, float]
    published: float
    promoted: bool | None = None
    reason: str = ""
    reasons: tuple[str, ...] = ()
    is_probation: bool = False
    parent: int = 0


@dataclass(slots=True)
class Exploration:
    """Exploration since the champion last changed."""

    walker_steps: int = 0
    steps_since_above: int = 0
    n_candidates: int = 0
    n_members: int = 0
    n_distinct: int = 0


@dataclass(slots=True)
class LabelTimes:
    """Running mean of the seconds that a label takes; None before the first."""

    mean: float | None = None

    def add(self, wall_s: float) -> None:
        """Takes one label into account."""
        self.mean = wall_s if self.mean is None else self.mean + 0.05 * (wall_s - self.mean)


@dataclass(slots=True)
class Totals:
    """Counts over the whole campaign."""

    failed: int = 0
    repeated: int = 0
    conflicts: int = 0
    workers_lost: int = 0
    openings: int = 0
    walker_steps: int = 0
    candidates: int = 0
    stops: dict[str, int] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    capacity_s: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0


class Ledger:
    """State of one campaign. Its attributes are for reading; only `apply` changes them."""

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.frames: dict[str, FrameRecord] = {}
        self.pending = CandidateSet()
        self.counts = dict.fromkeys(Status, 0)
        self.accepted = dict.fromkeys(Arm, 0)
        self.flying = dict.fromkeys(Arm, 0)
        self.in_flight: dict[str, list[dict[str, None]]] = {}
        self._worker_of: dict[str, str] = {}
        self.exploring: dict[str, ExplorationStarted] = {}
        self.training: TrainingStarted | None = None
        self.models: dict[int, ModelRecord] = {}
        self.champion = 0
        self.champions: list[int] = []
        self.imports: list[DataImported] = []
        self.exploration = Exploration()
        self.label_times = LabelTimes()
        self.totals = Totals()
        self.training_failures = 0
        self.labelled: list[str] = []
        self.random_labelled: list[str] = []
        self.retracted: list[str] = []
        self.requests: set[str] = set()
        self._trainable: list[str] = []
        self.to_compare: dict[str, None] = {}
        self.calibration = ForceCalibration(settings.probability)
        self.alarms: dict[str, str] = {}
        self.assurance = Assurance()
        self.tallies = {method: Tally() for method in settings.methods}
        self.shares: dict[str, float] = {}
        self._rewarded: set[str] = set()
        self.strata: dict[str, int] = {}
        self.costs = LabelCostModel()  # knows a frame by its electrons only
        self._sizes: set[int] = set()
        self.stopped: CampaignStopped | None = None
        self.stop_requested: StopRequested | None = None
        self.stale: dict[str, None] = {}
        self._doomed: dict[str, None] = {}
        self._easy: dict[str, None] = {}
        self._undecided: dict[int, None] = {}
        self._n_train_at_fit = 0
        self._n_changes_at_fit = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            CampaignOpened: self._on_opened,
            CampaignStopped: self._on_stopped,
            Heartbeat: self._on_heartbeat,
            FrameProposed: self._on_proposed,
            FrameDropped: self._on_dropped,
            FrameQuarantined: self._on_quarantined,
            FrameRetried: self._on_retried,
            FramesRescored: self._on_rescored,
            LabelStarted: self._on_label_started,
            LabelAbandoned: self._on_label_abandoned,
            LabelAccepted: self._on_label_accepted,
            LabelFailed: self._on_label_failed,
            LabelRepeated: self._on_label_repeated,
            LabelRetracted: self._on_label_retracted,
            DataImported: self._on_imported,
            LabelSuspected: self._on_suspected,
            LabelDisputed: self._on_disputed,
            LabelDoubted: self._on_doubted,
            LabelAudited: self._on_audited,
            AuditStarted: self._on_audit_started,
            CanaryStarted: self._on_canary_started,
            CanaryChecked: self._on_canary_checked,
            ModelPublished: self._on_published,
            ModelPromoted: self._on_promoted,
            ModelRejected: self._on_rejected,
            TrainingStarted: self._on_training_started,
            TrainingFailed: self._on_training_failed,
            ExplorationStarted: self._on_exploration_started,
            ExplorationReported: self._on_explored,
            ExplorationFailed: self._on_exploration_failed,
            WorkerLost: self._on_worker_lost,
            ErrorsObserved: self._on_errors_observed,
            AlarmRaised: self._on_alarm_raised,
            AlarmCleared: self._on_alarm_cleared,
            StopRequested: self._on_stop_requested,
        }

    @classmethod
    def fold(cls, settings: PolicySettings, events: Iterable[Event]) -> Ledger:
        """The state that these events lead to."""
        ledger = cls(settings)
        for event in events:
            ledger.apply(event)
        return ledger

    # --- reading

    @property
    def proposed(self) -> int:
        """Frames ever proposed."""
        return len(self.frames)

    @property
    def n_labels(self) -> int:
        """Accepted labels that count against the budget: all but free atoms and imported ones."""
        return sum(self.accepted.values()) - self.accepted[Arm.ATOM] - self.accepted[Arm.IMPORTED]

    @property
    def n_train(self) -> int:
        """Accepted labels that may be trained on."""
        return sum(self.accepted[arm] for arm in TRAINING_ARMS)

    @property
    def n_in_flight(self) -> int:
        """Frames in flight that count against the budget."""
        return sum(self.flying.values()) - self.flying[Arm.ATOM]

    @property
    def n_train_at_fit(self) -> int:
        """Training labels when the last fit was started."""
        return self._n_train_at_fit

    @property
    def n_changes(self) -> int:
        """Training labels ever accepted, and labels ever retracted: each is a reason to fit again."""
        return len(self._trainable) + len(self.retracted) + self.accepted[Arm.IMPORTED]

    @property
    def n_new(self) -> int:
        """Changes of the data that the last fit knows nothing of."""
        return self.n_changes - self._n_changes_at_fit

    @property
    def next_version(self) -> int:
        """Version of the next model."""
        return max(self.models, default=0) + 1

    @property
    def is_balanced(self) -> bool:
        """The invariant of the module docstring."""
        return (
            self.proposed == sum(self.counts.values())
            and self.counts[Status.PENDING] == len(self.pending) + len(self._doomed) + len(self.assurance.suspects)
            and self.counts[Status.IN_FLIGHT] == sum(len(call) for calls in self.in_flight.values() for call in calls)
        )

    # --- deciding

    def decide(self, now: float, idle: Idle) -> list[Command]:
        """What to do next. Bookkeeping first: its effect must be applied before work is handed out."""
        if self.stopped is not None:
            return []
        emits = self._bookkeeping(now)
        if emits:
            return emits
        finish = policies.finish(self, now)
        if finish is not None:
            return [finish]
        if self.stop_requested is not None:
            return []
        commands: list[Command] = []
        train = policies.train(self, idle.trainers)
        if train is not None:
            commands.append(train)
        urgent, free = assure(self, idle.labelers)
        commands += urgent
        reserved = sum(isinstance(command, LabelFrames) for command in urgent)
        commands += policies.label(self, replace(idle, labelers=free), reserved)
        commands += policies.explore(self, idle.explorers)
        if not commands and policies.is_stuck(self, idle):
            return [Finish("failed", policies.stuck_message(self), is_final=False)]
        return commands

    def _bookkeeping(self, now: float) -> list[Command]:
        emits: list[Command] = []
        for frame_id in self._doomed:
            kind, message = self.frames[frame_id].verdict or (FailureKind.INTERNAL, "")
            emits.append(Emit(FrameQuarantined(t=now, frame_id=frame_id, failure=kind, message=message)))
        emits += [
            Emit(FrameDropped(t=now, frame_id=frame_id, reason="easy"))
            for frame_id in self._easy
            if frame_id in self.pending
        ]
        emits += [Emit(FrameDropped(t=now, frame_id=f, reason="evicted")) for f in policies.evict(self)]
        emits += [Emit(policies.judge(self, self.models[version], now)) for version in self._undecided]
        emits += [Emit(event) for event in policies.alarms(self, now)]
        return emits

    # --- applying

    def apply(self, event: Event) -> None:
        """Takes one event into account.

        Raises:
            KeyError: The event names a frame that was never proposed.
        """
        self._handlers[type(event)](event)

    def _move(self, record: FrameRecord, status: Status) -> None:
        self.counts[record.status] -= 1
        self.counts[status] += 1
        record.status = status

    def _settle(self, frame_id: str, status: Status) -> FrameRecord:
        """Takes a frame out of wherever it waits, into a final status."""
        record = self.frames[frame_id]
        if record.status is Status.IN_FLIGHT:
            self._land(frame_id)
        self._unqueue(frame_id)
        self._doomed.pop(frame_id, None)
        self._move(record, status)
        return record

    def _land(self, frame_id: str) -> None:
        worker = self._worker_of.pop(frame_id)
        calls = self.in_flight[worker]
        call = next(call for call in calls if frame_id in call)
        del call[frame_id]
        if not call:
            calls.remove(call)
        if not calls:
            del self.in_flight[worker]
        self.flying[self.frames[frame_id].arm] -= 1

    def _again(self, frame_id: str) -> None:
        """Makes a frame in flight pending again."""
        record = self.frames[frame_id]
        if record.status is Status.IN_FLIGHT:
            self._land(frame_id)
            self._move(record, Status.PENDING)
            self._enqueue(frame_id, record)

    def _enqueue(self, frame_id: str, record: FrameRecord) -> None:
        if record.suspected:
            self.assurance.suspects[frame_id] = record.suspected
            return
        deviation = 0.0 if self.settings.is_random else record.deviation
        self.pending.add(frame_id, record.arm, deviation / self._cost(record), record.stratum)
        if record.arm is Arm.UNCERTAIN and record.seen_by != self.champion:
            self.stale[frame_id] = None

    def _cost(self, record: FrameRecord) -> float:
        """Expected seconds of a label; 1 where frames are all of one size, or the costs do not matter."""
        if not self.settings.is_cost_aware or len(self._sizes) < 2 or record.arm is not Arm.UNCERTAIN:
            return 1.0
        if record.n_electrons < 1:  # a bare proton, or a log from before sizes were written
            return 1.0
        return self.costs.predict([record.n_electrons])

    def _unqueue(self, frame_id: str) -> None:
        self.pending.discard(frame_id)
        self.stale.pop(frame_id, None)
        self._easy.pop(frame_id, None)
        self.assurance.suspects.pop(frame_id, None)

    def _on_opened(self, event: CampaignOpened) -> None:
        for frame_id in list(self._worker_of):
            self._again(frame_id)
        for frame_id in list(self.assurance.suspects):  # the label under suspicion went with the old driver
            self._clear(frame_id)
        self.assurance.restart()
        self._leave_out_retracted()
        self.exploring.clear()
        self.training = None
        self._forget_fit()
        self.stopped = None
        self.stop_requested = None
        self.totals.openings += 1

    def _on_stopped(self, event: CampaignStopped) -> None:
        self.stopped = event

    def _on_stop_requested(self, event: StopRequested) -> None:
        self.stop_requested = event

    def _on_heartbeat(self, event: Heartbeat) -> None:
        self.totals.wall_s += event.wall_s
        for role, busy in event.busy_s.items():
            self.totals.busy_s[role] = self.totals.busy_s.get(role, 0.0) + busy
            capacity = event.wall_s * event.workers.get(role, 0)
            self.totals.capacity_s[role] = self.totals.capacity_s.get(role, 0.0) + capacity

    def _on_proposed(self, event: FrameProposed) -> None:
        if event.frame_id in self.frames:
            return
        record = FrameRecord(
            event.arm,
            event.system,
            event.deviation,
            event.model_version,
            event.method,
            event.stratum,
            event.n_electrons,
        )
        self.frames[event.frame_id] = record
        self.counts[Status.PENDING] += 1
        self._enqueue(event.frame_id, record)

    def _on_dropped(self, event: FrameDropped) -> None:
        self._settle(event.frame_id, Status.DROPPED)

    def _on_quarantined(self, event: FrameQuarantined) -> None:
        record = self._settle(event.frame_id, Status.QUARANTINED)
        record.verdict = (event.failure, event.message)

    def _on_retried(self, event: FrameRetried) -> None:
        self.requests.add(event.request)
        record = self.frames[event.frame_id]
        if record.status is not Status.QUARANTINED:
            return
        record.attempts = record.kills = record.disputes = 0
        record.verdict, record.last_worker = None, ""
        self._move(record, Status.PENDING)
        self._enqueue(event.frame_id, record)

    def _on_rescored(self, event: FramesRescored) -> None:
        accurate_below = policies.trust_band(self)[0]
        for frame_id, deviation in event.deviations.items():
            record = self.frames[frame_id]
            record.deviation = deviation
            record.seen_by = event.model_version
            if frame_id in self.pending and record.arm is Arm.UNCERTAIN:
                self.stale.pop(frame_id, None)
                self._enqueue(frame_id, record)
                if deviation < accurate_below and not self.settings.is_random:
                    self._easy[frame_id] = None

    def _on_label_started(self, event: LabelStarted) -> None:
        for frame_id in event.frame_ids:
            record = self.frames[frame_id]
            self._unqueue(frame_id)
            self._move(record, Status.IN_FLIGHT)
            self.flying[record.arm] += 1
            self._worker_of[frame_id] = event.worker
        self.in_flight.setdefault(event.worker, []).append(dict.fromkeys(event.frame_ids))

    def _on_label_abandoned(self, event: LabelAbandoned) -> None:
        for frame_id in event.frame_ids:
            self._again(frame_id)

    def _on_label_accepted(self, event: LabelAccepted) -> None:
        record = self.frames[event.frame_id]
        if record.status in (Status.LABELLED, Status.RETRACTED):
            return
        record = self._settle(event.frame_id, Status.LABELLED)
        record.label_id = event.label_id
        self.accepted[record.arm] += 1
        record.suspected = ""
        if record.arm is not Arm.ATOM:
            self.assurance.accept(event.frame_id, event.label_id, event.worker, self.settings.audit_share)
        self.label_times.add(event.wall_s)
        self.strata[record.stratum] = self.strata.get(record.stratum, 0) + 1
        if self.settings.is_cost_aware and record.n_electrons and record.arm is not Arm.ATOM:
            self._sizes.add(record.n_electrons)
            self.costs.observe([record.n_electrons], event.wall_s)
        if record.arm in (Arm.INITIAL, Arm.UNCERTAIN):  # a walk from a test frame would leak it into training
            self.labelled.append(event.frame_id)
            self._trainable.append(event.frame_id)
        elif record.arm is Arm.RANDOM:
            self.random_labelled.append(event.frame_id)
        if self.champion and record.arm is not Arm.ATOM:
            self.to_compare[event.frame_id] = None
            if len(self.to_compare) > MAX_WAITING:
                del self.to_compare[next(iter(self.to_compare))]

    def _clear(self, frame_id: str) -> None:
        """A suspect frame is to be labelled afresh."""
        record = self.frames[frame_id]
        self.assurance.suspects.pop(frame_id, None)
        record.suspected = ""
        self._enqueue(frame_id, record)

    def _on_suspected(self, event: LabelSuspected) -> None:
        self.assurance.n_suspected += 1
        record = self.frames[event.frame_id]
        record.suspected = event.worker
        if record.status is Status.IN_FLIGHT:
            self._again(event.frame_id)
        else:  # folded from a log, which does not say what was in flight
            self._unqueue(event.frame_id)
            self._enqueue(event.frame_id, record)

    def _on_disputed(self, event: LabelDisputed) -> None:
        self.assurance.n_disputed += 1
        record = self.frames[event.frame_id]
        record.disputes += 1
        self._again(event.frame_id)
        if record.disputes < self.settings.max_disputes:
            self._clear(event.frame_id)
            return
        message = f"{record.disputes} labels of it were not confirmed at tighter settings"
        record.verdict, record.suspected = (FailureKind.LABEL_DISPUTED, message), ""
        self._unqueue(event.frame_id)
        self._doomed[event.frame_id] = None

    def _on_doubted(self, event: LabelDoubted) -> None:
        if self.frames[event.frame_id].status is Status.LABELLED:
            self.assurance.request(Audit(event.frame_id, "doubted"))

    def _on_audit_started(self, event: AuditStarted) -> None:
        self.assurance.begin_audit(event.worker, event.frame_id)

    def _on_audited(self, event: LabelAudited) -> None:
        self.assurance.audited(event)
        self._leave_out_retracted()

    def _on_canary_started(self, event: CanaryStarted) -> None:
        self.assurance.checking.add(event.worker)

    def _on_canary_checked(self, event: CanaryChecked) -> None:
        self.assurance.checked(event)
        self._leave_out_retracted()

    def _leave_out_retracted(self) -> None:
        """A label that was retracted meanwhile is not audited, nor tried again."""
        for frame_id in list(self.assurance.to_audit):
            if self.frames[frame_id].status is not Status.LABELLED:
                self.assurance.withdraw(frame_id)

    def _on_label_repeated(self, event: LabelRepeated) -> None:
        self._again(event.frame_id)
        self.totals.repeated += 1
        self.totals.conflicts += event.is_conflict

    def _on_label_retracted(self, event: LabelRetracted) -> None:
        self.requests.add(event.request)
        record = self.frames[event.frame_id]
        if record.status is not Status.LABELLED:
            return
        self._move(record, Status.RETRACTED)
        self.retracted.append(event.frame_id)
        self.accepted[record.arm] -= 1
        self.strata[record.stratum] -= 1
        if record.arm in (Arm.INITIAL, Arm.UNCERTAIN):
            self.labelled.remove(event.frame_id)
        elif record.arm is Arm.RANDOM:
            self.random_labelled.remove(event.frame_id)
        self.to_compare.pop(event.frame_id, None)
        self.calibration.forget(event.frame_id)
        self.assurance.withdraw(event.frame_id)

    def _on_imported(self, event: DataImported) -> None:
        self.imports.append(event)
        self.accepted[Arm.IMPORTED] += event.n_train

    def _on_label_failed(self, event: LabelFailed) -> None:
        self.totals.failed += 1
        record = self.frames[event.frame_id]
        if record.status in _FINAL:
            return
        self._again(event.frame_id)
        record.attempts += event.failure is not FailureKind.WORKER_PREEMPTED
        record.kills += event.failure in (FailureKind.WORKER_LOST, FailureKind.CRASHED)
        record.last_worker = event.worker if event.failure.is_lost_computing else ""
        verdict = policies.verdict(record.attempts, record.kills, event, self.settings)
        if verdict is not None:
            record.verdict, record.suspected = verdict, ""
            self._unqueue(event.frame_id)
            self._doomed[event.frame_id] = None

    def _on_training_started(self, event: TrainingStarted) -> None:
        self.training = event
        self._n_train_at_fit, self._n_changes_at_fit = self.n_train, self.n_changes

    def _on_training_failed(self, event: TrainingFailed) -> None:
        self.training = None
        self.training_failures += 1
        if self.training_failures < self.settings.max_training_failures:
            self._forget_fit()

    def _forget_fit(self) -> None:
        """Without the fit that was running, the newest model is the last fit; without a champion there was none."""
        fitted = self.models.values() if self.champion else ()
        latest = max(fitted, key=lambda model: model.n_changes, default=None)
        self._n_train_at_fit = latest.n_train if latest else 0
        self._n_changes_at_fit = latest.n_changes if latest else 0

    def _on_published(self, event: ModelPublished) -> None:
        self.training = None
        n_train = int(event.metrics.get("n_labels_train", event.n_labels))
        gone = self.retracted[: event.n_retracted]
        n_imported = self.accepted[Arm.IMPORTED]  # no driver runs while data are imported, so the fit saw all of them
        n_seen = n_train - n_imported + sum(self.frames[f].arm in (Arm.INITIAL, Arm.UNCERTAIN) for f in gone)
        n_changes = n_seen + n_imported + event.n_retracted
        self.models[event.version] = ModelRecord(
            event.version, event.n_labels, n_train, n_seen, n_changes, dict(event.metrics), event.t
        )
        self.models[event.version].parent = event.parent
        if n_changes > self._n_changes_at_fit:
            self._n_train_at_fit, self._n_changes_at_fit = n_train, n_changes
        self._undecided[event.version] = None

    def _on_promoted(self, event: ModelPromoted) -> None:
        self._undecided.pop(event.version, None)
        model = self.models[event.version]
        model.promoted, model.reason = True, event.reason
        model.reasons, model.is_probation = event.reasons, event.is_probation
        self.requests.add(event.request)
        self.training_failures = 0
        self.champion = event.version
        self.champions.append(event.version)
        self.stale = dict.fromkeys(self.pending.ranked())
        self.exploration = Exploration()
        later = (f for f in self._trainable[model.n_seen :] if self.frames[f].status is Status.LABELLED)
        self.to_compare = dict.fromkeys([*self.random_labelled[-MAX_COMPARED:], *later])
        self.shares = policies.method_shares(self)  # kept until the next champion, so that walkers are left alone
        self.calibration.replace()

    def _on_rejected(self, event: ModelRejected) -> None:
        self._undecided.pop(event.version, None)
        model = self.models[event.version]
        model.promoted, model.reason, model.reasons = False, event.reason, event.reasons
        if self.champion:
            self.training_failures = 0
            return
        self.training_failures += 1  # no model at all: as if the fit had failed
        if self.training_failures < self.settings.max_training_failures:
            self._forget_fit()

    def _on_exploration_started(self, event: ExplorationStarted) -> None:
        self.exploring[event.worker] = event
        for frame_id in event.compared:
            self.to_compare.pop(frame_id, None)

    def _on_explored(self, event: ExplorationReported) -> None:
        self.exploring.pop(event.worker, None)
        totals = self.totals
        totals.walker_steps += event.walker_steps
        totals.candidates += event.n_candidates
        asked = sum(event.method_steps.values())
        for method, steps in event.method_steps.items():
            if method in self.tallies:
                self.tallies = bandit.spend(self.tallies, method, event.wall_s * steps / asked)
        for reason, count in event.stops.items():
            totals.stops[reason] = totals.stops.get(reason, 0) + count
        if event.model_version == self.champion:
            self.exploration.walker_steps += event.walker_steps
            self.exploration.n_candidates += event.n_candidates
            quiet = 0 if event.n_above else self.exploration.steps_since_above + event.walker_steps
            self.exploration.steps_since_above = quiet
            self.exploration.n_members, self.exploration.n_distinct = event.n_members, event.n_distinct

    def _on_exploration_failed(self, event: ExplorationFailed) -> None:
        self.exploring.pop(event.worker, None)

    def _on_errors_observed(self, event: ErrorsObserved) -> None:
        for frame_id in event.frame_ids:
            self.to_compare.pop(frame_id, None)
        if event.model_version != self.champion:
            return
        worst = self.calibration.observe_frames(event.frame_ids, event.n_atoms, event.deviations, event.errors)
        for frame_id, error in zip(event.frame_ids, worst, strict=True):
            if self.frames[frame_id].status is Status.RETRACTED:  # while an explorer compared it
                self.calibration.forget(frame_id)
            else:
                self._reward(frame_id, error)

    def _reward(self, frame_id: str, error: float) -> None:
        """A label that taught something counts for the method that found its frame, once."""
        record = self.frames[frame_id]
        if record.arm is Arm.UNCERTAIN and record.method in self.tallies and frame_id not in self._rewarded:
            self._rewarded.add(frame_id)
            amount = min(error / (REWARD_CAP * self.settings.trust[0]), 1.0) if self.settings.trust[0] > 0 else 1.0
            self.tallies = bandit.reward(self.tallies, record.method, amount, REWARD_HALF_LIFE)

    def _on_alarm_raised(self, event: AlarmRaised) -> None:
        self.alarms[event.name] = event.message

    def _on_alarm_cleared(self, event: AlarmCleared) -> None:
        self.alarms.pop(event.name, None)

    def _on_worker_lost(self, event: WorkerLost) -> None:
        self.totals.workers_lost += 1
        self.exploring.pop(event.worker, None)
        self.assurance.lose(event.worker)
        self._leave_out_retracted()

    @property
    def utilisation(self) -> dict[str, float]:
        """Busy share of each kind of worker over the campaign's running time."""
        return {
            role: (self.totals.busy_s.get(role, 0.0) / capacity if capacity > 0 else 0.0)
            for role, capacity in sorted(self.totals.capacity_s.items())
        }

    @property
    def best_interval(self) -> tuple[float, float, float]:
        """Champion's force MAE on the random arm and its 95 % interval, eV/Angstrom; NaN where unknown."""
        metrics = self.models[self.champion].metrics if self.champion else {}
        nan = math.nan
        return (
            metrics.get("force_mae_random_arm", nan),
            metrics.get("force_mae_random_arm_low", nan),
            metrics.get("force_mae_random_arm_high", nan),
        )
