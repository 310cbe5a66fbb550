"""Actor shells: plain classes that hold one Ray-free worker each.

A shell holds no queue and no handle to another actor. Every call returns when it started and finished (unix times)
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

from alsys.exploration.base import ExplorationOrder, ExplorationReport, Explorer
from alsys.labeling.base import LabelingOrder, LabelWorker
from alsys.labels import Label, LabelFailure
from alsys.potentials.base import CommitteeState
from alsys.training.base import TrainedCommittee, Trainer, TrainingFailure, TrainingOrder

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


class LabelerActor:
    """Runs one labeler in its own process."""

    def __init__(self, build: Callable[[], LabelWorker], threads: int) -> None:
        configure_worker(threads)
        self._station = build()

    def ready(self) -> int:
        """Answers with its process id once the worker is built."""
        return os.getpid()

    def label(self, order: LabelingOrder) -> tuple[float, float, tuple[Label | LabelFailure, ...]]:
        """Labels frames one after another."""
        watch = _Stopwatch()
        labels = self._station.work(order)
        return *watch.times(), labels


class ExplorerActor:
    """Runs one explorer in its own process."""

    def __init__(self, build: Callable[[], Explorer], threads: int) -> None:
        configure_worker(threads)
        self._explorer = build()

    def ready(self) -> int:
        """Answers with its process id once the worker is built."""
        return os.getpid()

    def advance(self, order: ExplorationOrder, state: CommitteeState | None) -> tuple[float, float, ExplorationReport]:
        """Explores one chunk. New weights come beside the order, as one object per node."""
        watch = _Stopwatch()
        report = self._explorer.advance(replace(order, state=state))
        return *watch.times(), report


class TrainerActor:
    """Runs one trainer in its own process."""

    def __init__(self, build: Callable[[], Trainer], threads: int) -> None:
        configure_worker(threads)
        self._trainer = build()

    def ready(self) -> int:
        """Answers with its process id once the worker is built."""
        return os.getpid()

    def fit(self, order: TrainingOrder) -> tuple[float, float, TrainedCommittee | TrainingFailure]:
        """Fits a committee."""
        watch = _Stopwatch()
        result = self._trainer.fit(order)
        return *watch.times(), result
