"""Training frames as tensors, neighbour lists included, built once for a fit; a batch is a few gathers.

Energies and forces stay in float64: the loss is a difference of large numbers. A batch holds NequIP's directed edges,
or, for the compiled step, undirected pairs and their vectors, which do not change while weights do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from alsys.frames import Arm, FloatArray, IntArray
from alsys.potentials.devices import CPU, placed
from alsys.potentials.neighbours import neighbours_of
from alsys.potentials.nequip import TypeLookup, types_of
from alsys.potentials.undirected import INPUTS, is_undirected, with_ghost
from alsys.store.base import Snapshot
from alsys.training.curvature import pairs_among
from alsys.training.dataset import frame_weights, virials_of
from alsys.training.evaluate import batch_of, chunks_of


class Counts(NamedTuple):
    """What enters the loss of a batch.

    Attributes:
        atoms: Whose forces count.
        frames: Whose energies count.
        stresses: Frames whose stress counts.
        bends: Atoms whose force errors are compared with those of their partners.
    """

    atoms: int
    frames: int
    stresses: int = 0
    bends: int = 0


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Model input and targets of some frames.

    Attributes:
        data: NequIP's input fields; of a batch of pairs, `alsys.potentials.undirected.INPUTS`, where a ghost frame may
            follow that has no label.
        energy: ``(n_frames,)``, eV.
        forces: ``(n_total, 3)``, eV/Angstrom.
        n_atoms: ``(n_frames,)`` as float64.
        counts: How many of each enter the loss, counted on the host: nothing waits for a device to count.
        mask: ``(n_total,)`` atoms whose forces count; None where all do.
        is_whole: ``(n_frames,)`` frames whose energies count: those without a masked atom; None where all do.
        virial: ``(n_frames, 3, 3)`` stress times volume, eV; None where no frame of the training set has a stress.
        has_virial: ``(n_frames,)`` frames whose stress counts; None likewise.
        weight: ``(n_frames,)`` by which each frame's errors are multiplied; None where all are 1.
        partner: ``(n_total,)`` for each atom that of the frame on the other side of a minimum, or itself; None where no
            frame has one (`alsys.training.curvature`).
        bend: ``(n_frames,)`` what the difference of a frame's force errors to those of its partner's is multiplied by,
            squared: a weight over the square of their distance, so that it is an error of second derivatives; 0 for
            none. None likewise.
        states: ``(n_frames,)`` place of each frame's charge and multiplicity among the model's states; None where it
            tells none apart.
    """

    data: dict[str, torch.Tensor]
    energy: torch.Tensor
    forces: torch.Tensor
    n_atoms: torch.Tensor
    counts: Counts
    mask: torch.Tensor | None = None
    is_whole: torch.Tensor | None = None
    virial: torch.Tensor | None = None
    has_virial: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    states: torch.Tensor | None = None
    partner: torch.Tensor | None = None
    bend: torch.Tensor | None = None

    def less(self, state_energies: torch.Tensor | None) -> TrainingBatch:
        """The batch with energies less those of the frames' states: what the network itself is to say.

        Args:
            state_energies: ``(n_states,)``, eV; None for a model that tells none apart.
        """
        if state_energies is None or self.states is None:
            return self
        return replace(self, energy=self.energy - state_energies[self.states])


class TrainingFrames:
    """All frames of a training set.

    Args:
        train: The frames.
        spec: Specification of the models; elements, states and cutoff are read.
        weights: Weights of frames by arm or system (`alsys.training.dataset.frame_weights`).
        is_on_pairs: Batches hold pairs instead of edges.
        device: Where batches are.

    Attributes:
        device: As given.
    """

    def __init__(
        self,
        train: Snapshot,
        spec: Mapping[str, object],
        weights: Mapping[str, float] = MappingProxyType({}),
        *,
        is_on_pairs: bool = False,
        device: torch.device = CPU,
    ) -> None:
        self.device = device
        lookup, r_max = TypeLookup.of(spec), float(str(spec["r_max"]))
        offsets = train.offsets
        centres, neighbours, shifts = [], [], []
        for rows in chunks_of(train):
            near = neighbours_of(batch_of(train.select(rows)), r_max)
            edges = near.edge_index + offsets[rows[0]]
            centres.append(edges[0])
            neighbours.append(edges[1])
            shifts.append(np.zeros((edges.shape[1], 3)) if near.cell_shift is None else near.cell_shift)
        centre = np.concatenate(centres)
        frame = np.searchsorted(offsets, centre, side="right") - 1
        order = np.argsort(frame, kind="stable")
        first = offsets[frame[order]]
        self._n_atoms = np.asarray(train.n_atoms, dtype=np.int64)
        self._atom_starts = offsets[:-1]
        edges = np.stack([centre[order] - first, np.concatenate(neighbours)[order] - first])
        images: FloatArray = np.concatenate(shifts)[order]
        frame = frame[order]
        self.mean_neighbours = edges.shape[1] / max(int(train.n_atoms.sum()), 1)
        self._r_max = r_max
        self._vectors: FloatArray | None = None
        if is_on_pairs:
            is_kept = is_undirected(edges, images)
            edges, images, frame = edges[:, is_kept], images[is_kept], frame[is_kept]
            starts = offsets[frame]
            self._vectors = train.positions[starts + edges[1]] - train.positions[starts + edges[0]]
            self._vectors += np.einsum("px,pxy->py", images, train.cell[frame])
        self._n_edges = np.bincount(frame, minlength=train.n_frames)
        self._edge_starts = np.cumsum(self._n_edges) - self._n_edges
        self._edges = edges
        self._shifts = images if train.pbc.any() else None
        self._backward, self._bend = pairs_among(train, weights)
        everything = batch_of(train)
        self._types = types_of(everything, lookup)
        self._states = lookup.states_in(everything)
        self._positions = np.array(train.positions)
        self._cell = np.array(train.cell)
        self._energy = np.array(train.energy)
        self._forces = np.array(train.forces)
        is_label = ~train.is_arm(Arm.CURVATURE)
        mask = train.mask & np.repeat(is_label, self._n_atoms)
        self._mask = None if mask.all() else mask
        self._is_whole = train.is_whole & is_label
        self._virial = virials_of(train)
        self._weight = frame_weights(train, weights)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self._n_atoms.size)

    @property
    def is_on_pairs(self) -> bool:
        """Whether batches hold pairs instead of edges."""
        return self._vectors is not None

    @property
    def is_drawn(self) -> NDArray[np.bool_]:
        """``(n_frames,)`` frames that batches are asked for; others come with those on the other side of a minimum."""
        found = np.ones(self.n_frames, dtype=np.bool_)
        found[self._backward[self._backward >= 0]] = False
        return found

    def batch(self, rows: NDArray[np.integer]) -> TrainingBatch:
        """The frames at `rows`, concatenated in that order, and behind them the partners of those that have one."""
        backward = self._backward[rows]
        forward = np.flatnonzero(backward >= 0)
        rows = np.concatenate([rows, backward[forward]])
        n_atoms, n_edges = self._n_atoms[rows], self._n_edges[rows]
        atoms = _ranges(self._atom_starts[rows], n_atoms)
        edges = _ranges(self._edge_starts[rows], n_edges)
        index = self._edges[:, edges] + np.repeat(np.cumsum(n_atoms) - n_atoms, n_edges)
        labels: dict[str, NDArray[Any]] = {
            "energy": self._energy[rows],
            "forces": self._forces[atoms],
            "n_atoms": n_atoms.astype(np.float64),
        }
        n_trusted, n_whole, n_stressed, n_bent = atoms.size, rows.size, 0, 0
        if self._mask is not None:
            labels |= {"mask": self._mask[atoms], "is_whole": self._is_whole[rows]}
            n_trusted, n_whole = int(labels["mask"].sum()), int(labels["is_whole"].sum())
        if self._virial is not None:
            virial = self._virial[rows]
            labels |= {"virial": virial, "has_virial": np.isfinite(virial).all(axis=(1, 2))}
            n_stressed = int(labels["has_virial"].sum())
        if self._weight is not None:
            labels["weight"] = self._weight[rows]
        if self._states is not None:
            labels["states"] = self._states[rows]
        if forward.size:
            labels |= {"partner": _partners(n_atoms, forward), "bend": self._bend[rows]}
            n_bent = int(n_atoms[labels["bend"] > 0.0].sum())
        data = self._data(rows, atoms, edges, index)
        tensors = placed([*data.values(), *labels.values()], self.device)
        return TrainingBatch(
            data=dict(zip(data, tensors, strict=False)),
            **dict(zip(labels, tensors[len(data) :], strict=True)),
            counts=Counts(n_trusted, n_whole, n_stressed, n_bent),
        )

    def _data(
        self, rows: NDArray[np.integer], atoms: IntArray, edges: IntArray, index: IntArray
    ) -> dict[str, NDArray[Any]]:
        """Model input."""
        n_atoms = self._n_atoms[rows]
        if self._vectors is not None:
            inputs = with_ghost(self._vectors[edges], index, self._types[atoms], n_atoms, self._r_max)
            return dict(zip(INPUTS, inputs, strict=True))
        data: dict[str, NDArray[Any]] = {
            "pos": self._positions[atoms],
            "atom_types": self._types[atoms],
            "num_atoms": n_atoms,
            "batch": np.repeat(np.arange(len(rows)), n_atoms),
            "edge_index": index,
        }
        if self._shifts is not None:
            data |= {"cell": self._cell[rows], "edge_cell_shift": self._shifts[edges]}
        return data


def _partners(n_atoms: IntArray, forward: IntArray) -> IntArray:
    """Atoms of the frames behind, for those of frames that have a partner there, in order; for others themselves."""
    starts = np.cumsum(n_atoms) - n_atoms
    partner: IntArray = np.arange(n_atoms.sum())
    there = np.arange(len(n_atoms) - len(forward), len(n_atoms))
    partner[_ranges(starts[forward], n_atoms[forward])] = _ranges(starts[there], n_atoms[there])
    return partner


def _ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """``arange(start, start + count)`` of each pair, concatenated."""
    ends = np.cumsum(counts)
    result: IntArray = np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
    return result
