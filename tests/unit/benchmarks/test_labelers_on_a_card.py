"""Labels of labelers that share a card are counted for the time that was measured, and failures are told of."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labels import Label, LabelCost, LabelFailure

FOLDER = Path(__file__).parents[3] / "benchmarks"
HYDROGEN = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.75]])


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("labelers_on_a_card", FOLDER / "labelers_on_a_card.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "labelers_on_a_card", module)
    spec.loader.exec_module(module)
    return module


class Clock:
    """Goes on by what a label takes, in each thread for itself."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self) -> float:
        return float(getattr(self._own, "now", 0.0))

    def pass_by(self, seconds: float) -> None:
        self._own.now = self() + seconds


class FakeLabeler:
    def __init__(self, clock: Clock, seconds: float, fails: bool = False) -> None:
        self._clock, self._seconds, self._fails = clock, seconds, fails
        self._is_warm = False

    def label(self, frame: Frame) -> Label | LabelFailure:
        if self._is_warm:
            self._clock.pass_by(self._seconds)
        self._is_warm = True
        if self._fails:
            return LabelFailure(frame.frame_id, FailureKind.OUT_OF_MEMORY, "no more")
        return Label(frame.frame_id, "00" * 16, 0.0, np.zeros((2, 3)), LabelCost())


def test_a_label_that_ends_late_counts_in_part(benchmark: ModuleType) -> None:
    clock = Clock()
    per_second, failures = benchmark.rate([FakeLabeler(clock, 4.0)], [HYDROGEN], 10.0, clock)
    assert per_second == pytest.approx(0.25)
    assert failures == {}


def test_failures_are_no_labels(benchmark: ModuleType) -> None:
    clock = Clock()
    per_second, failures = benchmark.rate([FakeLabeler(clock, 4.0, fails=True)], [HYDROGEN], 10.0, clock)
    assert per_second == 0.0
    assert failures == {"out-of-memory": 3}
