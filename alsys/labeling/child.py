"""A labeler in a process that can be killed: wall time and memory are limits, a crash is a value.

One process labels one frame after another (`alsys.worker_process`), so quantum chemistry codes may hang, abort or leak
without harm.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from functools import partial
from typing import Protocol

from alsys.errors import FailureKind, InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.checks import check_alone
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.worker_process import Answer, WorkerFailed, WorkerProcess


class Engine(Protocol):
    """What runs inside the child."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces of a frame."""
        ...


class ChildProcess:
    """Labels frames in a killable child.

    Args:
        factory: ``module:function`` of alsys that makes the engine inside the child.
        settings: Its argument, picklable.
        timeout_s: Wall time of one label, without that in which this process was stopped.
        memory_mb: Resident memory of the child and all that it starts, pages that they share counted once.
        threads: Threads that numerical libraries may use.
        has_gpu: Whether it may use a GPU: CUDA maps far more memory than it uses, so only resident memory is limited.
            After errors of CUDA that it does not survive the child is replaced; its engine has `is_spent`.
    """

    def __init__(
        self,
        factory: str,
        settings: object,
        *,
        timeout_s: float,
        memory_mb: int,
        threads: int = 1,
        has_gpu: bool = False,
    ) -> None:
        build = partial(_engine, factory, settings)
        self._process = WorkerProcess(build, threads=threads, memory_mb=memory_mb, has_gpu=has_gpu)
        self._timeout_s = timeout_s
        self._has_gpu = has_gpu

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return self._process.pid

    def hessian(self, frame: Frame) -> FloatArray | LabelFailure | None:
        """What the engine's `hessian` gives, within as many times the limit of a label as the frame has atoms."""
        try:
            found: FloatArray | LabelFailure | None
            found = self._process.call("hessian", frame, frame.n_atoms * self._timeout_s).value
            return found
        except WorkerFailed as error:
            return LabelFailure(frame.frame_id, error.kind, error.message)

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Labels a frame; does not raise for what happens to the child.

        Raises:
            WorkerUnfit: It lacks a package, so that there is no child.
        """
        outcome: Label | LabelFailure
        answer: Answer | WorkerFailed
        try:
            answer = self._process.call("label", frame, self._timeout_s)
            outcome = answer.value
        except WorkerFailed as error:
            answer, outcome = error, LabelFailure(frame.frame_id, error.kind, error.message)
        if self._has_gpu and self._is_spent(outcome):
            self._process.close()
        host = _host(outcome.cost.host)
        return replace(outcome, cost=replace(outcome.cost, wall_s=answer.wall_s, cpu_s=answer.cpu_s, host=host))

    def _is_spent(self, outcome: Label | LabelFailure) -> bool:
        """Whether CUDA may fail for ever in this child: it raised, or a label that should not be is of the CPU."""
        if isinstance(outcome, LabelFailure) and outcome.kind is FailureKind.INTERNAL:
            return True
        try:
            return outcome.cost.host == "cpu" and bool(self._process.call("is_spent", None, self._timeout_s).value)
        except WorkerFailed:
            return True

    def close(self) -> None:
        """Kills the child and all it started."""
        self._process.close()


def _engine(factory: str, settings: object) -> Engine:
    module, name = factory.split(":")
    engine: Engine = getattr(importlib.import_module(module), name)(settings)
    return engine


class ChildLabeler:
    """A labeler whose engine runs in a child process; what it can treat is said by who derives from it.

    A frame in point charges is a failure, unless `sees_charges` says that the engine knows them.

    Args:
        level: The level of theory.
        child: Runs the engine.
    """

    def __init__(self, level: LevelOfTheory, child: ChildProcess) -> None:
        self._level = level
        self._child = child

    @property
    def level(self) -> LevelOfTheory:
        """All settings that decide the values."""
        return self._level

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return self._child.pid

    @property
    def sees_charges(self) -> bool:
        """Whether point charges around a frame are part of the calculation."""
        return False

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy, forces and whatever else the engine gives."""
        try:
            if not self.sees_charges:
                check_alone(frame)
        except InputError as error:
            return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, str(error))
        return self._child.label(frame)

    def close(self) -> None:
        """Ends the child."""
        self._child.close()


def _host(device: str) -> str:
    """Host name, and the device where the engine names one: `node7/gpu`."""
    return f"{os.uname().nodename[: 31 - len(device)]}/{device}" if device else os.uname().nodename[:32]
