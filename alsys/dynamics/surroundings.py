"""What atoms are bonded to, in words: ``C:HHHO`` is a carbon with three hydrogens and an oxygen.

A network that has never met such an atom gives forces all the same, and its members may well agree on them. Two atoms
are bonded where they are closer than 1.3 times the sum of their covalent radii; beyond four neighbours, as in metals
and dense ions, only their elements count: ``Cu:Cu+``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from scipy.spatial import KDTree

from alsys.dynamics.geometry import BONDED, close_pairs
from alsys.frames import FloatArray, Frame, IntArray

MOST_COUNTED: Final = 4
"""Neighbours that are told one by one."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Pairs of atoms that are bonded, or closer.

    Attributes:
        frame: Whose.
        i, j: ``(n_pairs,)`` atoms; each pair comes once, or both ways, periodic images included.
        ratio: ``(n_pairs,)`` distance over the sum of covalent radii, below `BONDED`.
    """

    frame: Frame
    i: IntArray
    j: IntArray
    ratio: FloatArray

    @classmethod
    def of(cls, frame: Frame) -> Surroundings:
        """Those of a frame."""
        if frame.pbc.any():
            i, j, ratio, _ = close_pairs(frame, BONDED)
        else:
            radii = covalent_radii[frame.numbers]
            tree = KDTree(frame.positions)
            pairs = tree.query_pairs(2.0 * BONDED * float(radii.max()), output_type="ndarray")
            i, j = pairs[:, 0], pairs[:, 1]
            ratio = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1) / (radii[i] + radii[j])
        is_bonded = ratio < BONDED
        return cls(frame, i[is_bonded], j[is_bonded], ratio[is_bonded])

    def names(self) -> list[str]:
        """What each atom is bonded to."""
        neighbours: list[list[str]] = [[] for _ in range(self.frame.n_atoms)]
        symbols = [chemical_symbols[z] for z in self.frame.numbers]
        for i, j in zip(self.i.tolist(), self.j.tolist(), strict=True):
            neighbours[i].append(symbols[j])
            if not self.frame.pbc.any():  # where each pair comes once
                neighbours[j].append(symbols[i])
        return [f"{symbol}:{_told(around)}" for symbol, around in zip(symbols, neighbours, strict=True)]


def _told(around: list[str]) -> str:
    if len(around) > MOST_COUNTED:
        return "".join(f"{symbol}+" for symbol in sorted(set(around)))
    return "".join(sorted(around))
