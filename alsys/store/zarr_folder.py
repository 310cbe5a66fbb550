"""Rows of the arrays of one hierarchy on disk, read and written through chunk files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from alsys.errors import AGAIN, Fenced, StoreCorrupt
from alsys.store.base import Head, VerifyReport
from alsys.store.columns import ColumnReader
from alsys.store.files import Files
from alsys.store.head import REBUILD, head_content, read_head
from alsys.store.history import head_problem
from alsys.store.schema import ALL_ARRAYS, AXIS_ROWS, BY_PATH, COMMITS, ArraySpec
from alsys.store.verification import shorten, verify_columns
from alsys.store.zarr_arrays import (
    IDENTITY,
    NO_FILE,
    is_missing,
    read_metadata,
)

GONE = (
    "was removed, moved or replaced while this process was writing it: nothing more is written; put the folder back, "
    f"then {AGAIN} goes on; without it, that begins anew"
)
LOST_CHUNK = (
    "restore it, or `alsys data repair` mends what can be mended; `alsys data verify` names all that is damaged"
)
"""What can be done about rows that are gone."""


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
        if is_missing(self.path, spec, self._files):
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
            try:
                n_rows = min(self._files.size(self._chunk(spec, chunk)) // spec.row_bytes, spec.chunk_rows)
            except NO_FILE:
                continue
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

    def forget_commits(self, seq: int) -> None:
        """Makes version `seq` the newest that there are lengths of; what is cleared is kept aside."""
        if (n_written := self.written(COMMITS.path)) > seq:
            for chunk in range(seq // COMMITS.chunk_rows, -(-n_written // COMMITS.chunk_rows)):
                self._files.copy_aside(self._chunk(COMMITS, chunk))
        self._resize(COMMITS, seq)
        self._clear(COMMITS, seq)

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
        return read_head(self.path / "HEAD", self._files)

    def write_head(self, head: Head) -> None:
        """Replaces HEAD, once the folders of all chunks that it may count on are durable."""
        for folder in list(self._folders):
            self._files.sync_folder(folder)
            del self._folders[folder]
        self._files.replace(self.path / "HEAD", head_content(head))

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
        return is_missing(self.path, spec, self._files)

    def damaged_groups(self) -> list[str]:
        """Metadata of groups that cannot be read, the root's included."""
        groups = dict.fromkeys(["", *(s.path.partition("/")[0] for s in ALL_ARRAYS if not self.is_missing(s))])
        return [name for name in (f"{group}/zarr.json".lstrip("/") for group in groups) if not self._is_group(name)]

    def _is_group(self, name: str) -> bool:
        return self._group(name) is not None

    def _group(self, name: str) -> dict[str, Any] | None:
        """Metadata of a group; None where they cannot be read."""
        try:
            found: dict[str, Any] = json.loads(self._files.read(self.path / name))
            is_group = (found["node_type"], found["zarr_format"]) == ("group", 3)
            return found if is_group and type(found["attributes"]) is dict else None
        except (*NO_FILE, ValueError, KeyError, TypeError):
            return None

    def identity(self) -> str:
        """Identity of the store, as its root says; empty for older stores, and where the root cannot be read."""
        return str((self._group("zarr.json") or {"attributes": {}})["attributes"].get(IDENTITY, ""))

    def write_identity(self, identity: str) -> None:
        """Has the root say it, where the root can be read and says another."""
        root = self._group("zarr.json")
        if root is not None and root["attributes"].get(IDENTITY) != identity:
            root["attributes"][IDENTITY] = identity
            self._files.replace(self.path / "zarr.json", json.dumps(root, indent=2).encode())

    def shape(self, spec: ArraySpec) -> list[int]:
        """What the metadata of an array say.

        Raises:
            StoreCorrupt: They are missing or damaged.
        """
        shape: list[int] = read_metadata(self.path, spec, self._files)["shape"]
        return shape

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """As `verify_columns`, and the shapes that Zarr sees."""
        report = verify_columns(reader)
        try:
            report.problems += filter(None, [head_problem(self)])
        except (StoreCorrupt, FileNotFoundError) as error:
            report.problems.append(str(error))
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

    def _resize(self, spec: ArraySpec, length: int) -> None:
        metadata = read_metadata(self.path, spec, self._files)
        metadata["shape"][0] = length
        content = json.dumps(metadata, indent=2).encode()
        self._files.replace(self.path / spec.path / "zarr.json", content)
        self._capacity[spec.path] = length
