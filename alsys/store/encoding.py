"""Identities, texts and ragged rows as columns, and back. NumPy only, no I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alsys.store.schema import ALL_ARRAYS, HOST_BYTES

Array = NDArray[Any]

AXIS_OF = {spec.path: spec.axis for spec in ALL_ARRAYS}
DTYPE_OF = {spec.path: spec.dtype for spec in ALL_ARRAYS}

NO_STRESS = np.full((3, 3), np.nan)
"""What is stored where a label has no stress."""


def to_hex(ids: Array) -> list[str]:
    """Identities of the rows of ``(n, n_bytes)``, as hexadecimal text."""
    text = ids.tobytes().hex()
    width = 2 * ids.shape[1]
    return [text[i : i + width] for i in range(0, len(text), width)]


def from_hex(ids: Iterable[str]) -> Array:
    """Identities of 32 hexadecimal characters as ``(n, 16)`` bytes."""
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=np.uint8).reshape(-1, 16)


def host_bytes(host: str) -> bytes:
    """A host's name as it is stored: `HOST_BYTES` bytes, cut off or padded with zeros."""
    return host.encode()[:HOST_BYTES].ljust(HOST_BYTES, b"\0")


def ragged_indices(starts: Array, counts: Array, rows: Array) -> Array:
    """Where all elements of the ragged `rows` stand, in the order of `rows`.

    Args:
        starts: First element of every row.
        counts: Number of elements of every row.
        rows: Indices of the wanted rows.
    """
    chosen = counts[rows]
    total = int(chosen.sum())
    offsets = np.repeat(starts[rows] - (np.cumsum(chosen) - chosen), chosen)
    return offsets + np.arange(total)


def crc_of(event: bytes) -> int:
    """CRC-32 of an event of the log; never 0, which stands for none."""
    return zlib.crc32(event) or 1


def encode_texts(group: str, texts: Sequence[bytes], n_bytes: int) -> dict[str, Array]:
    """Columns of a group of texts that begins at `n_bytes` of its bytes."""
    ends = n_bytes + np.cumsum([len(text) for text in texts])
    return {f"{group}/end": ends.astype("<i8"), f"{group}/bytes": np.frombuffer(b"".join(texts), dtype=np.uint8)}


def decode_texts(ends: Array, first: int, content: Array) -> list[bytes]:
    """The texts that end at `ends`, the first of which begins at `first`, where `content` begins too."""
    text = content.tobytes()
    stops = (ends - first).tolist()
    return [text[a:b] for a, b in zip([0, *stops[:-1]], stops, strict=True)]
