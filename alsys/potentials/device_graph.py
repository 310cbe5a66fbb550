"""What networks are given of walkers on a device, step after step.

Types, frames and numbers of atoms are placed once. Pairs of small molecules are all of them, also placed once: a pair
beyond the cutoff adds zero to energies and forces, so they are only left out where most are (`FEW_NEAR`), which makes
the host wait for their number. Batches with periodic or large frames have lists (`alsys.potentials.device_lists`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alsys.frames import FloatArray, IntArray
from alsys.potentials.arrays import Array, Segments
from alsys.potentials.base import FrameBatch, has_volume
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.device_lists import Atoms, DeviceList
from alsys.potentials.devices import true_rows
from alsys.potentials.neighbours import ALL_PAIRS_ATOMS
from alsys.potentials.nequip import TypeLookup, types_of
from alsys.potentials.undirected import all_pairs

FEW_NEAR = 0.5
"""Share of pairs closer than the cutoff below which the others are left out."""


@dataclass(frozen=True, slots=True, eq=False)
class DevicePairs:
    """Undirected pairs of a batch on a device.

    Attributes:
        pairs: ``(2, n_pairs)`` atoms.
        vectors: ``(n_pairs, 3)`` from the first to the second, Angstrom.
        shift: ``(n_pairs, 3)`` whole lattice vectors that are in them; None where no frame is periodic.
    """

    pairs: torch.Tensor
    vectors: torch.Tensor
    shift: torch.Tensor | None


class DeviceGraph:
    """Inputs of networks for batches of the same atoms, whose positions and cells are on a device.

    Args:
        lookup: Types of atoms.
        r_max: Cutoff, Angstrom.
        arrays: Where.

    Attributes:
        atoms: Segments of the frames' atoms.
        has_stress: ``(n_frames,)`` frames that have a stress, on the host; cells keep a volume that they had.
        is_stressed: The same, on the device.
    """

    atoms: Segments
    has_stress: NDArray[np.bool_]
    is_stressed: Array

    def __init__(self, lookup: TypeLookup, r_max: float, arrays: DeviceArrays) -> None:
        self._lookup, self._r_max, self._arrays = lookup, r_max, arrays
        self._batch: FrameBatch | None = None

    def see(self, batch: FrameBatch) -> bool:
        """Places what does not change, where these are other atoms than before; whether they are.

        Raises:
            InputError: An element or a state that the model does not know.
        """
        last = self._batch
        if last is not None and batch.numbers is last.numbers and batch.n_atoms is last.n_atoms:
            return False
        types = types_of(batch, self._lookup)
        counts = np.asarray(batch.n_atoms, dtype=np.int64)
        positions, cell = self._arrays.read([batch.positions, batch.cell])
        on_host = FrameBatch(batch.n_atoms, batch.numbers, positions, cell, batch.pbc)
        self.atoms = self._arrays.segments(counts)
        is_periodic = np.asarray(batch.pbc.any(axis=1))
        self.has_stress = is_periodic if batch.cell.is_meta else has_volume(on_host)
        self._is_periodic = bool(is_periodic.any())
        self._list: DeviceList | None = None
        self._pairs: torch.Tensor | None = None
        self._is_filtered = False
        if self._is_periodic or counts.max() > ALL_PAIRS_ATOMS:
            self._list = DeviceList(Atoms(counts, batch.pbc), self._r_max, self._arrays)
        else:
            pairs = np.stack(all_pairs(counts))
            self._is_filtered = _share_near(positions, pairs, self._r_max) < FEW_NEAR
            (self._pairs,) = self._arrays.of([pairs])
        self._types, self._frames, self._n_atoms, self.is_stressed = self._arrays.of(
            [types, batch.frame_of_atom, counts, self.has_stress]
        )
        self._batch = batch
        return True

    def pairs(self, batch: FrameBatch) -> DevicePairs:
        """All pairs closer than the cutoff, and maybe others.

        Raises:
            InputError: A periodic direction without a lattice vector.
        """
        if self._list is not None:
            found = self._list.of(batch.positions, batch.cell)
            return DevicePairs(found.pairs, found.vectors, found.shift if self._is_periodic else None)
        assert self._pairs is not None
        pairs = self._pairs
        vectors = batch.positions[pairs[1]] - batch.positions[pairs[0]]
        if self._is_filtered:
            near = true_rows((vectors * vectors).sum(dim=1) < self._r_max**2)
            pairs, vectors = pairs[:, near], vectors[near]
        return DevicePairs(pairs, vectors, None)

    def compiled_inputs(self, batch: FrameBatch) -> list[torch.Tensor]:
        """As of `alsys.potentials.undirected.inputs_of`."""
        found = self.pairs(batch)
        inputs = [found.vectors, found.pairs, self._types, self._frames, self._n_atoms]
        if len(self._n_atoms) < 2 or len(found.vectors) < 2:
            return self._with_ghost(inputs)
        return inputs

    def eager_inputs(self, batch: FrameBatch) -> dict[str, torch.Tensor]:
        """As of `alsys.potentials.nequip.input_of`."""
        found = self.pairs(batch)
        data = {
            "pos": batch.positions.detach(),  # NequIP asks for gradients of the tensor that it is given
            "atom_types": self._types,
            "edge_index": torch.cat([found.pairs, found.pairs.flip(0)], dim=1),
            "batch": self._frames,
            "num_atoms": self._n_atoms,
        }
        if found.shift is not None:
            data |= {"edge_cell_shift": torch.cat([found.shift, -found.shift]), "cell": batch.cell.detach()}
        return data

    def _with_ghost(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """As of `alsys.potentials.undirected.with_ghost`."""
        vectors, pairs, types, frames, n_atoms = inputs
        n_total, n_frames = len(types), len(n_atoms)
        ghost: list[NDArray[Any]] = [0.5 * self._r_max * np.eye(3), n_total + np.array([[0, 0, 1], [1, 2, 2]])]
        ghost += [np.zeros(3, dtype=np.int64), np.full(3, n_frames), np.array([3])]
        more_vectors, more_pairs, *others = self._arrays.of(ghost)
        joined = [torch.cat(part) for part in zip((types, frames, n_atoms), others, strict=True)]
        return [torch.cat([vectors, more_vectors]), torch.cat([pairs, more_pairs], dim=1), *joined]


def _share_near(positions: FloatArray, pairs: IntArray, r_max: float) -> float:
    """Share of pairs closer than the cutoff; of none, all."""
    vectors = positions[pairs[1]] - positions[pairs[0]]
    is_near = np.einsum("px,px->p", vectors, vectors) < r_max * r_max
    return float(is_near.mean()) if is_near.size else 1.0
