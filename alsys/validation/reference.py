"""The reference of a validation: the campaign's own labeler, a cache of all it has said, and a budget.

Labels are appended to one file as JSON lines, by the identity of the label (frame and level of theory), so a run that
is killed loses at most the calculations in flight, and the next model version pays for none of them again. Numbers come
back bit for bit. What chemistry refused is remembered too; lost computing is tried again by the next run. These labels
are never training data by themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np

from alsys.dynamics.minima import EnergyForces
from alsys.errors import FailureKind, InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.base import Labeler
from alsys.labels import Label, LabelCost, LabelFailure, label_id_of

Outcome = Label | LabelFailure | None
"""A label, why there is none, or None where the budget does not allow it."""

SYNC_ABOVE_S = 0.1
"""Labels that took longer are synced to disk one by one."""


class NoLabel(Exception):
    """A label that something depends on is missing: it failed, or the budget is spent."""

    def __init__(self, message: str, *, is_spent: bool) -> None:
        super().__init__(message)
        self.is_spent = is_spent


class LabelCache:
    """Outcomes of reference calculations on disk, by label identity. One process writes at a time.

    Args:
        path: The file; made with the first outcome. A last line that was cut off by a kill is removed.

    Raises:
        InputError: A line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, tuple[Frame, Label | LabelFailure]] = {}
        self._file: BinaryIO | None = None
        self._read()

    def __len__(self) -> int:
        return sum(isinstance(outcome, Label) for _, outcome in self._entries.values())

    def get(self, label_id: str) -> Label | LabelFailure | None:
        """What is known; None where nothing is."""
        entry = self._entries.get(label_id)
        return None if entry is None else entry[1]

    def put(self, frame: Frame, level_id: str, outcome: Label | LabelFailure) -> None:
        """Keeps an outcome; a label that took long is on disk when this returns."""
        label_id = label_id_of(frame.frame_id, level_id)
        self._entries[label_id] = (frame, outcome)
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        line = json.dumps(_to_line(label_id, level_id, frame, outcome), separators=(",", ":"), allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if outcome.cost.wall_s > SYNC_ABOVE_S:
            os.fsync(self._file.fileno())

    def labels(self) -> Iterator[tuple[Frame, Label]]:
        """All labels with their frames, in the order they came."""
        for frame, outcome in self._entries.values():
            if isinstance(outcome, Label):
                yield frame, outcome

    def close(self) -> None:
        """Syncs and closes the file."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _read(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                label_id, frame, outcome = _from_line(json.loads(line))
            except (InputError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"line {number} is damaged: {error}", source=str(self._path), remedy="remove it; it is made again"
                ) from error
            self._entries[label_id] = (frame, outcome)


class Reference:
    """Labels frames within a budget, from the cache where it can.

    Args:
        build: Makes a labeler; called once at first, and for each further worker that is needed.
        cache: What is known.
        budget: New calculations allowed.
        workers: Calculations at the same time.
        progress: Told after each new calculation.

    Attributes:
        n_spent: New calculations so far, failed ones included.
        n_failed: Those among them that gave no label.
    """

    def __init__(
        self,
        build: Callable[[], Labeler],
        cache: LabelCache,
        budget: int,
        workers: int = 1,
        progress: Callable[[], None] | None = None,
    ) -> None:
        self._build = build
        self._cache = cache
        self._workers = workers
        self._progress = progress
        self._labelers = [build()]
        self._lost: dict[str, LabelFailure] = {}
        self.level = self._labelers[0].level
        self.budget = budget
        self.n_spent = 0
        self.n_failed = 0

    @property
    def remaining(self) -> int:
        """New calculations that are still allowed."""
        return max(0, self.budget - self.n_spent)

    def n_unknown(self, frames: Sequence[Frame]) -> int:
        """How many of the frames would have to be calculated."""
        return len({frame.frame_id for frame in frames if self._known(frame) is None})

    def label(self, frames: Sequence[Frame]) -> list[Outcome]:
        """One outcome for each frame, in order; frames beyond the budget have None. Never raises for chemistry."""
        new: dict[str, Frame] = {}
        for frame in frames:
            if self._known(frame) is None and len(new) < self.remaining:
                new.setdefault(frame.frame_id, frame)
        self._calculate(list(new.values()))
        return [self._known(frame) for frame in frames]

    def potential(self, frame: Frame) -> EnergyForces:
        """The reference as a potential energy surface of a frame's atoms; raises `NoLabel` where it has no value."""

        def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
            [outcome] = self.label([frame.with_positions(positions)])
            if isinstance(outcome, Label):
                return outcome.energy, outcome.forces
            if outcome is None:
                raise NoLabel("the budget of reference calculations is spent", is_spent=True)
            raise NoLabel(f"a reference calculation failed ({outcome.kind}): {outcome.message}", is_spent=False)

        return evaluate

    def close(self) -> None:
        """Ends child processes, and syncs the cache."""
        for labeler in self._labelers:
            labeler.close()
        self._cache.close()

    def _known(self, frame: Frame) -> Label | LabelFailure | None:
        return self._cache.get(label_id_of(frame.frame_id, self.level.level_id)) or self._lost.get(frame.frame_id)

    def _calculate(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        n_workers = min(self._workers, len(frames))
        while len(self._labelers) < n_workers:
            self._labelers.append(self._build())
        if n_workers == 1:
            for frame in frames:
                self._take(frame, _label(self._labelers[0], frame))
            return
        idle: SimpleQueue[Labeler] = SimpleQueue()
        for labeler in self._labelers:
            idle.put(labeler)

        def work(frame: Frame) -> Label | LabelFailure:
            labeler = idle.get()
            try:
                return _label(labeler, frame)
            finally:
                idle.put(labeler)

        with ThreadPoolExecutor(n_workers) as pool:
            waiting: dict[Future[Label | LabelFailure], Frame] = {pool.submit(work, frame): frame for frame in frames}
            try:
                while waiting:
                    for future in wait(waiting, return_when="FIRST_COMPLETED").done:
                        self._take(waiting.pop(future), future.result())
            finally:
                for future in waiting:
                    future.cancel()

    def _take(self, frame: Frame, outcome: Label | LabelFailure) -> None:
        self.n_spent += 1
        if isinstance(outcome, LabelFailure):
            self.n_failed += 1
            if outcome.kind.is_lost_computing:
                self._lost[frame.frame_id] = outcome
            else:
                self._cache.put(frame, self.level.level_id, outcome)
        else:
            self._cache.put(frame, self.level.level_id, outcome)
        if self._progress is not None:
            self._progress()


def _label(labeler: Labeler, frame: Frame) -> Label | LabelFailure:
    try:
        return labeler.label(frame)
    except Exception as error:  # a bug of a labeler costs its label, not the validation
        return LabelFailure(frame.frame_id, FailureKind.INTERNAL, " ".join(f"{type(error).__name__}: {error}".split()))


def _to_line(label_id: str, level_id: str, frame: Frame, outcome: Label | LabelFailure) -> dict[str, object]:
    line: dict[str, object] = {
        "label_id": label_id,
        "level_id": level_id,
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "charge": frame.charge,
        "multiplicity": frame.multiplicity,
        "wall_s": outcome.cost.wall_s,
    }
    if frame.pbc.any():
        line |= {"cell": frame.cell.tolist(), "pbc": frame.pbc.tolist()}
    if isinstance(outcome, Label):
        return {**line, "energy": outcome.energy, "forces": outcome.forces.tolist()}
    return {**line, "failure": str(outcome.kind), "message": outcome.message}


def _from_line(line: Mapping[str, Any]) -> tuple[str, Frame, Label | LabelFailure]:
    frame = Frame(
        numbers=np.array(line["numbers"], dtype=np.int32),
        positions=np.array(line["positions"], dtype=np.float64),
        cell=np.array(line.get("cell", np.zeros((3, 3)))),
        pbc=np.array(line.get("pbc", np.zeros(3, dtype=np.bool_))),
        charge=int(line["charge"]),
        multiplicity=int(line["multiplicity"]),
    )
    label_id, level_id = str(line["label_id"]), str(line["level_id"])
    if label_id_of(frame.frame_id, level_id) != label_id:
        raise ValueError("its identity is not that of its frame")
    cost = LabelCost(wall_s=float(line["wall_s"]))
    if "failure" in line:
        return label_id, frame, LabelFailure(frame.frame_id, FailureKind(line["failure"]), str(line["message"]), cost)
    forces = np.array(line["forces"], dtype=np.float64)
    if forces.shape != (frame.n_atoms, 3):
        raise ValueError("forces do not fit the atoms")
    return label_id, frame, Label(frame.frame_id, level_id, float(line["energy"]), forces, cost)
