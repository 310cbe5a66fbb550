"""The bonds of a frame as a network of images: atoms, and the cell that each copy of them is in.

Across periodic boundaries a molecule is followed from image to image, so that it comes out in one piece, and a chain or
crystal that meets its own image is told from a molecule. Bonds are judged by covalent radii, as in
`alsys.dynamics.geometry`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray

from alsys.dynamics.geometry import BONDED, close_pairs
from alsys.frames import FloatArray, Frame

MAX_RING = 12
"""Atoms of the largest ring that is kept in one piece."""

IONIC = (3, 11, 12, 19, 20, 37, 38, 55, 56)
"""Alkali and alkaline-earth metals: their covalent radii would bond them to the water around them."""

Cell = tuple[int, int, int]
Node = tuple[int, Cell]
"""An atom and the cell that its image is in."""


class BondNetwork:
    """Bonds and molecules of one frame.

    Args:
        frame: Periodic in any number of directions, or none.
        ions: Atomic numbers, besides `IONIC`, of atoms that are never bonded.

    Attributes:
        molecule: Molecule of each atom, from 0.
        members: Atoms of each molecule, rising.
        is_infinite: Whether each molecule meets its own image.
    """

    def __init__(self, frame: Frame, ions: Collection[int] = ()) -> None:
        self._frame = frame
        self._bonds = _bonds(frame, ~np.isin(frame.numbers, [*IONIC, *ions]))
        self.molecule = [-1] * frame.n_atoms
        self.is_infinite: list[bool] = []
        self.members: list[list[int]] = []
        self._cell_of: list[Cell] = [(0, 0, 0)] * frame.n_atoms
        self._find_molecules()

    def neighbours(self, node: Node) -> list[Node]:
        """What an atom is bonded to."""
        atom, cell = node
        return [(other, _add(cell, shift)) for other, shift in self._bonds[atom]]

    def molecule_around(self, node: Node) -> list[Node]:
        """All atoms of the image of a molecule, which must not be infinite, that `node` belongs to."""
        atom, cell = node
        x, y, z = self._cell_of[atom]
        offset = _add(cell, (-x, -y, -z))
        return [(member, _add(offset, self._cell_of[member])) for member in self.members[self.molecule[atom]]]

    def positions(self, nodes: Sequence[Node]) -> FloatArray:
        """``(n, 3)``, Angstrom."""
        cells = np.array([cell for _, cell in nodes], dtype=np.float64)
        positions: FloatArray = self._frame.positions[[atom for atom, _ in nodes]] + cells @ self._frame.cell
        return positions

    def within(self, core: Sequence[Node], radius: float) -> list[Node]:
        """Images of atoms within `radius` Angstrom of one of `core`, nearest first."""
        frame, points = self._frame, self.positions(core)
        found: list[tuple[float, Node]] = []
        for cell in _cells(frame, points, radius):
            images = frame.positions + np.array(cell) @ frame.cell
            distance = np.sqrt(np.square(images[:, None] - points[None]).sum(axis=2)).min(axis=1)
            found += [(float(distance[atom]), (int(atom), cell)) for atom in np.flatnonzero(distance <= radius)]
        return [node for _, node in sorted(found)]

    def may_cut(self, a: Node, b: Node) -> bool:
        """Whether a bond joins two carbon atoms, one of them saturated, outside of rings of up to `MAX_RING` atoms."""
        numbers = self._frame.numbers
        if int(numbers[a[0]]) != 6 or int(numbers[b[0]]) != 6:
            return False
        if len(self._bonds[a[0]]) != 4 and len(self._bonds[b[0]]) != 4:
            return False
        seen, edge = {a}, [a]
        for _ in range(MAX_RING - 1):
            edge = [
                node
                for here in edge
                for node in self.neighbours(here)
                if node not in seen and not (here == a and node == b)
            ]
            seen.update(edge)
            if b in seen:
                return False
        return True

    def _find_molecules(self) -> None:
        for root in range(self._frame.n_atoms):
            if self.molecule[root] >= 0:
                continue
            self.molecule[root] = len(self.members)
            self.is_infinite.append(False)
            found, edge = [root], [root]
            while edge:
                here = edge.pop()
                for other, cell in self.neighbours((here, self._cell_of[here])):
                    if self.molecule[other] < 0:
                        self.molecule[other], self._cell_of[other] = self.molecule[root], cell
                        edge.append(other)
                        found.append(other)
                    elif cell != self._cell_of[other]:
                        self.is_infinite[-1] = True
            self.members.append(sorted(found))


def _bonds(frame: Frame, may_bond: NDArray[np.bool_]) -> list[list[Node]]:
    """Atoms that each atom is bonded to, with the cells of their images."""
    i, j, ratio, shift = close_pairs(frame, BONDED)
    if not frame.pbc.any():  # then each pair comes once
        i, j, ratio, shift = np.concatenate([i, j]), np.concatenate([j, i]), np.tile(ratio, 2), np.tile(shift, (2, 1))
    is_bond = (ratio < BONDED) & may_bond[i] & may_bond[j]
    bonds: list[list[Node]] = [[] for _ in range(frame.n_atoms)]
    for a, b, (x, y, z) in zip(i[is_bond].tolist(), j[is_bond].tolist(), shift[is_bond].tolist(), strict=True):
        bonds[a].append((b, (int(x), int(y), int(z))))
    return bonds


def _cells(frame: Frame, points: FloatArray, radius: float) -> Iterable[Cell]:
    """Cells whose atoms may be within `radius` of a point."""
    inverse = np.linalg.inv(np.asarray(complete_cell(frame.cell)))
    reach = radius * np.linalg.norm(inverse, axis=0)
    atoms, centres = frame.positions @ inverse, points @ inverse
    low = np.floor(centres.min(axis=0) - reach - atoms.max(axis=0)).astype(int).tolist()
    high = np.ceil(centres.max(axis=0) + reach - atoms.min(axis=0)).astype(int).tolist()
    x, y, z = (range(low[k], high[k] + 1) if frame.pbc[k] else (0,) for k in range(3))
    return itertools.product(x, y, z)


def _add(a: Cell, b: Cell) -> Cell:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])
