"""Digests of what labels say, which the log keeps: of labels as they are accepted, and as the arrays hold them.

Both are blake2b over the same bytes: those of the stored columns, in their types (so NaN equals itself, and a wall time
is the float32 that is stored), then the forces. Identities, and so the frame and the level, have digests of their own
(`label_id`, `frame_id`). The columns of a digest never change; a column that comes later is not in it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.labels import Label
from alsys.store.columns import ColumnReader
from alsys.store.encoding import NO_STRESS, Array, host_bytes

DIGEST_BYTES: Final = 16
COLUMNS: Final = ("energy", "wall_s", "cpu_s", "gap", "spin_excess", "scf_cycles", "rescue_rung", "host", "stress")
"""Columns of `labels/` in the order of their bytes."""

BLOCK_ROWS: Final = 4096
"""Rows that are read at once to be compared with their digests."""
BLOCKS_KEPT: Final = 32
"""Blocks in memory: labels come in the order of their rows, their frames nearly so."""

_NO_STRESS: Final = NO_STRESS.astype("<f8").tobytes()


def label_digest(label: Label, mask: NDArray[np.bool_] | None) -> str:
    """Digest of a label, its baseline and the mask of its frame: 32 hexadecimal characters. A few microseconds.

    Args:
        label: As it is accepted.
        mask: ``(n_atoms,)`` of its frame; None where all forces may be learned from.
    """
    baseline = b"" if label.baseline is None else content_of(label.baseline)
    return contents_digest(content_of(label), mask_content_of(mask, len(label.forces)), baseline)


def contents_digest(label: bytes, mask: bytes, baseline: bytes = b"") -> str:
    """`label_digest` from the bytes of its parts."""
    content = label + mask + baseline
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, person=b"alsys-values-1").hexdigest()


def content_of(label: Label) -> bytes:
    """Bytes of a label as the store will hold them. NumPy converts them here as it does there."""
    cost, diagnostics = label.cost, label.diagnostics
    times = (cost.wall_s, cost.cpu_s, diagnostics.gap, diagnostics.spin_excess)
    return b"".join(
        (
            np.asarray(label.energy, dtype="<f8").tobytes(),
            np.asarray(times, dtype="<f4").tobytes(),
            np.asarray((cost.scf_cycles, cost.rescue_rung), dtype="<i4").tobytes(),
            host_bytes(cost.host),
            _NO_STRESS if label.stress is None else np.asarray(label.stress, dtype="<f8").tobytes(),
            np.asarray(label.forces, dtype="<f8").tobytes(),
        )
    )


def mask_content_of(mask: NDArray[np.bool_] | None, n_atoms: int) -> bytes:
    """Bytes of a frame's mask as the store will hold them."""
    return b"\1" * n_atoms if mask is None else np.asarray(mask, dtype="|u1").tobytes()


class ImportDigest:
    """Digest of all labels and frames of one import, in the order of their rows."""

    def __init__(self) -> None:
        self._labels = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"alsys-import-v1")
        self._masks = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"alsys-import-m1")

    def add_label(self, content: bytes) -> None:
        """The next label."""
        self._labels.update(content)

    def add_mask(self, content: bytes) -> None:
        """The mask of the next frame, or those of the next frames."""
        self._masks.update(content)

    def hexdigest(self) -> str:
        """32 hexadecimal characters."""
        content = self._labels.digest() + self._masks.digest()
        return hashlib.blake2b(content, digest_size=DIGEST_BYTES, person=b"alsys-import-r1").hexdigest()


class StoredContents:
    """Contents of rows of a store, read in blocks, of which a few are kept.

    Args:
        reader: The store.

    Raises:
        StoreCorrupt: Counts cannot be read; of `label` and `mask`: a column that digests are taken of.
    """

    def __init__(self, reader: ColumnReader) -> None:
        lengths = reader.head.lengths
        self._reader = reader
        self._atom_ends = np.concatenate([[0], np.cumsum(reader.atoms_of_frames(lengths))])
        self._force_ends = np.concatenate([[0], np.cumsum(reader.atoms_of_labels(lengths))])
        self._labels: OrderedDict[int, tuple[NDArray[np.uint8], bytes]] = OrderedDict()
        self._masks: OrderedDict[int, bytes] = OrderedDict()

    def label(self, row: int) -> bytes:
        """What `content_of` gave for the label at `row`."""
        block, inside = divmod(row, BLOCK_ROWS)
        if block not in self._labels:
            self._labels[block] = self._read_labels(block)
            _keep_few(self._labels)
        columns, forces = self._labels[block]
        begin = self._force_ends[row - inside]
        start, stop = 24 * int(self._force_ends[row] - begin), 24 * int(self._force_ends[row + 1] - begin)
        content: bytes = columns[inside].tobytes()
        return content + forces[start:stop]

    def mask(self, row: int) -> bytes:
        """What `mask_content_of` gave for the frame at `row`."""
        block, inside = divmod(row, BLOCK_ROWS)
        if block not in self._masks:
            self._masks[block] = self.masks(row - inside, min(row - inside + BLOCK_ROWS, len(self._atom_ends) - 1))
            _keep_few(self._masks)
        begin = self._atom_ends[row - inside]
        return self._masks[block][int(self._atom_ends[row] - begin) : int(self._atom_ends[row + 1] - begin)]

    def masks(self, start: int, stop: int) -> bytes:
        """Likewise, of the frames at rows `start` to `stop`, one after the other."""
        return self._reader.read("atoms/mask", int(self._atom_ends[start]), int(self._atom_ends[stop])).tobytes()

    def _read_labels(self, block: int) -> tuple[NDArray[np.uint8], bytes]:
        first = block * BLOCK_ROWS
        last = min(first + BLOCK_ROWS, len(self._force_ends) - 1)
        parts = [_bytes_of(self._reader.read(f"labels/{name}", first, last), last - first) for name in COLUMNS]
        forces = self._reader.read("labels/forces", int(self._force_ends[first]), int(self._force_ends[last]))
        return np.concatenate(parts, axis=1), forces.tobytes()


def _keep_few(blocks: OrderedDict[int, Any]) -> None:
    while len(blocks) > BLOCKS_KEPT:
        blocks.popitem(last=False)


def _bytes_of(column: Array, n_rows: int) -> NDArray[np.uint8]:
    """``(n_rows, bytes of a row)``."""
    width = column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=int))
    return np.frombuffer(column.tobytes(), dtype=np.uint8).reshape(n_rows, width)
