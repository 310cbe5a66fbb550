"""Threads build, copy, fit and evaluate NequIP models at the same time; the lock behind that keeps its rules."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest
from ase.build import molecule

from alsys.frames import Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.nequip import NequIPCommittee, blank_model, build_model, weights_of
from alsys.potentials.tracing import TracingLock

SPEC = {
    "elements": ["H", "O"],
    "r_max": 4.0,
    "num_layers": 1,
    "l_max": 1,
    "num_features": 4,
    "parity": True,
    "dtype": "float64",
    "avg_num_neighbors": 2.0,
}
TIMEOUT_S = 60.0


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns so often that an unguarded race is lost every time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_switches")
def test_models_are_built_and_copied_while_another_thread_evaluates() -> None:
    weights = [weights_of(build_model(SPEC, seed=k)) for k in range(2)]
    state = CommitteeState(1, "nequip", SPEC, tuple(weights))
    water = molecule("H2O")
    batch = FrameBatch.of([Frame.molecule(water.numbers, water.positions)])
    committee = NequIPCommittee(state)
    expected = committee.evaluate(batch).forces
    is_over = threading.Event()

    def evaluate() -> int:
        n_evaluations = 0
        while n_evaluations < 20 or not is_over.is_set():
            np.testing.assert_array_equal(committee.evaluate(batch).forces, expected)
            n_evaluations += 1
        return n_evaluations

    with ThreadPoolExecutor(3) as threads:
        evaluated = threads.submit(evaluate)
        copied = threads.submit(lambda: [blank_model(SPEC) for _ in range(4)])
        built = threads.submit(lambda: [weights_of(build_model(SPEC, seed=k)) for k in range(2)])
        try:
            models, again = copied.result(), built.result()
        finally:
            is_over.set()
        assert evaluated.result() >= 20
    assert len(models) == 4
    for one, other in zip(weights, again, strict=True):
        assert all(np.array_equal(value, other[name]) for name, value in one.items())


Enter = Callable[[], AbstractContextManager[None]]


def inside(enter: Enter, threads: ThreadPoolExecutor) -> tuple[threading.Event, Future[None]]:
    """Enters in another thread, and stays there until the event is set; returns once it is in."""
    is_in, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with enter():
            is_in.set()
            assert leave.wait(TIMEOUT_S)

    done = threads.submit(stay)
    assert is_in.wait(TIMEOUT_S)
    return leave, done


def test_evaluations_run_beside_each_other_and_a_tracer_waits_for_them() -> None:
    lock = TracingLock()
    entered: list[str] = []

    def enter(name: str, context: Enter) -> None:
        with context():
            entered.append(name)

    with ThreadPoolExecutor(4) as threads:
        first, first_done = inside(lock.evaluating, threads)
        second, second_done = inside(lock.evaluating, threads)  # would time out if one kept the other out
        tracer = threads.submit(enter, "tracer", lock.tracing)
        first.set()
        first_done.result()
        while not lock.is_awaited:
            time.sleep(0.001)
        late = threads.submit(enter, "evaluation", lock.evaluating)
        assert entered == []
        second.set()
        for done in (second_done, tracer, late):
            done.result()
    assert entered == ["tracer", "evaluation"], "one that waits to trace is let in before further evaluations"


def test_a_tracer_keeps_other_tracers_out_and_may_enter_again_and_evaluate() -> None:
    lock = TracingLock()
    entered: list[str] = []

    def trace() -> None:
        with lock.tracing():
            entered.append("other")

    with ThreadPoolExecutor(1) as threads:
        with lock.tracing():
            other = threads.submit(trace)
            with lock.tracing(), lock.evaluating():
                while not lock.is_awaited:
                    time.sleep(0.001)
            entered.append("first")
        other.result()
    assert entered == ["first", "other"]


def test_who_evaluates_is_told_that_it_cannot_trace() -> None:
    lock = TracingLock()
    with lock.evaluating(), pytest.raises(RuntimeError, match="while the same thread evaluates"), lock.tracing():
        pass
    with lock.tracing():
        pass  # what was refused left nothing behind


def test_an_error_inside_lets_others_in() -> None:
    lock = TracingLock()
    for context in (lock.tracing, lock.evaluating):
        with pytest.raises(ValueError, match="inside"), context():
            raise ValueError("inside")
    with ThreadPoolExecutor(1) as threads:
        leave, done = inside(lock.tracing, threads)
        leave.set()
        done.result()
