"""Hessians of minima, in two steps that are asked for one by one, so that a labeler that dies loses one of them.

A frame that is no minimum is relaxed, a label a step. Of one that is, the second derivatives are the engine's own where
it has them, and else central differences of the forces of ``6 n_atoms`` labels.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import numpy as np

from alsys.dynamics.geometry import MIN_CONTACT, is_sound
from alsys.dynamics.minima import relaxed
from alsys.dynamics.vibrations import hessian_of
from alsys.errors import FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling.base import Curvature, HessianLabeler, HessianOrder, Labeler
from alsys.labels import Hessian, Label, LabelFailure

MAX_FORCE: Final = 0.01
"""Length of the largest force at a minimum, eV/Angstrom; a relaxation goes to half of it, so that it stays one."""
MAX_STEPS: Final = 100
"""Steps of a relaxation."""


class _NoLabel(Exception):
    """A label on the way failed."""

    def __init__(self, failure: LabelFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Labels:
    """The labeler as a potential energy surface of a frame's atoms, and all that it has said."""

    def __init__(self, labeler: Labeler, frame: Frame) -> None:
        self._labeler, self._frame = labeler, frame
        self.known: dict[str, Label] = {}

    def __call__(self, positions: FloatArray) -> tuple[float, FloatArray]:
        label = self.of(self._frame.with_positions(positions))
        return label.energy, label.forces

    def of(self, frame: Frame) -> Label:
        """The label of a frame; raises `_NoLabel` where there is none."""
        if frame.frame_id not in self.known:
            outcome = self._labeler.label(frame)
            if isinstance(outcome, LabelFailure):
                raise _NoLabel(outcome)
            self.known[frame.frame_id] = outcome
        return self.known[frame.frame_id]


def towards_hessian(order: HessianOrder, labeler: Labeler) -> Curvature | LabelFailure:
    """Relaxes the frame of an order; or, of one that is a minimum, computes the Hessian.

    Never raises for chemistry: a failure is one of the order's frame.
    """
    frame, started, labels = order.frame, time.perf_counter(), _Labels(labeler, order.frame)
    try:
        label = labels.of(frame)
        if _largest(label) > MAX_FORCE:
            found = relaxed(frame, labels, 0.5 * MAX_FORCE, MAX_STEPS)
            problem = _problem(frame, found.frame, found.is_converged)
            if problem is not None:
                return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, problem)
            n_labels, wall_s = len(labels.known), time.perf_counter() - started
            return Curvature(found.frame, labels.of(found.frame), None, n_labels, wall_s)
        matrix = None
        if isinstance(labeler, HessianLabeler) and not order.is_by_differences:
            own = labeler.hessian(frame)
            if isinstance(own, LabelFailure):
                return own
            matrix = own
        is_analytic = matrix is not None
        if matrix is None:
            matrix = hessian_of(frame, labels)
    except _NoLabel as error:
        return replace(error.failure, frame_id=frame.frame_id)
    if matrix.shape != (frame.positions.size, frame.positions.size) or not np.isfinite(matrix).all():
        return LabelFailure(frame.frame_id, FailureKind.INTERNAL, "second derivatives are not finite or of wrong shape")
    hessian = Hessian(frame.frame_id, 0.5 * (matrix + matrix.T))
    return Curvature(frame, label, hessian, len(labels.known), time.perf_counter() - started, is_analytic)


def _largest(label: Label) -> float:
    return float(np.linalg.norm(label.forces, axis=1).max())


def _problem(start: Frame, minimum: Frame, is_converged: bool) -> str | None:
    if not is_converged:
        return f"no minimum within {MAX_STEPS} steps of its structure"
    return None if is_sound(start, minimum, MIN_CONTACT) else "its structure relaxes into another molecule"
