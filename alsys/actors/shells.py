"""The actor shell: a plain class that holds one Ray-free worker.

It holds no queue and no handle to another actor. Every call returns when it started and finished (unix times)
beside its result, which is what utilisation and timelines are made of; the time between them is one of the monotonic
clock. An actor dies with the raylet that started it, even while it is stopped.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from alsys.control.ports import Result, Work, Worker
from alsys.exploration.base import ExplorationOrder
from alsys.potentials.base import CommitteeState
from alsys.worker_process import UNFIT, reason_of, unfit

_PR_SET_PDEATHSIG = 1


def configure_worker(threads: int) -> None:
    """One log format, no more threads than the worker was given, and no life after that of its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Stopwatch:
    """When a call started and finished, as unix times whose difference no clock that is set can change."""

    def __init__(self) -> None:
        self._started = time.time()
        self._since = time.perf_counter()

    def times(self) -> tuple[float, float]:
        """Start and end, which is now."""
        return self._started, self._started + time.perf_counter() - self._since


class WorkerActor:
    """Runs one worker in its own process."""

    def __init__(self, build: Callable[[], Worker], threads: int) -> None:
        configure_worker(threads)
        self._unfit = ""
        try:
            self._worker = build()
        except UNFIT as error:
            self._unfit = reason_of(error)

    def ready(self) -> int:
        """Answers with its process id once the worker is built.

        Raises:
            WorkerUnfit: It cannot be, for want of a package or a setting.
        """
        if self._unfit:
            raise unfit(self._unfit, None)
        return os.getpid()

    def run(self, order: Work, state: CommitteeState | None = None) -> tuple[float, float, Result]:
        """Carries an order out. New weights of explorers come beside it, as one object a node."""
        watch = _Stopwatch()
        if state is not None:
            assert isinstance(order, ExplorationOrder)
            order = replace(order, state=state)
        result = self._worker.run(order)
        return *watch.times(), result
