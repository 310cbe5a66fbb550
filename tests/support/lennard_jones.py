"""A Lennard-Jones fluid as a committee of one, with stress: the reference of the integrators' tests.

``u(r) = 4 epsilon [(sigma / r)^12 - (sigma / r)^6]`` within a cutoff, either shifted to zero there or with the analytic
corrections for a uniform fluid beyond it (M. P. Allen, D. J. Tildesley, Computer Simulation of Liquids, 2nd ed.,
section 2.8). All atoms are alike. Neighbours are kept until an atom may have entered the cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray, IntArray
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, chosen_members
from alsys.potentials.neighbours import neighbours_of

SKIN = 0.4
"""Width of the neighbour list beyond the cutoff, in sigma."""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Unordered pairs of a batch closer than cutoff and skin, and where its atoms were when they were found.

    Pairs of frame ``k`` are those from ``bounds[k]`` to ``bounds[k + 1]``.
    """

    i: IntArray
    j: IntArray
    shift: FloatArray
    bounds: IntArray
    positions: FloatArray
    cell: FloatArray
    n_atoms: IntArray
    pbc: NDArray[np.bool_]


class LennardJonesCommittee:
    """Evaluates the Lennard-Jones potential of molecules and periodic frames of any size and shape.

    Args:
        epsilon: Depth of the well, eV.
        sigma: Where the potential crosses zero, Angstrom.
        cutoff: Angstrom.
        beyond: What is done about pairs beyond the cutoff: ``shift`` makes the energy continuous there, ``tail`` adds
            the corrections of a uniform fluid to energies and stresses of periodic frames.
    """

    def __init__(self, epsilon: float, sigma: float, cutoff: float, beyond: Literal["shift", "tail"] = "shift") -> None:
        self._epsilon, self._sigma, self._cutoff = epsilon, sigma, cutoff
        self._has_tail = beyond == "tail"
        sixth = (sigma / cutoff) ** 6
        self._shift = 0.0 if self._has_tail else 4.0 * epsilon * (sixth * sixth - sixth)
        self._pairs: _Pairs | None = None
        self._version = 1

    @property
    def version(self) -> int:
        """1, or what was loaded."""
        return self._version

    def load(self, state: CommitteeState) -> None:
        """Takes the version; there are no weights."""
        self._version = state.version

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Energies, forces and stresses; the spread is zero, `members` None or the only one."""
        chosen_members(members, 1)
        pairs = self._pairs_of(batch)
        positions, cell, n_total = batch.positions, batch.cell, batch.numbers.size
        vector = positions[pairs.i] - positions[pairs.j]
        for k in np.flatnonzero(batch.pbc.any(axis=1)).tolist():
            part = slice(pairs.bounds[k], pairs.bounds[k + 1])
            vector[part] -= pairs.shift[part] @ cell[k]
        squared = np.einsum("px,px->p", vector, vector)
        near = np.flatnonzero(squared < self._cutoff**2)
        vector, squared = vector[near], squared[near]
        i, j, bounds = pairs.i[near], pairs.j[near], np.searchsorted(near, pairs.bounds)
        sixth = (self._sigma**2 / squared) ** 3
        energies = 4.0 * self._epsilon * (sixth * sixth - sixth) - self._shift
        pull = (24.0 * self._epsilon * (2.0 * sixth * sixth - sixth) / squared)[:, None] * vector
        forces = np.empty((n_total, 3))
        for x in range(3):
            forces[:, x] = np.bincount(i, pull[:, x], n_total) - np.bincount(j, pull[:, x], n_total)
        volume = np.abs(np.linalg.det(cell))
        is_bulk = _is_bulk(batch)
        energy, stress = np.empty(batch.n_frames), np.zeros((batch.n_frames, 3, 3))
        for k in range(batch.n_frames):
            part = slice(bounds[k], bounds[k + 1])
            energy[k] = energies[part].sum()
            if is_bulk[k]:
                stress[k] = -(pull[part].T @ vector[part]) / volume[k]
        if self._has_tail:
            self._add_tail(batch, volume, is_bulk, energy, stress)
        return CommitteePrediction(
            energy=energy,
            energy_std=np.zeros(batch.n_frames),
            forces=forces,
            force_deviation=np.zeros(n_total),
            frame_deviation=np.zeros(batch.n_frames),
            stress=stress,
        )

    def _add_tail(
        self,
        batch: FrameBatch,
        volume: FloatArray,
        is_bulk: NDArray[np.bool_],
        energy: FloatArray,
        stress: FloatArray,
    ) -> None:
        n_atoms = batch.n_atoms[is_bulk]
        density = n_atoms / volume[is_bulk]
        third = (self._sigma / self._cutoff) ** 3
        strength = np.pi * density * self._epsilon * self._sigma**3
        energy[is_bulk] += 8.0 / 3.0 * n_atoms * strength * (third**3 / 3.0 - third)
        pressure = 16.0 / 3.0 * density * strength * (2.0 / 3.0 * third**3 - third)
        stress[is_bulk] -= pressure[:, None, None] * np.eye(3)

    def _pairs_of(self, batch: FrameBatch) -> _Pairs:
        """The pairs kept, or new ones where those no longer hold all within the cutoff."""
        kept = self._pairs
        if kept is not None and self._still_holds(kept, batch):
            return kept
        found = neighbours_of(batch, self._cutoff + SKIN * self._sigma)
        i, j = found.edge_index
        shift = np.zeros((i.size, 3)) if found.cell_shift is None else found.cell_shift
        # Each pair is found from both sides; of an atom and its own images one half is kept.
        own = shift @ np.array([1.0, 1e-3, 1e-6])
        once = np.flatnonzero((i < j) | ((i == j) & (own > 0)))
        frame = batch.frame_of_atom[i[once]]
        order = np.argsort(frame, kind="stable")
        once = once[order]
        self._pairs = _Pairs(
            i=i[once],
            j=j[once],
            shift=shift[once],
            bounds=np.searchsorted(frame[order], np.arange(batch.n_frames + 1)),
            positions=batch.positions.copy(),
            cell=batch.cell.copy(),
            n_atoms=batch.n_atoms.copy(),
            pbc=batch.pbc.copy(),
        )
        return self._pairs

    def _still_holds(self, kept: _Pairs, batch: FrameBatch) -> bool:
        """Whether no pair left out can have come within the cutoff, for cells that were scaled as a whole."""
        if not (np.array_equal(kept.n_atoms, batch.n_atoms) and np.array_equal(kept.pbc, batch.pbc)):
            return False
        scale = np.ones(batch.n_frames)
        is_bulk = _is_bulk(batch)
        before, now = kept.cell[is_bulk], batch.cell[is_bulk]
        scale[is_bulk] = np.cbrt(np.linalg.det(now) / np.linalg.det(before))
        if np.abs(batch.cell - scale[:, None, None] * kept.cell).max() > 1e-9:
            return False
        frame, starts = batch.frame_of_atom, np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        moved = batch.positions - scale[frame][:, None] * kept.positions
        moved -= (np.add.reduceat(moved, starts) / batch.n_atoms[:, None])[frame]
        squared = np.maximum.reduceat(np.einsum("ax,ax->a", moved, moved), starts)
        reach = scale * (self._cutoff + SKIN * self._sigma) - 2.0 * np.sqrt(squared)
        return bool((reach > self._cutoff).all())


def _is_bulk(batch: FrameBatch) -> NDArray[np.bool_]:
    """``(n_frames,)`` whether a frame is periodic in all directions."""
    is_bulk: NDArray[np.bool_] = np.logical_and.reduce(batch.pbc, axis=1)
    return is_bulk
