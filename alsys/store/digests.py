"""Digests of what labels say, which the log keeps: of labels as they are accepted, and as the arrays hold them.

Both are blake2b over the same bytes: those of the stored columns, in their types (so NaN equals itself, and a wall time
is the float32 that is stored), then the forces. Identities, and so the frame and the level, have digests of their own
(`label_id`, `frame_id`). The columns of a digest never change; a column that comes later is not in it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from alsys.labels import Label
from alsys.store.encoding import NO_STRESS, Array, host_bytes

if TYPE_CHECKING:
    from alsys.store.columns import ColumnReader

DIGEST_BYTES: Final = 16
COLUMNS: Final = ("energy", "wall_s", "cpu_s", "gap", "spin_excess", "scf_cycles", "rescue_rung", "host", "stress")
"""Columns of `labels/` in the order of their bytes."""

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
    """Contents of rows of a store. Reads all columns that digests are taken of.

    Args:
        reader: The store.

    Raises:
        StoreCorrupt: A column cannot be read.
    """

    def __init__(self, reader: ColumnReader) -> None:
        n_labels, lengths = reader.head.lengths["labels"], reader.head.lengths
        parts = [_bytes_of(reader.column(f"labels/{name}"), n_labels) for name in COLUMNS]
        self._labels = np.concatenate(parts, axis=1)
        self._forces = reader.column("labels/forces").tobytes()
        self._masks = reader.column("atoms/mask").tobytes()
        self._atom_ends = np.concatenate([[0], np.cumsum(reader.atoms_of_frames(lengths))]).tolist()
        self._force_ends = np.concatenate([[0], np.cumsum(reader.atoms_of_labels(lengths))]).tolist()

    def label(self, row: int) -> bytes:
        """What `content_of` gave for the label at `row`."""
        start, stop = self._force_ends[row : row + 2]
        content: bytes = self._labels[row].tobytes()
        return content + self._forces[24 * start : 24 * stop]

    def masks(self, start: int, stop: int) -> bytes:
        """What `mask_content_of` gave for the frames at rows `start` to `stop`."""
        return self._masks[self._atom_ends[start] : self._atom_ends[stop]]


def _bytes_of(column: Array, n_rows: int) -> NDArray[np.uint8]:
    """``(n_rows, bytes of a row)``."""
    width = column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=int))
    return np.frombuffer(column.tobytes(), dtype=np.uint8).reshape(n_rows, width)
