"""Contract tests of a store: what every implementation promises.

Subclass `StoreContract`, say how your store is opened, and run pytest::

    class TestMyStore(StoreContract):
        def open_writer(self): ...
        def open_reader(self, seq=None): ...
        def crash(self, writer): ...

The records are those of `alsys.testing.store_records`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from alsys.errors import FailureKind, Fenced, InputError, StoreBusy
from alsys.events import FrameQuarantined, LabelAccepted
from alsys.frames import PointCharges
from alsys.labels import Diagnostics, Label, LabelCost, label_id_of
from alsys.testing.fakes import FAKE_LEVEL, FakeLabeler, fake_candidates
from alsys.testing.store_records import OTHER_LEVEL, events_of, fill, records, stage, tombstone


class StoreContract:
    """What every store promises."""

    def open_writer(self) -> Any:
        """A writer on this test's store."""
        raise TypeError("say how your store is opened")

    def open_reader(self, seq: int | None = None) -> Any:
        """A reader on this test's store."""
        raise TypeError("say how your store is opened")

    def crash(self, writer: Any) -> None:
        """Ends a writer as a dying process would: nothing is flushed, locks are free."""
        raise TypeError("say how your store's writer dies")

    def test_committed_records_come_back(self) -> None:
        """Frames, sources, labels and events are what was staged."""
        writer = self.open_writer()
        fill(writer, 4)
        writer.close()
        reader = self.open_reader()
        candidates, labels = records(4)
        ids = [c.frame.frame_id for c in candidates]
        found = reader.candidates(ids[::-1])[::-1]
        assert [c.frame for c in found] == [c.frame for c in candidates]
        assert [c.source.trajectory for c in found] == [c.source.trajectory for c in candidates]
        assert np.isnan(found[0].source.deviation)
        found_labels = reader.labels(ids, FAKE_LEVEL.level_id)
        assert [label.energy for label in found_labels] == [label.energy for label in labels]
        np.testing.assert_array_equal(found_labels[1].forces, labels[1].forces)
        assert reader.levels() == (FAKE_LEVEL,)
        assert reader.labels(ids[:1], OTHER_LEVEL.level_id) == [None]
        assert len(reader.events()) == 8
        assert reader.events(6) == reader.events()[6:]
        assert reader.events(8) == []
        assert reader.verify().problems == []

    def test_provenance_comes_back(self) -> None:
        """Cost and host of a label; a host name of any length and alphabet."""
        writer = self.open_writer()
        candidates, labels = records(2)
        costs = [LabelCost(1.5, 2.5, 11, 2, "node-7"), LabelCost(host="\N{GREEK SMALL LETTER ALPHA}" * 40)]
        marked = [Label(x.frame_id, x.level_id, x.energy, x.forces, c) for x, c in zip(labels, costs, strict=True)]
        writer.stage(events_of(candidates, marked), candidates, marked, [FAKE_LEVEL])
        writer.commit()
        found = writer.labels([c.frame.frame_id for c in candidates], FAKE_LEVEL.level_id)
        assert found[0].cost == costs[0]
        assert found[1].cost.host == "\N{GREEK SMALL LETTER ALPHA}" * 16

    def test_staged_records_are_invisible_until_committed(self) -> None:
        """Closing without a commit leaves nothing behind."""
        writer = self.open_writer()
        candidates, _ = records(2)
        writer.stage(candidates=candidates)
        assert writer.n_staged > 0
        assert self.open_reader().head.lengths["frames"] == 0
        writer.close()
        assert self.open_reader().head.lengths["frames"] == 0

    def test_appended_records_become_one_version_with_the_commit(self) -> None:
        """In the order they came; before it no reader sees any of them, and nothing staged is left in memory."""
        writer = self.open_writer()
        label_ids = fill(writer, 2, seed=1)
        for seed in (2, 3):
            label_ids += stage(writer, 3, seed=seed, n_atoms=seed)
            writer.append()
            assert writer.n_staged == 0
        assert self.open_reader().head.lengths["frames"] == 2
        assert stage(writer, 3, seed=2, n_atoms=2) == label_ids[2:5], "known frames may be staged again"
        label_ids += stage(writer, 1, seed=4)
        assert writer.commit().seq == 2
        stage(writer, 1, seed=5)
        writer.append()
        assert writer.commit().seq == 3, "a commit of nothing but what was appended"
        writer.close()
        reader = self.open_reader()
        assert reader.head.lengths["labels"] == 10
        assert reader.snapshot(FAKE_LEVEL.level_id, 2).n_frames == 9
        snapshot = reader.snapshot(FAKE_LEVEL.level_id)
        assert [label_id_of(f, FAKE_LEVEL.level_id) for f in snapshot.frame_ids][:9] == label_ids
        known = records(3, 3, 3)[1]
        np.testing.assert_array_equal(
            snapshot.select(np.arange(5, 8)).forces, np.concatenate([x.forces for x in known])
        )

    def test_crash_leaves_nothing_of_what_was_only_appended(self) -> None:
        """Nor does closing."""
        writer = self.open_writer()
        fill(writer, 2, seed=1)
        stage(writer, 3, seed=2)
        writer.append()
        self.crash(writer)
        again = self.open_writer()
        assert again.head.lengths["frames"] == 2
        stage(again, 3, seed=3)
        again.append()
        again.close()
        last = self.open_writer()
        fill(last, 3, seed=2)
        assert last.verify().problems == []
        assert last.head.lengths["labels"] == 5

    def test_crash_keeps_what_was_committed_and_only_that(self) -> None:
        """And the next writer can store again what was lost."""
        writer = self.open_writer()
        kept = fill(writer, 3, seed=1)
        lost = stage(writer, 2, seed=2)
        epoch = writer.epoch
        self.crash(writer)
        again = self.open_writer()
        assert again.epoch == epoch + 1
        assert again.head.lengths["labels"] == 3
        fill(again, 2, seed=2)
        again.close()
        reader = self.open_reader()
        assert [e.label_id for e in reader.events() if isinstance(e, LabelAccepted)] == [*kept, *lost]
        assert reader.verify().problems == []

    def test_commit_of_nothing_is_no_version(self) -> None:
        """The sequence number counts commits that wrote something."""
        writer = self.open_writer()
        fill(writer, 1)
        head = writer.head
        assert writer.commit() == head
        assert head.seq == 1

    def test_repeated_records_have_no_effect(self) -> None:
        """Frames, labels and levels are stored once, whether repeated at once, later or by a later writer."""
        writer = self.open_writer()
        fill(writer, 3)
        candidates, labels = records(3)
        writer.stage(candidates=candidates, labels=labels, levels=[FAKE_LEVEL])
        assert writer.n_staged == 0
        assert writer.commit().lengths["labels"] == 3
        writer.close()
        writer = self.open_writer()
        writer.stage(candidates=candidates * 2, labels=labels * 2, levels=[FAKE_LEVEL])
        assert writer.n_staged == 0
        more, more_labels = records(2, seed=7)
        writer.stage(events_of(more, more_labels), more * 2, more_labels * 2)
        lengths = writer.commit().lengths
        assert (lengths["frames"], lengths["labels"], lengths["levels"]) == (5, 5, 1)
        assert writer.verify().problems == []

    def test_refused_records_leave_nothing_behind(self) -> None:
        """A label without frame or level, of another shape, or not finite; rows given out later still fit."""
        writer = self.open_writer()
        fill(writer, 1, seed=9)
        candidates, labels = records(1)
        good = labels[0]
        odd = Label(good.frame_id, good.level_id, good.energy, good.forces[:2])
        infinite = Label(good.frame_id, good.level_id, float("inf"), good.forces)
        for call in (
            {"labels": labels},
            {"candidates": candidates, "labels": [Label(good.frame_id, OTHER_LEVEL.level_id, 0.0, good.forces)]},
            {"candidates": candidates, "labels": [odd], "levels": [OTHER_LEVEL]},
            {"candidates": candidates, "labels": [infinite]},
        ):
            try:
                writer.stage(events=events_of(candidates, labels), **call)
            except (KeyError, ValueError):
                assert writer.n_staged == 0
            else:
                raise AssertionError("a label that does not fit was taken")
        fill(writer, 2, seed=0)
        assert writer.verify().problems == []
        assert writer.head.lengths["frames"] == 3
        assert writer.head.lengths["levels"] == 1

    def test_unknown_frame_is_a_key_error(self) -> None:
        """So is one that is staged and not committed."""
        writer = self.open_writer()
        candidates, _ = records(1)
        for _ in range(2):
            try:
                writer.candidates([candidates[0].frame.frame_id])
            except KeyError:
                writer.stage(candidates=candidates)
            else:
                raise AssertionError("a frame that is not committed was read")

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
        assert (old.seq, new.seq) == (first, reader.head.seq)
        assert new.frame_ids[:3] == old.frame_ids
        np.testing.assert_array_equal(new.forces[: len(old.forces)], old.forces)
        pinned = self.open_reader(first)
        assert pinned.snapshot(FAKE_LEVEL.level_id).n_frames == 3
        assert len(pinned.events()) == 6
        assert pinned.verify().problems == []
        assert reader.snapshot(FAKE_LEVEL.level_id, 0).n_frames == 0
        for seq in (reader.head.seq + 1, -1):
            try:
                reader.snapshot(FAKE_LEVEL.level_id, seq)
            except InputError:
                continue
            raise AssertionError("a version that does not exist was read")

    def test_reader_stays_at_its_version_while_the_writer_goes_on(self) -> None:
        """What a reader sees never changes under it."""
        writer = self.open_writer()
        fill(writer, 2, seed=1)
        reader = self.open_reader()
        fill(writer, 5, seed=2)
        assert reader.snapshot(FAKE_LEVEL.level_id).n_frames == 2
        assert len(reader.events()) == 4
        assert reader.verify().problems == []
        assert self.open_reader().snapshot(FAKE_LEVEL.level_id).n_frames == 7

    def test_snapshot_holds_only_its_level_and_keeps_ragged_forces(self) -> None:
        """Frames of different sizes, labelled in another order and at two levels, keep their own atoms."""
        writer = self.open_writer()
        mixed = [*fake_candidates(2, seed=3, n_atoms=2), *fake_candidates(2, seed=4, n_atoms=5)]
        labels = [label for c in mixed if isinstance(label := FakeLabeler().label(c.frame), Label)]
        others = [Label(x.frame_id, OTHER_LEVEL.level_id, -x.energy, 2 * x.forces) for x in labels]
        given = [labels[3], others[1], labels[0], others[3], labels[2]]
        writer.stage(events_of(mixed, given), mixed, given, [FAKE_LEVEL, OTHER_LEVEL])
        writer.commit()
        snapshot = writer.snapshot(FAKE_LEVEL.level_id)
        assert snapshot.n_atoms.tolist() == [5, 2, 5]
        assert snapshot.frame(1) == mixed[0].frame
        np.testing.assert_array_equal(snapshot.forces[5:7], labels[0].forces)
        other = writer.snapshot(OTHER_LEVEL.level_id)
        assert [label_id_of(f, OTHER_LEVEL.level_id) for f in other.frame_ids] == [others[i].label_id for i in (1, 3)]
        np.testing.assert_array_equal(other.forces, np.concatenate([others[1].forces, others[3].forces]))
        assert writer.snapshot("00" * 16).n_frames == 0
        both = writer.snapshot(FAKE_LEVEL.level_id, baseline_id=OTHER_LEVEL.level_id)
        assert both.baseline_energy is not None
        assert both.baseline_forces is not None
        np.testing.assert_array_equal(both.baseline_energy, [others[3].energy, np.nan, np.nan])
        np.testing.assert_array_equal(both.baseline_forces[:5], others[3].forces)
        assert np.isnan(both.baseline_forces[5:]).all()
        last = both.select(np.array([2, 0]))
        np.testing.assert_array_equal(last.baseline_energy, [np.nan, others[3].energy])
        np.testing.assert_array_equal(last.baseline_forces[5:], others[3].forces)
        assert snapshot.baseline_energy is None
        assert writer.verify().problems == []

    def test_a_retracted_label_is_in_no_later_version_and_in_every_earlier_one(self) -> None:
        """Nor are other labels of its frame; a restart changes nothing."""
        writer = self.open_writer()
        candidates, labels = records(4)
        baselines = [Label(x.frame_id, OTHER_LEVEL.level_id, 0.0, x.forces) for x in labels]
        accepted = [
            replace(event, baseline_id=baseline.label_id)
            for event, baseline in zip(events_of([], labels), baselines, strict=True)
            if isinstance(event, LabelAccepted)
        ]
        writer.stage(
            [*events_of(candidates, []), *accepted], candidates, [*labels, *baselines], [FAKE_LEVEL, OTHER_LEVEL]
        )
        before = writer.commit().seq
        writer.stage([tombstone(labels[1])])
        assert writer.snapshot(FAKE_LEVEL.level_id).n_frames == 4, "what is only staged has no effect"
        writer.commit()
        fill(writer, 2, seed=5)
        writer.stage([tombstone(labels[3])])
        last = writer.commit().seq
        ids = [c.frame.frame_id for c in candidates]
        more = [c.frame.frame_id for c in records(2, seed=5)[0]]
        self.crash(writer)
        writer = self.open_writer()
        for store in (writer, self.open_reader()):
            assert store.snapshot(FAKE_LEVEL.level_id).frame_ids == (ids[0], ids[2], *more)
            assert store.snapshot(OTHER_LEVEL.level_id).frame_ids == (ids[0], ids[2])
            assert store.snapshot(FAKE_LEVEL.level_id, before).frame_ids == tuple(ids)
            assert store.snapshot(FAKE_LEVEL.level_id, before + 1).frame_ids == (ids[0], ids[2], ids[3])
            np.testing.assert_array_equal(
                store.snapshot(FAKE_LEVEL.level_id).forces[:6], np.concatenate([labels[0].forces, labels[2].forces])
            )
            assert [e.frame_id for e in store.tombstones()] == [ids[1], ids[3]]
            assert [e.frame_id for e in store.tombstones(last - 1)] == [ids[1]]
            assert store.tombstones(before) == ()
            found = store.labels(ids, FAKE_LEVEL.level_id)
            assert [label is None for label in found] == [False, True, False, True]
            assert store.head.lengths["labels"] == 10, "nothing is deleted"
            report = store.verify()
            assert (report.problems, report.n_retracted) == ([], 2)
        assert self.open_reader(before).labels(ids[1:2], FAKE_LEVEL.level_id)[0].energy == labels[1].energy

    def test_a_tombstone_is_found_by_its_line_and_not_by_its_words(self) -> None:
        """Whatever a message says."""
        writer = self.open_writer()
        label_ids = fill(writer, 2)
        line = '{"kind":"label-retracted","t":2.0,"frame_id":"x","label_id":"y","reason":"","request":""}'
        frame_id = records(1)[0][0].frame.frame_id
        writer.stage([FrameQuarantined(t=1.0, frame_id=frame_id, failure=FailureKind.INTERNAL, message=line)])
        writer.commit()
        assert writer.tombstones() == ()
        assert len(writer.snapshot(FAKE_LEVEL.level_id).frame_ids) == len(label_ids)

    def test_a_tombstone_that_names_no_label_is_a_problem(self) -> None:
        """So is one that names the label of another frame, or one that names a label again."""
        _, labels = records(3)
        writer = self.open_writer()
        fill(writer, 3)
        wrong = [
            (replace(tombstone(labels[0]), label_id="00" * 16), ["never accepted"]),
            (replace(tombstone(labels[1]), label_id=labels[0].label_id), ["never accepted"]),
            (tombstone(labels[2]), []),
            (tombstone(labels[2]), ["twice"]),
        ]
        expected: list[str] = []
        for event, words in wrong:
            writer.stage([event])
            writer.commit()
            expected += words
            problems = writer.verify().problems
            assert len(problems) == len(expected), problems
            assert all(word in problem for word, problem in zip(expected, problems, strict=True))

    def test_point_charges_come_back(self) -> None:
        """With their frames, in candidates and snapshots, also of older versions, where others have none."""
        plain, _ = records(5)
        counts = (0, 3, 1, 0, 2)
        rng = np.random.default_rng(1)
        candidates = [
            replace(c, frame=replace(c.frame, environment=PointCharges(rng.normal(size=(n, 3)), rng.normal(size=n))))
            if n
            else c
            for c, n in zip(plain, counts, strict=True)
        ]
        labels = [Label(c.frame.frame_id, FAKE_LEVEL.level_id, 0.0, np.zeros((c.frame.n_atoms, 3))) for c in candidates]
        writer = self.open_writer()
        for some in (slice(0, 3), slice(3, 5)):
            staged = candidates[some], labels[some]
            writer.stage(events_of(*staged), *staged, [FAKE_LEVEL])
            writer.commit()
        for reader, n in ((self.open_reader(), 5), (self.open_reader(1), 3)):
            assert reader.verify().problems == []
            assert reader.head.lengths["charges"] == sum(counts[:n])
            ids = [c.frame.frame_id for c in candidates[:n]][::-1]
            assert [c.frame.frame_id for c in reader.candidates(ids)] == ids
            snapshot = reader.snapshot(FAKE_LEVEL.level_id)
            assert [snapshot.frame(i).frame_id for i in range(n)] == ids[::-1] == list(snapshot.frame_ids)
            some_rows = snapshot.select(np.array([2, 0, 1]))
            assert [some_rows.frame(i).frame_id for i in range(3)] == list(some_rows.frame_ids)
            bare = snapshot.select(np.array([0]))
            assert bare.frame(0).environment is None
            found = reader.candidates([candidates[1].frame.frame_id])[0].frame.environment
            wanted = candidates[1].frame.environment
            assert found is not None
            assert wanted is not None
            np.testing.assert_array_equal(found.positions, wanted.positions)
            np.testing.assert_array_equal(found.values, wanted.values)

    def test_masks_stress_and_diagnostics_come_back(self) -> None:
        """And are unset where nobody set them."""
        candidates, labels = records(2)
        mask = np.array([True, False, True])
        stress = np.diag([0.1, 0.2, 0.3])
        candidates[1] = replace(candidates[1], mask=mask)
        labels[1] = replace(labels[1], stress=stress, diagnostics=Diagnostics(gap=7.5, spin_excess=0.25))
        writer = self.open_writer()
        writer.stage(events_of(candidates, labels), candidates, labels, [FAKE_LEVEL])
        writer.commit()
        reader = self.open_reader()
        frame_ids = [c.frame.frame_id for c in candidates]
        first, second = reader.labels(frame_ids, FAKE_LEVEL.level_id)
        assert first is not None
        assert second is not None
        assert first.stress is None
        assert np.isnan(first.diagnostics.gap)
        np.testing.assert_array_equal(second.stress, stress)
        assert (second.diagnostics.gap, second.diagnostics.spin_excess) == (7.5, 0.25)
        assert reader.candidates(frame_ids)[0].mask is None
        np.testing.assert_array_equal(reader.candidates(frame_ids)[1].mask, mask)
        snapshot = reader.snapshot(FAKE_LEVEL.level_id)
        np.testing.assert_array_equal(snapshot.select(np.array([1])).mask, mask)
        np.testing.assert_array_equal(snapshot.select(np.array([1])).stress[0], stress)
        try:
            writer.stage(candidates=[replace(fake_candidates(1, seed=3)[0], mask=mask[:1])])
        except ValueError:
            return
        raise AssertionError("a mask of the wrong length was taken")

    def test_staging_while_a_commit_runs_loses_nothing(self) -> None:
        """`stage` and `commit` run in two threads; records keep their order."""
        writer = self.open_writer()
        label_ids = []
        with ThreadPoolExecutor(1) as pool:
            for seed in range(30):
                label_ids += stage(writer, 2, seed=seed, n_atoms=1 + seed % 4)
                if seed % 3 == 0:
                    commit = pool.submit(writer.commit)
            commit.result()
        writer.commit()
        assert writer.n_staged == 0
        assert [e.label_id for e in writer.events() if isinstance(e, LabelAccepted)] == label_ids
        snapshot = writer.snapshot(FAKE_LEVEL.level_id)
        assert [label_id_of(f, FAKE_LEVEL.level_id) for f in snapshot.frame_ids] == label_ids
        assert writer.verify().problems == []

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
