"""What the report draws: the ledger of a campaign, and beside it a history of what the ledger does not keep.

The history is told of each event after the ledger took it, and has no rules of its own: who is champion, what is a
label, an error or in quarantine is read from the ledger. Pure: events in, values out. Times are running times in
seconds: the time between two openings during which no driver ran is left out, so a campaign that was killed and resumed
a day later has no gap.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from alsys import events
from alsys.control.rules.spending import noted_text
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import ModelRecord, Status
from alsys.control.status import waiting_text
from alsys.errors import FailureKind
from alsys.frames import Arm

LONGEST_BEAT_S = 60.0
"""Longest time between two heartbeats."""
MAX_TIMELINE = 400
"""Entries kept of the timeline; beyond, what can happen again and again (lost workers, ...) is only counted."""


_REPEATING = (
    events.WorkerLost,
    events.ExplorationFailed,
    events.LabelRepeated,
    events.LabelRetracted,
    events.FrameRetried,
)


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
    """What happened in a campaign: its ledger, and series and a timeline for pictures.

    Attributes:
        ledger: After all events.
        running_s: Seconds during which a driver ran.
        restarts: Running times at which a later driver took over.
        failures: Failed attempts at a label, in order.
        published: When each version was published.
        retracted: Labels that are no longer data, in order.
        audits: Audits that gave a label, in order.
        first_frames: First frame proposed for each system, free atoms left out.
        trust: Edges of the latest trust band, force deviation, eV/Angstrom; empty where no explorer told.
        coverage: ``(frames observed, share of the latest 50 frames' atoms whose error lay within the band)``.
        timeline: In order, at most `MAX_TIMELINE` entries.
        n_untold: Entries left out of the timeline.
    """

    ledger: Ledger
    restarts: list[float] = field(default_factory=list)
    running_s: float = 0.0
    failures: list[FailurePoint] = field(default_factory=list)
    published: dict[int, float] = field(default_factory=dict)
    exploration: dict[int, ExplorationSummary] = field(default_factory=dict)
    retracted: list[Retracted] = field(default_factory=list)
    audits: list[events.LabelAudited] = field(default_factory=list)
    beats: list[Beat] = field(default_factory=list)
    first_frames: dict[str, str] = field(default_factory=dict)
    trust: tuple[float, ...] = ()
    coverage: list[tuple[int, float]] = field(default_factory=list)
    timeline: list[TimelineEntry] = field(default_factory=list)
    n_untold: int = 0
    _points: dict[str, LabelPoint] = field(default_factory=dict)
    _quarantined: dict[str, float] = field(default_factory=dict)
    _dropped: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[LabelPoint]:
        """Labels that are data, in order."""
        return list(self._points.values())

    @property
    def n_labels(self) -> int:
        """Accepted labels, free atoms and imported ones left out."""
        return self.ledger.n_labels

    def n_of(self, *arms: Arm) -> int:
        """Accepted labels of some arms."""
        return sum(self.ledger.accepted[arm] for arm in arms)

    @property
    def models(self) -> list[ModelRecord]:
        """Published versions, in order."""
        return list(self.ledger.models.values())

    @property
    def champion(self) -> int:
        """The champion's version; 0 for none."""
        return self.ledger.champion

    @property
    def champion_model(self) -> ModelRecord | None:
        """The champion; None before there is one."""
        return self.ledger.models.get(self.ledger.champion)

    @property
    def stopped(self) -> events.CampaignStopped | None:
        """How it ended; None where it did not, or was reopened."""
        return self.ledger.stopped

    @property
    def imports(self) -> list[events.DataImported]:
        """Files whose labelled frames were imported, in order."""
        return self.ledger.imports

    @property
    def n_workers_lost(self) -> int:
        """Workers that died."""
        return self.ledger.totals.workers_lost

    @property
    def n_repeated(self) -> int:
        """Labels that arrived for frames that had one."""
        return self.ledger.totals.repeated

    @property
    def n_conflicts(self) -> int:
        """Those of them that disagree."""
        return self.ledger.totals.conflicts

    @property
    def label_checks(self) -> Counter[str]:
        """Counts that are not zero, as in the status: `failed_gate`, `not_reproduced`, `reference_checks` ..."""
        state = self.ledger.audits
        return +Counter(
            {
                "failed_gate": state.n_failed_gate,
                "not_reproduced": state.n_not_reproduced,
                "reference_checks": state.n_reference_checks,
                "reference_checks_failed": state.n_failed_reference_checks,
            }
        )

    @property
    def quarantined(self) -> list[Quarantined]:
        """Frames that are in quarantine now, in the order in which they came there."""
        found = []
        for frame_id, time in self._quarantined.items():
            record = self.ledger.frames[frame_id]
            if record.status is Status.QUARANTINED and record.verdict is not None:
                found.append(Quarantined(frame_id, record.system, record.arm, time, *record.verdict))
        return found

    @property
    def dropped(self) -> Counter[str]:
        """Frames dropped, by reason."""
        frames = self.ledger.frames
        return Counter(reason for f, reason in self._dropped.items() if frames[f].status is Status.DROPPED)

    @property
    def utilisation(self) -> dict[str, float]:
        """Busy share of each kind of worker over the whole campaign."""
        return self.ledger.totals.utilisation

    @property
    def stops(self) -> Mapping[str, int]:
        """Walkers stopped, by reason, over all versions."""
        return self.ledger.totals.stops


def summarise(events: Iterable[events.Event], settings: PolicySettings) -> Summary:
    """Folds a log.

    Args:
        events: In order.
        settings: Of the campaign.

    Raises:
        KeyError: A label, failure or decision without the proposal or model it belongs to.
    """
    ledger = Ledger(replace(settings, is_cost_aware=False))  # nothing is chosen from its queues
    recorder = _Recorder(ledger)
    for event in events:
        ledger.apply(event)
        recorder.record(event)
    return recorder.summary


class _Recorder:
    """Writes the history; is told of each event after the ledger took it."""

    def __init__(self, ledger: Ledger) -> None:
        self.summary = Summary(ledger)
        self._ledger = ledger
        self._is_stopped = False
        self._n_observed = 0
        self._mark: float | None = None
        self._at_mark = 0.0
        self._has_beat = False

    def record(self, event: events.Event) -> None:
        summary = self.summary
        time = self._time(event)
        match event:
            case events.FrameProposed():
                if event.arm is not Arm.ATOM:
                    summary.first_frames.setdefault(event.system, event.frame_id)
            case events.LabelAccepted():
                arm = self._ledger.frames[event.frame_id].arm
                summary._points.setdefault(event.frame_id, LabelPoint(time, arm, event.wall_s))
            case events.CampaignOpened():
                self._opened(event, time)
            case events.CampaignStopped():
                self._is_stopped = True
                tone = "bad" if event.reason == "failed" else "plain"
                self._tell(event, time, tone, f"stopped ({event.reason}): {event.message}")
            case events.Heartbeat():
                workers = event.workers
                capacity = {role: event.wall_s * count for role, count in workers.items()}
                summary.beats.append(Beat(time, event.wall_s, dict(event.busy_s), capacity))
            case events.FrameDropped():
                summary._dropped[event.frame_id] = event.reason
            case events.FrameQuarantined():
                summary._quarantined[event.frame_id] = time
            case events.FrameRetried():
                summary._quarantined.pop(event.frame_id, None)
                self._tell(event, time, "plain", f"frame {event.frame_id[:8]} was taken out of quarantine")
            case events.LabelRetracted():
                self._retracted(event, time)
            case events.DataImported():
                use = (
                    f"{event.n_train} of them to train on" if event.is_training else "of another level, not trained on"
                )
                self._tell(event, time, "good", f"{event.n_labels} labels imported from {event.source}: {use}")
            case events.HessianComputed():
                how = "by the engine" if event.is_analytic else "from differences of forces"
                self._tell(event, time, "good", f"Hessian of {event.name} {how}, {event.wall_s:.1f} s")
            case events.HessianFailed():
                self._tell(event, time, "bad", f"no Hessian of {event.name}: {event.failure}: {event.message}")
            case events.LabelFailed():
                summary.failures.append(FailurePoint(time, event.failure, event.message))
            case events.LabelNotReproduced():
                text = (
                    f"a label of {event.frame_id[:8]} was wrong by {event.force_difference:.3g} eV/Å; it is made again"
                )
                self._tell(event, time, "bad", text)
            case events.LabelAudited():
                if not event.error:
                    summary.audits.append(event)
            case events.ReferenceChecked():
                if not event.is_sound:
                    self._tell(event, time, "bad", f"{event.worker} labels wrongly: {event.message}")
            case events.LabelRepeated():
                if event.is_conflict:
                    text = (
                        f"a repeated label of {event.frame_id[:8]} disagrees: {event.energy_difference:.3g} eV, "
                        f"{event.force_difference:.3g} eV/Å; the first one stays"
                    )
                    self._tell(event, time, "bad", text)
            case events.FitRequested():
                self._tell(event, time, "plain", f"a final fit of {event.budget_s:.0f} CPU s was asked for")
            case events.ModelLost():
                self._tell(event, time, "bad", f"v{event.version:04d} is lost: {event.reason}")
            case events.ModelPublished() | events.ModelPromoted() | events.ModelRejected() | events.TrainingFailed():
                self._model(event, time)
            case events.ExplorationReported():
                self._explored(event)
            case events.ErrorsObserved():
                self._observed()
            case events.WorkersWaiting():
                told = waiting_text(event) if event.message else f"no worker waits for a place, {event.up} are up"
                self._tell(event, time, "bad" if event.message else "plain", told)
            case events.BudgetWarned() | events.BudgetReserved():
                self._tell(event, time, "plain", noted_text(event))
            case events.AlarmRaised():
                self._tell(event, time, "bad", f"alarm: {event.message}")
            case events.AlarmCleared():
                self._tell(event, time, "plain", f"alarm over: {event.name}")
            case events.ExplorationFailed():
                self._tell(event, time, "bad", f"{event.worker} lost a chunk: {event.failure}: {event.message}")
            case events.WorkerLost():
                self._tell(event, time, "bad", f"{event.worker} was lost: {event.failure}: {event.message}")
            case _:
                pass  # a kind of event that draws nothing

    def _time(self, event: events.Event) -> float:
        """Running time of an event.

        Seconds that heartbeats count, which no clock that is set can change, and a little more between two of them;
        before the first one, those of the clock that the log was written by.
        """
        if isinstance(event, events.CampaignOpened) or self._mark is None:
            self._mark, self._at_mark, self._has_beat = event.t, self.summary.running_s, False
        ahead = max(0.0, event.t - self._mark)
        if isinstance(event, events.Heartbeat):
            self._mark, self._at_mark, self._has_beat = event.t, self._at_mark + event.wall_s, True
            ahead = 0.0
        elif self._has_beat:
            ahead = min(ahead, LONGEST_BEAT_S)
        self.summary.running_s = max(self.summary.running_s, self._at_mark + ahead)
        return self.summary.running_s

    def _opened(self, event: events.CampaignOpened, time: float) -> None:
        is_first = self._ledger.totals.openings == 1
        if not is_first:
            self.summary.restarts.append(time)
        word = "started" if is_first else "resumed"
        after = "" if self._is_stopped or is_first else " after an interruption"
        self._is_stopped = False
        self._tell(event, time, "plain", f"{word}{after} by alsys {event.version} on {event.host or 'unknown host'}")

    def _retracted(self, event: events.LabelRetracted, time: float) -> None:
        if self.summary._points.pop(event.frame_id, None) is None:  # a second tombstone, or an imported label
            return
        record = self._ledger.frames[event.frame_id]
        self.summary.retracted.append(
            Retracted(event.frame_id, event.label_id, record.system, record.arm, time, event.reason)
        )
        self._tell(event, time, "bad", f"the label of {event.frame_id[:8]} was retracted: {event.reason}")

    def _model(
        self,
        event: events.ModelPublished | events.ModelPromoted | events.ModelRejected | events.TrainingFailed,
        time: float,
    ) -> None:
        name = f"v{event.version:04d}"
        if isinstance(event, events.ModelPublished):
            self.summary.published[event.version] = time
            self._tell(
                event, time, "plain", f"{name} published: {event.n_labels} labels, fitted in {event.wall_s:.1f} s"
            )
        elif isinstance(event, events.TrainingFailed):
            self._tell(event, time, "bad", f"fit of {name} failed: {event.failure}: {event.message}")
        elif isinstance(event, events.ModelPromoted):
            self._tell(event, time, "good", f"{name} is champion: {event.reason}")
        else:
            self._tell(event, time, "plain", f"{name} stays challenger: {event.reason}")

    def _explored(self, event: events.ExplorationReported) -> None:
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

    def _observed(self) -> None:
        calibration = self._ledger.calibration
        if calibration.n_frames > self._n_observed and not calibration.is_replaced and calibration.coverage.n_frames:
            self.summary.coverage.append((calibration.n_frames, calibration.coverage.share))
        self._n_observed = calibration.n_frames

    def _tell(self, event: events.Event, time: float, tone: str, text: str) -> None:
        timeline = self.summary.timeline
        if len(timeline) >= MAX_TIMELINE and isinstance(event, _REPEATING):
            self.summary.n_untold += 1
            return
        timeline.append(TimelineEntry(time, event.t, tone, text.strip().rstrip(":")))
