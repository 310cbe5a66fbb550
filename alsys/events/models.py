"""Events of models: fits, promotions, and how far their uncertainties are believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from alsys.errors import FailureKind
from alsys.events.base import Event, event


@event("model-published")
class ModelPublished(Event):
    """A committee was fitted and its bundle is on disk.

    Attributes:
        version: 1, 2, ...
        parent: Version it started from; 0 for none.
        seq: Dataset version it was trained on.
        n_labels: Accepted labels in that dataset version, free atoms not counted.
        wall_s: From `started` to `finished`.
        metrics: Finite numbers only; see `alsys.metrics.Metrics`.
        n_retracted: Labels of every arm that had been retracted in that dataset version.
        sent: Unix time when the fit was sent to the trainer; 0 in older logs, as are the next two.
        started: When the trainer began.
        finished: When it had measured and examined what it fitted.
        digest: Of its bundle (`alsys.potentials.bundle.bundle_digest`); empty in older logs.
        is_final: By the fit after the last label.
        n_hessians: Hessians that it was trained on.
    """

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
    is_final: bool = False
    n_hessians: int = 0


@event("model-promoted")
class ModelPromoted(Event):
    """A version became champion; again, where the user rolls back.

    Attributes:
        reason: One line.
        reasons: Shortcomings that it was promoted in spite of.
        is_probation: Whether there are any.
        request: Identity of the request that asked for it; empty for none.
    """

    version: int
    reason: str
    reasons: tuple[str, ...] = ()
    is_probation: bool = False
    request: str = ""


@event("model-rejected")
class ModelRejected(Event):
    """A version stays challenger, and why.

    Attributes:
        reason: One line.
        reasons: All that speaks against it, one by one; empty in older logs.
    """

    version: int
    reason: str
    reasons: tuple[str, ...] = ()


@event("model-lost")
class ModelLost(Event):
    """The bundle of a version cannot be read any more: it is neither champion nor the start of a fit."""

    version: int
    reason: str


@event("training-started", is_durable=False)
class TrainingStarted(Event):
    """A fit was sent to a trainer.

    Attributes:
        budget_s: CPU seconds that it is given; 0 in older logs.
        is_final: The fit after the last label.
        n_workers: Trainers that share its members.
    """

    worker: str
    version: int
    n_labels: int
    budget_s: float = 0.0
    is_final: bool = False
    n_workers: int = 1


@event("fit-requested")
class FitRequested(Event):
    """The user asked for another final fit to the data there are.

    Attributes:
        budget_s: CPU seconds, at most.
        request: Identity of the request that asked for it.
    """

    budget_s: float
    request: str = ""


@event("training-failed")
class TrainingFailed(Event):
    """A fit gave no model."""

    version: int
    failure: FailureKind
    message: str = ""


@event("errors-observed")
class ErrorsObserved(Event):
    """Deviations and true force errors of labelled frames that the committee was not trained on, atom by atom.

    Attributes:
        model_version: Committee that predicted.
        frame_ids: Frames, in order.
        n_atoms: Atoms kept of each frame.
        deviations: Force deviation of each atom kept, frame after frame, eV/Angstrom.
        errors: Length of the force error of each of them, eV/Angstrom.
    """

    model_version: int
    frame_ids: tuple[str, ...]
    n_atoms: tuple[int, ...]
    deviations: tuple[float, ...]
    errors: tuple[float, ...]


@event("alarm-raised")
class AlarmRaised(Event):
    """Uncertainties cannot be believed for now; the random arm grows until it is over.

    Attributes:
        name: ``calibration`` (the band does not cover what it should) ``copies`` (members are copies of each other),
            ``alike`` (their errors are) or ``stuck`` (walks break before they find a frame).
    """

    name: str
    message: str


@event("alarm-cleared")
class AlarmCleared(Event):
    """An alarm is over."""

    name: str
