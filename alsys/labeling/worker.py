"""A labeler's place of work: labels at the campaign's level and, when asked, once more at tighter settings.

The tighter labeler is made when it is first needed and closed after each call, since a second child process would hold
its memory for the one label in a hundred that is verified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.base import Curvature, HessianOrder, Labeler, LabelingOrder
from alsys.labeling.hessians import towards_hessian
from alsys.labeling.slope import with_slope
from alsys.labels import Label, LabelFailure


class LabelingWorker:
    """What an actor runs: one labeler, and another one for verification.

    Args:
        labeler: Labels at the campaign's level of theory.
        build_tight: Makes the labeler that verifies; None where nothing is verified.
    """

    def __init__(self, labeler: Labeler, build_tight: Callable[[], Labeler] | None = None) -> None:
        self._labeler = labeler
        self._build_tight = build_tight

    @property
    def identity(self) -> str:
        """Identity of the level at which it labels."""
        return self._labeler.level.level_id

    @overload
    def run(self, order: LabelingOrder) -> tuple[Label | LabelFailure, ...]: ...

    @overload
    def run(self, order: HessianOrder) -> Curvature | LabelFailure: ...

    def run(self, order: LabelingOrder | HessianOrder) -> tuple[Label | LabelFailure, ...] | Curvature | LabelFailure:
        """Labels the frames of an order, one after another, or goes a step towards a Hessian."""
        if isinstance(order, HessianOrder):
            return towards_hessian(order, self._labeler)
        if not order.is_tight:
            return _carry_out(order, self._labeler)
        if self._build_tight is None:
            return tuple(self._refuse(frame) for frame in order.frames)
        tight = self._build_tight()
        try:
            return _carry_out(order, tight)
        finally:
            tight.close()

    def close(self) -> None:
        """Ends child processes."""
        self._labeler.close()

    def _refuse(self, frame: Frame) -> LabelFailure:
        return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, "there are no tighter settings to verify it with")


def _carry_out(order: LabelingOrder, labeler: Labeler) -> tuple[Label | LabelFailure, ...]:
    outcomes = []
    for frame in order.frames:
        outcome = labeler.label(frame)
        outcomes.append(with_slope(frame, outcome, labeler.label) if order.has_slope else outcome)
    return tuple(outcomes)
