"""A store under any sequence of commits, failures, crashes and restarts, wherever it is.

The model is a list: what was staged, in order, and how much of it was acknowledged. Whatever happens, the labels in the
store are a prefix of what was staged, at least as long as what was acknowledged, and no version ever changes. A label
that was retracted is in no version after its tombstone, and stays in all before. Where the store is, and how it can
fail there, is a `Place`.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alsys.errors import Fenced
from alsys.events import LabelAccepted, LabelRetracted
from alsys.labels import label_id_of
from alsys.store import memory, segments, zarr
from alsys.store.base import Head
from alsys.store.columns import ColumnReader
from alsys.store.memory import MemoryDisk
from alsys.store.objects import Objects
from alsys.store.segments import SegmentStore
from alsys.store.verification import verify_columns
from alsys.store.writer import ColumnWriter
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import records, stage
from support.unreliable_files import UnreliableFiles


class Place(Protocol):
    """Where a store is, and how it fails there."""

    def open_writer(self, seed: int = 0) -> ColumnWriter:
        """The next life of the store's writer."""
        ...

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        """What another process sees."""
        ...

    def fail(self, at: int, *, is_late: bool, is_full: bool) -> None:
        """The n-th operation from now on fails, before or after it is carried out; or all from then on."""
        ...

    def recover(self) -> None:
        """Nothing fails any more."""
        ...

    def die(self, *, keeps_all: bool = False) -> None:
        """The writer dies, and what is not durable is lost or not; with `keeps_all` nothing is."""
        ...

    def lose_lock(self) -> None:
        """Another host can open it while this writer lives."""
        ...

    def remove(self) -> None:
        """Removes all of it."""
        ...


@cache
def empty_store() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="alsys-store-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "store.zarr"
    zarr.open_writer(path, files=UnreliableFiles()).close()
    return path


class LocalPlace:
    """A folder on a disk whose power can be cut."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="alsys-store-"))
        self._path = self._folder / "store.zarr"
        shutil.copytree(empty_store(), self._path)
        self._files, self._is_dead = UnreliableFiles(), False
        self._next: tuple[int, bool, bool] | None = None
        self._fenced: list[UnreliableFiles] = []

    def open_writer(self, seed: int = 0) -> ColumnWriter:
        self._files, self._is_dead = UnreliableFiles(seed), False
        if self._next is not None:
            (at, is_late, is_full), self._next = self._next, None
            self._files.fail(at, is_late=is_late, is_full=is_full)
        return zarr.open_writer(self._path, files=self._files)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return zarr.open_reader(self._path, seq)

    def fail(self, at: int, *, is_late: bool, is_full: bool) -> None:
        if self._is_dead:
            self._next = (at, is_late, is_full)
        else:
            self._files.fail(at, is_late=is_late, is_full=is_full)

    def recover(self) -> None:
        self._files.recover()

    def die(self, *, keeps_all: bool = False) -> None:
        self._files.cut_power(keeps_all=keeps_all)
        self._is_dead = True

    def lose_lock(self) -> None:
        self._fenced.append(self._files)
        (self._path / "writer.lock").unlink()

    def remove(self) -> None:
        for files in self._fenced:
            files.cut_power(keeps_all=True)
        shutil.rmtree(self._folder)


class Countdown:
    """Operations of which the n-th fails.

    Attributes:
        left: Operations until then; None for never.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.is_late = self.is_full = False

    def carry_out(self, operation: Callable[[], Any]) -> Any:
        """One operation, or its failure."""
        if self.left is None:
            return operation()
        self.left -= 1
        fails = self.left == 0 or (self.left < 0 and self.is_full)
        result = None if fails and not self.is_late else operation()
        if fails:
            raise OSError(errno.EIO, "no answer")
        return result


class FailingDisk(MemoryDisk):
    """Columns in memory whose writes fail now and then."""

    countdown = Countdown()

    def write(self, path: str, start: int, rows: Any) -> None:
        """As of `MemoryDisk`."""
        self.countdown.carry_out(lambda: super(FailingDisk, self).write(path, start, rows))

    def write_head(self, head: Head) -> None:
        """As of `MemoryDisk`."""
        self.countdown.carry_out(lambda: super(FailingDisk, self).write_head(head))


class MemoryPlace:
    """Columns in memory."""

    def __init__(self) -> None:
        self._disk, self._countdown = FailingDisk(), Countdown()
        self._disk.countdown = self._countdown

    def open_writer(self, seed: int = 0) -> ColumnWriter:
        return memory.open_writer(self._disk)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return memory.open_reader(self._disk, seq)

    def fail(self, at: int, *, is_late: bool, is_full: bool) -> None:
        self._countdown.left, self._countdown.is_late, self._countdown.is_full = at, is_late, is_full

    def recover(self) -> None:
        self._countdown.left = None

    def die(self, *, keeps_all: bool = False) -> None:
        self.recover()

    def lose_lock(self) -> None:
        return None

    def remove(self) -> None:
        self.recover()


class FailingObjects(Objects):
    """Objects whose puts fail now and then."""

    countdown = Countdown()

    def _call(self, operation: str, name: str, *arguments: Any, **options: Any) -> Any:
        call = super()._call
        if operation != "put":
            return call(operation, name, *arguments, **options)
        return self.countdown.carry_out(lambda: call(operation, name, *arguments, **options))


class ObjectsPlace:
    """Segments in object storage.

    Args:
        objects: Where. A third of the writers compact what they find.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects, self._countdown = objects, Countdown()

    def open_writer(self, seed: int = 0) -> ColumnWriter:
        objects = FailingObjects(self._objects._store, self._objects.url, self._objects._prefix)
        objects.countdown = self._countdown
        store = SegmentStore(objects)
        head = store.claim()
        if seed % 3 == 0:
            with contextlib.suppress(OSError):
                store.compact()
        return ColumnWriter(store, head)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return segments.open_reader(self._objects, seq)

    def fail(self, at: int, *, is_late: bool, is_full: bool) -> None:
        at = 1 + at % 3  # a commit is one put
        self._countdown.left, self._countdown.is_late, self._countdown.is_full = at, is_late, is_full

    def recover(self) -> None:
        self._countdown.left = None

    def die(self, *, keeps_all: bool = False) -> None:
        self.recover()

    def lose_lock(self) -> None:
        return None

    def remove(self) -> None:
        self._objects.remove(self._objects.names(""))


class StoreMachine(RuleBasedStateMachine):
    """The rules. Subclasses say where the store is, and tests run their ``TestCase``."""

    writer: ColumnWriter

    def __init__(self) -> None:
        super().__init__()
        self.place = self.make_place()
        self.n_batches = 0
        self.batches: list[tuple[int, int, int]] = []
        self.staged: list[str] = []
        self.n_acknowledged = 0
        self.versions: dict[int, tuple[Head, tuple[str, ...]]] = {}
        self.epoch = 0

    def make_place(self) -> Place:
        """An empty store."""
        raise TypeError("say where the store is")

    def stored(self, seq: int | None = None) -> tuple[str, ...]:
        """What the log says, in order: labels accepted, and with a minus labels retracted. The snapshots agree."""
        reader = self.place.open_reader(seq)
        entries = []
        for event in reader.events():
            if isinstance(event, LabelAccepted):
                entries.append(event.label_id)
            elif isinstance(event, LabelRetracted):
                entries.append(f"-{event.label_id}")
        data = [entry for entry in entries if entry[0] != "-" and f"-{entry}" not in entries]
        pinned = reader.head.seq
        stores = [reader, self.place.open_reader()]
        if pinned <= self.writer.head.seq:  # else a commit failed after it had reached the disk
            stores.append(self.writer)
        for store in stores:
            snapshot = store.snapshot(FAKE_LEVEL.level_id, pinned)
            assert [label_id_of(frame_id, FAKE_LEVEL.level_id) for frame_id in snapshot.frame_ids] == data
        return tuple(entries)

    def see(self) -> None:
        """Looks at the disk as another process would, and remembers the version."""
        reader = self.place.open_reader()
        now = self.stored()
        assert now == tuple(self.staged[: len(now)]), "the store is a prefix of what was staged"
        assert len(now) >= self.n_acknowledged, "an acknowledged label is lost"
        head = Head(reader.head.seq, 0, reader.head.lengths)
        assert self.versions.setdefault(head.seq, (head, now)) == (head, now), "a version changed"

    def take_over(self, seed: int) -> None:
        """Opens the store; what is on disk is all there is now."""
        self.writer = self.place.open_writer(seed)
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
        self.place.fail(at, is_late=is_late, is_full=is_full)
        try:
            self.commit()
        except OSError:
            assert self.writer.n_staged > 0, "what failed is still to be written"
        finally:
            self.place.recover()

    @rule(seed=st.integers(0, 99), keeps_all=st.booleans())
    def crash(self, seed: int, keeps_all: bool) -> None:
        self.place.die(keeps_all=keeps_all)
        self.take_over(seed)

    @rule(n=st.integers(1, 4), seed=st.integers(0, 99))
    def crash_after_an_acknowledgement(self, n: int, seed: int) -> None:
        self.stage(n, 3)
        self.commit()
        self.crash(seed, keeps_all=False)

    @rule(at=st.integers(1, 130), seed=st.integers(0, 99))
    def crash_again_while_opening(self, at: int, seed: int) -> None:
        self.place.die()
        self.place.fail(at, is_late=False, is_full=True)
        with contextlib.suppress(OSError):
            self.place.open_writer(seed)
        self.place.die()
        self.take_over(seed)

    @rule(seed=st.integers(0, 99))
    def close_and_reopen(self, seed: int) -> None:
        self.writer.close()
        report = self.place.open_reader().verify()
        assert report.problems == []
        self.take_over(seed)

    @rule(seed=st.integers(0, 99))
    def lose_the_lock(self, seed: int) -> None:
        """Another host takes over; the first writer can no longer commit."""
        old = self.writer
        self.place.lose_lock()
        self.take_over(seed)
        stage(old, 1, seed=0)
        try:
            old.commit()
        except Fenced:
            return
        raise AssertionError("a fenced writer committed")

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def read_an_old_version(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.versions)))
        head, label_ids = self.versions[seq]
        reader = self.place.open_reader(seq)
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
                self.place.die()
                writer = self.place.open_writer()
                assert verify_columns(writer).problems == []
                writer.close()
                assert self.place.open_reader().verify().problems == []
        finally:
            self.place.remove()


SETTINGS = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes, and twelve steps can be read
    suppress_health_check=list(HealthCheck),
)
