"""Neighbour lists of a whole batch: every ordered pair of atoms of one frame within a cutoff.

Molecules are done all at once, grouped by size, from the distances of all pairs: for molecules smaller than the cutoff
that is exact and as cheap as it gets. Periodic frames go through matscipy one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matscipy.neighbours import neighbour_list

from alsys.frames import FloatArray, IntArray
from alsys.potentials.base import FrameBatch


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Directed edges of a batch.

    Attributes:
        edge_index: ``(2, n_edges)`` indices into the batch's atoms: centre, neighbour.
        cell_shift: ``(n_edges, 3)`` lattice vectors to add to the neighbour's position; None where nothing is periodic.
    """

    edge_index: IntArray
    cell_shift: FloatArray | None


def neighbours_of(batch: FrameBatch, r_max: float) -> Neighbours:
    """All pairs closer than `r_max` Angstrom, ordered by frame and centre."""
    offsets = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
    is_periodic = batch.pbc.any(axis=1)
    parts: list[IntArray] = []
    shifts: list[FloatArray] = []
    for size in np.unique(batch.n_atoms[~is_periodic]):
        frames = np.flatnonzero((batch.n_atoms == size) & ~is_periodic)
        atoms = offsets[frames][:, None] + np.arange(size)
        positions = batch.positions[atoms]
        difference = positions[:, :, None] - positions[:, None]
        squared = np.einsum("fijx,fijx->fij", difference, difference)
        squared[:, np.arange(size), np.arange(size)] = np.inf
        frame, i, j = np.nonzero(squared < r_max * r_max)
        parts.append(np.stack([atoms[frame, i], atoms[frame, j]]))
        shifts.append(np.zeros((frame.size, 3)))
    for frame_index in np.flatnonzero(is_periodic):
        start = int(offsets[frame_index])
        i, j, shift = neighbour_list(
            "ijS",
            positions=batch.positions[start : start + int(batch.n_atoms[frame_index])],
            cell=batch.cell[frame_index],
            pbc=batch.pbc[frame_index],
            cutoff=r_max,
        )
        parts.append(np.stack([i, j]).astype(np.int64) + start)
        shifts.append(shift.astype(np.float64))
    edge_index = np.concatenate(parts, axis=1).astype(np.int64)
    return Neighbours(edge_index, np.concatenate(shifts) if is_periodic.any() else None)
