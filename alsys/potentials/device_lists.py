"""Neighbour lists of walkers on a device: periodic frames and large molecules, all of a batch at once.

A list holds the pairs closer than cutoff and skin, and is kept as long as none can have come closer by more than the
skin, as by `alsys.potentials.neighbours.NeighbourCache`. It is built from all distances, a block of atoms at a time:
that needs no sorting and is right for any size, but its cost grows with the square of the atoms of a frame.
Pairs are undirected: of a pair and its reverse the one whose image is zero or, of two images, comes first.

`DeviceList.of` makes the host wait twice, for whether the list holds and for the number of pairs; `DeviceContacts` only
where it builds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase.geometry import complete_cell
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray
from alsys.potentials.arrays import Array, Arrays
from alsys.potentials.devices import META, true_rows

SKIN = 1.0
"""Angstrom."""
BLOCK = 4_000_000
"""Distances that are computed at once."""
CONTACT_SKIN = 2.0
"""Angstrom; of lists of contacts, which are short anyway."""


@dataclass(frozen=True, slots=True, eq=False)
class Atoms:
    """What does not change of a batch.

    Attributes:
        n_atoms: ``(n_frames,)``.
        pbc: ``(n_frames, 3)``.
    """

    n_atoms: IntArray
    pbc: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Pairs within reach, and where atoms and cells were."""

    positions: torch.Tensor
    cell: torch.Tensor
    inverse: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    shift: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ListedPairs:
    """Pairs of a batch.

    Attributes:
        pairs: ``(2, n_pairs)`` atoms.
        vectors: ``(n_pairs, 3)`` from the first to the second, Angstrom.
        shift: ``(n_pairs, 3)`` whole lattice vectors that are in them.
    """

    pairs: torch.Tensor
    vectors: torch.Tensor
    shift: torch.Tensor


class DeviceList:
    """Lists of batches of the same atoms that follow each other.

    Args:
        atoms: Of the batch.
        r_max: Cutoff, Angstrom.
        arrays: Where positions and cells are.
        skin: Angstrom.

    Attributes:
        n_built: Lists built.
    """

    def __init__(self, atoms: Atoms, r_max: float, arrays: Arrays, skin: float = SKIN) -> None:
        self._atoms, self._r_max, self._skin, self._arrays = atoms, r_max, skin, arrays
        self._walkers = arrays.segments(atoms.n_atoms)
        self._offsets = np.concatenate([[0], np.cumsum(atoms.n_atoms)])
        frames = np.repeat(np.arange(atoms.n_atoms.size), atoms.n_atoms)
        self.frames, self._n_atoms = arrays.of([frames, atoms.n_atoms])
        self._kept: _Kept | None = None
        self.n_built = 0

    def of(self, positions: torch.Tensor, cell: torch.Tensor) -> ListedPairs:
        """All pairs closer than the cutoff.

        Args:
            positions: ``(n_total, 3)``, Angstrom.
            cell: ``(n_frames, 3, 3)``, Angstrom.

        Raises:
            InputError: A periodic direction without a lattice vector.
        """
        if self._kept is None or not self._arrays.read([self.holds(positions, cell).all()])[0]:
            self.build(positions, cell)
        found = self.within_reach(positions, cell)
        near = true_rows((found.vectors * found.vectors).sum(dim=1) < self._r_max**2)
        return ListedPairs(found.pairs[:, near], found.vectors[near], found.shift[near])

    def holds(self, positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """``(n_frames,)`` whether no pair of a frame can have come closer by more than the skin; false for NaN."""
        kept = self._kept
        assert kept is not None
        strain = kept.inverse @ (cell - kept.cell)
        carried = kept.positions + torch.einsum("ax,axy->ay", kept.positions, self._walkers.spread(strain))
        moved = positions - carried
        moved = moved - self._walkers.spread(self._walkers.sum(moved) / self._n_atoms[:, None])
        largest = self._walkers.max(torch.linalg.norm(moved, dim=1))
        closer: torch.Tensor = 2.0 * largest + torch.linalg.norm(strain, dim=(1, 2)) * (self._r_max + self._skin)
        return closer < self._skin

    def within_reach(self, positions: torch.Tensor, cell: torch.Tensor) -> ListedPairs:
        """All pairs of the list."""
        kept = self._kept
        assert kept is not None
        vectors = positions[kept.second] - positions[kept.first]
        vectors = vectors + torch.einsum("px,pxy->py", kept.shift, cell[self.frames[kept.first]])
        return ListedPairs(torch.stack([kept.first, kept.second]), vectors, kept.shift)

    def build(self, positions: torch.Tensor, cell: torch.Tensor) -> None:
        """A new list.

        Raises:
            InputError: As of `of`.
        """
        (on_host,) = self._arrays.read([cell])
        full = self._full_cells(on_host, is_known=cell.device != META)
        inverse, boxes = self._arrays.of([np.linalg.inv(full), full])
        reach = self._r_max + self._skin
        heights = 1.0 / np.linalg.norm(np.linalg.inv(full), axis=1)  # of (n_frames, 3): a column for each vector
        n_images = np.where(self._atoms.pbc, np.ceil(reach / heights), 0).astype(np.int64)
        kinds = np.concatenate([self._atoms.n_atoms[:, None], n_images], axis=1)
        parts = []
        for kind in np.unique(kinds, axis=0):
            rows = np.flatnonzero((kinds == kind).all(axis=1))
            parts += self._found(positions, boxes, inverse, rows, kind[1:], reach)
        first, second, shift = (torch.cat([part[k] for part in parts]) for k in range(3))
        self._kept = _Kept(positions.clone(), cell.clone(), inverse, first, second, shift)
        self.n_built += 1

    def _full_cells(self, cell: FloatArray, is_known: bool) -> FloatArray:
        """``(n_frames, 3, 3)`` cells with vectors of their own in directions that are not periodic."""
        has_vectors = cell.any(axis=2) | ~self._atoms.pbc
        if is_known and not has_vectors.all():
            row = int(np.flatnonzero(~has_vectors.all(axis=1))[0])
            raise InputError("a periodic direction needs a lattice vector", field="cell", value=cell[row].tolist())
        return np.stack([complete_cell(one) for one in cell])

    def _found(
        self,
        positions: torch.Tensor,
        boxes: torch.Tensor,
        inverse: torch.Tensor,
        rows: IntArray,
        n_images: IntArray,
        reach: float,
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """First atoms, second atoms and shifts of frames of one size, a block of first atoms at a time."""
        n = int(self._atoms.n_atoms[rows[0]])
        atoms_, pbc_, images_ = self._offsets[rows][:, None] + np.arange(n), self._atoms.pbc[rows], _images(n_images)
        atoms, frames, periodic, images = self._arrays.of([atoms_, rows, pbc_.astype(np.float64), images_])
        here, box = positions[atoms], boxes[frames]
        base = torch.floor(here @ inverse[frames]) * periodic[:, None]
        wrapped = here - base @ box
        moves = torch.einsum("mx,fxy->fmy", images, box)
        is_zero = (images == 0).all(dim=1)
        n_first = max(1, BLOCK // (n * len(images_)))
        parts = []
        for start in range(0, len(rows) * n, n_first):
            (of_frame, i) = self._arrays.of(list(np.divmod(np.arange(start, min(start + n_first, len(rows) * n)), n)))
            vector = wrapped[of_frame][:, None] + moves[of_frame][:, :, None] - wrapped[of_frame, i][:, None, None]
            is_later = torch.arange(n, device=positions.device) > i[:, None]
            is_pair = (vector * vector).sum(dim=3) < reach * reach
            is_pair = is_pair & (~is_zero[:, None] | is_later[:, None])
            found = true_rows(is_pair.reshape(-1))
            row, image, j = found // (n * len(images_)), found // n % len(images_), found % n
            f, first = of_frame[row], i[row]
            shift = images[image] - base[f, j] + base[f, first]
            parts.append((atoms[f, first], atoms[f, j], shift))
        return parts


class DeviceContacts:
    """Frames in which atoms may be too close, images included, without waiting for the device.

    Args:
        atoms: Of the batch.
        radii: ``(n_total,)`` covalent radii, Angstrom.
        share: Of the sum of two radii, below which atoms are too close.
        arrays: Where positions and cells are.
    """

    def __init__(self, atoms: Atoms, radii: FloatArray, share: float, arrays: Arrays) -> None:
        self._list = DeviceList(atoms, float(2.0 * share * radii.max()), arrays, CONTACT_SKIN)
        (self._limits,) = arrays.of([share * radii])
        self._n_frames = int(atoms.n_atoms.size)
        self._is_stale = True

    def flags(self, positions: Array, cell: Array) -> Array:
        """``(n_frames,)`` frames to look at: with atoms too close, or so far from where the list was made."""
        if self._is_stale:
            self._list.build(positions, cell)
            self._is_stale = False
        found = self._list.within_reach(positions, cell)
        limits = self._limits[found.pairs[0]] + self._limits[found.pairs[1]]
        is_close = (found.vectors * found.vectors).sum(dim=1) < limits * limits
        counts = torch.zeros(self._n_frames, dtype=torch.int64, device=positions.device)
        counts = counts.index_add(0, self._list.frames[found.pairs[0]], is_close.long())
        return (counts > 0) | ~self._list.holds(positions, cell)

    def renew(self) -> None:
        """Frames were looked at: the list is made anew where they are next."""
        self._is_stale = True


def _images(n_images: IntArray) -> FloatArray:
    """``(n, 3)`` whole lattice vectors: zero, and of each other one and its opposite the one that comes first."""
    axes = [np.arange(-int(n), int(n) + 1) for n in n_images]
    images = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    order = np.sign(images) @ np.array([9, 3, 1])
    chosen: FloatArray = images[order >= 0].astype(np.float64)
    return chosen
