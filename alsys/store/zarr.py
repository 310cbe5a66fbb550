"""The Zarr store: a Zarr v3 hierarchy that any Zarr library and xarray can read, written by one process.

Chunks are uncompressed, so a chunk file is the plain array, and appending is writing bytes at an offset: no chunk is
read back, packed or rewritten. `shape` in an array's metadata grows by whole chunks, alike for all arrays of an axis,
and is cut to the committed length when the store is opened or closed; in between, HEAD says which rows are valid. HEAD
is replaced last, after all rows are synced. One writer at a time: a file lock here, and an epoch in HEAD that fences a
writer whose lock was lost. A writer reaches everything through a descriptor of the folder that it opened, and looks
before it writes rows and before it writes HEAD whether its lock is still the file at the path, and HEAD that of its
store: one whose folder was removed, moved or replaced stops, and nothing of it is in the folder that took the place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr

from alsys.errors import EnvironmentProblem, InputError, StoreBusy, StoreCorrupt
from alsys.store.base import Head
from alsys.store.columns import Backend, ColumnReader
from alsys.store.files import Files
from alsys.store.head import REBUILD
from alsys.store.history import head_problem
from alsys.store.schema import ALL_ARRAYS, ALL_AXES, AXIS_ROWS
from alsys.store.writer import ColumnWriter
from alsys.store.zarr_arrays import (
    create_array,
    create_hierarchy,
    is_missing,
)
from alsys.store.zarr_folder import ZarrFolder


def open_writer(path: str | Path, *, files: Files | None = None) -> ZarrWriter:
    """Opens or creates a store for writing.

    Args:
        path: The store's folder.
        files: File operations; tests pass some that fail.

    Raises:
        StoreBusy: Another process writes it.
        EnvironmentProblem: So does one that was stopped.
        InputError: The path cannot hold a store, or holds something else.
        StoreCorrupt: HEAD or an array is missing though there are data, or cannot be read, or HEAD is an older one or
            that of another store. Nothing was written.
        OSError: The file system refused; what is there stays sound.
    """
    path, files = Path(path), files or Files()
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_strangers(path)
            files.hold(path)
            stack.callback(files.release)
            lock = _lock(path, files)
        except IsADirectoryError as error:  # in the place of its lock
            raise InputError("is no file", source=str(error.filename), remedy="remove it") from error
        except (NotADirectoryError, FileExistsError, PermissionError) as error:
            raise InputError(f"cannot hold a store: {error.strerror}", source=str(path)) from error
        stack.callback(files.close, lock)
        if not os.path.lexists(path / "HEAD"):
            _create(path, files)
        if problem := head_problem(ZarrFolder(path, files)):
            raise StoreCorrupt(f"{path}: {problem}", REBUILD)
        _add_arrays(path, files)
        folder = ZarrFolder(path, files, lock=lock)
        stack.callback(folder.close_files)
        head = folder.read_head()
        folder.check_owner(head)
        head = Head(head.seq, head.epoch + 1, head.lengths, head.identity or new_identity())
        folder.write_head(head)  # fences first: nobody may commit what is cut next
        folder.write_identity(head.identity)
        folder.cut(head)
        writer = ZarrWriter(folder, head)
        stack.pop_all()
    return writer


def open_reader(path: str | Path, seq: int | None = None) -> ColumnReader:
    """Opens a store for reading, pinned to its present HEAD or to version `seq`. Takes no lock.

    Raises:
        InputError: Not a store, or no such version.
        StoreCorrupt: HEAD cannot be read, or is missing though there are data.
    """
    path = Path(path)
    if not (path / "HEAD").is_file():
        _refuse_headless(path)
        raise InputError("is not an alsys store", source=str(path))
    folder = ZarrFolder(path, Files())
    reader = ColumnReader(folder, folder.read_head())
    if seq is None:
        return reader
    try:
        return ColumnReader(folder, replace(reader.head, seq=seq, lengths=reader.lengths_at(seq)))
    except InputError as error:
        raise error.located(source=str(path)) from None


@contextlib.contextmanager
def locked(path: Path, files: Files) -> Iterator[ZarrFolder]:
    """A store's folder under the writer's lock, whatever state HEAD and metadata are in: for repairs.

    Raises:
        StoreBusy: Another process writes it.
    """
    files.hold(path)
    try:
        lock = _lock(path, files)
        try:
            yield ZarrFolder(path, files)
        finally:
            files.close(lock)
    finally:
        files.release()


class ZarrWriter(ColumnWriter):
    """The writer of a Zarr store."""

    def __init__(self, folder: ZarrFolder, head: Head, backend: Backend | None = None) -> None:
        super().__init__(backend or folder, head)
        self.folder = folder


def _refuse_strangers(path: Path) -> None:
    """Without HEAD, a folder may hold nothing but what an interrupted creation leaves."""
    if os.path.lexists(path / "HEAD"):
        return
    known = {"writer.lock", "zarr.json", "HEAD.tmp", *(spec.path.partition("/")[0] for spec in ALL_ARRAYS)}
    strange = sorted(entry.name for entry in path.iterdir() if entry.name not in known and not _is_left(entry))
    if strange:
        raise InputError(
            f"is not an alsys store and holds {strange[0]!r}", source=str(path), remedy="name an empty or new folder"
        )


def _is_left(path: Path) -> bool:
    """Whether an unfinished creation or a repair left it."""
    return _is_unfinished(path) or ".set-aside-" in path.name


def _is_unfinished(path: Path) -> bool:
    """Whether it is what zarr leaves beside its metadata when it dies while writing them: `zarr.<hex>.partial`."""
    return path.name.startswith("zarr.") and path.name.endswith(".partial")


def _refuse_headless(path: Path) -> None:
    """Rows without HEAD are what is left of a store, not a new one.

    Raises:
        StoreCorrupt: There are some.
    """
    if any((path / spec.path / "c").exists() for spec in ALL_ARRAYS):
        raise StoreCorrupt(f"{path} has data but no HEAD", REBUILD)


def _create(path: Path, files: Files) -> None:
    """Creates all arrays, then HEAD. Without HEAD nothing was ever committed, so an interrupted creation starts again.

    Raises:
        StoreCorrupt: There are data, so HEAD was lost.
    """
    _refuse_headless(path)
    for leftover in (path / "zarr.json", *filter(_is_unfinished, path.iterdir())):
        leftover.unlink(missing_ok=True)
    identity = new_identity()
    try:
        create_hierarchy(path, identity)
    except OSError as error:  # zarr does not name its files
        error.filename = error.filename or os.fspath(path)
        raise
    files.sync_tree(path)  # zarr replaces objects atomically but does not sync them
    ZarrFolder(path, files).write_head(Head(0, 0, dict.fromkeys(ALL_AXES, 0), identity))


def _add_arrays(path: Path, files: Files) -> None:
    """Adds arrays that an older store lacks: filled beside the store's own, then moved into place at once."""
    missing = [spec for spec in ALL_ARRAYS if is_missing(path, spec, files)]
    if not missing:
        return
    head = ZarrFolder(path, files).read_head()
    beside = path / "adding"
    shutil.rmtree(beside, ignore_errors=True)
    root = zarr.open_group(beside, mode="a", zarr_format=3)
    for spec in missing:
        assert spec.fill is not None
        group, _, name = spec.path.partition("/")
        if not (path / group / "zarr.json").exists():
            zarr.open_group(path, mode="a").create_group(group, overwrite=True)
            files.sync_tree(path / group)
        array = create_array(root, name, spec)
        length = head.lengths[spec.axis]
        array.resize((-(-length // AXIS_ROWS[spec.axis]) * AXIS_ROWS[spec.axis], *spec.row_shape))
        if length:
            array[:length] = np.full((length, *spec.row_shape), spec.fill, dtype=spec.dtype)
        files.sync_tree(beside)
        (beside / name).rename(path / spec.path)
        files.sync_tree(path / spec.path)
    shutil.rmtree(beside, ignore_errors=True)


def _lock(path: Path, files: Files) -> int:
    file = path / "writer.lock"
    try:
        lock = files.lock(file)
    except BlockingIOError:
        holder, own = file.read_text(errors="replace").strip(), _holder()
        if holder == own:
            who, remedy = "this process", "wait for it, or ask it to stop"
        elif is_stopped(holder):
            raise EnvironmentProblem(
                f"{path}: a stopped process is writing this store ({holder}): let it go on (`kill -CONT`), or end it"
            ) from None
        else:
            who, remedy = "another process", "wait for it, or `alsys stop` it"
        raise StoreBusy(
            f"{who} is writing this store{f' ({holder})' if holder else ''}", source=str(path), remedy=remedy
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{_holder()}\n".encode(), 0)
    except OSError:
        files.close(lock)
        raise
    return lock


def _holder() -> str:
    """What the lock's file says of who holds it."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def is_stopped(holder: str) -> bool:
    """Whether who holds a lock is a process of this machine that was stopped, as by SIGSTOP."""
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname():
        return False
    try:
        return Path(f"/proc/{words[1]}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False


def new_identity() -> str:
    """Identity of a store: random, so that no two have the same."""
    return secrets.token_hex(16)
