"""Events of labels: attempts, what became data, audits, retractions."""

from __future__ import annotations

from enum import StrEnum

from alsys.errors import FailureKind
from alsys.events.base import Event, event


class AuditReason(StrEnum):
    """Why a label that is data is compared with one at tighter settings."""

    RANDOM = "random"
    FLAGGED_BY_MODEL = "flagged-by-model"
    REFERENCE = "reference"
    """Its labeler failed on the reference frame after it."""

    @classmethod
    def _missing_(cls, value: object) -> AuditReason | None:
        return {"doubted": cls.FLAGGED_BY_MODEL, "canary": cls.REFERENCE}.get(str(value))  # in older logs


@event("label-started", is_durable=False)
class LabelStarted(Event):
    """Frames were sent to a labeler."""

    worker: str
    frame_ids: tuple[str, ...]


@event("label-abandoned", is_durable=False)
class LabelAbandoned(Event):
    """Frames in flight came back without an attempt (drain, a call that never ran): pending again, no strike."""

    worker: str
    frame_ids: tuple[str, ...]


@event("label-accepted")
class LabelAccepted(Event):
    """A label became data. Timeline as unix times: when it was sent, started, finished and received.

    Attributes:
        baseline_id: Label of the same frame at the baseline level, where the campaign has one.
        digest: `alsys.store.digests.label_digest` the label; empty in older logs.
        chosen_by: Version by whose deviation its frame was chosen, or that led when a frame of the random arm was sent;
            -1 in older logs.
        audit: ``yes`` where it was drawn to be audited, ``no`` where not; empty in older logs, see `AuditsDrawn`.
        cpu_s: CPU seconds that it took; 0 where unknown.
    """

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
    cpu_s: float = 0.0


@event("audits-drawn")
class AuditsDrawn(Event):
    """Which labels of an older log are audited at random, of those of which no event says so; drawn once."""

    frame_ids: tuple[str, ...]


@event("label-failed")
class LabelFailed(Event):
    """An attempt to label a frame failed; whether it is tried again follows from the kind and the earlier attempts."""

    frame_id: str
    failure: FailureKind
    message: str = ""
    worker: str = ""
    wall_s: float = 0.0


@event("label-suspected")
class LabelFailedGate(Event):
    """A label did not pass the quality gate; it is not data until the frame was labelled again at tighter settings.

    Attributes:
        findings: What was found, one line each.
    """

    frame_id: str
    worker: str
    findings: tuple[str, ...]
    wall_s: float = 0.0


@event("label-disputed")
class LabelNotReproduced(Event):
    """A label that failed the gate and the one at tighter settings disagree: both are dropped, the frame waits.

    Attributes:
        force_difference: Largest component, eV/Angstrom.
    """

    frame_id: str
    worker: str
    force_difference: float
    wall_s: float = 0.0


@event("label-doubted")
class LabelFlaggedByModel(Event):
    """A label that is data looks wrong to a newer committee; it is to be audited."""

    frame_id: str
    findings: tuple[str, ...]


@event("label-audited")
class LabelAudited(Event):
    """A label that is data was compared with one at tighter settings.

    Attributes:
        is_confirmed: False where they disagree; the label is then retracted.
        force_difference: Largest component, eV/Angstrom; NaN where the audit gave no label.
        force_mae: Mean absolute difference of components, eV/Angstrom.
        error: Why the audit gave no label; empty where it did.
    """

    frame_id: str
    worker: str
    reason: AuditReason
    is_confirmed: bool
    force_difference: float
    force_mae: float
    wall_s: float = 0.0
    error: str = ""


@event("canary-checked")
class ReferenceChecked(Event):
    """A labeler labelled a frame whose label is known: the campaign's first one of it.

    Attributes:
        energy: eV; with the first sound one of a campaign only, as is `forces`.
        forces: Components, flat, eV/Angstrom.
    """

    worker: str
    is_sound: bool
    message: str = ""
    wall_s: float = 0.0
    energy: float = 0.0
    forces: tuple[float, ...] = ()


@event("label-repeated")
class LabelRepeated(Event):
    """A label arrived for a frame that has one.

    Attributes:
        is_conflict: True where it disagrees beyond tolerance; the first label stays the data.
        energy_difference: eV.
        force_difference: Largest component, eV/Angstrom.
    """

    frame_id: str
    worker: str
    is_conflict: bool
    energy_difference: float
    force_difference: float


@event("label-retracted")
class LabelRetracted(Event):
    """A tombstone: from here on the frame's label is no longer data, nor is its baseline; both stay in the arrays.

    Attributes:
        reason: Why, for people.
        request: Identity of the request that asked for it; empty for none.
        is_damaged: Set aside by `alsys data repair`: the arrays no longer hold what was accepted.
    """

    frame_id: str
    label_id: str
    reason: str
    request: str = ""
    is_damaged: bool = False


@event("audit-started", is_durable=False)
class AuditStarted(Event):
    """A label that is data was sent to a labeler, to be compared."""

    worker: str
    frame_id: str


@event("reference-check-started", is_durable=False)
class ReferenceCheckStarted(Event):
    """A labeler was sent the reference frame."""

    worker: str
