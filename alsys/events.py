"""Events: everything that happened in a campaign, as values. State = fold(events).

Durable events go to the store's log; transient ones (work handed out, workers joining) only drive the ledger, so after
a restart work that was in flight is simply pending again. Every event is one line of JSON with its `kind`; unknown
kinds are an error, unknown fields too, so that an old alsys never misreads a newer log. Fields may be added with a
default; none is ever renamed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alsys.errors import FailureKind, StoreCorrupt
from alsys.frames import Arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        t: Unix time at which it happened, s.
    """

    kind: ClassVar[str] = ""
    is_durable: ClassVar[bool] = True
    t: float


# --- campaign


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignOpened(Event):
    """A driver opened the campaign: the first one starts it, later ones resume it."""

    kind: ClassVar[str] = "campaign-opened"
    epoch: int
    config_hash: str
    version: str
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignStopped(Event):
    """The campaign reached a stop criterion, failed, or the user stopped it.

    Attributes:
        reason: Stable word: ``labels``, ``wall-time``, ``target-reached``, ``nothing-uncertain``, ``user``, ``failed``.
        is_final: False where running the same command again goes on (``user``).
    """

    kind: ClassVar[str] = "campaign-stopped"
    reason: str
    message: str = ""
    is_final: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Event):
    """Busy seconds of each kind of worker since the last heartbeat, and seconds that passed: for utilisation."""

    kind: ClassVar[str] = "heartbeat"
    wall_s: float
    busy_s: Mapping[str, float]
    workers: Mapping[str, int]


# --- frames and labels


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameProposed(Event):
    """A frame entered the candidate set; its coordinates are in the store."""

    kind: ClassVar[str] = "frame-proposed"
    frame_id: str
    arm: Arm
    system: str
    deviation: float
    model_version: int = 0
    trajectory: int = 0
    method: str = ""
    stratum: str = ""
    n_electrons: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDropped(Event):
    """A pending frame left the candidate set unlabelled: ``evicted``, ``easy``, ``near-test`` (beside a test frame)."""

    kind: ClassVar[str] = "frame-dropped"
    frame_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameQuarantined(Event):
    """A frame will not be labelled, and why."""

    kind: ClassVar[str] = "frame-quarantined"
    frame_id: str
    failure: FailureKind
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRetried(Event):
    """A quarantined frame waits for a label again, as if it had never been tried.

    Attributes:
        request: Identity of the request that asked for it; empty for none.
    """

    kind: ClassVar[str] = "frame-retried"
    frame_id: str
    request: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesRescored(Event):
    """Pending frames seen again by a newer committee.

    Attributes:
        easy_below: Force deviation below which they are known well enough, eV/Angstrom; negative in older logs.
    """

    kind: ClassVar[str] = "frames-rescored"
    model_version: int
    deviations: Mapping[str, float]
    easy_below: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAccepted(Event):
    """A label became data. Timeline as unix times: when it was sent, started, finished and received.

    Attributes:
        baseline_id: Label of the same frame at the baseline level, where the campaign has one.
        digest: `alsys.store.digests.label_digest` the label; empty in older logs.
        chosen_by: Version by whose deviation its frame was chosen, or that led when a frame of the random arm was sent;
            -1 in older logs.
        audit: ``yes`` where it was drawn to be audited, ``no`` where not; empty in older logs, see `AuditsDrawn`.
    """

    kind: ClassVar[str] = "label-accepted"
    frame_id: str
    label_id: str
    worker: str
    wall_s: float
    sent: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    baseline_id: str = ""
    digest: str = ""
    chosen_by: int = -1
    audit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditsDrawn(Event):
    """Which labels of an older log are audited at random, of those of which no event says so; drawn once."""

    kind: ClassVar[str] = "audits-drawn"
    frame_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFailed(Event):
    """An attempt to label a frame failed; whether it is tried again follows from the kind and the earlier attempts."""

    kind: ClassVar[str] = "label-failed"
    frame_id: str
    failure: FailureKind
    message: str = ""
    worker: str = ""
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSuspected(Event):
    """A label did not pass the quality gate; it is not data until the frame was labelled again at tighter settings.

    Attributes:
        findings: What was found, one line each.
    """

    kind: ClassVar[str] = "label-suspected"
    frame_id: str
    worker: str
    findings: tuple[str, ...]
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDisputed(Event):
    """A suspect label and the one at tighter settings disagree: both are thrown away, the frame is labelled afresh.

    Attributes:
        force_difference: Largest component, eV/Angstrom.
    """

    kind: ClassVar[str] = "label-disputed"
    frame_id: str
    worker: str
    force_difference: float
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDoubted(Event):
    """A label that is data looks wrong to a newer committee; it is to be audited."""

    kind: ClassVar[str] = "label-doubted"
    frame_id: str
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAudited(Event):
    """A label that is data was compared with one at tighter settings.

    Attributes:
        reason: Why: ``random``, ``doubted`` or ``canary``.
        is_confirmed: False where they disagree; the label is then retracted.
        force_difference: Largest component, eV/Angstrom; NaN where the audit gave no label.
        force_mae: Mean absolute difference of components, eV/Angstrom.
        error: Why the audit gave no label; empty where it did.
    """

    kind: ClassVar[str] = "label-audited"
    frame_id: str
    worker: str
    reason: str
    is_confirmed: bool
    force_difference: float
    force_mae: float
    wall_s: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceChecked(Event):
    """A labeler labelled a frame whose label is known: the campaign's first one of it.

    Attributes:
        energy: eV; with the first sound one of a campaign only, as is `forces`.
        forces: Components, flat, eV/Angstrom.
    """

    kind: ClassVar[str] = "canary-checked"
    worker: str
    is_sound: bool
    message: str = ""
    wall_s: float = 0.0
    energy: float = 0.0
    forces: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRepeated(Event):
    """A label arrived for a frame that has one.

    Attributes:
        is_conflict: True where it disagrees beyond tolerance; the first label stays the data.
        energy_difference: eV.
        force_difference: Largest component, eV/Angstrom.
    """

    kind: ClassVar[str] = "label-repeated"
    frame_id: str
    worker: str
    is_conflict: bool
    energy_difference: float
    force_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRetracted(Event):
    """A tombstone: from here on the frame's label is no longer data, nor is its baseline; both stay in the arrays.

    Attributes:
        reason: Why, for people.
        request: Identity of the request that asked for it; empty for none.
        is_damaged: Set aside by `alsys data repair`: the arrays no longer hold what was accepted.
    """

    kind: ClassVar[str] = "label-retracted"
    frame_id: str
    label_id: str
    reason: str
    request: str = ""
    is_damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLost(Event):
    """`alsys data repair` has filled rows of labels with unknown values: their digests can be compared no more.

    Attributes:
        column: Path of the array, which says what a label took, and not what it is.
        first_row: Of the labels.
        n_rows: How many.
    """

    kind: ClassVar[str] = "column-lost"
    column: str
    first_row: int
    n_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataImported(Event):
    """Labelled frames came from a file, in one commit with this event; they have no events of their own.

    Attributes:
        source: Name of the file or folder, without its path.
        digest: blake2b of its content, 32 hexadecimal characters.
        format: What it was read as, for example ``spice``.
        level_id: Level of theory of its labels.
        is_training: Whether that is the campaign's own level, so that they are trained on.
        first_row: Row of the first new label in the store; the others follow it.
        n_rows: New labels, those of a baseline beside them included.
        n_labels: New labels at `level_id`, free atoms included.
        n_train: Those of them that are trained on; 0 where `is_training` is False.
        n_known: Labels of the file that the store had already.
        units: Units that were read: energy, force, length.
        proof: How the units were proven, in one line; empty where the user vouched for them.
        first_frame: Row of the first new frame in the store; the others follow it.
        n_frames: New frames.
        values_digest: `alsys.store.digests.ImportDigest` of the new rows; empty in older logs.
        n_skipped: Frames of the file that were refused and left out.
        labels_from: Under which names energy, forces and stress were found; empty in older logs.
    """

    kind: ClassVar[str] = "data-imported"
    source: str
    digest: str
    format: str
    level_id: str
    is_training: bool
    first_row: int
    n_rows: int
    n_labels: int
    n_train: int
    n_known: int = 0
    units: str = ""
    proof: str = ""
    first_frame: int = 0
    n_frames: int = 0
    values_digest: str = ""
    n_skipped: int = 0
    labels_from: str = ""


# --- models


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPublished(Event):
    """A committee was fitted and its bundle is on disk.

    Attributes:
        version: 1, 2, ...
        parent: Version it started from; 0 for none.
        seq: Dataset version it was trained on.
        n_labels: Accepted labels in that dataset version, free atoms not counted.
        wall_s: From `started` to `finished`.
        metrics: Finite numbers only; see `alsys.training.base.FitMetrics`.
        n_retracted: Labels of every arm that had been retracted in that dataset version.
        sent: Unix time when the fit was sent to the trainer; 0 in older logs, as are the next two.
        started: When the trainer began.
        finished: When it had measured and examined what it fitted.
        digest: Of its bundle (`alsys.potentials.bundle.bundle_digest`); empty in older logs.
    """

    kind: ClassVar[str] = "model-published"
    version: int
    parent: int
    seq: int
    n_labels: int
    wall_s: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    n_retracted: int = 0
    sent: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPromoted(Event):
    """A version became champion; again, where the user rolls back.

    Attributes:
        reason: One line.
        reasons: Shortcomings that it was promoted in spite of.
        is_probation: Whether there are any.
        request: Identity of the request that asked for it; empty for none.
    """

    kind: ClassVar[str] = "model-promoted"
    version: int
    reason: str
    reasons: tuple[str, ...] = ()
    is_probation: bool = False
    request: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRejected(Event):
    """A version stays challenger, and why.

    Attributes:
        reason: One line.
        reasons: All that speaks against it, one by one; empty in older logs.
    """

    kind: ClassVar[str] = "model-rejected"
    version: int
    reason: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLost(Event):
    """The bundle of a version cannot be read any more: it is neither champion nor the start of a fit."""

    kind: ClassVar[str] = "model-lost"
    version: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFailed(Event):
    """A fit gave no model."""

    kind: ClassVar[str] = "training-failed"
    version: int
    failure: FailureKind
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsObserved(Event):
    """Deviations and true force errors of labelled frames that the committee was not trained on, atom by atom.

    Attributes:
        model_version: Committee that predicted.
        frame_ids: Frames, in order.
        n_atoms: Atoms kept of each frame.
        deviations: Force deviation of each atom kept, frame after frame, eV/Angstrom.
        errors: Length of the force error of each of them, eV/Angstrom.
    """

    kind: ClassVar[str] = "errors-observed"
    model_version: int
    frame_ids: tuple[str, ...]
    n_atoms: tuple[int, ...]
    deviations: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRaised(Event):
    """Uncertainties cannot be believed for now; the random arm grows until it is over.

    Attributes:
        name: ``calibration`` (the band does not cover what it should) or ``copies`` (members are copies of each other).
    """

    kind: ClassVar[str] = "alarm-raised"
    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmCleared(Event):
    """An alarm is over."""

    kind: ClassVar[str] = "alarm-cleared"
    name: str


# --- exploration and workers


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationReported(Event):
    """One chunk of exploration.

    Attributes:
        n_steps: Steps that each walker was asked to make.
        walker_steps: Steps made, summed over walkers.
        n_candidates: Frames it proposed.
        n_above: Frames that crossed the lower edge of the trust band.
        stops: Walkers stopped, by reason.
        deviation_max: Largest force deviation seen, eV/Angstrom.
        deviation_mean: Mean over walkers and steps of the frame's largest force deviation, eV/Angstrom.
        trust: Edges of the trust band it ran with, force deviation, eV/Angstrom; empty in older logs.
        n_members: Members of the committee; 0 where unknown.
        n_distinct: Members that are not copies of another one.
        method_steps: Steps that walkers of each exploration method were asked to make.
    """

    kind: ClassVar[str] = "exploration-reported"
    worker: str
    model_version: int
    n_steps: int
    walker_steps: int
    n_candidates: int
    n_above: int
    wall_s: float
    stops: Mapping[str, int] = field(default_factory=dict)
    deviation_max: float = 0.0
    deviation_mean: float = 0.0
    trust: tuple[float, ...] = ()
    n_members: int = 0
    n_distinct: int = 0
    method_steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost(Event):
    """A worker died; its frames in flight are pending again."""

    kind: ClassVar[str] = "worker-lost"
    worker: str
    role: str
    failure: FailureKind
    message: str = ""


# --- transient: the ledger sees them, the log does not


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStarted(Event):
    """Frames were sent to a labeler."""

    kind: ClassVar[str] = "label-started"
    is_durable: ClassVar[bool] = False
    worker: str
    frame_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStarted(Event):
    """A label that is data was sent to a labeler, to be compared."""

    kind: ClassVar[str] = "audit-started"
    is_durable: ClassVar[bool] = False
    worker: str
    frame_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCheckStarted(Event):
    """A labeler was sent the reference frame."""

    kind: ClassVar[str] = "canary-started"
    is_durable: ClassVar[bool] = False
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAbandoned(Event):
    """Frames in flight came back without an attempt (drain, a call that never ran): pending again, no strike."""

    kind: ClassVar[str] = "label-abandoned"
    is_durable: ClassVar[bool] = False
    worker: str
    frame_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted(Event):
    """A fit was sent to a trainer."""

    kind: ClassVar[str] = "training-started"
    is_durable: ClassVar[bool] = False
    worker: str
    version: int
    n_labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationStarted(Event):
    """A chunk was sent to an explorer."""

    kind: ClassVar[str] = "exploration-started"
    is_durable: ClassVar[bool] = False
    worker: str
    n_steps: int
    n_random: int
    rescored: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationFailed(Event):
    """A chunk came back without a report; the explorer is restarted by the pool."""

    kind: ClassVar[str] = "exploration-failed"
    worker: str
    failure: FailureKind
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested(Event):
    """The user asked the campaign to stop; with `drain`, work in flight is finished first."""

    kind: ClassVar[str] = "stop-requested"
    is_durable: ClassVar[bool] = False
    drain: bool


EVENTS: Mapping[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        CampaignOpened,
        CampaignStopped,
        Heartbeat,
        FrameProposed,
        FrameDropped,
        FrameQuarantined,
        FrameRetried,
        FramesRescored,
        LabelAccepted,
        AuditsDrawn,
        LabelFailed,
        LabelSuspected,
        LabelDisputed,
        LabelDoubted,
        LabelAudited,
        ReferenceChecked,
        LabelRepeated,
        LabelRetracted,
        ColumnLost,
        DataImported,
        ModelPublished,
        ModelPromoted,
        ModelLost,
        ModelRejected,
        TrainingFailed,
        ErrorsObserved,
        AlarmRaised,
        AlarmCleared,
        ExplorationReported,
        ExplorationFailed,
        WorkerLost,
    )
}
"""Durable events by kind."""

_FIELDS: Mapping[type[Event], tuple[str, ...]] = {
    cls: tuple(f.name for f in dataclasses.fields(cls)) for cls in EVENTS.values()
}
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(event: Event) -> bytes:
    """One line of JSON, UTF-8, without the newline. NaN is written as null.

    Raises:
        TypeError: The event is transient.
    """
    cls = type(event)
    if cls not in _FIELDS:
        raise TypeError(f"{cls.__name__} is transient and is never written")
    record: dict[str, Any] = {"kind": cls.kind}
    for name in _FIELDS[cls]:
        value = getattr(event, name)
        if type(value) is float and not math.isfinite(value):
            value = None
        elif isinstance(value, Mapping):
            value = {k: (v if math.isfinite(v) else None) for k, v in value.items()}
        elif type(value) is tuple:
            value = [None if type(v) is float and not math.isfinite(v) else v for v in value]
        record[name] = value
    return _ENCODER.encode(record).encode()


def decode(line: bytes) -> Event:
    """The event that `encode` wrote.

    Raises:
        StoreCorrupt: Unknown kind or field, or not JSON.
    """
    try:
        return _event(json.loads(line))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreCorrupt(f"event log: cannot read {line[:200]!r}: {error}") from error


def decode_all(lines: Sequence[bytes]) -> list[Event]:
    """The events of many lines, in a third less time than one by one.

    Raises:
        StoreCorrupt: As `decode`.
    """
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines):
            return [_event(record) for record in records]
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # said below, of the line that is at fault
    return [decode(line) for line in lines]


def _event(record: dict[str, Any]) -> Event:
    cls = EVENTS[record.pop("kind")]
    for name, convert in _CONVERTED[cls]:
        if name in record:
            record[name] = convert(record[name])
    if None in record.values():
        record = {name: math.nan if value is None else value for name, value in record.items()}
    return cls(**record)


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(math.nan if value is None else value for value in values) if None in values else tuple(values)


def _mapping(values: dict[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in values.items()} if None in values.values() else values


_CONVERTERS: Mapping[str, Callable[[Any], object]] = {
    "Arm": {str(arm): arm for arm in Arm}.__getitem__,
    "FailureKind": {str(kind): kind for kind in FailureKind}.__getitem__,
    "tuple": _tuple,
    "Mapping": _mapping,
}
_CONVERTED: Mapping[type[Event], tuple[tuple[str, Callable[[Any], object]], ...]] = {
    cls: tuple(
        (f.name, _CONVERTERS[kind])
        for f in dataclasses.fields(cls)
        if (kind := str(f.type).split("[")[0]) in _CONVERTERS
    )
    for cls in EVENTS.values()
}
"""Fields whose JSON is not the value itself."""
