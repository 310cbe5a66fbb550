"""The Zarr store under any sequence of commits, failures, crashes and restarts.

The model is a list: what was staged, in order, and how much of it was acknowledged. Whatever happens, the labels on
disk are a prefix of what was staged, at least as long as what was acknowledged, and no version ever changes. A label
that was retracted is in no version after its tombstone, and stays in all before.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alsys.errors import Fenced
from alsys.events import LabelAccepted, LabelRetracted
from alsys.labels import label_id_of
from alsys.store.base import Head
from alsys.store.verification import verify_columns
from alsys.store.zarr import ZarrWriter, open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import records, stage
from support.unreliable_files import UnreliableFiles


@cache
def empty_store() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="alsys-store-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "store.zarr"
    open_writer(path, files=UnreliableFiles()).close()
    return path


class StoreMachine(RuleBasedStateMachine):
    writer: ZarrWriter
    files: UnreliableFiles

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="alsys-store-"))
        self.path = self.folder / "store.zarr"
        shutil.copytree(empty_store(), self.path)
        self.n_batches = 0
        self.batches: list[tuple[int, int, int]] = []
        self.staged: list[str] = []
        self.n_acknowledged = 0
        self.versions: dict[int, tuple[Head, tuple[str, ...]]] = {}
        self.epoch = 0

    def stored(self, seq: int | None = None) -> tuple[str, ...]:
        """What the log says, in order: labels accepted, and with a minus labels retracted. The snapshots agree."""
        reader = open_reader(self.path, seq)
        entries = []
        for event in reader.events():
            if isinstance(event, LabelAccepted):
                entries.append(event.label_id)
            elif isinstance(event, LabelRetracted):
                entries.append(f"-{event.label_id}")
        data = [entry for entry in entries if entry[0] != "-" and f"-{entry}" not in entries]
        pinned = reader.head.seq
        stores = [reader, open_reader(self.path)]
        if pinned <= self.writer.head.seq:  # else a commit failed after it had reached the disk
            stores.append(self.writer)
        for store in stores:
            snapshot = store.snapshot(FAKE_LEVEL.level_id, pinned)
            assert [label_id_of(frame_id, FAKE_LEVEL.level_id) for frame_id in snapshot.frame_ids] == data
        return tuple(entries)

    def see(self) -> None:
        """Looks at the disk as another process would, and remembers the version."""
        reader = open_reader(self.path)
        now = self.stored()
        assert now == tuple(self.staged[: len(now)]), "the store is a prefix of what was staged"
        assert len(now) >= self.n_acknowledged, "an acknowledged label is lost"
        head = Head(reader.head.seq, 0, reader.head.lengths)
        assert self.versions.setdefault(head.seq, (head, now)) == (head, now), "a version changed"

    def take_over(self, seed: int) -> None:
        """Opens the store; what is on disk is all there is now."""
        self.files = UnreliableFiles(seed)
        self.writer = open_writer(self.path, files=self.files)
        assert self.writer.epoch > self.epoch
        self.epoch = self.writer.epoch
        self.see()
        self.staged = list(self.stored())
        self.n_acknowledged = len(self.staged)

    @initialize(seed=st.integers(0, 99))
    def start(self, seed: int) -> None:
        self.take_over(seed)

    @rule(n=st.integers(1, 4), n_atoms=st.sampled_from([1, 3, 40]))
    def stage(self, n: int, n_atoms: int) -> None:
        self.n_batches += 1
        self.batches.append((n, self.n_batches, n_atoms))
        self.staged += stage(self.writer, n, seed=self.n_batches, n_atoms=n_atoms)

    @precondition(lambda self: any(entry[0] != "-" and f"-{entry}" not in self.staged for entry in self.staged))
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        """Staged or stored, acknowledged or not; after a crash it may come back and be retracted again."""
        frame_of = {label.label_id: label.frame_id for batch in self.batches for label in records(*batch)[1]}
        left = [entry for entry in self.staged if entry[0] != "-" and f"-{entry}" not in self.staged]
        label_id = data.draw(st.sampled_from(left))
        tombstone = LabelRetracted(t=2.0, frame_id=frame_of[label_id], label_id=label_id, reason="wrong")
        self.writer.stage([tombstone])
        self.staged.append(f"-{label_id}")

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def stage_again(self, data: st.DataObject) -> None:
        """What is there is ignored; what a crash took may come back."""
        batch = data.draw(st.sampled_from(self.batches))
        candidates, labels = records(*batch)
        known = set(self.staged)
        if all(label.label_id in known for label in labels):
            before = self.writer.n_staged
            self.writer.stage(candidates=candidates, labels=labels)
            assert self.writer.n_staged == before
        elif not any(label.label_id in known for label in labels):
            self.staged += stage(self.writer, *batch)

    @rule()
    def commit(self) -> None:
        head = self.writer.commit()
        self.n_acknowledged = len(self.staged)
        assert self.writer.n_staged == 0
        assert head.lengths["labels"] == sum(entry[0] != "-" for entry in self.staged)

    @rule(at=st.integers(1, 130), is_late=st.booleans(), is_full=st.booleans())
    def commit_on_a_failing_disk(self, at: int, is_late: bool, is_full: bool) -> None:
        self.files.fail(at, is_late=is_late, is_full=is_full)
        try:
            self.commit()
        except OSError:
            assert self.writer.n_staged > 0, "what failed is still to be written"
        finally:
            self.files.recover()

    @rule(seed=st.integers(0, 99), keeps_all=st.booleans())
    def crash(self, seed: int, keeps_all: bool) -> None:
        self.files.cut_power(keeps_all=keeps_all)
        self.take_over(seed)

    @rule(n=st.integers(1, 4), seed=st.integers(0, 99))
    def crash_after_an_acknowledgement(self, n: int, seed: int) -> None:
        self.stage(n, 3)
        self.commit()
        self.crash(seed, keeps_all=False)

    @rule(at=st.integers(1, 130), seed=st.integers(0, 99))
    def crash_again_while_opening(self, at: int, seed: int) -> None:
        self.files.cut_power()
        dying = UnreliableFiles(seed)
        dying.fail(at, is_full=True)
        with contextlib.suppress(OSError):
            open_writer(self.path, files=dying)
        dying.cut_power()
        self.take_over(seed)

    @rule(seed=st.integers(0, 99))
    def close_and_reopen(self, seed: int) -> None:
        self.writer.close()
        report = open_reader(self.path).verify()
        assert report.problems == []
        self.take_over(seed)

    @rule(seed=st.integers(0, 99))
    def lose_the_lock(self, seed: int) -> None:
        """Another host takes over; the first writer can no longer commit."""
        old, old_files = self.writer, self.files
        (self.path / "writer.lock").unlink()
        self.take_over(seed)
        stage(old, 1, seed=0)
        try:
            old.commit()
        except Fenced:
            old_files.cut_power(keeps_all=True)
        else:
            raise AssertionError("a fenced writer committed")

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def read_an_old_version(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.versions)))
        head, label_ids = self.versions[seq]
        reader = open_reader(self.path, seq)
        assert reader.head.lengths == head.lengths
        assert self.stored(seq) == label_ids
        assert verify_columns(reader).problems == []

    @invariant()
    def disk_is_sound(self) -> None:
        if self.n_batches:
            self.see()

    def teardown(self) -> None:
        try:
            if self.epoch:
                self.files.cut_power()
                writer = open_writer(self.path, files=UnreliableFiles())
                assert verify_columns(writer).problems == []
                writer.close()
                assert open_reader(self.path).verify().problems == []
        finally:
            shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes, and twelve steps can be read
    suppress_health_check=list(HealthCheck),
)
TestStore = StoreMachine.TestCase
