"""The Zarr store: a Zarr v3 hierarchy that any Zarr library and xarray can read, written by one process.

Chunks are uncompressed, so a chunk file is the plain array, and appending is writing bytes at an offset: no chunk is
read back, packed or rewritten. `shape` in an array's metadata grows by whole chunks and is cut to the committed length
when the store is opened or closed; in between, HEAD says which rows are valid. HEAD is replaced last, after all rows
are synced. One writer at a time: a file lock here, and an epoch in HEAD that fences a writer whose lock was lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from alsys.errors import InputError, StoreBusy, StoreCorrupt
from alsys.store.base import Head, VerifyReport
from alsys.store.columns import ColumnReader, ColumnWriter
from alsys.store.files import Files
from alsys.store.schema import ALL_ARRAYS, AXES, BY_PATH, COMMITS, FORMAT, ArraySpec


def open_writer(path: str | Path, *, files: Files | None = None) -> ColumnWriter:
    """Opens or creates a store for writing.

    Raises:
        StoreBusy: Another process writes it.
        InputError: The path cannot hold a store.
        StoreCorrupt: HEAD cannot be read.
    """
    path, files = Path(path), files or Files()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise InputError(f"cannot hold a store: {error.strerror}", source=str(path)) from error
    try:
        if not (path / "HEAD").exists():
            _create(path, files)
        folder = ZarrFolder(path, files, lock=lock)
        head = folder.read_head()
        head = Head(head.seq, head.epoch + 1, head.lengths)
        folder.cut(head)
        folder.write_head(head)
        return ZarrWriter(folder, head)
    except BaseException:
        os.close(lock)
        raise


def open_reader(path: str | Path, seq: int | None = None) -> ZarrReader:
    """Opens a store for reading, pinned to its present HEAD or to version `seq`. Takes no lock.

    Raises:
        InputError: Not a store, or no such version.
        StoreCorrupt: HEAD cannot be read.
    """
    path = Path(path)
    if not (path / "HEAD").is_file():
        raise InputError("is not an alsys store", source=str(path))
    folder = ZarrFolder(path, Files())
    reader = ZarrReader(folder, folder.read_head())
    if seq is None:
        return reader
    head = reader.head
    return ZarrReader(folder, Head(seq, head.epoch, reader.lengths_at(seq)))


class ZarrFolder:
    """Rows of the arrays of one hierarchy; `lock` is the writer's lock file, None for readers."""

    def __init__(self, path: Path, files: Files, lock: int | None = None) -> None:
        self.path = path
        self._files = files
        self._lock = lock
        self._open: dict[tuple[str, int], int] = {}
        self._unsynced: set[tuple[str, int]] = set()
        self._capacity = {spec.path: self._shape(spec)[0] for spec in ALL_ARRAYS} if lock is not None else {}

    def read(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array; chunks that do not exist are zero."""
        spec = BY_PATH[path]
        rows = np.zeros((stop - start, *spec.row_shape), dtype=spec.dtype)
        flat = rows.reshape(-1).view(np.uint8)
        position = start
        while position < stop:
            chunk, inside = divmod(position, spec.chunk_rows)
            count = min(stop - position, spec.chunk_rows - inside)
            try:
                with self._chunk(spec, chunk).open("rb") as file:
                    file.seek(inside * spec.row_bytes)
                    content = file.read(count * spec.row_bytes)
            except FileNotFoundError as error:
                raise StoreCorrupt(f"{path}: chunk {chunk} is missing") from error
            if len(content) != count * spec.row_bytes:
                raise StoreCorrupt(f"{path}: chunk {chunk} is cut off")
            offset = (position - start) * spec.row_bytes
            flat[offset : offset + len(content)] = np.frombuffer(content, dtype=np.uint8)
            position += count
        return rows

    def write(self, path: str, start: int, rows: NDArray[Any]) -> None:
        """Writes rows into chunk files, growing the array first."""
        spec = BY_PATH[path]
        rows = np.ascontiguousarray(rows, dtype=spec.dtype)
        stop = start + len(rows)
        if stop > self._capacity[path]:
            self._resize(spec, -(-stop // spec.chunk_rows) * spec.chunk_rows)
        done = 0
        while done < len(rows):
            chunk, inside = divmod(start + done, spec.chunk_rows)
            part = rows[done : done + spec.chunk_rows - inside]
            self._files.write(self._descriptor(spec, chunk), part.tobytes(), inside * spec.row_bytes)
            self._unsynced.add((path, chunk))
            done += len(part)

    def sync(self) -> None:
        """Syncs every chunk written since the last sync, and closes those that are full."""
        for key in list(self._unsynced):
            self._files.sync(self._open[key])
            self._unsynced.discard(key)
        newest: dict[str, int] = {}
        for path, chunk in self._open:
            newest[path] = max(chunk, newest.get(path, 0))
        for key in [key for key in self._open if key[1] < newest[key[0]]]:
            os.close(self._open.pop(key))

    def read_head(self) -> Head:
        """The committed HEAD."""
        try:
            record = json.loads((self.path / "HEAD").read_bytes())
            checksum = record.pop("checksum")
            if checksum != _checksum(record):
                raise ValueError("checksum does not fit")
            if record["format"] != FORMAT:
                raise ValueError(f"format {record['format']}, this alsys reads {FORMAT}")
            lengths = {axis: int(record["lengths"][axis]) for axis in AXES}
            return Head(int(record["seq"]), int(record["epoch"]), lengths)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorrupt(f"{self.path / 'HEAD'}: {error}") from error

    def write_head(self, head: Head) -> None:
        """Replaces HEAD."""
        record = {"format": FORMAT, "seq": head.seq, "epoch": head.epoch, "lengths": dict(head.lengths)}
        content = json.dumps({**record, "checksum": _checksum(record)}, indent=1)
        self._files.replace(self.path / "HEAD", content.encode())

    def cut(self, head: Head) -> None:
        """Cuts every array to its committed length; what a chunk holds beyond is overwritten by the next rows."""
        for spec in ALL_ARRAYS:
            length = head.seq if spec is COMMITS else head.lengths[spec.axis]
            if self._capacity[spec.path] != length:
                self._resize(spec, length)

    def close(self, head: Head | None) -> None:
        """Closes files; a writer cuts the arrays first, and gives up its lock."""
        try:
            if head is not None and self.read_head().epoch == head.epoch:
                with contextlib.suppress(OSError):  # a full disk; the next writer cuts
                    self.cut(head)
        finally:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _descriptor(self, spec: ArraySpec, chunk: int) -> int:
        key = (spec.path, chunk)
        if key not in self._open:
            self._open[key] = self._files.open(self._chunk(spec, chunk), spec.chunk_rows * spec.row_bytes)
        return self._open[key]

    def _chunk(self, spec: ArraySpec, chunk: int) -> Path:
        return self.path.joinpath(spec.path, "c", str(chunk), *("0" for _ in spec.row_shape))

    def _shape(self, spec: ArraySpec) -> list[int]:
        shape: list[int] = json.loads((self.path / spec.path / "zarr.json").read_bytes())["shape"]
        return shape

    def _resize(self, spec: ArraySpec, length: int) -> None:
        file = self.path / spec.path / "zarr.json"
        metadata = json.loads(file.read_bytes())
        metadata["shape"][0] = length
        self._files.replace(file, json.dumps(metadata, indent=2).encode())
        self._capacity[spec.path] = length


class ZarrReader(ColumnReader):
    """A reader that also checks that plain Zarr can open every array."""

    def __init__(self, folder: ZarrFolder, head: Head) -> None:
        super().__init__(folder, head)
        self._folder = folder

    def verify(self) -> VerifyReport:
        """As `ColumnReader.verify`, and the shapes that Zarr sees."""
        report = super().verify()
        _verify_shapes(self._folder.path, self._head, report)
        return report


class ZarrWriter(ColumnWriter):
    """The writer of a Zarr store."""

    def __init__(self, folder: ZarrFolder, head: Head) -> None:
        super().__init__(folder, head)
        self._folder = folder

    def verify(self) -> VerifyReport:
        """As `ColumnReader.verify`, and the shapes that Zarr sees."""
        report = super().verify()
        _verify_shapes(self._folder.path, self._head, report)
        return report


def _verify_shapes(path: Path, head: Head, report: VerifyReport) -> None:
    group = zarr.open_group(path, mode="r")
    for spec in ALL_ARRAYS:
        length = head.seq if spec is COMMITS else head.lengths[spec.axis]
        array = group[spec.path]
        if not isinstance(array, zarr.Array) or array.shape[0] < length or array.shape[1:] != spec.row_shape:
            report.problems.append(f"{spec.path}: shape {getattr(array, 'shape', None)}, HEAD says {length}")


def _create(path: Path, files: Files) -> None:
    """Creates all arrays, then HEAD. Repeatable: without HEAD nothing was ever committed."""
    for spec in ALL_ARRAYS:
        if (path / spec.path / "c").exists():
            raise StoreCorrupt(f"{path} has data but no HEAD; restore HEAD from a backup")
    root = zarr.open_group(path, mode="a", zarr_format=3)
    root.attrs.update({"Conventions": "CF-1.11", "title": "alsys campaign", "alsys_format": FORMAT})
    for spec in ALL_ARRAYS:
        attributes: dict[str, Any] = {"long_name": spec.doc}
        if spec.unit:
            attributes["units"] = spec.unit
        if spec.path == "frames/n_atoms":
            attributes["sample_dimension"] = "atoms"
        if not (path / spec.path / "zarr.json").exists():
            root.create_array(
                spec.path,
                shape=(0, *spec.row_shape),
                chunks=(spec.chunk_rows, *spec.row_shape),
                dtype=spec.dtype,
                compressors=None,
                filters=None,
                fill_value=0,
                dimension_names=spec.dimension_names,
                attributes=attributes,
            )
    ZarrFolder(path, files).write_head(Head(0, 0, dict.fromkeys(AXES, 0)))


def _lock(path: Path) -> int:
    lock = os.open(path / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 200).decode(errors="replace").strip()
        os.close(lock)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise StoreBusy(
            f"another process is writing this store{f' ({holder})' if holder else ''}",
            source=str(path),
            remedy="wait for it, or `alsys stop` it",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def _checksum(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
