"""The store in object storage: a log of segments, each made once.

A commit is one object: the rows that it adds to each column, and the HEAD that it makes. Segments are numbered, and who
makes number n has seen all before it. A writer begins with a segment of its own, so the number that a writer of before
would take next is gone: that one finds another's segment in its place, and is fenced. Nothing is ever replaced, so an
answer that is lost after the write does no harm: the segment that is there is compared.

Rows are kept in memory by writers and readers. Now and then a writer puts chunks that are full, which will never
change, and one object with the rest (`compact`); segments that are in it go. The chunks and metadata are plain Zarr v3
for other programs, as of the last time. A chunk is replaced only by one that begins with what is there, so that a
fenced writer, which knows less, takes nothing away.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.errors import Fenced, InputError, StoreCorrupt
from alsys.store.base import Head, VerifyReport
from alsys.store.columns import ColumnReader, Columns
from alsys.store.memory import MemoryDisk
from alsys.store.objects import Objects, Version
from alsys.store.schema import ALL_ARRAYS, BY_PATH, COMMITS
from alsys.store.segment_format import (
    LOG,
    NO_HEAD,
    PLAIN,
    Compacted,
    Rows,
    Segment,
    chunk_name,
    numbers_in,
    plain_metadata,
    segment_name,
)
from alsys.store.writer import ColumnWriter
from alsys.threads import WorkerThread

logger = logging.getLogger(__name__)

REST: Final = "rest"
COMPACTED: Final = "COMPACTED"
PART_BYTES: Final = 2**26
"""Rows that wait for a commit before they are put without one."""
COMPACT_EVERY: Final = 256
"""Segments after which full chunks are put behind them."""
OWNER_EVERY_S: Final = 10.0
"""How often a writer without commits looks whether it is the last one."""
OWNER_WAIT_S: Final = 0.05
"""How long one waits for what is seen then; else it is told of the next time."""
RACES: Final = 20
"""How often an opening writer may be overtaken by another one."""


class SegmentStore:
    """Columns, in memory, and the log of segments that they are made from. Is a `Backend`.

    Args:
        objects: Where the segments are.

    Attributes:
        n: Number of the last segment that was read or written.
        put_head: HEAD of the last one that has one.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._disk: Columns = MemoryDisk()
        self.n, self.put_head = 0, NO_HEAD
        self._pending: dict[tuple[str, int], NDArray[Any]] = {}
        self._n_pending = 0
        self._looked = time.monotonic()
        self._compacted, self._version = Compacted(0, NO_HEAD, {}), Version(None, None)
        self._has_compacted = False
        self._thread: WorkerThread | None = None
        self._compacting: Future[None] | None = None
        self._owner_thread: WorkerThread | None = None
        self._look: Future[bool] | None = None

    @property
    def url(self) -> str:
        """Where the segments are."""
        return self._objects.url

    def load(self) -> None:
        """Reads what is there, or what has come since.

        Raises:
            StoreCorrupt: A segment is gone or damaged.
            OSError: The store cannot be read.
        """
        if self.n == 0:
            self._load_compacted()
        there = numbers_in(self._objects.names(LOG, after=segment_name(self.n) if self.n else ""))
        numbers = [number for number in there if number > self.n]
        if numbers != list(range(self.n + 1, self.n + 1 + len(numbers))):
            missing = next(n for n, number in enumerate(numbers, self.n + 1) if n != number)
            raise StoreCorrupt(
                f"{self._objects.url}/{segment_name(missing)} is gone", "restore it from a version of the bucket"
            )
        for first in range(0, len(numbers), COMPACT_EVERY):
            part = [segment_name(number) for number in numbers[first : first + COMPACT_EVERY]]
            for name, content in zip(part, self._objects.get_all(part), strict=True):
                self._apply(Segment.decode(content, f"{self._objects.url}/{name}"))
                self.n += 1

    def resume(self, head: Head, n: int) -> bool:
        """Reads what has come since a segment, without what was before; whether that is still to be had.

        Args:
            head: As of that segment: rows before its lengths are not there to be read.
            n: Its number.

        Raises:
            OSError: The store cannot be read.
        """
        content = self._objects.get(segment_name(n))
        if content is None:
            return False
        try:
            last = Segment.decode(content, f"{self._objects.url}/{segment_name(n)}").head
            if last is None or last.identity != head.identity:
                return False
            self.n = n
            self._disk.write_head(head)
            self.load()
        except StoreCorrupt:  # what came next was removed behind a compaction
            self.n, self.put_head, self._disk = 0, NO_HEAD, MemoryDisk()
        return self.n > 0

    def columns_at(self, columns: Columns) -> None:
        """From now on columns are read there, and memory is free again: those of a folder that holds the same."""
        self._disk = columns

    def claim(self, least: Head | None = None) -> Head:
        """Makes this the last writer: the HEAD of its epoch.

        Args:
            least: Identity and epoch that the new one goes on from, where the log knows of less.

        Raises:
            Fenced: Others came in between again and again.
        """
        for _ in range(RACES):
            self.load()
            last = self._disk.read_head()
            epoch, identity = last.epoch + 1, last.identity or secrets.token_hex(16)
            if least is not None:
                epoch, identity = max(epoch, least.epoch), least.identity
            head = replace(last, epoch=epoch, identity=identity)
            if self._objects.create(segment_name(self.n + 1), Segment((), head).encode()):
                self.n += 1
                self.put_head = head
                self._disk.write_head(head)
                return head
        raise Fenced(f"{self._objects.url}: other drivers open this store all the time")

    def read(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a column."""
        return self._disk.read(path, start, stop)

    def write(self, path: str, start: int, rows: NDArray[Any]) -> None:
        """Writes rows, which are put with the next HEAD."""
        self._disk.write(path, start, rows)
        self.note(path, start, rows)

    def note(self, path: str, start: int, rows: NDArray[Any]) -> None:
        """Rows that are written elsewhere, and put with the next HEAD."""
        self._pending[path, start] = np.array(rows, dtype=BY_PATH[path].dtype)  # a group that failed comes again
        self._n_pending = sum(one.nbytes for one in self._pending.values())

    def forget(self) -> None:
        """Drops rows that were noted and not put: `catch_up` finds them."""
        self._pending, self._n_pending = {}, 0

    def sync(self) -> None:
        """Puts rows without a HEAD where they are many."""
        if self._n_pending > PART_BYTES:
            self.put(None)

    def read_head(self) -> Head:
        """The committed HEAD, as far as this has read."""
        return self._disk.read_head()

    def write_head(self, head: Head) -> None:
        """Puts what was written and HEAD: one object.

        Raises:
            Fenced: Another writer has put one.
            OSError: It was refused.
        """
        self.put(head)
        self._disk.write_head(head)
        self.compact_if_due(head)

    def compact_if_due(self, head: Head) -> None:
        """Begins a compaction where there are many segments since the last."""
        is_due = self.n - self._compacted.n >= COMPACT_EVERY
        if is_due and (self._compacting is None or self._compacting.done()):
            self._thread = self._thread or WorkerThread("compaction")
            number = self.n
            self._compacting = self._thread.submit(lambda: self._compact(number, head))

    def check_owner(self, head: Head) -> None:
        """Raises `Fenced` where another writer has come, which a thread looks for every `OWNER_EVERY_S`."""
        now, look = time.monotonic(), self._look
        if look is None and now - self._looked >= OWNER_EVERY_S:
            self._looked = now
            self._owner_thread = self._owner_thread or WorkerThread("owner")
            self._look = look = self._owner_thread.submit(self._has_other)
            futures.wait([look], OWNER_WAIT_S)
        if look is not None and look.done():
            self._look = None
            if look.exception() is None and look.result():
                raise self._fenced(head)

    def _has_other(self) -> bool:
        name = segment_name(self.n + 1)
        return self._objects.exists(name) and not self._is_own(name)

    def catch_up(self, head: Head) -> None:
        """Puts what the log lacks up to a HEAD that the columns have, and that was made without it.

        Segments whose answers were lost are looked for first.

        Raises:
            Fenced: Another writer has come meanwhile.
            StoreCorrupt: What lies in the place of a segment is none.
            OSError: The storage refused.
        """
        for _ in range(RACES):
            while (segment := self._next()) is not None:
                there = segment.head
                if there is not None and there.epoch != head.epoch:
                    raise self._fenced(head)
                self.n, self.put_head = self.n + 1, there or self.put_head
            if self.put_head.seq >= head.seq or self._put_rows_to(head):
                return
        raise self._fenced(head)

    def _put_rows_to(self, head: Head) -> bool:
        """Rows since the last HEAD in the log, in parts; False where a segment has come that is none of these."""
        before, rows, size = self.put_head, list[Rows](), 0
        for spec in ALL_ARRAYS:
            first, last = (h.seq if spec is COMMITS else h.lengths[spec.axis] for h in (before, head))
            step = max(1, PART_BYTES // spec.row_bytes)
            for start in range(first, last, step):
                part = self._disk.read(spec.path, start, min(start + step, last))
                rows.append((spec.path, start, part))
                size += part.nbytes
                if size > PART_BYTES:
                    if not self._objects.create(segment_name(self.n + 1), Segment(tuple(rows), None).encode()):
                        return False
                    self.n, rows, size = self.n + 1, [], 0
        if not self._objects.create(segment_name(self.n + 1), Segment(tuple(rows), head).encode()):
            return False
        self.n, self.put_head, self._looked = self.n + 1, head, time.monotonic()
        return True

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """As `Backend.verify`; segments were held against their digests when they were read."""
        return self._disk.verify(reader)

    def close(self, head: Head | None) -> None:
        """Ends a compaction that runs."""
        del head
        if self._thread is not None:
            if self._compacting is not None:
                self._compacting.exception()
            self._thread.close()
            self._thread = None
        if self._owner_thread is not None:
            self._owner_thread.close()
            self._owner_thread = self._look = None

    def compact(self) -> None:
        """Puts full chunks and the rest, makes them the beginning of the log, and removes segments of before.

        Whoever reads meanwhile finds the segments that it has listed: those of one compaction stay until the next.

        Raises:
            OSError: It was refused; nothing is lost.
        """
        self._compact(self.n, self._disk.read_head())

    def _compact(self, number: int, head: Head) -> None:
        try:
            self._put_compacted(number, head)
        except OSError as error:
            logger.warning("full chunks are not put behind the log, which is tried again: %s", error)
        except Exception:
            logger.exception("full chunks are not put behind the log")

    def _put_compacted(self, number: int, head: Head) -> None:
        before, chunks, rest = self._compacted, dict[str, int](), list[Rows]()
        for spec in ALL_ARRAYS:
            length = head.seq if spec is COMMITS else head.lengths[spec.axis]
            chunks[spec.path] = length // spec.chunk_rows
            for chunk in range(before.chunks.get(spec.path, 0), chunks[spec.path]):
                start = chunk * spec.chunk_rows
                content = self._disk.read(spec.path, start, start + spec.chunk_rows).tobytes()
                if not self._grow(chunk_name(spec, chunk), content):
                    raise StoreCorrupt(
                        f"{self._objects.url}/{chunk_name(spec, chunk)} is another chunk than it should be"
                    )
            first = chunks[spec.path] * spec.chunk_rows
            rest.append((spec.path, first, self._disk.read(spec.path, first, length)))
        self._objects.put(f"{REST}/{number:012d}", Segment(tuple(rest), head).encode())
        self._put_last_chunks(rest)
        new = Compacted(number, head, chunks)
        content = new.encode()
        if not self._objects.replace(COMPACTED, content, self._version if self._has_compacted else None):
            logger.warning("another driver has put chunks behind the log")
            return
        self._version = self._objects.get_version(COMPACTED)[1] or Version(None, None)
        self._compacted, self._has_compacted = new, True
        for name, metadata in plain_metadata(head).items():
            self._objects.put(f"{PLAIN}/{name}", metadata)
        self._objects.remove(segment_name(n) for n in numbers_in(self._objects.names(LOG)) if n <= before.n)
        self._objects.remove(name for name in self._objects.names(REST) if name < f"{REST}/{before.n:012d}")

    def _put_last_chunks(self, rest: Sequence[Rows]) -> None:
        """Of each column, for programs that read plain Zarr."""
        for path, first, rows in rest:
            spec = BY_PATH[path]
            if len(rows):
                chunk = np.zeros((spec.chunk_rows, *spec.row_shape), spec.dtype)
                chunk[: len(rows)] = rows
                self._grow(chunk_name(spec, first // spec.chunk_rows), chunk.tobytes())

    def _grow(self, name: str, content: bytes) -> bool:
        """Puts a chunk, unless there is one that goes on otherwise, or further; whether it is there then."""
        there, version = self._objects.get_version(name)
        if there is not None and not content.startswith(there.rstrip(b"\0")):
            return False
        return there == content or self._objects.replace(name, content, version)

    def _load_compacted(self) -> None:
        content, version = self._objects.get_version(COMPACTED)
        if content is None or version is None:
            return
        name = f"{self._objects.url}/{COMPACTED}"
        self._compacted, self._version, self._has_compacted = Compacted.decode(content, name), version, True
        for path, n_chunks in self._compacted.chunks.items():
            spec = BY_PATH[path]
            names = [chunk_name(spec, chunk) for chunk in range(n_chunks)]
            for chunk, found in enumerate(self._objects.get_all(names)):
                if found is None or len(found) != spec.chunk_rows * spec.row_bytes:
                    raise StoreCorrupt(f"{self._objects.url}/{names[chunk]} is gone or cut off")
                rows = np.frombuffer(found, spec.dtype).reshape(spec.chunk_rows, *spec.row_shape)
                self._disk.write(path, chunk * spec.chunk_rows, rows)
        rest = f"{REST}/{self._compacted.n:012d}"
        self._apply(Segment.decode(self._objects.get(rest), f"{self._objects.url}/{rest}"))
        self.n = self._compacted.n

    def _apply(self, segment: Segment) -> None:
        for path, start, rows in segment.rows:
            self._disk.write(path, start, rows)
        if segment.head is not None:
            self.put_head = segment.head
            self._disk.write_head(segment.head)

    def put(self, head: Head | None) -> None:
        """Puts what was written, and a HEAD.

        Raises:
            Fenced: Another writer has put one.
            StoreCorrupt: What lies in its place is no segment.
            OSError: It was refused.
        """
        segment = Segment(tuple((path, start, rows) for (path, start), rows in self._pending.items()), head)
        if not self._objects.create(segment_name(self.n + 1), segment.encode()):
            self._next()
            raise self._fenced(head or self._disk.read_head())
        self.n, self.put_head, self._looked = self.n + 1, head or self.put_head, time.monotonic()
        self.forget()

    def _next(self) -> Segment | None:
        """What is in the place of the next segment; None for nothing."""
        name = segment_name(self.n + 1)
        content = self._objects.get(name)
        try:
            return None if content is None else Segment.decode(content, name)
        except StoreCorrupt as error:
            what = f"{self._objects.url}/{name}, the place of the next segment, holds none"
            raise StoreCorrupt(what, "remove it, and the campaign puts its own there") from error

    def _is_own(self, name: str) -> bool:
        """Whether a segment is one of this writer whose answer was lost: it comes again with the next try."""
        head = Segment.decode(self._objects.get(name), name).head
        return head is None or head.epoch == self._disk.read_head().epoch

    def _fenced(self, head: Head) -> Fenced:
        return Fenced(f"{self._objects.url}: another driver took over from epoch {head.epoch}")


def open_writer(objects: Objects) -> ColumnWriter:
    """Opens or makes the store below a prefix for writing; the writer before it is fenced.

    Raises:
        StoreCorrupt: A segment is gone or damaged.
        OSError: The storage refused.
    """
    store = SegmentStore(objects)
    return ColumnWriter(store, store.claim())


def open_reader(objects: Objects, seq: int | None = None) -> ColumnReader:
    """Opens a store for reading, pinned to its present HEAD or to version `seq`.

    Raises:
        InputError: There is none, or no such version.
        StoreCorrupt: A segment is gone or damaged.
        OSError: The storage refused.
    """
    for is_last in (False, True):
        store = SegmentStore(objects)
        try:
            store.load()
            break
        except StoreCorrupt:
            if is_last:  # else a writer may have removed what is behind the log by now
                raise
    if store.n == 0:
        raise InputError("is not an alsys store", source=objects.url)
    reader = ColumnReader(store, store.read_head())
    return reader if seq is None else reader.at(seq)
