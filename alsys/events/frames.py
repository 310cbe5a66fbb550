"""Events of frames: candidates before they are labelled, and data from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from alsys.errors import FailureKind
from alsys.events.base import Event, event
from alsys.frames import Arm


@event("frame-proposed")
class FrameProposed(Event):
    """A frame entered the candidate set; its coordinates are in the store."""

    frame_id: str
    arm: Arm
    system: str
    deviation: float
    model_version: int = 0
    trajectory: int = 0
    method: str = ""
    stratum: str = ""
    n_electrons: int = 0


class DropReason(StrEnum):
    """Why a frame is not labelled."""

    EVICTED = "evicted"
    BELOW_TRUST = "below-trust"
    """Known well enough."""
    NEAR_TEST = "near-test"
    """Beside a test frame."""

    @classmethod
    def _missing_(cls, value: object) -> DropReason | None:
        return cls.BELOW_TRUST if value == "easy" else None  # in older logs


@event("frame-dropped")
class FrameDropped(Event):
    """A pending frame left the candidate set unlabelled."""

    frame_id: str
    reason: DropReason


@event("frame-quarantined")
class FrameQuarantined(Event):
    """A frame will not be labelled, and why."""

    frame_id: str
    failure: FailureKind
    message: str = ""


@event("frame-retried")
class FrameRetried(Event):
    """A quarantined frame waits for a label again, as if it had never been tried.

    Attributes:
        request: Identity of the request that asked for it; empty for none.
    """

    frame_id: str
    request: str = ""


@event("frames-rescored")
class FramesRescored(Event):
    """Pending frames seen again by a newer committee.

    Attributes:
        trusted_below: Force deviation below which they are known well enough, eV/Angstrom; negative in older logs.
    """

    model_version: int
    deviations: Mapping[str, float]
    trusted_below: float = field(default=-1.0, metadata={"log": "easy_below"})


@event("data-imported")
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
        unit_check: How the units were checked, in one line; empty where the user vouched for them.
        first_frame: Row of the first new frame in the store; the others follow it.
        n_frames: New frames.
        values_digest: `alsys.store.digests.ImportDigest` of the new rows; empty in older logs.
        n_skipped: Frames of the file that were refused and left out.
        labels_from: Under which names energy, forces and stress were found; empty in older logs.
        licence: Of the file, as the user has stated it; empty for nothing said, as below.
        origin: Where it can be had.
        citation: What to cite for it.
    """

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
    unit_check: str = field(default="", metadata={"log": "proof"})
    first_frame: int = 0
    n_frames: int = 0
    values_digest: str = ""
    n_skipped: int = 0
    labels_from: str = ""
    licence: str = ""
    origin: str = ""
    citation: str = ""


@event("column-lost")
class ColumnLost(Event):
    """`alsys data repair` has filled rows of labels with unknown values: their digests can be compared no more.

    Attributes:
        column: Path of the array, which says what a label took, and not what it is.
        first_row: Of the labels.
        n_rows: How many.
    """

    column: str
    first_row: int
    n_rows: int
