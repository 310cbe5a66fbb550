"""Pretraining data from imported labels: frames at another level of theory that a committee learns first.

The driver, which has the store, chooses them and puts them into the campaign's folder `start`, as one file that is
replaced as a whole; the trainer, which has none, reads them there, or where they were sent. They are never mixed with
the campaign's labels.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError
from alsys.files import replacing
from alsys.frames import ARMS, TRAINING_ARMS, Arm
from alsys.labels import LevelOfTheory
from alsys.potentials.baseline import Baseline
from alsys.potentials.xtb import check_frame
from alsys.store.base import Snapshot
from alsys.training.evaluate import batch_of
from alsys.training.snapshots import columns_of, snapshot_from

PRETRAINING = "lesson.npz"
"""The file, under the name that campaigns of before have it."""


@dataclass(frozen=True, slots=True)
class PretrainingData:
    """Labels to learn first.

    Attributes:
        level: Their level of theory.
        snapshot: Frames with their labels, free atoms of that level included where there are some.
    """

    level: LevelOfTheory
    snapshot: Snapshot

    @property
    def digest(self) -> str:
        """Identity of frames and labels, 32 hexadecimal characters."""
        found = hashlib.blake2b(self.level.level_id.encode(), digest_size=16, person=b"alsys-lesson-1")
        found.update("".join(self.snapshot.frame_ids).encode())
        for array in (self.snapshot.energy, self.snapshot.forces, self.snapshot.mask):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    @property
    def n_frames(self) -> int:
        """Frames to learn, free atoms not counted."""
        return int((~self.snapshot.is_arm(Arm.ATOM)).sum())


def choose_pretraining(
    level: LevelOfTheory, labels: Snapshot, count: int, rng: np.random.Generator, *, is_difference: bool
) -> PretrainingData:
    """What is learned of the labels of a level.

    Args:
        level: It.
        labels: All labels of it; those of the random arm and of frames without a trusted atom are left out.
        count: Frames at most, drawn at random; free atoms come on top.
        rng: Source of randomness.
        is_difference: Labels minus an xTB baseline will be learned: frames that xTB cannot treat are left out.
    """
    is_learned = labels.is_arm(*TRAINING_ARMS) & (labels.n_trusted > 0)
    is_atom = labels.is_arm(Arm.ATOM)
    if is_difference:
        is_treated = np.array([_is_treated(labels, row) for row in range(labels.n_frames)], dtype=np.bool_)
        is_learned, is_atom = is_learned & is_treated, is_atom & is_treated
    rows = np.flatnonzero(is_learned)
    drawn = np.sort(rng.permutation(rows)[:count])
    snapshot = labels.select(np.concatenate([np.flatnonzero(is_atom), drawn]))
    arms = np.where(snapshot.is_arm(Arm.ATOM), ARMS.index(Arm.ATOM), ARMS.index(Arm.IMPORTED)).astype(np.uint8)
    return PretrainingData(level, replace(snapshot, arm=arms))


def beside_baseline(snapshot: Snapshot, baseline: Mapping[str, object] | None) -> Snapshot:
    """The same labels with the values of a baseline beside them; as they are where there is none.

    Raises:
        EnvironmentProblem: tblite is missing.
    """
    if baseline is None:
        return snapshot
    values = Baseline(baseline).evaluate(batch_of(snapshot))
    return replace(snapshot, baseline_energy=values.energy, baseline_forces=values.forces)


def write_pretraining(folder: Path, data: PretrainingData) -> None:
    """Puts pretraining data where the trainer finds it, durably, in place of the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = columns_of(data.snapshot)
    with replacing(folder / PRETRAINING, has_one_writer=True) as unfinished, unfinished.open("wb") as file:
        np.savez(file, level_of_theory=np.array(data.level.canonical), **columns)


def read_pretraining(folder: Path) -> PretrainingData:
    """What `write_pretraining` wrote.

    Raises:
        InputError: It is not there, or damaged.
    """
    path = folder / PRETRAINING
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        level = LevelOfTheory(json.loads(str(columns.pop("level_of_theory"))))
        return PretrainingData(level, snapshot_from(columns))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"holds no pretraining data: {error}", source=str(path), remedy="run `alsys run` again"
        ) from error


def _is_treated(labels: Snapshot, row: int) -> bool:
    try:
        check_frame(labels.frame(row))
    except InputError:
        return False
    return True
