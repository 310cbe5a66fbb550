"""Neighbour lists of a whole batch: every ordered pair of atoms of one frame closer than a cutoff.

Small molecules are done all at once, grouped by size, from the distances of all their pairs: for a molecule smaller
than the cutoff that is exact and as cheap as it gets. Periodic frames and large molecules go through matscipy's cell
lists one by one; `NeighbourCache` keeps these with a skin until an atom may have crossed it. The order of edges is not
defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray
from alsys.potentials.base import FrameBatch

ALL_PAIRS_ATOMS = 200
"""Largest molecule whose distances are all computed; beyond it cell lists are cheaper."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Directed edges of a batch.

    Attributes:
        edge_index: ``(2, n_edges)`` indices into the batch's atoms: centre, neighbour.
        cell_shift: ``(n_edges, 3)`` whole lattice vectors to add to the neighbour's position; None where no frame of
            the batch is periodic.
    """

    edge_index: IntArray
    cell_shift: FloatArray | None


def neighbours_of(batch: FrameBatch, r_max: float) -> Neighbours:
    """All pairs closer than `r_max` Angstrom, images of periodic frames included.

    Raises:
        InputError: A periodic direction without a lattice vector.
    """
    return _joined(batch, r_max, lambda row, positions: _by_cells(positions, batch.cell[row], batch.pbc[row], r_max))


class NeighbourCache:
    """Neighbour lists of batches that follow each other, as those of walkers do.

    A list of a periodic frame or large molecule holds all pairs closer than cutoff and skin. It is used as long as no
    pair can have come closer by more than the skin: twice the largest displacement from where the cell carries the
    atoms, and the strain of the cell over the length of the list, are less than it (L. Verlet, Phys. Rev. 159, 98
    (1967)). Frames are known by their place in the batch.

    Args:
        r_max: Cutoff, Angstrom.
        skin: Angstrom.

    Attributes:
        n_built: Lists built.
    """

    def __init__(self, r_max: float, skin: float = 1.0) -> None:
        self._r_max, self._reach, self._skin = r_max, r_max + skin, skin
        self._kept: dict[int, _Kept] = {}
        self.n_built = 0

    def of(self, batch: FrameBatch) -> Neighbours:
        """All pairs closer than the cutoff.

        Raises:
            InputError: As of `neighbours_of`.
        """
        for row in [row for row in self._kept if row >= batch.n_frames]:
            del self._kept[row]
        return _joined(batch, self._r_max, lambda row, positions: self._near(batch, row, positions))

    def _near(self, batch: FrameBatch, row: int, positions: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
        cell, pbc = batch.cell[row], batch.pbc[row]
        kept = self._kept.get(row)
        if kept is None or not kept.holds(positions, cell, pbc, self._reach, self._skin):
            i, j, shift = _by_cells(positions, cell, pbc, self._reach)
            kept = self._kept[row] = _Kept(positions.copy(), cell.copy(), pbc.copy(), i, j, shift)
            self.n_built += 1
        vector = positions[kept.j] - positions[kept.i] + kept.shift @ cell
        is_near = np.einsum("px,px->p", vector, vector) < self._r_max**2
        return kept.i[is_near], kept.j[is_near], kept.shift[is_near]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A list of one frame, and where its atoms were."""

    positions: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    i: IntArray
    j: IntArray
    shift: IntArray

    def holds(self, positions: FloatArray, cell: FloatArray, pbc: NDArray[np.bool_], reach: float, skin: float) -> bool:
        if positions.shape != self.positions.shape or not np.array_equal(pbc, self.pbc):
            return False
        carried, strain = self.positions, 0.0
        if not np.array_equal(cell, self.cell):
            if not pbc.all():
                return False
            change = np.linalg.solve(self.cell, cell)
            carried = carried @ change
            strain = float(np.linalg.norm(change - np.eye(3), 2))
        moved = positions - carried
        moved = moved - moved.mean(axis=0)
        largest = float(np.sqrt(np.einsum("ax,ax->a", moved, moved).max()))
        return 2.0 * largest + strain * reach < skin  # false for NaN


def _joined(
    batch: FrameBatch, r_max: float, near: Callable[[int, FloatArray], tuple[IntArray, IntArray, IntArray]]
) -> Neighbours:
    """Small molecules at once, and the other frames as `near` gives them: centres, neighbours and shifts."""
    offsets = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
    is_periodic = batch.pbc.any(axis=1)
    uses_cells = is_periodic | (batch.n_atoms > ALL_PAIRS_ATOMS)
    parts: list[IntArray] = []
    shifts: list[FloatArray] = []
    for size in np.unique(batch.n_atoms[~uses_cells]):
        frames = np.flatnonzero((batch.n_atoms == size) & ~uses_cells)
        atoms = offsets[frames][:, None] + np.arange(size)
        positions = batch.positions[atoms]
        difference = positions[:, :, None] - positions[:, None]
        squared = np.einsum("fijx,fijx->fij", difference, difference)
        squared[:, np.arange(size), np.arange(size)] = np.inf
        frame, i, j = np.nonzero(squared < r_max * r_max)
        parts.append(np.stack([atoms[frame, i], atoms[frame, j]]))
        shifts.append(np.zeros((frame.size, 3)))
    for row in np.flatnonzero(uses_cells):
        start = int(offsets[row])
        positions = batch.positions[start : start + int(batch.n_atoms[row])]
        i, j, shift = near(int(row), positions)
        parts.append(np.stack([i, j]).astype(np.int64) + start)
        shifts.append(shift.astype(np.float64))
    edge_index = np.concatenate(parts, axis=1).astype(np.int64, copy=False)
    return Neighbours(edge_index, np.concatenate(shifts) if is_periodic.any() else None)


def _by_cells(
    positions: FloatArray, cell: FloatArray, pbc: NDArray[np.bool_], r_max: float
) -> tuple[IntArray, IntArray, IntArray]:
    """Centres, neighbours and shifts of one frame."""
    if not cell[pbc].any(axis=1).all():
        raise InputError("a periodic direction needs a lattice vector", field="cell", value=cell.tolist())
    if pbc.any():
        full, origin = complete_cell(cell), np.zeros(3)
    else:
        origin = positions.min(axis=0) - 1.0
        full = np.diag(np.ptp(positions, axis=0) + 2.0)
    i, j, shift = neighbour_list("ijS", positions=positions - origin, cell=full, pbc=pbc, cutoff=r_max)
    return i, j, shift
