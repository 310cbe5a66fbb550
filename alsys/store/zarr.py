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
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.metadata.v3 import ArrayV3Metadata

from alsys.errors import Fenced, InputError, StoreBusy, StoreCorrupt
from alsys.outside.contents import parse_json
from alsys.store.base import Head, VerifyReport
from alsys.store.columns import ColumnReader
from alsys.store.files import Files
from alsys.store.schema import ALL_ARRAYS, ALL_AXES, AXES, AXIS_ROWS, BY_PATH, CHARGES, COMMITS, FORMAT, ArraySpec
from alsys.store.verification import shorten, verify_columns
from alsys.store.writer import ColumnWriter

MAX_HEAD_BYTES = 2**16
REBUILD = "`alsys data repair` rebuilds it from the commits"
"""What can be done about a HEAD that cannot be read."""
GONE = (
    "was removed, moved or replaced while this process was writing it: nothing more is written; put the folder back "
    "and run the same command to go on, or run it to begin anew"
)
LOST_METADATA = "`alsys data repair` writes it again"
"""What can be done about metadata that cannot be read."""
LOST_CHUNK = (
    "restore it, or `alsys data repair` mends what can be mended; `alsys data verify` names all that is damaged"
)
"""What can be done about rows that are gone."""
DECIDED = (
    "zarr_format", "node_type", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs",
    "storage_transformers",
)  # fmt: skip
"""What the schema decides of an array's metadata, apart from the shape."""
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What the file system says where a file should be and is none."""


def open_writer(path: str | Path, *, files: Files | None = None) -> ZarrWriter:
    """Opens or creates a store for writing.

    Args:
        path: The store's folder.
        files: File operations; tests pass some that fail.

    Raises:
        StoreBusy: Another process writes it.
        InputError: The path cannot hold a store, or holds something else.
        StoreCorrupt: HEAD or an array is missing though there are data, or cannot be read. Nothing was written.
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
        _add_arrays(path, files)
        folder = ZarrFolder(path, files, lock=lock)
        stack.callback(folder.close_files)
        head = folder.read_head()
        folder.check_owner(head)
        head = Head(head.seq, head.epoch + 1, head.lengths, head.identity or new_identity())
        folder.write_head(head)  # fences first: nobody may commit what is cut next
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


def _no_chunk(path: str, chunk: int, error: OSError) -> StoreCorrupt:
    what = "missing" if isinstance(error, FileNotFoundError) else "no file"
    return StoreCorrupt(f"{path}: chunk {chunk} is {what}", LOST_CHUNK)


class ZarrFolder:
    """Rows of the arrays of one hierarchy.

    Attributes:
        path: The hierarchy's folder.
        lock: Descriptor of the writer's lock, which `close` gives up; None for readers.
    """

    def __init__(self, path: Path, files: Files, *, lock: int | None = None) -> None:
        self.path = path
        self.lock = lock
        self._files = files
        self._open: dict[tuple[str, int], int] = {}
        self._unsynced: set[tuple[str, int]] = set()
        self._folders: dict[Path, None] = {}  # with entries that may not be durable, each once
        self._gaps: dict[tuple[str, int], int] = {}  # lost chunks, and the rows that are still there
        self._capacity = {spec.path: self.shape(spec)[0] for spec in ALL_ARRAYS} if lock is not None else {}

    def read(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array.

        Raises:
            StoreCorrupt: A chunk is missing or too short.
        """
        spec = BY_PATH[path]
        if _is_missing(self.path, spec, self._files):
            return np.full((stop - start, *spec.row_shape), spec.fill, dtype=spec.dtype)
        rows = np.zeros((stop - start, *spec.row_shape), dtype=spec.dtype)
        flat = rows.reshape(-1).view(np.uint8)
        position = start
        while position < stop:
            chunk, inside = divmod(position, spec.chunk_rows)
            count = min(stop - position, spec.chunk_rows - inside)
            there = self._gaps.get((path, chunk), spec.chunk_rows)
            if inside + count > there:
                kept = max(0, there - inside)
                rows[position - start : position - start + kept] = self.read(path, position, position + kept)
                position += count
                continue
            try:
                file = self._chunk(spec, chunk)
                content = self._files.read(file, inside * spec.row_bytes, count * spec.row_bytes)
            except NO_FILE as error:
                raise _no_chunk(path, chunk, error) from error
            if len(content) != count * spec.row_bytes:
                raise StoreCorrupt(f"{path}: chunk {chunk} is cut off")
            offset = (position - start) * spec.row_bytes
            flat[offset : offset + len(content)] = np.frombuffer(content, dtype=np.uint8)
            position += count
        return rows

    def fill_gaps(self) -> list[tuple[ArraySpec, int, int]]:
        """Finds chunks that are gone or cut off, and how many rows of each are there; the others read as zeros now."""
        head, found = self.read_head(), []
        for spec in ALL_ARRAYS:
            length = head.seq if spec is COMMITS else head.lengths[spec.axis]
            if self.is_missing(spec):
                continue
            for chunk in range(-(-length // spec.chunk_rows)):
                last = min(length - chunk * spec.chunk_rows, spec.chunk_rows)
                try:
                    there = self._files.size(self._chunk(spec, chunk)) // spec.row_bytes
                except NO_FILE:
                    there = 0
                if there < last:
                    found.append((spec, chunk, there))
        self._gaps = {(spec.path, chunk): there for spec, chunk, there in found}
        return found

    def chunks(self, spec: ArraySpec) -> list[int]:
        """Numbers of the chunks of an array that there are."""
        return sorted(int(name) for name in self._files.names(self.path / spec.path / "c") if name.isdigit())

    def written(self, path: str) -> int:
        """Rows of an array up to the last one that is not zeros, whatever HEAD says."""
        spec = BY_PATH[path]
        for chunk in reversed(self.chunks(spec)):
            n_rows = min(self._files.size(self._chunk(spec, chunk)) // spec.row_bytes, spec.chunk_rows)
            first = chunk * spec.chunk_rows
            rows = self.read(path, first, first + n_rows).reshape(n_rows, -1)
            if (there := np.flatnonzero(rows.any(axis=1))).size:
                return first + int(there[-1]) + 1
        return 0

    def set_strangers_aside(self) -> Iterator[Path]:
        """Renames folders, pipes and links to nowhere that are in the places of HEAD, metadata and chunks."""
        places = [self.path / "HEAD", self.path / "zarr.json"]
        for spec in ALL_ARRAYS:
            places.append(self.path / spec.path / "zarr.json")
            names = self._files.names(self.path / spec.path / "c") if (self.path / spec.path / "c").is_dir() else ["0"]
            places += [self._chunk(spec, int(name)) for name in names if name.isdigit()]
        for place in places:
            if (aside := self._files.set_aside(place)) is not None:
                yield aside

    def make_chunk(self, spec: ArraySpec, chunk: int, at: int = 0, rows: NDArray[Any] | None = None) -> None:
        """Makes a chunk that is gone, of zeros, or lengthens one that is cut off; `rows` are written from `at` on."""
        descriptor = self._descriptor(spec, chunk)
        if rows is not None:
            self._files.write(descriptor, np.ascontiguousarray(rows, dtype=spec.dtype).tobytes(), at * spec.row_bytes)
        self._files.sync(descriptor)
        for folder in list(self._folders):
            self._files.sync_folder(folder)
            del self._folders[folder]
        self._gaps.pop((spec.path, chunk), None)

    def restore(self, path: str, rows: NDArray[Any]) -> int:
        """Makes the committed rows of an array these, and keeps chunks that change aside; returns how many differ."""
        spec, n_changed = BY_PATH[path], 0
        rows = np.ascontiguousarray(rows, dtype=spec.dtype)
        for chunk, first in enumerate(range(0, len(rows), spec.chunk_rows)):
            part = rows[first : first + spec.chunk_rows]
            now = self.read(path, first, first + len(part))
            width = (len(part), spec.row_bytes)
            differs = (now.reshape(-1).view(np.uint8) != part.reshape(-1).view(np.uint8)).reshape(width).any(axis=1)
            differs[self._gaps.get((path, chunk), len(part)) :] = True
            if differs.any():
                self._files.copy_aside(self._chunk(spec, chunk))
                self.make_chunk(spec, chunk, 0, part)
                n_changed += int(differs.sum())
        return n_changed

    def replace(self, name: str, content: bytes) -> None:
        """Replaces a small file below the folder, whole, and makes its folder; what was there is kept aside."""
        self._files.make((self.path / name).parent)
        self._files.copy_aside(self.path / name)
        self._files.replace(self.path / name, content)

    def write(self, path: str, start: int, rows: NDArray[Any]) -> None:
        """Writes rows into chunk files, growing the array first."""
        spec = BY_PATH[path]
        rows = np.ascontiguousarray(rows, dtype=spec.dtype)
        stop = start + len(rows)
        if stop > self._capacity[path]:
            self._resize(spec, -(-stop // AXIS_ROWS[spec.axis]) * AXIS_ROWS[spec.axis])
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
            self._files.close(self._open.pop(key))

    def read_head(self) -> Head:
        """The committed HEAD."""
        file = self.path / "HEAD"
        try:
            is_file = stat.S_ISREG(os.stat(file).st_mode)
        except OSError:
            if not file.is_symlink():
                raise
            is_file = False
        if not is_file:
            raise StoreCorrupt(f"{file} is no regular file", REBUILD)
        content = self._files.read(file, 0, MAX_HEAD_BYTES + 1)
        if len(content) > MAX_HEAD_BYTES:
            raise StoreCorrupt(f"{file} is damaged: it is larger than {MAX_HEAD_BYTES} bytes", REBUILD)
        if not content.strip(b"\0 \n"):
            raise StoreCorrupt(f"{file} is empty", REBUILD)
        try:
            record = parse_json(content)
            if not isinstance(record, dict) or record.pop("checksum", None) != _checksum(record):
                raise StoreCorrupt(f"{file} is damaged: its checksum does not fit", REBUILD)
            if record["format"] != FORMAT:
                raise StoreCorrupt(
                    f"{file} has format {record['format']}, this alsys reads {FORMAT}",
                    "use the alsys that wrote the store",
                )
            lengths = {axis: int(record["lengths"][axis]) for axis in AXES}
            lengths[CHARGES] = int(record["lengths"].get(CHARGES, 0))
            return Head(int(record["seq"]), int(record["epoch"]), lengths, str(record.get("store", "")))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, InputError) as error:
            raise StoreCorrupt(f"{file} is damaged: {error}", REBUILD) from error

    def write_head(self, head: Head) -> None:
        """Replaces HEAD, once the folders of all chunks that it may count on are durable."""
        for folder in list(self._folders):
            self._files.sync_folder(folder)
            del self._folders[folder]
        record = {
            "format": FORMAT,
            "store": head.identity,
            "seq": head.seq,
            "epoch": head.epoch,
            "lengths": dict(head.lengths),
        }
        content = json.dumps({**record, "checksum": _checksum(record)}, indent=1)
        self._files.replace(self.path / "HEAD", content.encode())

    def check_owner(self, head: Head) -> None:
        """Returns where this store is still that of the writer whose HEAD this is.

        Raises:
            Fenced: Another writer has taken over, or the folder was removed, moved or replaced.
        """
        try:
            current: Head | None = self.read_head()
        except FileNotFoundError:
            current = None
        if current is not None and current.epoch > head.epoch:
            raise Fenced(f"{self.path}: another writer (epoch {current.epoch}) took over from epoch {head.epoch}")
        if self.lock is None or not self._files.is_at(self.path / "writer.lock", self.lock):
            raise Fenced(f"{self.path} {GONE}")
        if current is None:
            remedy = StoreCorrupt("", REBUILD).located(self.path.parent)
            raise Fenced(f"{self.path}: HEAD was removed while this process was writing the store; {remedy}")
        if current.identity != head.identity:
            raise Fenced(f"{self.path}: HEAD is that of another store now; nothing was written to it")

    def cut(self, head: Head) -> None:
        """Cuts every array to its committed length and clears what lies beyond. May be cut off itself, and repeated."""
        for spec in ALL_ARRAYS:
            length = head.seq if spec is COMMITS else head.lengths[spec.axis]
            if self._capacity[spec.path] != length:
                self._resize(spec, length)
            self._clear(spec, length)

    def close(self, head: Head | None) -> None:
        """Closes files; a writer cuts the arrays first, and gives up its lock."""
        try:
            if head is not None:
                with contextlib.suppress(OSError, Fenced):  # a full disk, or no longer ours; the next writer cuts
                    self.check_owner(head)
                    self.cut(self.read_head())
        finally:
            self.close_files()
            if self.lock is not None:
                self._files.close(self.lock)
                self.lock = None
            self._files.release()

    def close_files(self) -> None:
        """Closes the files of chunks."""
        for descriptor in self._open.values():
            self._files.close(descriptor)
        self._open.clear()

    def _clear(self, spec: ArraySpec, length: int) -> None:
        """Zeroes rows beyond `length` in the last chunk and removes later chunks: a commit that failed left them."""
        last, inside = divmod(length, spec.chunk_rows)
        for chunk in self.chunks(spec):
            file = self._chunk(spec, chunk)
            if not self._files.exists(file):
                continue
            if chunk > last or (chunk == last and not inside):
                self._files.remove(file)
            elif chunk == last:
                try:
                    rest = self._files.read(file, inside * spec.row_bytes)
                except NO_FILE as error:
                    raise _no_chunk(spec.path, chunk, error) from error
                if rest.count(0) != len(rest):
                    descriptor = self._descriptor(spec, chunk)
                    self._files.write(descriptor, bytes(len(rest)), inside * spec.row_bytes)
                    self._files.sync(descriptor)

    def _descriptor(self, spec: ArraySpec, chunk: int) -> int:
        key = (spec.path, chunk)
        if key not in self._open:
            file, root = self._chunk(spec, chunk), self.path / spec.path
            for folder in file.parents:  # all of them, whoever made them: a crash may have come in between
                self._folders[folder] = None
                if folder == root:
                    break
            self._open[key] = self._files.open(file, spec.chunk_rows * spec.row_bytes)
        return self._open[key]

    def _chunk(self, spec: ArraySpec, chunk: int) -> Path:
        return self.path.joinpath(spec.path, "c", str(chunk), *("0" for _ in spec.row_shape))

    def is_missing(self, spec: ArraySpec) -> bool:
        """True for an array that the store is too old to have."""
        return _is_missing(self.path, spec, self._files)

    def damaged_groups(self) -> list[str]:
        """Metadata of groups that cannot be read, the root's included."""
        groups = dict.fromkeys(["", *(s.path.partition("/")[0] for s in ALL_ARRAYS if not self.is_missing(s))])
        return [name for name in (f"{group}/zarr.json".lstrip("/") for group in groups) if not self._is_group(name)]

    def _is_group(self, name: str) -> bool:
        try:
            found = json.loads(self._files.read(self.path / name))
            return (found["node_type"], found["zarr_format"]) == ("group", 3) and type(found["attributes"]) is dict
        except (*NO_FILE, ValueError, KeyError, TypeError):
            return False

    def shape(self, spec: ArraySpec) -> list[int]:
        """What the metadata of an array say.

        Raises:
            StoreCorrupt: They are missing or damaged.
        """
        shape: list[int] = self._metadata(spec)["shape"]
        return shape

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """As `verify_columns`, and the shapes that Zarr sees."""
        report = verify_columns(reader)
        report.problems += [f"{name} is missing or damaged" for name in self.damaged_groups()]
        for spec in ALL_ARRAYS:
            if self.is_missing(spec):
                continue
            length = reader.head.seq if spec is COMMITS else reader.head.lengths[spec.axis]
            try:
                n_rows = self.shape(spec)[0]
                array = zarr.open_array(self.path, path=spec.path, mode="r")
                if n_rows < length:
                    report.problems.append(f"{spec.path}: shape {array.shape}, HEAD says {length}")
            except StoreCorrupt as error:
                report.problems.append(error.message)
            except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
                report.problems.append(f"{spec.path}: zarr cannot open it: {type(error).__name__}: {error}")
        return shorten(report)

    def _metadata(self, spec: ArraySpec) -> dict[str, Any]:
        try:
            metadata = json.loads(self._files.read(self.path / spec.path / "zarr.json"))
        except NO_FILE as error:
            what = "missing" if isinstance(error, FileNotFoundError) else "no file"
            raise StoreCorrupt(f"{spec.path}: its zarr.json is {what}", LOST_METADATA) from None
        except ValueError as error:
            raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: {error}", LOST_METADATA) from error
        if not isinstance(metadata, dict) or type(metadata.get("attributes", {})) is not dict:
            raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: it is no mapping", LOST_METADATA)
        shape, expected = metadata.get("shape"), _metadata_of(spec)
        length = shape[0] if isinstance(shape, list) and shape else None
        if type(length) is not int or length < 0 or shape != [length, *spec.row_shape]:
            raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: shape {shape}", LOST_METADATA)
        try:
            ArrayV3Metadata.from_dict(json.loads(json.dumps(metadata)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            what = f"zarr cannot read it: {' '.join(str(error).split())}"
            raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: {what}", LOST_METADATA) from error
        said = {"storage_transformers": [], **metadata}
        if odd := [name for name in DECIDED if said.get(name) != expected[name]]:
            what = f"{odd[0]} {_shown(metadata.get(odd[0]))} is not that of the array"
            raise StoreCorrupt(f"{spec.path}: its zarr.json is damaged: {what}", LOST_METADATA)
        found: dict[str, Any] = metadata
        return found

    def _resize(self, spec: ArraySpec, length: int) -> None:
        metadata = self._metadata(spec)
        metadata["shape"][0] = length
        content = json.dumps(metadata, indent=2).encode()
        self._files.replace(self.path / spec.path / "zarr.json", content)
        self._capacity[spec.path] = length


class ZarrWriter(ColumnWriter):
    """The writer of a Zarr store."""

    def __init__(self, folder: ZarrFolder, head: Head) -> None:
        super().__init__(folder, head)
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
    create_hierarchy(path)
    files.sync_tree(path)  # zarr replaces objects atomically but does not sync them
    ZarrFolder(path, files).write_head(Head(0, 0, dict.fromkeys(ALL_AXES, 0), new_identity()))


def create_hierarchy(path: Path) -> None:
    """Makes the metadata of all groups and arrays, of no rows."""
    attributes: dict[str, Any] = {"Conventions": "CF-1.11", "title": "alsys campaign", "alsys_format": FORMAT}
    root = zarr.open_group(path, mode="a", zarr_format=3, attributes=attributes)
    for name in dict.fromkeys(spec.path.partition("/")[0] for spec in ALL_ARRAYS):
        root.create_group(name, overwrite=True)
    for spec in ALL_ARRAYS:
        create_array(root, spec.path, spec)


def create_array(root: zarr.Group, name: str, spec: ArraySpec) -> zarr.Array[Any]:
    """Makes an array of no rows with the metadata of its specification."""
    attributes: dict[str, Any] = {"long_name": spec.doc}
    if spec.unit:
        attributes["units"] = spec.unit
    if spec.path == "frames/n_atoms":
        attributes["sample_dimension"] = "atoms"
    return root.create_array(
        name,
        shape=(0, *spec.row_shape),
        chunks=(spec.chunk_rows, *spec.row_shape),
        dtype=spec.dtype,
        compressors=None,
        filters=None,
        fill_value=0,
        dimension_names=spec.dimension_names,
        attributes=attributes,
    )


@cache
def _metadata_of(spec: ArraySpec) -> dict[str, Any]:
    """Metadata of an array without rows."""
    store = zarr.storage.MemoryStore()
    array = create_array(zarr.open_group(store, mode="w", zarr_format=3), spec.path, spec)
    found: dict[str, Any] = json.loads(json.dumps(array.metadata.to_dict(), default=str))
    return found


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_missing(path: Path, spec: ArraySpec, files: Files) -> bool:
    """True for an array that the store is too old to have. One whose folder is there has lost its metadata."""
    return spec.fill is not None and not files.exists(path / spec.path)


def _add_arrays(path: Path, files: Files) -> None:
    """Adds arrays that an older store lacks: filled beside the store's own, then moved into place at once."""
    missing = [spec for spec in ALL_ARRAYS if _is_missing(path, spec, files)]
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


def new_identity() -> str:
    """Identity of a store: random, so that no two have the same."""
    return secrets.token_hex(16)


def _checksum(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
