"""Records to fill a store with, and the events that a log holds beside them.

All follow from a seed: the same call gives the same frames, so a test can write them, lose the writer, and ask for them
again. `stage` and `fill` work on any writer of the store contract; labels are those of `FakeLabeler` at `FAKE_LEVEL`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alsys.events import Event, FrameProposed, LabelAccepted, LabelRetracted
from alsys.frames import Arm, Candidate
from alsys.labels import Label, LevelOfTheory
from alsys.store.digests import label_digest
from alsys.testing.fakes import FAKE_LEVEL, FakeLabeler, fake_candidates

OTHER_LEVEL = LevelOfTheory({"engine": "fake", "potential": "other"})


def records(n: int, seed: int = 0, n_atoms: int = 3) -> tuple[list[Candidate], list[Label]]:
    """Frames and their labels."""
    candidates = fake_candidates(n, seed=seed, n_atoms=n_atoms)
    labels = [FakeLabeler().label(c.frame) for c in candidates]
    return candidates, [label for label in labels if isinstance(label, Label)]


def events_of(candidates: Sequence[Candidate], labels: Sequence[Label]) -> list[Event]:
    """What the log says when `candidates` are proposed and `labels` accepted."""
    proposed = [
        FrameProposed(t=0.0, frame_id=c.frame.frame_id, arm=Arm.INITIAL, system="fake", deviation=float("nan"))
        for c in candidates
    ]
    masks = {c.frame.frame_id: c.mask for c in candidates}
    accepted = [
        LabelAccepted(
            t=1.0,
            frame_id=label.frame_id,
            label_id=label.label_id,
            worker="w",
            wall_s=0.1,
            baseline_id="" if label.baseline is None else label.baseline.label_id,
            digest=label_digest(label, masks[label.frame_id]) if label.frame_id in masks else "",
        )
        for label in labels
    ]
    return [*proposed, *accepted]


def stage(writer: Any, n: int, seed: int = 0, n_atoms: int = 3) -> list[str]:
    """Stages `n` labelled frames with their events; returns the labels' identities."""
    candidates, labels = records(n, seed, n_atoms)
    writer.stage(events_of(candidates, labels), candidates, labels, [FAKE_LEVEL])
    return [label.label_id for label in labels]


def tombstone(label: Label) -> LabelRetracted:
    """What the log says when a label is retracted."""
    return LabelRetracted(t=2.0, frame_id=label.frame_id, label_id=label.label_id, reason="wrong")


def fill(writer: Any, n: int, seed: int = 0) -> list[str]:
    """Stages and commits `n` labelled frames with their events; returns the labels' identities."""
    label_ids = stage(writer, n, seed)
    writer.commit()
    return label_ids
