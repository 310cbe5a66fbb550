"""A campaign's log folded into the series that the report draws. Pure: events in, values out.

Times are running times in seconds: the time between two openings during which no driver ran is left out, so a campaign
that was killed and resumed a day later has no gap. Nothing here knows the ledger; the log alone tells the story.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alsys.errors import FailureKind
from alsys.events import (
    AlarmCleared,
    AlarmRaised,
    CampaignOpened,
    CampaignStopped,
    CanaryChecked,
    DataImported,
    ErrorsObserved,
    Event,
    ExplorationFailed,
    ExplorationReported,
    FrameDropped,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    Heartbeat,
    LabelAccepted,
    LabelAudited,
    LabelDisputed,
    LabelDoubted,
    LabelFailed,
    LabelRepeated,
    LabelRetracted,
    LabelSuspected,
    ModelLost,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    TrainingFailed,
    WorkerLost,
)
from alsys.frames import Arm
from alsys.metrics import Metrics
from alsys.potentials.calibration import ForceCalibration

LONGEST_BEAT_S = 60.0
"""Longest time between two heartbeats."""
MAX_TIMELINE = 400
"""Entries kept of the timeline; beyond, what can happen again and again (lost workers, ...) is only counted."""


_REPEATING = (WorkerLost, ExplorationFailed, LabelRepeated, LabelRetracted, FrameRetried)


@dataclass(frozen=True, slots=True)
class LabelPoint:
    """An accepted label: when, for which arm, how long it took, how long it waited to be received."""

    time: float
    arm: Arm
    wall_s: float


@dataclass(frozen=True, slots=True)
class FailurePoint:
    """A failed attempt at a label."""

    time: float
    failure: FailureKind
    message: str


@dataclass(slots=True)
class ModelSummary:
    """A published version. `promoted` is None where the log ends before it was decided."""

    version: int
    parent: int
    seq: int
    n_labels: int
    time: float
    wall_s: float
    metrics: Metrics
    promoted: bool | None = None
    reason: str = ""

    @property
    def error(self) -> tuple[float, float, float]:
        """Force MAE on the random arm and its 95 % interval, eV/Angstrom; NaN where unknown."""
        get = self.metrics.get
        found = get("force_mae_random_arm"), get("force_mae_random_arm_low"), get("force_mae_random_arm_high")
        value, low, high = (math.nan if number is None else number for number in found)
        return value, low, high


@dataclass(slots=True)
class ExplorationSummary:
    """Exploration under one version. `deviation_mean` is weighted by walker-steps, eV/Angstrom."""

    version: int
    walker_steps: int = 0
    n_candidates: int = 0
    n_above: int = 0
    wall_s: float = 0.0
    deviation_mean: float = 0.0
    deviation_max: float = 0.0
    stops: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A frame that will not be labelled, and why."""

    frame_id: str
    system: str
    arm: Arm
    time: float
    failure: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Retracted:
    """A label that is no longer data, and why."""

    frame_id: str
    label_id: str
    system: str
    arm: Arm
    time: float
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """Busy and available worker-seconds of each role in the `wall_s` seconds before `time`."""

    time: float
    wall_s: float
    busy_s: Mapping[str, float]
    capacity_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Something a person would want to know of. `tone` is ``good``, ``bad`` or ``plain``."""

    time: float
    unix_time: float
    tone: str
    text: str


@dataclass(slots=True)
class Summary:
    """What happened in a campaign.

    Attributes:
        running_s: Seconds during which a driver ran.
        restarts: Running times at which a later driver took over.
        stopped: How it ended; None where it did not, or was reopened.
        labels: In order; retracted ones are not among them.
        audits: Audits that gave a label, in order.
        imports: Files whose labelled frames were imported, in order.
        assurance: Counts: labels ``suspected``, ``disputed`` and ``doubted``, ``canaries`` and ``canaries failed``.
        quarantined: Frames that are in quarantine now.
        first_frames: First frame proposed for each system, free atoms left out.
        dropped: Frames dropped, by reason.
        trust: Edges of the latest trust band, force deviation, eV/Angstrom; empty where no explorer told.
        coverage: ``(frames observed, share of the latest 50 frames' atoms whose error lay within the band)``.
        timeline: In order, at most `MAX_TIMELINE` entries.
        n_untold: Entries left out of the timeline.
    """

    opened: list[CampaignOpened] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    running_s: float = 0.0
    stopped: CampaignStopped | None = None
    labels: list[LabelPoint] = field(default_factory=list)
    failures: list[FailurePoint] = field(default_factory=list)
    models: list[ModelSummary] = field(default_factory=list)
    champion: int = 0
    exploration: dict[int, ExplorationSummary] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    retracted: list[Retracted] = field(default_factory=list)
    audits: list[LabelAudited] = field(default_factory=list)
    assurance: Counter[str] = field(default_factory=Counter)
    imports: list[DataImported] = field(default_factory=list)
    beats: list[Beat] = field(default_factory=list)
    proposed: Counter[Arm] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    first_frames: dict[str, str] = field(default_factory=dict)
    n_repeated: int = 0
    n_conflicts: int = 0
    n_workers_lost: int = 0
    trust: tuple[float, ...] = ()
    coverage: list[tuple[int, float]] = field(default_factory=list)
    timeline: list[TimelineEntry] = field(default_factory=list)
    n_untold: int = 0

    @property
    def n_labels(self) -> int:
        """Accepted labels, free atoms left out."""
        return sum(label.arm is not Arm.ATOM for label in self.labels)

    def n_of(self, *arms: Arm) -> int:
        """Accepted labels of some arms."""
        return sum(label.arm in arms for label in self.labels)

    @property
    def champion_model(self) -> ModelSummary | None:
        """The champion; None before there is one."""
        return next((model for model in self.models if model.version == self.champion), None)

    @property
    def utilisation(self) -> dict[str, float]:
        """Busy share of each kind of worker over the whole campaign."""
        busy: Counter[str] = Counter()
        capacity: Counter[str] = Counter()
        for beat in self.beats:
            busy.update(beat.busy_s)
            capacity.update(beat.capacity_s)
        return {role: busy[role] / capacity[role] for role in sorted(capacity) if capacity[role] > 0}

    @property
    def stops(self) -> Counter[str]:
        """Walkers stopped, by reason, over all versions."""
        total: Counter[str] = Counter()
        for exploration in self.exploration.values():
            total.update(exploration.stops)
        return total


def summarise(events: Iterable[Event], probability: float = 0.9) -> Summary:
    """Folds a log.

    Args:
        events: In order.
        probability: Share of atoms that the calibrated band is to cover.

    Raises:
        KeyError: A label, failure or decision without the proposal or model it belongs to.
    """
    fold = _Fold(probability)
    for event in events:
        fold.apply(event)
    return fold.summary


class _Fold:
    def __init__(self, probability: float) -> None:
        self.summary = Summary()
        self._calibration = ForceCalibration(probability)
        self._frames: dict[str, tuple[str, Arm]] = {}
        self._labels: dict[str, LabelPoint] = {}
        self._champions: list[int] = []
        self._mark: float | None = None
        self._at_mark = 0.0
        self._has_beat = False

    def apply(self, event: Event) -> None:
        summary = self.summary
        time = self._time(event)
        match event:
            case CampaignOpened():
                self._opened(event, time)
            case CampaignStopped():
                summary.stopped = event
                tone = "bad" if event.reason == "failed" else "plain"
                self._tell(event, time, tone, f"stopped ({event.reason}): {event.message}")
            case Heartbeat():
                workers = event.workers
                capacity = {role: event.wall_s * count for role, count in workers.items()}
                summary.beats.append(Beat(time, event.wall_s, dict(event.busy_s), capacity))
            case FrameProposed():
                if event.frame_id not in self._frames:
                    self._frames[event.frame_id] = (event.system, event.arm)
                    summary.proposed[event.arm] += 1
                    if event.arm is not Arm.ATOM:
                        summary.first_frames.setdefault(event.system, event.frame_id)
            case FrameDropped():
                summary.dropped[event.reason] += 1
            case FrameQuarantined():
                system, arm = self._frames[event.frame_id]
                summary.quarantined.append(Quarantined(event.frame_id, system, arm, time, event.failure, event.message))
            case FrameRetried():
                summary.quarantined = [frame for frame in summary.quarantined if frame.frame_id != event.frame_id]
                self._tell(event, time, "plain", f"frame {event.frame_id[:8]} was taken out of quarantine")
            case LabelAccepted():
                point = LabelPoint(time, self._frames[event.frame_id][1], event.wall_s)
                self._labels[event.frame_id] = point
                summary.labels.append(point)
            case LabelRetracted():
                self._retracted(event, time)
            case DataImported():
                self._imported(event, time)
            case LabelFailed():
                summary.failures.append(FailurePoint(time, event.failure, event.message))
            case LabelSuspected():
                summary.assurance["suspected"] += 1
            case LabelDoubted():
                summary.assurance["doubted"] += 1
            case LabelDisputed():
                summary.assurance["disputed"] += 1
                text = (
                    f"a label of {event.frame_id[:8]} was wrong by {event.force_difference:.3g} eV/Å; it is made again"
                )
                self._tell(event, time, "bad", text)
            case LabelAudited():
                if not event.error:
                    summary.audits.append(event)
            case CanaryChecked():
                summary.assurance["canaries"] += 1
                if not event.is_sound:
                    summary.assurance["canaries failed"] += 1
                    self._tell(event, time, "bad", f"{event.worker} labels wrongly: {event.message}")
            case LabelRepeated():
                self._repeated(event, time)
            case ModelLost():
                self._lost(event, time)
            case ModelPublished() | ModelPromoted() | ModelRejected() | TrainingFailed():
                self._model(event, time)
            case ExplorationReported():
                self._explored(event)
            case ErrorsObserved():
                self._observed(event)
            case AlarmRaised():
                self._tell(event, time, "bad", f"alarm: {event.message}")
            case AlarmCleared():
                self._tell(event, time, "plain", f"alarm over: {event.name}")
            case ExplorationFailed():
                self._tell(event, time, "bad", f"{event.worker} lost a chunk: {event.failure}: {event.message}")
            case WorkerLost():
                summary.n_workers_lost += 1
                self._tell(event, time, "bad", f"{event.worker} was lost: {event.failure}: {event.message}")
            case _:
                pass  # a kind of event that draws nothing

    def _time(self, event: Event) -> float:
        """Running time of an event.

        Seconds that heartbeats count, which no clock that is set can change, and a little more between two of them;
        before the first one, those of the clock that the log was written by.
        """
        if isinstance(event, CampaignOpened) or self._mark is None:
            self._mark, self._at_mark, self._has_beat = event.t, self.summary.running_s, False
        ahead = max(0.0, event.t - self._mark)
        if isinstance(event, Heartbeat):
            self._mark, self._at_mark, self._has_beat = event.t, self._at_mark + event.wall_s, True
            ahead = 0.0
        elif self._has_beat:
            ahead = min(ahead, LONGEST_BEAT_S)
        self.summary.running_s = max(self.summary.running_s, self._at_mark + ahead)
        return self.summary.running_s

    def _opened(self, event: CampaignOpened, time: float) -> None:
        summary = self.summary
        if summary.opened:
            summary.restarts.append(time)
        word = "resumed" if summary.opened else "started"
        after = "" if summary.stopped is not None or not summary.opened else " after an interruption"
        summary.opened.append(event)
        summary.stopped = None
        self._tell(event, time, "plain", f"{word}{after} by alsys {event.version} on {event.host or 'unknown host'}")

    def _repeated(self, event: LabelRepeated, time: float) -> None:
        self.summary.n_repeated += 1
        if event.is_conflict:
            self.summary.n_conflicts += 1
            text = (
                f"a repeated label of {event.frame_id[:8]} disagrees: {event.energy_difference:.3g} eV, "
                f"{event.force_difference:.3g} eV/Å; the first one stays"
            )
            self._tell(event, time, "bad", text)

    def _retracted(self, event: LabelRetracted, time: float) -> None:
        point = self._labels.pop(event.frame_id, None)
        if point is None:  # a second tombstone
            return
        self.summary.labels.remove(point)
        self._calibration.forget(event.frame_id)
        system, arm = self._frames[event.frame_id]
        self.summary.retracted.append(Retracted(event.frame_id, event.label_id, system, arm, time, event.reason))
        self._tell(event, time, "bad", f"the label of {event.frame_id[:8]} was retracted: {event.reason}")

    def _imported(self, event: DataImported, time: float) -> None:
        self.summary.imports.append(event)
        use = f"{event.n_train} of them to train on" if event.is_training else "of another level, not trained on"
        self._tell(event, time, "good", f"{event.n_labels} labels imported from {event.source}: {use}")

    def _model(self, event: ModelPublished | ModelPromoted | ModelRejected | TrainingFailed, time: float) -> None:
        summary = self.summary
        name = f"v{event.version:04d}"
        if isinstance(event, ModelPublished):
            summary.models.append(
                ModelSummary(
                    event.version,
                    event.parent,
                    event.seq,
                    event.n_labels,
                    time,
                    event.wall_s,
                    Metrics.read(event.metrics),
                )
            )
            self._tell(
                event, time, "plain", f"{name} published: {event.n_labels} labels, fitted in {event.wall_s:.1f} s"
            )
        elif isinstance(event, TrainingFailed):
            self._tell(event, time, "bad", f"fit of {name} failed: {event.failure}: {event.message}")
        else:
            if isinstance(event, ModelPromoted):
                self._calibration.replace()
            model = next(model for model in reversed(summary.models) if model.version == event.version)
            model.promoted = isinstance(event, ModelPromoted)
            model.reason = event.reason
            if model.promoted:
                summary.champion = event.version
                self._champions.append(event.version)
                self._tell(event, time, "good", f"{name} is champion: {event.reason}")
            else:
                self._tell(event, time, "plain", f"{name} stays challenger: {event.reason}")

    def _lost(self, event: ModelLost, time: float) -> None:
        self._champions = [version for version in self._champions if version != event.version]
        self.summary.champion = self._champions[-1] if self._champions else 0
        self._tell(event, time, "bad", f"v{event.version:04d} is lost: {event.reason}")

    def _explored(self, event: ExplorationReported) -> None:
        version = event.model_version
        total = self.summary.exploration.setdefault(version, ExplorationSummary(version))
        steps = total.walker_steps + event.walker_steps
        if steps and math.isfinite(event.deviation_mean):
            total.deviation_mean += (event.deviation_mean - total.deviation_mean) * event.walker_steps / steps
        if math.isfinite(event.deviation_max):
            total.deviation_max = max(total.deviation_max, event.deviation_max)
        total.walker_steps = steps
        self.summary.trust = event.trust or self.summary.trust
        total.n_candidates += event.n_candidates
        total.n_above += event.n_above
        total.wall_s += event.wall_s
        total.stops.update({reason: int(count) for reason, count in event.stops.items()})

    def _observed(self, event: ErrorsObserved) -> None:
        self._calibration.observe_frames(event.frame_ids, event.n_atoms, event.deviations, event.errors)
        for frame_id in event.frame_ids:
            if frame_id not in self._labels:  # retracted while an explorer compared it
                self._calibration.forget(frame_id)
        if self._calibration.coverage.n_frames:
            self.summary.coverage.append((self._calibration.n_frames, self._calibration.coverage.share))

    def _tell(self, event: Event, time: float, tone: str, text: str) -> None:
        timeline = self.summary.timeline
        if len(timeline) >= MAX_TIMELINE and isinstance(event, _REPEATING):
            self.summary.n_untold += 1
            return
        timeline.append(TimelineEntry(time, event.t, tone, text.strip().rstrip(":")))
