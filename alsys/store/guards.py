"""Checks of columns that others are read by: codes, counts and ends.

A wrong one would end in an index error, or in rows of another frame. They cost one pass over the column. NumPy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import StoreCorrupt
from alsys.frames import IntArray
from alsys.store.encoding import Array


def check_codes(path: str, codes: ArrayLike, size: int) -> Array:
    """`codes`, which are indices into something of `size` elements.

    Raises:
        StoreCorrupt: One is out of range.
    """
    codes = np.asarray(codes)
    if codes.size and not 0 <= codes.min() <= codes.max() < size:
        raise StoreCorrupt(f"{path}: a code is out of range")
    return codes


def check_counts(path: str, counts: IntArray, least: int, total: int, *, is_whole: bool = False) -> IntArray:
    """`counts`, none below `least`, which add up to `total` or, unless `is_whole`, to less.

    Raises:
        StoreCorrupt: They do not.
    """
    found = int(counts.sum())
    if (counts.size and counts.min() < least) or found > total or (is_whole and found != total):
        raise StoreCorrupt(f"{path}: counts do not fit the {total} rows that they are counts of")
    return counts


def check_ends(path: str, ends: Array, total: int) -> Array:
    """`ends` of texts in order, the last of them at `total`.

    Raises:
        StoreCorrupt: They are not.
    """
    if ends.size and (ends[0] < 0 or ends[-1] != total or (np.diff(ends) < 0).any()):
        raise StoreCorrupt(f"{path}: ends do not fit the {total} bytes")
    return ends
