from __future__ import annotations

import numpy as np
import pytest

from alsys.config.labeling import AnalyticLabeling
from alsys.dynamics.vibrations import hessian_of, vibrations
from alsys.errors import FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling.analytic import AnalyticLabeler, morse
from alsys.labeling.base import Curvature, HessianOrder
from alsys.labeling.hessians import MAX_FORCE
from alsys.labeling.worker import LabelingWorker
from alsys.labels import Label, LabelFailure

START = Frame.molecule([6, 8], [[0.0, 0.0, 0.0], [0.1, 0.2, 1.5]])


def labeler() -> AnalyticLabeler:
    return AnalyticLabeler(AnalyticLabeling(kind="analytic"))


def step(order: HessianOrder, of: AnalyticLabeler | None = None) -> Curvature:
    outcome = LabelingWorker(of or labeler()).run(order)
    assert isinstance(outcome, Curvature)
    return outcome


def test_a_structure_is_relaxed_first_and_its_minimum_gets_the_hessian() -> None:
    relaxed = step(HessianOrder(START))
    assert relaxed.hessian is None
    assert relaxed.frame != START
    assert relaxed.label.frame_id == relaxed.frame.frame_id
    assert np.linalg.norm(relaxed.label.forces, axis=1).max() <= 0.5 * MAX_FORCE
    assert relaxed.n_labels > 2
    found = step(HessianOrder(relaxed.frame))
    assert found.frame == relaxed.frame
    assert found.label.energy == relaxed.label.energy
    assert found.hessian is not None
    assert not found.is_analytic
    assert found.n_labels == 1 + 6 * 2
    config = AnalyticLabeling(kind="analytic")

    def potential(positions: FloatArray) -> tuple[float, FloatArray]:
        return morse(START.numbers, positions, config.well_depth, config.width)

    exact = vibrations(found.frame, hessian_of(found.frame, potential, 1e-4))
    assert exact.n_imaginary == 0
    ours = vibrations(found.frame, found.hessian.matrix).wavenumbers
    np.testing.assert_allclose(ours, exact.wavenumbers, rtol=2e-3)


class WithHessians(AnalyticLabeler):
    """Says something of its own."""

    answer: FloatArray | LabelFailure | None = None

    def hessian(self, frame: Frame) -> FloatArray | LabelFailure | None:
        return self.answer


@pytest.fixture
def minimum() -> Frame:
    return step(HessianOrder(START)).frame


def test_second_derivatives_of_the_engine_come_before_differences(minimum: Frame) -> None:
    own = WithHessians(AnalyticLabeling(kind="analytic"))
    own.answer = np.diag(np.arange(6.0))
    found = step(HessianOrder(minimum), own)
    assert found.is_analytic
    assert found.n_labels == 1
    assert found.hessian is not None
    np.testing.assert_array_equal(found.hessian.matrix, own.answer)
    assert step(HessianOrder(minimum, is_by_differences=True), own).n_labels == 13
    own.answer = None
    assert step(HessianOrder(minimum), own).n_labels == 13


@pytest.mark.parametrize("answer", ["failure", "not finite", "shape"])
def test_what_the_engine_cannot_give_is_a_failure_of_the_frame(minimum: Frame, answer: str) -> None:
    own = WithHessians(AnalyticLabeling(kind="analytic"))
    wrong = {"not finite": np.full((6, 6), np.nan), "shape": np.eye(9)}
    own.answer = wrong.get(answer, LabelFailure(minimum.frame_id, FailureKind.OUT_OF_MEMORY, "too much"))
    outcome = LabelingWorker(own).run(HessianOrder(minimum))
    assert isinstance(outcome, LabelFailure)
    assert outcome.frame_id == minimum.frame_id
    assert outcome.kind is (FailureKind.OUT_OF_MEMORY if answer == "failure" else FailureKind.INTERNAL)


def test_labels_that_fail_on_the_way_and_molecules_that_change_are_failures() -> None:
    failing = AnalyticLabeler(AnalyticLabeling(kind="analytic", failure_rate=1.0))
    outcome = LabelingWorker(failing).run(HessianOrder(START))
    assert isinstance(outcome, LabelFailure)
    assert outcome.frame_id == START.frame_id

    class Bursting(AnalyticLabeler):
        """A well in which all distances are twice as long."""

        def label(self, frame: Frame) -> Label:
            forces = 2.0 * START.positions - frame.positions
            return Label(frame.frame_id, self.level.level_id, 0.5 * float(np.square(forces).sum()), forces)

    outcome = LabelingWorker(Bursting(AnalyticLabeling(kind="analytic"))).run(HessianOrder(START))
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.UNSUPPORTED
    assert "another molecule" in outcome.message
