"""Bonds and contacts: whether a geometry still is what it started as."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from alsys.frames import FloatArray, IntArray

BONDED = 1.3
"""Share of the covalent sum up to which two atoms count as bonded."""
BROKEN = 2.0
"""Share of the covalent sum beyond which a bond of the start structure counts as broken."""


def pair_ratios(numbers: NDArray[np.int32], positions: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Distances of all pairs as shares of their covalent sums.

    Args:
        numbers: ``(n_atoms,)``.
        positions: ``(..., n_atoms, 3)``, Angstrom.

    Returns:
        ``(n_pairs,)`` first and second atoms, and ``(..., n_pairs)`` ratios.
    """
    i, j = np.triu_indices(len(numbers), k=1)
    vector = positions[..., i, :] - positions[..., j, :]
    distance = np.sqrt(np.square(vector).sum(axis=-1))
    return i, j, distance / (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])


def closest_contact(numbers: NDArray[np.int32], positions: FloatArray) -> float:
    """Smallest ratio of a distance to its covalent sum; infinite for a single atom."""
    if len(numbers) < 2:
        return float("inf")
    return float(pair_ratios(numbers, positions)[2].min())
