"""The store in memory: the Zarr store's twin for tests and throw-away campaigns.

A `MemoryDisk` outlives its writers, as a file system does: opening it again gives a writer of a later epoch, and the
one before is fenced. What a writer staged and did not commit goes with it, as in a crash.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alsys.errors import Fenced
from alsys.store.base import Head, VerifyReport
from alsys.store.columns import ColumnReader
from alsys.store.schema import ALL_ARRAYS, ALL_AXES, BY_PATH
from alsys.store.verification import shorten, verify_columns
from alsys.store.writer import ColumnWriter


class MemoryDisk:
    """Columns and a HEAD in memory."""

    def __init__(self) -> None:
        self._columns = {spec.path: np.zeros((0, *spec.row_shape), dtype=spec.dtype) for spec in ALL_ARRAYS}
        self._head = Head(0, 0, dict.fromkeys(ALL_AXES, 0))

    def read(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a column."""
        return self._columns[path][start:stop].copy()

    def write(self, path: str, start: int, rows: NDArray[Any]) -> None:
        """Writes rows, growing the column by half where it is too short."""
        column = self._columns[path]
        stop = start + len(rows)
        if stop > len(column):
            spec = BY_PATH[path]
            grown = np.zeros((max(stop, len(column) * 3 // 2), *spec.row_shape), dtype=spec.dtype)
            grown[: len(column)] = column
            self._columns[path] = column = grown
        column[start:stop] = rows

    def sync(self) -> None:
        """Memory is as durable as it gets."""

    def read_head(self) -> Head:
        """The committed HEAD."""
        return self._head

    def write_head(self, head: Head) -> None:
        """Replaces HEAD."""
        self._head = head

    def check_owner(self, head: Head) -> None:
        """Raises `Fenced` where a later writer has opened it."""
        if self._head.epoch > head.epoch:
            raise Fenced(f"another writer (epoch {self._head.epoch}) took over from epoch {head.epoch}")

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """As `Backend.verify`."""
        return shorten(verify_columns(reader))

    def close(self, head: Head | None) -> None:
        """Keeps everything for the next writer."""


def open_writer(disk: MemoryDisk | None = None) -> ColumnWriter:
    """A writer of the next epoch on `disk` (default: a new one)."""
    disk = disk or MemoryDisk()
    head = disk.read_head()
    head = Head(head.seq, head.epoch + 1, head.lengths)
    disk.write_head(head)
    return ColumnWriter(disk, head)


def open_reader(disk: MemoryDisk, seq: int | None = None) -> ColumnReader:
    """A reader pinned to the present HEAD, or to version `seq`.

    Raises:
        InputError: No such version.
    """
    reader = ColumnReader(disk, disk.read_head())
    return reader if seq is None else reader.at(seq)
