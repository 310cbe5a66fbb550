"""Judgements on labels, one after another, in a thread of their own.

The gate is asked and answers in the order of the questions, so its verdicts depend on nothing but that order. Answers
are taken in by the loop, at `settle`. Without a thread a question is answered at once, which makes a campaign on fakes
deterministic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from alsys.threads import WorkerThread

T = TypeVar("T")


class GateQueue:
    """Questions to the gate of one campaign.

    Args:
        wake: Ends the wait for workers, from any thread; None answers every question at once, in this thread.
    """

    def __init__(self, wake: Callable[[], None] | None) -> None:
        self._wake = wake
        self._thread = None if wake is None else WorkerThread("label-gate")
        self._asked: deque[tuple[Future[Any], Callable[[Any], None] | None]] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether a question is open."""
        return bool(self._asked)

    def ask(self, question: Callable[[], T], then: Callable[[T], None] | None = None) -> None:
        """Has a question answered after those before it; `then` takes the answer."""
        if self._thread is None or self._wake is None:
            answer = question()
            if then is not None:
                then(answer)
            return
        future, wake = self._thread.submit(question), self._wake
        self._asked.append((future, then))
        if then is not None:
            future.add_done_callback(lambda _: wake())

    def settle(self) -> None:
        """Takes in the answers that are there; raises what a question raised."""
        while self._asked and self._asked[0][0].done():
            future, then = self._asked.popleft()
            answer = future.result()
            if then is not None:
                then(answer)

    def close(self) -> None:
        """Leaves open questions unanswered."""
        if self._thread is not None:
            self._thread.close()
