"""Contract tests of a store: subclass `StoreContract`, say how your store is opened, and run pytest.

class TestMyStore(StoreContract):
    def open_writer(self): ...
    def open_reader(self, seq=None): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alsys.errors import Fenced, InputError, StoreBusy
from alsys.events import FrameProposed, LabelAccepted
from alsys.frames import Arm, Candidate
from alsys.labels import Label
from alsys.testing.fakes import FAKE_LEVEL, FakeLabeler, fake_candidates


def records(n: int, seed: int = 0) -> tuple[list[Candidate], list[Label]]:
    """Frames and their labels."""
    candidates = fake_candidates(n, seed=seed, n_atoms=3)
    labels = [FakeLabeler().label(c.frame) for c in candidates]
    return candidates, [label for label in labels if isinstance(label, Label)]


def fill(writer: Any, n: int, seed: int = 0) -> list[str]:
    """Stages and commits `n` labelled frames with their events; returns the labels' identities."""
    candidates, labels = records(n, seed)
    proposed = [
        FrameProposed(t=0.0, frame_id=c.frame.frame_id, arm=Arm.INITIAL, system="fake", deviation=float("nan"))
        for c in candidates
    ]
    accepted = [
        LabelAccepted(t=1.0, frame_id=label.frame_id, label_id=label.label_id, worker="w", wall_s=0.1)
        for label in labels
    ]
    writer.stage(events=proposed, candidates=candidates, levels=[FAKE_LEVEL])
    writer.stage(events=accepted, labels=labels)
    writer.commit()
    return [label.label_id for label in labels]


class StoreContract:
    """What every store promises."""

    def open_writer(self) -> Any:
        """A writer on this test's store."""
        raise TypeError("say how your store is opened")

    def open_reader(self, seq: int | None = None) -> Any:
        """A reader on this test's store."""
        raise TypeError("say how your store is opened")

    def test_committed_records_come_back(self) -> None:
        """Frames, sources, labels and events are what was staged."""
        writer = self.open_writer()
        fill(writer, 4)
        writer.close()
        reader = self.open_reader()
        candidates, labels = records(4)
        ids = [c.frame.frame_id for c in candidates]
        assert reader.candidates(ids)[2].frame == candidates[2].frame
        assert reader.candidates(ids)[2].source.trajectory == 2
        found = reader.labels(ids, FAKE_LEVEL.level_id)
        assert [label.energy for label in found] == [label.energy for label in labels]
        np.testing.assert_array_equal(found[1].forces, labels[1].forces)
        assert len(reader.events()) == 8
        assert reader.events(6)[0] == reader.events()[6]
        assert reader.verify().problems == []

    def test_staged_records_are_invisible_until_committed(self) -> None:
        """A crash before the commit leaves nothing behind."""
        writer = self.open_writer()
        candidates, _ = records(2)
        writer.stage(candidates=candidates)
        assert writer.n_staged > 0
        assert self.open_reader().head.lengths["frames"] == 0
        writer.close()
        assert self.open_reader().head.lengths["frames"] == 0

    def test_repeated_records_have_no_effect(self) -> None:
        """Frames, labels and levels are stored once."""
        writer = self.open_writer()
        fill(writer, 3)
        candidates, labels = records(3)
        writer.stage(candidates=candidates, labels=labels, levels=[FAKE_LEVEL])
        assert writer.n_staged == 0
        assert writer.commit().lengths["labels"] == 3

    def test_label_without_frame_or_level_is_refused(self) -> None:
        """And nothing of that call is staged."""
        writer = self.open_writer()
        candidates, labels = records(1)
        for call in ({"labels": labels}, {"labels": labels, "candidates": candidates}):
            try:
                writer.stage(**call)
            except KeyError:
                assert writer.n_staged == 0
            else:
                raise AssertionError("a label without frame or level was taken")

    def test_old_versions_stay_what_they_were(self) -> None:
        """A dataset version is a prefix."""
        writer = self.open_writer()
        fill(writer, 3, seed=1)
        first = writer.head.seq
        fill(writer, 4, seed=2)
        writer.close()
        reader = self.open_reader()
        old = reader.snapshot(FAKE_LEVEL.level_id, first)
        new = reader.snapshot(FAKE_LEVEL.level_id)
        assert (old.n_frames, new.n_frames) == (3, 7)
        assert new.frame_ids[:3] == old.frame_ids
        np.testing.assert_array_equal(new.forces[: len(old.forces)], old.forces)
        assert self.open_reader(first).snapshot(FAKE_LEVEL.level_id).n_frames == 3
        try:
            reader.snapshot(FAKE_LEVEL.level_id, reader.head.seq + 1)
        except InputError:
            return
        raise AssertionError("a version of the future was read")

    def test_snapshot_holds_only_its_level_and_keeps_ragged_forces(self) -> None:
        """Frames of different sizes keep their own atoms."""
        writer = self.open_writer()
        mixed: Sequence[Candidate] = [*fake_candidates(2, seed=3, n_atoms=2), *fake_candidates(2, seed=4, n_atoms=5)]
        labels = [label for c in mixed if isinstance(label := FakeLabeler().label(c.frame), Label)]
        writer.stage(candidates=mixed, labels=[labels[i] for i in (3, 0, 2)], levels=[FAKE_LEVEL])
        writer.commit()
        snapshot = writer.snapshot(FAKE_LEVEL.level_id)
        assert snapshot.n_atoms.tolist() == [5, 2, 5]
        assert snapshot.frame(1) == mixed[0].frame
        np.testing.assert_array_equal(snapshot.forces[5:7], labels[0].forces)
        assert writer.snapshot("00" * 16).n_frames == 0

    def test_later_writer_has_a_later_epoch_and_fences_the_earlier(self) -> None:
        """Or is refused while the earlier one lives."""
        first = self.open_writer()
        fill(first, 1, seed=5)
        try:
            second = self.open_writer()
        except StoreBusy:
            first.close()
            second = self.open_writer()
            assert second.epoch == first.epoch + 1
            return
        assert second.epoch == first.epoch + 1
        first.stage(candidates=fake_candidates(1, seed=6))
        try:
            first.commit()
        except Fenced:
            return
        raise AssertionError("a fenced writer committed")
