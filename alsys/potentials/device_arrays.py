"""Tensors on a device, with the arithmetic of `alsys.potentials.arrays`.

No operation waits for the device but `DeviceArrays.read`, which is a copy. Sums over segments add in the order of rows,
so that they are the same at each run: segments of one size are a dimension, others are padded to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from alsys.potentials.arrays import Array
from alsys.potentials.devices import META, fetched, placed

KEPT_SEGMENTS = 16
"""Divisions into segments that are kept placed."""


class DeviceSegments:
    """Segments of tensors.

    Args:
        counts: ``(n_segments,)`` rows of each.
        device: Where they are.
    """

    def __init__(self, counts: ArrayLike, device: torch.device) -> None:
        sizes = np.asarray(counts, dtype=np.int64)
        self._n, self._longest = int(sizes.size), int(sizes.max(initial=1))
        self._is_even = bool((sizes == self._longest).all())
        if not self._is_even:
            place = np.arange(self._longest)
            is_row = place < sizes[:, None]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            rows = np.where(is_row, starts[:, None] + place, starts[:, None])
            self._rows, self._of_row, self._is_row = placed(
                [rows.reshape(-1), np.repeat(np.arange(self._n), sizes), is_row], device
            )

    def sum(self, rows: Array) -> Array:
        """As `Segments`."""
        return self._padded(rows, 0.0).sum(dim=1)

    def max(self, rows: Array) -> Array:
        """As `Segments`."""
        return self._padded(rows, -torch.inf).amax(dim=1)

    def min(self, rows: Array) -> Array:
        """As `Segments`."""
        return self._padded(rows, torch.inf).amin(dim=1)

    def any(self, rows: Array) -> Array:
        """As `Segments`."""
        return self._padded(rows, False).any(dim=1)

    def spread(self, values: Array) -> Array:
        """As `Segments`."""
        if self._is_even:
            return values.repeat_interleave(self._longest, dim=0, output_size=self._n * self._longest)
        return values.index_select(0, self._of_row)

    def _padded(self, rows: Array, value: float) -> Array:
        shape = (self._n, self._longest, *rows.shape[1:])
        if self._is_even:
            return rows.reshape(shape)
        is_row = self._is_row.reshape(self._n, self._longest, *[1] * (rows.ndim - 1))
        return torch.where(is_row, rows.index_select(0, self._rows).reshape(shape), value)


class DeviceArrays:
    """Tensors on a device.

    Args:
        device: Any but numpy's host; the CPU too, where tensors do what they would do elsewhere.
    """

    xp: ClassVar[Any] = torch
    is_on_host: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._generator = None if device == META else torch.Generator(device)
        self._segments: dict[bytes, DeviceSegments] = {}

    def of(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """As `Arrays`."""
        return placed([np.array(array, order="C") for array in arrays], self.device)

    def read(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        """As `Arrays`."""
        types = [_TYPES[array.dtype] for array in arrays]
        found = fetched([array.to(torch.float64) for array in arrays])
        return [np.array(values, dtype=kind) for values, kind in zip(found, types, strict=True)]

    def copied(self, array: Array) -> Array:
        """As `Arrays`."""
        return array.clone()

    def segments(self, counts: ArrayLike) -> DeviceSegments:
        """As `Arrays`; those that were asked for last are kept."""
        key = np.asarray(counts, dtype=np.int64).tobytes()
        if key not in self._segments:
            if len(self._segments) >= KEPT_SEGMENTS:
                del self._segments[next(iter(self._segments))]
            self._segments[key] = DeviceSegments(counts, self.device)
        return self._segments[key]

    def normal(self, shape: Sequence[int], rng: np.random.Generator) -> Array:
        """As `Arrays`."""
        return torch.randn(tuple(shape), generator=self._generator, dtype=torch.float64, device=self.device)

    def seed(self, rng: np.random.Generator) -> int | None:
        """As `Arrays`."""
        seed = int(rng.integers(2**62))
        if self._generator is not None:
            self._generator.manual_seed(seed)
        return seed

    def cube_root(self, values: Array) -> Array:
        """As `Arrays`."""
        return values ** (1.0 / 3.0)

    def whole(self, values: Array) -> Array:
        """As `Arrays`."""
        return values.to(torch.int64)

    def deviation(self, values: Array) -> Array:
        """As `Arrays`."""
        return values.std(dim=0, correction=0)

    def changed(self, array: Array, rows: NDArray[np.int64], values: NDArray[Any] | float) -> Array:
        """As `Arrays`."""
        if isinstance(values, np.ndarray):
            index, new = self.of([rows, np.asarray(values, dtype=_TYPES[array.dtype])])
            return array.index_copy(0, index, new)
        (index,) = self.of([rows])
        return array.index_fill(0, index, values)


_TYPES: dict[torch.dtype, type[np.generic]] = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}
