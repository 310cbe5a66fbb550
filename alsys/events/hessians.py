"""Events of Hessians: minima that labelers relax to, and second derivatives of the energy there."""

from __future__ import annotations

from alsys.errors import FailureKind
from alsys.events.base import Event, event


@event("hessian-started", is_durable=False)
class HessianStarted(Event):
    """A labeler was sent a structure to relax, or a minimum whose Hessian is wanted.

    Attributes:
        name: Of the structure: its system, with a number where it is not the first one.
    """

    worker: str
    name: str


@event("minimum-found")
class MinimumFound(Event):
    """A structure was relaxed at the level of the labels; the minimum is a frame of the store, with a label.

    Attributes:
        name: As of `HessianStarted`.
        frame_id: The minimum.
        n_labels: Labels that it took.
    """

    name: str
    frame_id: str
    n_labels: int
    worker: str
    wall_s: float


@event("hessian-computed")
class HessianComputed(Event):
    """Second derivatives of the energy at a minimum, which models learn from.

    Attributes:
        name: As of `HessianStarted`.
        frame_id: The minimum.
        triangle: Lower triangle of the ``(3 n_atoms, 3 n_atoms)`` matrix, row by row, eV/Angstrom^2.
        n_labels: Labels that it took.
        is_analytic: The engine gave them; else they are differences of forces.
    """

    name: str
    frame_id: str
    triangle: tuple[float, ...]
    n_labels: int
    is_analytic: bool
    worker: str
    wall_s: float


@event("hessian-failed")
class HessianFailed(Event):
    """An attempt at a minimum or its Hessian failed; whether it is tried again follows from the kind."""

    name: str
    failure: FailureKind
    message: str
    worker: str
