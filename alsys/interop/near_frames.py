"""Frames of a store that a file holds with coordinates that were rounded on the way.

A frame's identity is that of every bit of it. Programs that write eight decimals, or other units of length, change it;
the frame would be taken a second time, and one of a test set would be learned. Frames are compared by a few random
projections of positions, cell and composition, so that each costs a search in a sorted list and no positions are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray, Frame
from alsys.store.base import Snapshot

ROUNDING: Final = 2e-5
"""Angstrom; twice what five decimals leave of a coordinate, and less than any step of dynamics."""
N_PROJECTIONS: Final = 4
CHUNK: Final = 1024
"""Frames that are projected at a time."""
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Near:
    """What is known of a frame.

    Attributes:
        same: Identity of the known frame that it is but for rounding; empty for none.
        twin: Identity of one with the same atoms in the same places, of another charge or multiplicity; empty for none.
    """

    same: str = ""
    twin: str = ""


class NearFrames:
    """Frames that are known, by what is left of them when they are projected; not those in point charges.

    Args:
        snapshots: Of the levels at which they are labelled.
    """

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        marks, states, ids = [np.zeros((0, N_PROJECTIONS + 1))], list[tuple[int, int]](), list[str]()
        for snapshot in snapshots:
            if snapshot.n_charges is not None:
                snapshot = snapshot.select(np.flatnonzero(snapshot.n_charges == 0))
            if not snapshot.n_frames:
                continue
            cell = np.where(np.asarray(snapshot.pbc.any(axis=1))[:, None, None], snapshot.cell, 0.0)
            marks.append(_marks(snapshot.n_atoms, snapshot.numbers, snapshot.positions, cell, snapshot.pbc))
            states += zip(snapshot.charge.tolist(), snapshot.multiplicity.tolist(), strict=True)
            ids += snapshot.frame_ids
        found = np.concatenate(marks)
        order = np.argsort(found[:, 0], kind="stable")
        self._marks: FloatArray = found[order]
        self._ids = [(ids[k], states[k]) for k in order.tolist()]

    def find(self, frames: Sequence[Frame]) -> list[Near]:
        """What is known of each of some frames, of any composition."""
        if not self._ids or not frames:
            return [Near()] * len(frames)
        n_atoms = np.array([frame.n_atoms for frame in frames])
        pbc = np.array([frame.pbc for frame in frames])
        cell = np.array([frame.cell if frame.pbc.any() else np.zeros((3, 3)) for frame in frames])
        numbers, positions = (
            np.concatenate(parts) for parts in zip(*((f.numbers, f.positions) for f in frames), strict=True)
        )
        marks = _marks(n_atoms, numbers, positions, cell, pbc)
        bounds = ROUNDING * np.sqrt(3 * n_atoms + 9)
        low = np.searchsorted(self._marks[:, 0], marks[:, 0] - bounds).tolist()
        high = np.searchsorted(self._marks[:, 0], marks[:, 0] + bounds, side="right").tolist()
        found = []
        for frame, mark, bound, start, stop in zip(frames, marks, bounds.tolist(), low, high, strict=True):
            same = twin = ""
            is_near = (np.abs(self._marks[start:stop] - mark) <= bound).all(axis=1)
            for k in np.flatnonzero(is_near).tolist() if start < stop else ():
                frame_id, state = self._ids[start + k]
                if state == (frame.charge, frame.multiplicity):
                    same = same or frame_id
                else:
                    twin = twin or frame_id
            found.append(Near(same, twin))
        return found


def _marks(
    n_atoms: NDArray[np.integer[Any]],
    numbers: NDArray[np.integer[Any]],
    positions: FloatArray,
    cell: FloatArray,
    pbc: NDArray[np.bool_],
) -> FloatArray:
    """``(n_frames, N_PROJECTIONS + 1)`` projections of coordinates, and one of elements and directions."""
    weights = np.random.default_rng(_SEED).uniform(-1.0, 1.0, (int(n_atoms.max()), 4, N_PROJECTIONS))
    others = np.random.default_rng(_SEED + 1)
    marks = np.zeros((len(n_atoms), N_PROJECTIONS + 1))
    marks[:, :-1] = cell.reshape(-1, 9) @ others.uniform(-1.0, 1.0, (9, N_PROJECTIONS))
    marks[:, -1] = pbc @ others.uniform(1.0, 2.0, 3)
    ends = np.cumsum(n_atoms, dtype=np.int64)
    for first in range(0, len(n_atoms), CHUNK):
        counts = n_atoms[first : first + CHUNK].astype(np.int64)
        offsets = np.cumsum(counts) - counts
        start = int(ends[first] - counts[0])
        atoms = slice(start, start + int(counts.sum()))
        place = np.arange(atoms.stop - atoms.start) - np.repeat(offsets, counts)
        of_atoms = np.empty((place.size, N_PROJECTIONS + 1))
        of_atoms[:, :-1] = np.einsum("ai,aik->ak", positions[atoms], weights[place, :3])
        of_atoms[:, -1] = numbers[atoms] * (2.0 + weights[place, 3, 0])
        marks[first : first + CHUNK] += np.add.reduceat(of_atoms, offsets, axis=0)
    return marks
