"""Reference labels as extxyz, for a user who wants to train on them after all."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from alsys.errors import InputError
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.interop.extxyz_files import export_extxyz
from alsys.labels import Label, LevelOfTheory
from alsys.store.memory import open_writer
from alsys.validation.reference import LabelCache


def export_reference(cache: Path, output: Path) -> int:
    """Writes all labels of a cache, in the order they came; returns their number.

    Raises:
        InputError: None there, a damaged line, or labels of more than one level of theory.
    """
    by_level: dict[str, list[tuple[Frame, Label]]] = defaultdict(list)
    for frame, label in LabelCache(cache).labels():
        by_level[label.level_id].append((frame, label))
    if len(by_level) != 1:
        raise InputError(f"holds labels of {len(by_level)} levels of theory, one is wanted", source=str(cache))
    [labelled] = by_level.values()
    level = LevelOfTheory({"engine": "validation"})
    store = open_writer()
    store.stage(
        candidates=[
            Candidate(frame, Source("validation", Arm.INITIAL, "validation", trajectory=k))
            for k, (frame, _) in enumerate(labelled)
        ],
        labels=[Label(frame.frame_id, level.level_id, label.energy, label.forces) for frame, label in labelled],
        levels=[level],
    )
    store.commit()
    return export_extxyz(store.snapshot(level.level_id), output)
