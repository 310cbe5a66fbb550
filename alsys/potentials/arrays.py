"""One arithmetic for arrays of numpy on the host and tensors on a device.

Operators, slices and the functions that numpy and PyTorch have under one name (`Arrays.xp`) are written once, in
integrators, stop rules, methods and committees. What the two do differently is here: where a constant is put, sums over
the atoms of each walker, random numbers, and what comes to the host. On the host every operation is numpy's own; the
other implementation is `alsys.potentials.device_arrays`, which imports torch, as this module does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = Any
"""An array of numpy or a tensor on a device, as the `Arrays` at hand make them."""


class Segments(Protocol):
    """Rows that belong together, one segment after another: atoms of walkers, pairs of walkers."""

    def sum(self, rows: Array) -> Array:
        """``(n_segments, ...)`` sums of ``(n_rows, ...)``."""
        ...

    def max(self, rows: Array) -> Array:
        """``(n_segments, ...)`` largest of each, NaN where there is one."""
        ...

    def min(self, rows: Array) -> Array:
        """``(n_segments, ...)`` smallest of each, NaN where there is one."""
        ...

    def any(self, rows: Array) -> Array:
        """``(n_segments,)`` whether any of ``(n_rows,)`` booleans is true."""
        ...

    def spread(self, values: Array) -> Array:
        """``(n_rows, ...)`` each segment's value in all of its rows."""
        ...


class Arrays(Protocol):
    """Where arrays are.

    Attributes:
        xp: Functions that numpy and PyTorch have under one name: ``sqrt``, ``where``, ``einsum`` and so on.
        is_on_host: Whether they are numpy's.
    """

    xp: ClassVar[Any]
    is_on_host: ClassVar[bool]

    def of(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """Arrays of numpy, placed; what is placed on a device shares no memory with them."""
        ...

    def read(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        """Arrays of numpy from what is here, of a device in one copy; numbers of up to 53 bits."""
        ...

    def copied(self, array: Array) -> Array:
        """One that shares no memory."""
        ...

    def segments(self, counts: ArrayLike) -> Segments:
        """Segments of so many rows each, all at least one."""
        ...

    def normal(self, shape: Sequence[int], rng: np.random.Generator) -> Array:
        """Standard normal numbers in float64, of `rng` on the host, of a device's own generator there."""
        ...

    def seed(self, rng: np.random.Generator) -> int | None:
        """Seeds the device's own generator from `rng`; None on the host, where nothing is drawn."""
        ...

    def cube_root(self, values: Array) -> Array:
        """Of positive numbers."""
        ...

    def whole(self, values: Array) -> Array:
        """Cut off to 64-bit integers."""
        ...

    def deviation(self, values: Array) -> Array:
        """Standard deviation over the first axis, of the population."""
        ...

    def changed(self, array: Array, rows: NDArray[np.int64], values: NDArray[Any] | float) -> Array:
        """A copy with other rows."""
        ...


class HostSegments:
    """Segments of arrays of numpy."""

    def __init__(self, counts: ArrayLike) -> None:
        sizes = np.asarray(counts, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self._of_row = np.repeat(np.arange(sizes.size), sizes)

    def sum(self, rows: Array) -> Array:
        """As `Segments`."""
        return np.add.reduceat(rows, self._starts)

    def max(self, rows: Array) -> Array:
        """As `Segments`."""
        return np.maximum.reduceat(rows, self._starts)

    def min(self, rows: Array) -> Array:
        """As `Segments`."""
        return np.minimum.reduceat(rows, self._starts)

    def any(self, rows: Array) -> Array:
        """As `Segments`."""
        return np.logical_or.reduceat(rows, self._starts)

    def spread(self, values: Array) -> Array:
        """As `Segments`."""
        return values[self._of_row]


class HostArrays:
    """Arrays of numpy."""

    xp: ClassVar[Any] = np
    is_on_host: ClassVar[bool] = True

    def of(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """The arrays themselves."""
        return list(arrays)

    def read(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        """The arrays themselves."""
        return list(arrays)

    def copied(self, array: Array) -> Array:
        """As `Arrays`."""
        return np.array(array)

    def segments(self, counts: ArrayLike) -> HostSegments:
        """As `Arrays`; those that were asked for last are kept."""
        return _host_segments(np.asarray(counts, dtype=np.int64).tobytes())

    def normal(self, shape: Sequence[int], rng: np.random.Generator) -> Array:
        """As `Arrays`."""
        return rng.normal(size=tuple(shape))

    def seed(self, rng: np.random.Generator) -> int | None:
        """None."""
        return None

    def cube_root(self, values: Array) -> Array:
        """As `Arrays`."""
        return np.cbrt(values)

    def whole(self, values: Array) -> Array:
        """As `Arrays`."""
        return values.astype(np.int64)

    def deviation(self, values: Array) -> Array:
        """As `Arrays`."""
        return values.std(axis=0)

    def changed(self, array: Array, rows: NDArray[np.int64], values: NDArray[Any] | float) -> Array:
        """As `Arrays`."""
        other = np.array(array)
        other[rows] = values
        return other


@lru_cache(maxsize=32)
def _host_segments(counts: bytes) -> HostSegments:
    return HostSegments(np.frombuffer(counts, dtype=np.int64))


HOST = HostArrays()


class Constants:
    """Arrays of the host that change now and then: on a device they are placed again when they have changed.

    What is placed is left behind where this is pickled.
    """

    def __init__(self) -> None:
        self._key: tuple[Arrays, object] | None = None
        self._placed: list[Array] = []

    def of(self, arrays: Arrays, values: Sequence[NDArray[Any]], version: object = None) -> list[Array]:
        """The values, where `arrays` are.

        Args:
            arrays: Where.
            values: They.
            version: Equal where the values are; None to compare all of their bytes.
        """
        if arrays.is_on_host:
            return list(values)
        key = (arrays, tuple(value.tobytes() for value in values) if version is None else version)
        if key != self._key:
            self._key, self._placed = key, arrays.of(values)
        return self._placed

    def __reduce__(self) -> tuple[type[Constants], tuple[()]]:
        return Constants, ()
