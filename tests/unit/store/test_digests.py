"""Digests of labels: what was accepted has the digest of what is read back, bit for bit, and of nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from alsys.events import LabelAccepted
from alsys.frames import Candidate
from alsys.labels import Diagnostics, Label, LabelCost
from alsys.store.digests import StoredContents, content_of, label_digest, mask_content_of
from alsys.store.memory import MemoryDisk, open_reader, open_writer
from alsys.store.schema import BY_PATH
from alsys.testing.fakes import FAKE_LEVEL, fake_candidates
from alsys.testing.store_records import OTHER_LEVEL, events_of, records

FRAME = fake_candidates(1, n_atoms=3)[0].frame
FORCES = np.array([[0.1, -0.0, 1e-300], [1.0 / 3.0, 2.0, -5.0], [7.0, 8.0, 9.0]])
PLAIN = Label(FRAME.frame_id, FAKE_LEVEL.level_id, -76.25, FORCES)
FULL = replace(
    PLAIN,
    cost=LabelCost(1.1, 2.2, 11, 3, "node-7"),
    stress=np.diag([0.1, 0.2, 0.3]),
    diagnostics=Diagnostics(7.7, 0.1),
)
ODD = [
    PLAIN,
    FULL,
    replace(PLAIN, forces=np.asfortranarray(FORCES)),
    replace(PLAIN, forces=FORCES.astype(np.float32)),
    replace(PLAIN, energy=np.float32(-76.3)),
    replace(PLAIN, energy=-76),
    replace(PLAIN, energy=-0.0),
    replace(PLAIN, stress=np.full((3, 3), -math.nan)),
    replace(PLAIN, stress=np.arange(9.0).reshape(3, 3).T),
    replace(PLAIN, diagnostics=Diagnostics(-math.nan, math.inf)),
    replace(
        PLAIN, cost=LabelCost(wall_s=1e-40, cpu_s=np.float64(0.1), scf_cycles=np.int64(5), host="\N{SNOWMAN}" * 40)
    ),
]


@pytest.mark.parametrize("label", ODD)
@pytest.mark.parametrize("mask", [None, np.array([True, False, True])], ids=["whole", "masked"])
def test_what_is_read_back_has_the_digest_of_what_was_accepted(label: Label, mask: np.ndarray | None) -> None:
    writer = open_writer()
    candidate = Candidate(FRAME, fake_candidates(1)[0].source, mask)
    others, other_labels = records(2, seed=5)
    writer.stage((), others, other_labels, [FAKE_LEVEL])
    writer.stage((), [candidate], [label], [FAKE_LEVEL])
    writer.commit()
    stored = StoredContents(writer)
    assert stored.label(2) == content_of(label)
    assert stored.masks(2, 3) == mask_content_of(mask, 3)


def test_a_digest_is_for_ever() -> None:
    """It is in logs: a column that comes later must not be in it."""
    assert label_digest(PLAIN, None) == label_digest(PLAIN, np.ones(3, dtype=np.bool_))
    assert label_digest(PLAIN, None) == "cf6a68a38eb0cbb23c552a62d6a1c3c5"
    assert (
        label_digest(replace(FULL, baseline=PLAIN), np.array([True, False, True])) == "a86c4965983e274c11bd0b8f1c08a346"
    )


def test_every_bit_of_a_label_counts() -> None:
    mask = np.array([True, False, True])
    cost = FULL.cost
    others = [
        replace(FULL, energy=np.nextafter(FULL.energy, 0.0)),
        replace(FULL, forces=np.where(FORCES == 9.0, np.nextafter(9.0, 0.0), FORCES)),
        replace(FULL, forces=FORCES + 0.0),
        replace(FULL, stress=None),
        replace(FULL, diagnostics=Diagnostics(7.8, 0.1)),
        replace(FULL, diagnostics=Diagnostics(7.7, 0.2)),
        replace(FULL, baseline=PLAIN),
        *(replace(FULL, cost=replace(cost, **{name: value})) for name, value in COSTS.items()),
    ]
    digests = {label_digest(label, mask) for label in [FULL, *others]} | {
        label_digest(FULL, None),
        label_digest(FULL, ~mask),
    }
    assert len(digests) == len(others) + 3


COSTS = {"wall_s": 1.2, "cpu_s": 2.3, "scf_cycles": 12, "rescue_rung": 4, "host": "node-8"}


@pytest.mark.parametrize("path", [path for path in BY_PATH if path.startswith("labels/")] + ["atoms/mask"])
def test_a_changed_label_is_found_in_any_column(path: str) -> None:
    """Labels with a baseline beside them, in memory; the last byte of the last label."""
    disk, spec = MemoryDisk(), BY_PATH[path]
    writer = open_writer(disk)
    candidates, labels = records(4)
    labels = [replace(x, baseline=replace(x, level_id=OTHER_LEVEL.level_id, energy=1.0)) for x in labels]
    baselines = [label.baseline for label in labels if label.baseline is not None]
    writer.stage(events_of(candidates, labels), candidates, [*baselines, *labels], [OTHER_LEVEL, FAKE_LEVEL])
    writer.commit()
    report = open_reader(disk).verify()
    assert (report.problems, report.n_without_digest) == ([], 0)
    for row in (0, writer.head.lengths[spec.axis] - 1):
        before = disk.read(path, row, row + 1)
        after = np.frombuffer(before.tobytes()[:-1] + bytes([before.tobytes()[-1] ^ 1]), dtype=spec.dtype)
        disk.write(path, row, after.reshape(before.shape))
        assert open_reader(disk).verify().problems, f"row {row}"
        disk.write(path, row, before)
    assert open_reader(disk).verify().problems == []


def test_labels_of_an_older_log_are_counted_and_not_accused() -> None:
    disk = MemoryDisk()
    writer = open_writer(disk)
    candidates, labels = records(5)
    events = [
        replace(e, digest="") if isinstance(e, LabelAccepted) and i < 7 else e
        for i, e in enumerate(events_of(candidates, labels))
    ]
    writer.stage(events, candidates, labels, [FAKE_LEVEL])
    writer.commit()
    disk.write("labels/energy", 0, np.array([5.0]))
    report = open_reader(disk).verify()
    assert (report.problems, report.n_without_digest) == ([], 2)
    disk.write("labels/energy", 4, np.array([5.0]))
    (problem,) = open_reader(disk).verify().problems
    assert labels[4].label_id in problem
