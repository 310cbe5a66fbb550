"""Calculators of ASE as teachers: potentials that others have trained, on this machine.

They run in a process of their own, of this Python or of the environment ``runtime.environments.teachers``: packages of
such potentials exclude each other and NequIP, and set types, threads and devices for their whole process. A frame on
which the calculator fails, or with which its process dies, has NaN for values and costs no other frame anything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from alsys.config.ase_calculators import ASECalculator
from alsys.dynamics.runner import Evaluation
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.ase_single_points import BatchPoints, SinglePoints, check_treated
from alsys.potentials.base import FrameBatch
from alsys.worker_process import WorkerFailed, WorkerProcess

logger = logging.getLogger(__name__)

FIELD: Final = "training.start.teacher"
CHECK_S: Final = 300.0
"""To import a package."""
CALL_S: Final = 1800.0
"""For a batch; the first loads weights, and may fetch them and compile."""


class ASETeacher:
    """A calculator as a teacher.

    Args:
        calculator: Its name and parameters.
        python: Interpreter of the environment that has it; None for this one.
        threads: Threads that it may use.

    Raises:
        EnvironmentProblem: Its package is missing there.
    """

    def __init__(self, calculator: ASECalculator, python: str | None = None, threads: int = 1) -> None:
        self._calculator = calculator
        build = partial(SinglePoints, calculator.calculator, calculator.parameters)
        self._process = WorkerProcess(build, python=python, threads=threads)
        self._has_worked = False
        self._said: set[str] = set()
        try:
            problem = self._process.call("problem", None, CHECK_S).value
        except WorkerFailed as error:
            problem = error.message
        if problem is not None:
            where = "here" if python is None else f"with {python}"
            raise EnvironmentProblem(f"{FIELD}: {calculator.calculator} cannot run {where}: {problem}")

    def check(self, frame: Frame) -> None:
        """Refuses elements, charges, spins and cells that the calculator has no word for."""
        check_treated(self._calculator.calculator, frame)

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        """Its energies and forces.

        Raises:
            InputError: It fails on the first frames, all of them.
        """
        points = self._points(batch)
        return Evaluation(points.forces, points.energy)

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """As of `alsys.training.teacher.Teacher`.

        Raises:
            InputError: It fails on the first frames, all of them.
        """
        points = self._points(batch)
        return points.energy, points.forces, points.stress

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        """Those that it has; NaN for others."""
        return self._tried(FrameBatch.of(atoms)).energy if atoms else None

    def _points(self, batch: FrameBatch) -> BatchPoints:
        points = self._tried(batch)
        for problem in set(points.problems.values()) - self._said:
            logger.warning("%s failed on a frame: %s", self._calculator, problem)
            self._said.add(problem)
        if len(points.problems) < batch.n_frames:
            self._has_worked = True
        elif not self._has_worked:
            raise InputError(
                f"fails on all of the first frames: {points.problems[0]}",
                field=FIELD,
                value=str(self._calculator),
                remedy="see docs/teachers.md, or use another teacher",
            )
        return points

    def _tried(self, batch: FrameBatch) -> BatchPoints:
        """A batch in one call; where the process dies of it, frame by frame."""
        try:
            points: BatchPoints = self._process.call("of_batch", batch, CALL_S).value
            return points
        except WorkerFailed as error:
            if batch.n_frames == 1:
                stress = np.full((1, 3, 3), np.nan)
                return BatchPoints(
                    np.full(1, np.nan), np.full((batch.numbers.size, 3), np.nan), stress, {0: str(error)}
                )
        parts = [self._tried(FrameBatch.of([frame])) for frame in batch.frames()]
        none = np.full((1, 3, 3), np.nan)
        return BatchPoints(
            np.concatenate([part.energy for part in parts]),
            np.concatenate([part.forces for part in parts]),
            np.concatenate([none if part.stress is None else part.stress for part in parts]),
            {i: part.problems[0] for i, part in enumerate(parts) if part.problems},
        )
