"""A store on a local disk whose commits are in object storage first.

A commit is durable once its segment is there (`alsys.store.segments`) and on the local disk. While the storage does not
answer, commits are on the local disk only and follow later; nothing is acknowledged before. Whoever opens the store
elsewhere begins with what the log has; a folder that was written without the log for a while gives it what it lacks.
Two that went different ways are told apart, and neither is changed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.errors import Fenced, InputError, StoreCorrupt
from alsys.store import zarr
from alsys.store.base import Head, VerifyReport
from alsys.store.columns import ColumnReader
from alsys.store.files import Files
from alsys.store.objects import Objects
from alsys.store.schema import ALL_ARRAYS, COMMITS
from alsys.store.segments import SegmentStore
from alsys.store.zarr import ZarrWriter
from alsys.store.zarr_folder import ZarrFolder
from alsys.threads import WorkerThread

logger = logging.getLogger(__name__)

TRY_EVERY_S: Final = 5.0
"""How often a log that does not answer is tried again."""
REFUSALS: Final = (OSError, StoreCorrupt)
"""What a log is done without for: it does not answer, or something else lies in the place of its next segment."""


class MirroredFolder:
    """Rows in a folder and in segments. Is a `Backend`.

    A log that does not answer is done without: commits are in the folder only, a thread tries to put what the log
    lacks, and once that worked commits go there first again.

    Args:
        folder: Of the writer.
        log: Its segments.
        before_commit: Called before a segment is put: what it speaks of must be there first.
    """

    def __init__(self, folder: ZarrFolder, log: SegmentStore, before_commit: Callable[[], None]) -> None:
        self._folder, self._log, self._before_commit = folder, log, before_commit
        self._here = folder.read_head()
        self._lock = threading.Lock()  # of whoever puts segments: the numbers are one after another
        self._is_away = self._is_back = False
        self._ended = threading.Event()
        self._thread: WorkerThread | None = None
        self._problem: Fenced | None = None

    @property
    def waits_for(self) -> str:
        """What is committed and not in the log, in one line; empty for nothing."""
        n = self._here.seq - self._log.put_head.seq
        return f"{self._log.url} does not answer: {n} commits are on the local disk only" if n > 0 else ""

    def read(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a column."""
        return self._folder.read(path, start, stop)

    def write(self, path: str, start: int, rows: NDArray[Any]) -> None:
        """Writes rows beyond HEAD."""
        self._folder.write(path, start, rows)
        self._log.note(path, start, rows)

    def sync(self) -> None:
        """Durable on the local disk; in the log with the next HEAD."""
        self._folder.sync()
        if self._is_away:
            self._log.forget()
        else:
            self._try_log(self._sync_log)

    def read_head(self) -> Head:
        """The committed HEAD."""
        return self._folder.read_head()

    def write_head(self, head: Head) -> None:
        """Puts the segment, then replaces HEAD: the log is never behind while it answers."""
        if not self._is_away:
            self._try_log(lambda: self._put(head))
        if self._is_away:
            self._log.forget()
        self._folder.write_head(head)
        self._here = head
        if self._is_away and self._is_back:
            self._try_log(self._catch_up)
            self._is_away = not self._is_back
        if not self._is_away:
            self._log.compact_if_due(head)

    def check_owner(self, head: Head) -> None:
        """Raises `Fenced` where the folder or the log has another writer."""
        self._folder.check_owner(head)
        if self._problem is not None:
            raise self._problem
        if not self._is_away:
            self._log.check_owner(head)

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """As `Backend.verify`, of the folder."""
        return self._folder.verify(reader)

    def close(self, head: Head | None) -> None:
        """Releases everything; a log that is behind gets what it lacks, or does so when the store is opened again."""
        self._ended.set()
        if self.waits_for:
            try:
                self._catch_up()
            except (*REFUSALS, Fenced) as error:
                logger.warning("%s: %s; the next `alsys run` here puts them there", self.waits_for, error)
        if self._thread is not None:
            self._thread.close()
        self._log.close(head)
        self._folder.close(head)

    def _sync_log(self) -> None:
        with self._lock:
            self._log.sync()

    def _put(self, head: Head) -> None:
        with self._lock:
            self._before_commit()
            self._log.put(head)

    def _try_log(self, call: Callable[[], None]) -> None:
        """Does without the log from now on where it refuses."""
        try:
            call()
        except REFUSALS as error:
            self._is_back = False
            if not self._is_away:
                self._is_away = True
                logger.warning(
                    "%s does not answer (%s): the campaign goes on, and the mirror gets what it lacks once it does",
                    self._log.url, error.strerror if isinstance(error, OSError) else error,
                )  # fmt: skip
                self._thread = self._thread or WorkerThread("mirror-catch-up")
                self._thread.submit(self._keep_trying)

    def _catch_up(self) -> None:
        with self._lock:
            if self._is_away:
                self._before_commit()
                self._log.catch_up(self._here)

    def _keep_trying(self) -> None:
        while self._is_away and not self._ended.wait(TRY_EVERY_S):
            try:
                self._catch_up()
            except REFUSALS:
                self._is_back = False
            except Fenced as error:
                self._problem = error
                return
            else:
                if not self._is_back:
                    logger.warning("%s answers again and has all", self._log.url)
                self._is_back = True


class MirroredWriter(ZarrWriter):
    """The writer of a store in a folder and in object storage."""

    def __init__(self, folder: ZarrFolder, head: Head, mirrored: MirroredFolder) -> None:
        super().__init__(folder, head, mirrored)
        self._mirrored = mirrored

    @property
    def waits_for(self) -> str:
        """As of `StoreWriter`."""
        return self._mirrored.waits_for


def open_writer(path: Path, objects: Objects, before_commit: Callable[[], None] = lambda: None) -> ZarrWriter:
    """Opens or makes a store for writing, in a folder and in object storage; the log's writer before it is fenced.

    Args:
        path: The store's folder.
        objects: Where the log is.
        before_commit: As of `MirroredFolder`.

    Raises:
        InputError: The log is that of another store, or went another way.
        StoreBusy: Another process writes the folder.
        StoreCorrupt: Something is damaged.
        OSError: The disk or the storage refused.
    """
    log = SegmentStore(objects)
    log.load()
    writer = zarr.open_writer(path)
    try:
        folder = writer.folder
        if log.n:
            _check_same(path, objects, ColumnReader(folder, folder.read_head()), ColumnReader(log, log.read_head()))
        head = _claimed(folder, log)
        return MirroredWriter(folder, head, MirroredFolder(folder, log, before_commit))
    except BaseException:
        writer.close()
        raise


def fetch(path: Path, objects: Objects, since: tuple[Head, int] | None = None) -> tuple[Head, int]:
    """Makes a folder's store what the log is, for reading; what is there of it already is kept.

    Args:
        path: The store's folder.
        objects: Where the log is.
        since: HEAD that the folder got the last time, and number of the last segment then; where the folder has been
            left alone, only segments of since then are read.

    Returns:
        HEAD, and number of the last segment.

    Raises:
        InputError: There is no store, or the folder's is another one, or it has what the log lacks.
        StoreBusy: A process writes the folder.
        OSError: The disk or the storage refused.
    """
    log = SegmentStore(objects)
    is_continued = since is not None and _has(path, since[0]) and log.resume(*since)
    if not is_continued:
        log.load()
    if not log.n:
        remedy = "give what `mirror` of the campaign's file says"
        raise InputError("holds no campaign", source=objects.url, remedy=remedy)
    if is_continued and since is not None and log.n == since[1]:
        return since
    writer = zarr.open_writer(path)
    try:
        folder, head = writer.folder, log.read_head()
        if not is_continued:
            _check_same(path, objects, ColumnReader(folder, folder.read_head()), ColumnReader(log, head))
        if _is_behind(head, here := folder.read_head()):
            raise InputError(
                f"has {here.seq - head.seq} commits that {objects.url} lacks, and what belongs to them",
                source=str(path), field="mirror",
                remedy="`alsys run` with this folder puts them there; or name another folder for a copy",
            )  # fmt: skip
        if _is_behind(here, head):
            _copy(log, folder, here, head)
        return folder.read_head(), log.n
    finally:
        writer.folder.close(writer.folder.read_head())


def _has(path: Path, head: Head) -> bool:
    """Whether a folder's store is at a HEAD, whoever has opened it since."""
    if not (path / "HEAD").is_file():
        return False
    there = ZarrFolder(path, Files()).read_head()
    return (there.seq, there.identity, dict(there.lengths)) == (head.seq, head.identity, dict(head.lengths))


def is_behind(path: Path, objects: Objects) -> bool:
    """Whether the log has commits that a folder's store lacks, or there is no store and the log has one.

    Raises:
        OSError: The storage refused.
    """
    log = SegmentStore(objects)
    log.load()
    if not log.n or not (path / "HEAD").is_file():
        return bool(log.n)
    return _is_behind(ZarrFolder(path, Files()).read_head(), log.read_head())


def is_ahead(path: Path, objects: Objects) -> bool:
    """Whether a folder's store has commits that the log lacks, such as those of a time when it did not answer.

    Raises:
        OSError: The storage refused.
    """
    log = SegmentStore(objects)
    log.load()
    here = ZarrFolder(path, Files()).read_head()
    return here.seq > (log.read_head().seq if log.n else 0)


def _is_behind(here: Head, there: Head) -> bool:
    return here.seq < there.seq


def _check_same(path: Path, objects: Objects, here: ColumnReader, there: ColumnReader) -> None:
    """Whether one of two is a beginning of the other.

    Raises:
        InputError: It is not.
    """
    if not here.head.seq or not there.head.seq:
        return
    seq = min(here.head.seq, there.head.seq)
    one, other = here.at(seq), there.at(seq)
    is_same = dict(one.head.lengths) == dict(other.head.lengths)
    if is_same:
        n_events = one.head.lengths["events"]
        last = max(0, n_events - 1000)
        is_same = all(
            np.array_equal(one.read(name, first, n), other.read(name, first, n))
            for name, first, n in (
                ("events/crc", last, n_events),
                ("labels/label_id", 0, one.head.lengths["labels"]),
                ("frames/frame_id", 0, one.head.lengths["frames"]),
            )
        )
    if not is_same:
        raise InputError(
            f"{objects.url} holds another campaign, or one that went another way than {path}", field="mirror",
            value=objects.url, remedy="name another prefix or another directory",
        )  # fmt: skip


def _copy(source: Any, target: Any, before: Head, after: Head) -> None:
    """Rows that a target lacks, and the HEAD that they make."""
    for spec in ALL_ARRAYS:
        first, last = (h.seq if spec is COMMITS else h.lengths[spec.axis] for h in (before, after))
        if last > first:
            target.write(spec.path, first, source.read(spec.path, first, last))
    target.sync()
    epoch = max(before.epoch, after.epoch)
    target.write_head(Head(after.seq, epoch, after.lengths, after.identity))
    if isinstance(target, ZarrFolder):
        target.write_identity(after.identity)


def _claimed(folder: ZarrFolder, log: SegmentStore) -> Head:
    """The next epoch in both, which hold the same then; another driver may have gone on until the claim."""
    here = folder.read_head()
    if _is_behind(log.read_head(), here):
        claimed = log.claim(here)
        _copy(folder, log, log.read_head(), Head(here.seq, claimed.epoch, here.lengths, here.identity))
    head = log.claim(here)
    if _is_behind(here, head):
        _copy(log, folder, here, head)
    folder.write_head(head)
    folder.write_identity(head.identity)
    log.columns_at(folder)
    return head
