"""One row of features for a frame from the features of its atoms: what distances between frames are taken of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray


def frame_features(
    per_atom_features: ArrayLike, numbers: ArrayLike, n_atoms: ArrayLike, elements: Sequence[int] | None = None
) -> FloatArray:
    """Means of the features over the atoms of each element, side by side.

    A frame's row does not depend on the order of like atoms. An element that a frame lacks gives zeros.

    Args:
        per_atom_features: ``(n_total, d)`` invariant features of each atom, frames one after another.
        numbers: ``(n_total,)`` atomic numbers.
        n_atoms: ``(n_frames,)`` atoms of each frame, each at least 1.
        elements: Atomic numbers in the order of the columns; None for all those present, rising. Give them where
            features of several calls are to be compared.

    Returns:
        ``(n_frames, n_elements * d)`` in float64.

    Raises:
        InputError: Arrays that do not fit each other, or an element that is not among `elements`.
    """
    atoms = np.asarray(per_atom_features, dtype=np.float64)
    z, counts = np.asarray(numbers, dtype=np.int64), np.asarray(n_atoms, dtype=np.int64)
    if atoms.ndim != 2 or z.shape != atoms.shape[:1] or counts.sum() != len(z) or (counts < 1).any():
        raise InputError(
            "features, numbers and atom counts do not fit",
            field="per_atom_features",
            value=(atoms.shape, z.shape, int(counts.sum())),
        )
    known = np.unique(z) if elements is None else np.asarray(elements, dtype=np.int64)
    missing = np.setdiff1d(z, known)
    if missing.size:
        raise InputError("elements without a column", field="elements", value=missing.tolist())
    frame_of_atom = np.repeat(np.arange(len(counts)), counts)
    columns = []
    for element in known:
        is_element = z == element
        total = np.zeros((len(counts), atoms.shape[1]))
        np.add.at(total, frame_of_atom[is_element], atoms[is_element])
        present = np.bincount(frame_of_atom[is_element], minlength=len(counts))
        columns.append(total / np.maximum(present, 1)[:, None])
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(counts), 0))
