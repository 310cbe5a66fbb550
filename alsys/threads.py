"""A thread that runs calls one after another and that nobody has to wait for.

A call that hangs cannot be ended from outside, so a process that is asked to stop leaves it behind. Threads of the
standard library's pools are waited for when the process ends; this one is not.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_threads: weakref.WeakSet[WorkerThread] = weakref.WeakSet()


class WorkerThread:
    """Runs calls in order, in one daemon thread that lives until it is closed.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _threads.add(self)

    @property
    def is_alive(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queues a call; one that is cancelled before its turn never runs."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self, timeout_s: float = 0.0) -> bool:
        """Ends the thread after the call that runs, if any; whether it ended within `timeout_s`."""
        while True:
            try:
                item = self._calls.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[0].cancel()
        self._calls.put(None)
        if timeout_s > 0:
            self._thread.join(timeout_s)
        return not self.is_alive

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, call, item


def are_left() -> bool:
    """Whether a thread was closed, or forgotten, while a call hangs in it: the interpreter cannot end in peace then."""
    return any(thread.is_alive for thread in _threads)
