"""HEAD against the rest of its store: whether it is that of this store, and not older than what was committed since.

A commit writes its row of lengths, syncs all rows, and then replaces HEAD; a writer that opens a store clears what lies
beyond HEAD. So at most one row of lengths lies beyond HEAD, that of a commit which was not finished. The shape of the
rows of lengths is whole chunks while a store is written, and HEAD's version when it was closed.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from alsys.errors import StoreCorrupt
from alsys.store.base import Head
from alsys.store.encoding import Array
from alsys.store.schema import AXES, AXIS_ROWS, COMMITS, ArraySpec


class Folder(Protocol):
    """What is asked of a store's folder (`alsys.store.zarr_folder.ZarrFolder`)."""

    def read_head(self) -> Head:
        """The committed HEAD."""
        ...

    def identity(self) -> str:
        """What the root says."""
        ...

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows of an array."""
        ...

    def written(self, path: str) -> int:
        """Rows of an array up to the last one that is not zeros."""
        ...

    def shape(self, spec: ArraySpec) -> list[int]:
        """What the metadata of an array say."""
        ...


def head_problem(folder: Folder) -> str:
    """What is wrong with a HEAD that can be read, in one line; empty where nothing is. A writer may go on meanwhile.

    Raises:
        StoreCorrupt: HEAD or the lengths of commits cannot be read.
    """
    head = folder.read_head()
    rows, closed_at = _rows_after(folder, head), _closed_at(folder)
    seq, head = head.seq, folder.read_head()  # a writer replaces it after the rows that were seen
    named = folder.identity()
    if named and head.identity and named != head.identity:
        return "HEAD is that of another store"
    newest = max(seq + _n_commits(rows, seq, head), closed_at)
    if newest > head.seq + (newest != closed_at):
        return f"HEAD is an older one: it is of dataset version {head.seq}, and version {newest} was committed"
    return ""


def _rows_after(folder: Folder, head: Head) -> Array:
    """Lengths of commits that lie beyond HEAD."""
    return folder.read(COMMITS.path, head.seq, max(head.seq, folder.written(COMMITS.path)))


def _n_commits(rows: Array, seq: int, head: Head) -> int:
    """How many of the rows after version `seq` are lengths of commits that follow those of HEAD."""
    last, n_found = np.array([head.lengths[axis] for axis in AXES]), 0
    for number, row in enumerate(rows, 1):
        if seq + number > head.seq and row.any():
            if (row < last).any():
                break
            last, n_found = row, number
    return n_found


def _closed_at(folder: Folder) -> int:
    """Version at which a writer closed the store; 0 where it has not."""
    try:
        length = folder.shape(COMMITS)[0]
    except StoreCorrupt:
        return 0
    return length if length % AXIS_ROWS[COMMITS.axis] else 0
