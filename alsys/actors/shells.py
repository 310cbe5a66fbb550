"""Actor shells: plain classes that hold one Ray-free worker each.

A shell holds no queue and no handle to another actor. Every call returns when it started and finished (unix times)
beside its result, which is what utilisation and timelines are made of.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from alsys.exploration.base import ExplorationOrder, ExplorationReport, Explorer
from alsys.labeling.base import LabelingOrder, LabelWorker
from alsys.labels import Label, LabelFailure
from alsys.potentials.base import CommitteeState
from alsys.training.base import TrainedCommittee, Trainer, TrainingFailure, TrainingOrder


def configure_worker(threads: int) -> None:
    """One log format, and no more threads than the worker was given."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


class LabelerActor:
    """Runs one labeler in its own process."""

    def __init__(self, build: Callable[[], LabelWorker], threads: int) -> None:
        configure_worker(threads)
        self._station = build()

    def ready(self) -> str:
        """Answers once the worker is built."""
        return os.uname().nodename

    def label(self, order: LabelingOrder) -> tuple[float, float, tuple[Label | LabelFailure, ...]]:
        """Labels frames one after another."""
        started = time.time()
        labels = self._station.work(order)
        return started, time.time(), labels


class ExplorerActor:
    """Runs one explorer in its own process."""

    def __init__(self, build: Callable[[], Explorer], threads: int) -> None:
        configure_worker(threads)
        self._explorer = build()

    def ready(self) -> str:
        """Answers once the worker is built."""
        return os.uname().nodename

    def advance(self, order: ExplorationOrder, state: CommitteeState | None) -> tuple[float, float, ExplorationReport]:
        """Explores one chunk. New weights come beside the order, as one object per node."""
        started = time.time()
        report = self._explorer.advance(replace(order, state=state))
        return started, time.time(), report


class TrainerActor:
    """Runs one trainer in its own process."""

    def __init__(self, build: Callable[[], Trainer], threads: int) -> None:
        configure_worker(threads)
        self._trainer = build()

    def ready(self) -> str:
        """Answers once the worker is built."""
        return os.uname().nodename

    def fit(self, order: TrainingOrder) -> tuple[float, float, TrainedCommittee | TrainingFailure]:
        """Fits a committee."""
        started = time.time()
        result = self._trainer.fit(order)
        return started, time.time(), result
