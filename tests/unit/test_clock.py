"""Only time in which the process ran counts, however the clock jumps."""

from __future__ import annotations

import threading
import time

from alsys import threads
from alsys.clock import RunningClock
from alsys.threads import WorkerThread


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_hour_in_which_the_process_was_stopped_does_not_count() -> None:
    hand = Hand()
    clock = RunningClock(hand, longest_gap_s=30.0)
    assert clock() == 0.0
    hand.now += 12.5
    assert clock() == 12.5
    hand.now += 3600.0
    assert clock() == 42.5
    assert clock.paused_s == 3570.0
    hand.now += 1.0
    assert clock() == 43.5


def test_a_clock_that_goes_back_stands_still() -> None:
    hand = Hand()
    clock = RunningClock(hand)
    hand.now -= 7200.0
    assert clock() == 0.0
    hand.now += 2.0
    assert clock() == 2.0


def test_a_thread_whose_call_hangs_is_left_behind_and_known() -> None:
    release = threading.Event()
    thread = WorkerThread("hangs")
    hanging, waiting = thread.submit(release.wait), thread.submit(lambda: 1)
    started = time.monotonic()
    while not hanging.running():
        time.sleep(0.001)
    assert not thread.close(0.05)
    assert time.monotonic() - started < 5.0
    assert waiting.cancelled(), "what had not begun never runs"
    assert threads.are_left()
    release.set()
    assert hanging.result(5.0)
    assert thread.close(5.0)


def test_a_call_that_raises_leaves_the_thread_alive() -> None:
    thread = WorkerThread("raises")
    assert isinstance(thread.submit(lambda: 1 // 0).exception(5.0), ZeroDivisionError)
    assert thread.submit(lambda: 2).result(5.0) == 2
    assert thread.close(5.0)
