"""Frames of a store that a file holds with coordinates that were rounded on the way.

A frame's identity is that of every bit of it. Programs that write eight decimals, or other units of length, change it;
the frame would be taken a second time, and one of a test set would be learned. Frames are compared by a few random
projections of positions, cell and composition, so that each costs a search in a sorted list and no positions are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray, Frame
from alsys.store.base import Snapshot

ROUNDING: Final = 2e-5
"""Angstrom; twice what five decimals leave of a coordinate, and less than any step of dynamics."""
N_PROJECTIONS: Final = 4
_SEED: Final = 7


class NearFrames:
    """Frames that are known, by what is left of them when they are projected; not those in point charges."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        marks, ids = [np.zeros((0, N_PROJECTIONS + 1))], list[str]()
        for snapshot in snapshots:
            if snapshot.n_charges is not None:
                snapshot = snapshot.select(np.flatnonzero(snapshot.n_charges == 0))
            if not snapshot.n_frames:
                continue
            of_electrons = np.column_stack([snapshot.charge, snapshot.multiplicity, snapshot.pbc]).astype(np.float64)
            cell = np.where(np.asarray(snapshot.pbc.any(axis=1))[:, None, None], snapshot.cell, 0.0)
            marks.append(_marks(snapshot.n_atoms, snapshot.numbers, snapshot.positions, cell, of_electrons))
            ids += snapshot.frame_ids
        found = np.concatenate(marks)
        order = np.argsort(found[:, 0], kind="stable")
        self._marks: FloatArray = found[order]
        self._ids = [ids[k] for k in order.tolist()]

    def find(self, frames: Sequence[Frame]) -> list[str]:
        """Identity of the known frame that each of some frames is but for rounding; empty for none.

        Args:
            frames: Of any composition.
        """
        if not self._ids or not frames:
            return [""] * len(frames)
        n_atoms = np.array([frame.n_atoms for frame in frames])
        of_electrons = np.array([(f.charge, f.multiplicity, *f.pbc) for f in frames], dtype=np.float64)
        cell = np.array([np.zeros((3, 3)) if f.cell is None or not any(f.pbc) else f.cell for f in frames])
        numbers = np.concatenate([frame.numbers for frame in frames])
        marks = _marks(n_atoms, numbers, np.concatenate([frame.positions for frame in frames]), cell, of_electrons)
        bounds = ROUNDING * np.sqrt(3 * n_atoms + 9)
        low = np.searchsorted(self._marks[:, 0], marks[:, 0] - bounds)
        high = np.searchsorted(self._marks[:, 0], marks[:, 0] + bounds, side="right")
        return [
            self._ids[start + int(alike[0])]
            if start < stop
            and (alike := np.flatnonzero((np.abs(self._marks[start:stop] - mark) <= bound).all(axis=1))).size
            else ""
            for start, stop, mark, bound in zip(low.tolist(), high.tolist(), marks, bounds.tolist(), strict=True)
        ]


def _marks(
    n_atoms: NDArray[np.integer[Any]],
    numbers: NDArray[np.integer[Any]],
    positions: FloatArray,
    cell: FloatArray,
    of_electrons: FloatArray,
) -> FloatArray:
    """``(n_frames, N_PROJECTIONS + 1)`` projections of coordinates, and one of elements and electrons."""
    n_atoms = n_atoms.astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(n_atoms)])[:-1]
    place = np.arange(int(n_atoms.sum())) - np.repeat(offsets, n_atoms)
    weights = np.random.default_rng(_SEED).uniform(-1.0, 1.0, (int(n_atoms.max()), 4, N_PROJECTIONS))
    of_atoms = np.empty((place.size, N_PROJECTIONS + 1))
    of_atoms[:, :-1] = np.einsum("ai,aik->ak", positions, weights[place, :3])
    of_atoms[:, -1] = numbers * (2.0 + weights[place, 3, 0])
    marks: FloatArray = np.add.reduceat(of_atoms, offsets, axis=0)
    others = np.random.default_rng(_SEED + 1)
    marks[:, :-1] += cell.reshape(-1, 9) @ others.uniform(-1.0, 1.0, (9, N_PROJECTIONS))
    marks[:, -1] += of_electrons @ others.uniform(1.0, 2.0, of_electrons.shape[1])
    return marks
