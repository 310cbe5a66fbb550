"""NequIP as a graph to compile, in which what is equal for i -> j and j -> i is computed once.

NequIP's edges are directed, but an edge and its reverse have the same length, so the same radial weights, and spherical
harmonics that differ by their parity. Here a batch is a list of undirected pairs with their vectors: radial functions,
their network (the dearest part) and its derivative run over pairs, half the work. Nor do self-connections compute
weights for each atom, but for each element. Vectors hold cells and images already, so one graph serves molecules and
periodic frames. Forces and the virial are sums over pairs of the derivatives by the vectors. The graph equals NequIP's
own up to rounding; who uses it compares them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alsys.frames import FloatArray, IntArray
from alsys.potentials.base import FrameBatch
from alsys.potentials.devices import CPU, placed
from alsys.potentials.neighbours import ALL_PAIRS_ATOMS, NeighbourCache, neighbours_of
from alsys.potentials.nequip import TypeLookup, types_of

INPUTS = ("pair_vectors", "pairs", "atom_types", "batch", "num_atoms")
OUTPUTS = ("energy", "forces", "features", "virial")
_GEOMETRY = ("spharm", "edge_norm", "bessel_encode", "factor")
_OF_POTENTIALS = ("edge_lengths", "normed_edge_lengths")
"""What a term such as ZBL reads of every edge."""
_EMBEDDING = "type_embed"
_READOUT = "per_atom_energy_readout"
BLOCKS_FROM = 2
"""l_max from which tensor products are batched matrix products; below, e3nn's generated code is faster."""
MAX_KEPT_PAIRS = 200_000
"""Pairs of a batch of molecules that are kept from one evaluation to the next."""


class UndirectedNequIP(torch.nn.Module):
    """Energies, forces, features and virials of a batch of pairs.

    Args:
        model: What `alsys.potentials.nequip.build_model` gives; used up, but its parameters and buffers live on.
        is_trained: Energies, forces and virials keep their graph, so that a loss of them has a gradient.
    """

    _parities: torch.Tensor

    def __init__(self, model: torch.nn.Module, *, is_trained: bool = False) -> None:
        super().__init__()
        self._is_trained = is_trained
        network: Any = model.get_submodule("model.func")
        self.network = network
        embedding: torch.Tensor = network.type_embed.embed_module.weight
        self._n_types, width = embedding.shape
        self._is_by_type = self._n_types < width
        for module in list(self.network.modules()):
            if hasattr(module, "edge_mlp"):
                module.edge_mlp = _BothDirections(module.edge_mlp)
                if network.spharm.irreps_edge_sh.lmax >= BLOCKS_FROM and BlockTensorProduct.can_replace(
                    module.tp_scatter.tp
                ):
                    module.tp_scatter = BlockTensorProduct(module.tp_scatter.tp, module.tp_scatter.model_dtype)
                if self._is_by_type and module.sc is not None:
                    module.sc = _SelfConnectionByType(module.sc, embedding)
        dtype = next(network.parameters()).dtype
        parities = [float(part.ir.p) for part in network.spharm.irreps_edge_sh for _ in range(part.dim)]
        self.register_buffer("_parities", torch.tensor(parities, dtype=dtype), persistent=False)

    def forward(
        self,
        pair_vectors: torch.Tensor,
        pairs: torch.Tensor,
        atom_types: torch.Tensor,
        batch: torch.Tensor,
        num_atoms: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `inputs_of` gives to what members say.

        Args:
            pair_vectors: ``(n_pairs, 3)`` from the first atom of each pair to the second, Angstrom, float64.
            pairs: ``(2, n_pairs)`` atoms.
            atom_types: ``(n_total,)``.
            batch: ``(n_total,)`` frame of each atom.
            num_atoms: ``(n_frames,)``.

        Returns:
            ``(n_frames, 1)`` energies, eV; ``(n_total, 3)`` forces, eV/Angstrom; ``(n_total, n_features)`` features;
            ``(n_frames, 3, 3)`` virials dE/d(strain), eV. All float64, but for features.
        """
        vectors = pair_vectors.detach().requires_grad_(True)
        data = {
            "edge_vectors": vectors,
            "edge_index": pairs,
            "atom_types": atom_types,
            "batch": batch,
            "num_atoms": num_atoms,
            "pos": vectors.new_empty((atom_types.shape[0], 0)),  # for its number of rows only
        }
        for name in _GEOMETRY:
            data = self.network.get_submodule(name)(data)
        data["edge_index"] = torch.cat([pairs, pairs.flip(0)], dim=1)
        for name in _OF_POTENTIALS:
            data[name] = torch.cat([data[name], data[name]])
        harmonics = data["edge_attrs"]
        data["edge_attrs"] = torch.cat([harmonics, harmonics * self._parities])
        features = harmonics
        for name, module in self.network.named_children():
            if name in _GEOMETRY:
                continue
            if name == _READOUT:
                features = data["node_features"].detach()
            data = module(data)
            if name == _EMBEDDING and self._is_by_type:
                types = torch.arange(self._n_types, device=atom_types.device)
                data["node_attrs"] = (atom_types.unsqueeze(1) == types).to(harmonics.dtype)
        energy = data["total_energy"]
        (slope,) = torch.autograd.grad([energy.sum()], [vectors], create_graph=self._is_trained)
        forces, virial = forces_and_virial(pair_vectors, slope, pairs, batch, atom_types.shape[0], num_atoms.shape[0])
        return energy if self._is_trained else energy.detach(), forces, features, virial


def forces_and_virial(
    pair_vectors: torch.Tensor,
    slope: torch.Tensor,
    pairs: torch.Tensor,
    batch: torch.Tensor,
    n_total: int,
    n_frames: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forces on atoms and virials of frames.

    Args:
        pair_vectors: ``(n_pairs, 3)``, Angstrom.
        slope: ``(n_pairs, 3)`` derivative of the energy by them, eV/Angstrom.
        pairs: ``(2, n_pairs)`` atoms.
        batch: ``(n_total,)`` frame of each atom.
        n_total: Atoms.
        n_frames: Frames.

    Returns:
        ``(n_total, 3)``, eV/Angstrom; ``(n_frames, 3, 3)`` dE/d(strain), eV.
    """
    forces = slope.new_zeros((n_total, 3)).index_add(0, pairs[0], slope).index_add(0, pairs[1], -slope)
    products = (pair_vectors.unsqueeze(2) * slope.unsqueeze(1)).reshape(-1, 9)
    virial = slope.new_zeros((n_frames, 9)).index_add(0, batch.index_select(0, pairs[0]), products)
    return forces, virial.reshape(-1, 3, 3)


class _BothDirections(torch.nn.Module):
    """Radial weights of pairs, for each pair's two edges."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        weights = self.network(embedding)
        return torch.cat([weights, weights])


class BlockTensorProduct(torch.nn.Module):
    """NequIP's tensor product of neighbours' features with spherical harmonics, summed over neighbours, as one product.

    Every path ``(l1, l2 -> l3)`` multiplies channel u of the features by the same coefficients of its edge,
    ``M_ki = sum_j C_ijk Y_j``, and by a radial weight. Coefficients of all paths are one matrix for an edge, so that
    all paths are one batched matrix product, where e3nn's generated code has many small ones: faster from l_max 2 on,
    and quicker to compile.

    Args:
        product: e3nn's tensor product with ``uvu`` paths.
        dtype: Of the model.
    """

    _coefficients: torch.Tensor
    _path_of_row: torch.Tensor

    def __init__(self, product: Any, dtype: torch.dtype) -> None:
        super().__init__()
        from e3nn.o3 import wigner_3j

        self._mul = product.irreps_in1[0].mul
        self._dims = [ir.dim for _, ir in product.irreps_in1]
        slices_in2, columns = product.irreps_in2.slices(), np.cumsum([0, *self._dims])
        self._n_paths = len(product.instructions)
        ordered = sorted(range(self._n_paths), key=lambda p: product.instructions[p].i_out)
        self._dims_out = [product.irreps_out[product.instructions[p].i_out].ir.dim for p in ordered]
        rows = np.cumsum([0, *self._dims_out])
        coefficients = torch.zeros((product.irreps_in2.dim, int(rows[-1]), int(columns[-1])), dtype=dtype)
        for row, path in zip(rows, ordered, strict=False):
            found = product.instructions[path]
            first, second = product.irreps_in1[found.i_in1].ir, product.irreps_in2[found.i_in2].ir
            third = product.irreps_out[found.i_out].ir
            block = wigner_3j(first.l, second.l, third.l, dtype=dtype) * found.path_weight
            column = int(columns[found.i_in1])
            place = coefficients[slices_in2[found.i_in2], row : row + third.dim, column : column + first.dim]
            place.copy_(block.permute(1, 2, 0))
        self.register_buffer("_coefficients", coefficients.reshape(coefficients.shape[0], -1), persistent=False)
        of_row = np.repeat(ordered, self._dims_out)
        self.register_buffer("_path_of_row", placed([of_row])[0], persistent=False)

    @staticmethod
    def can_replace(product: Any) -> bool:
        """Whether all irreps have one multiplicity, and each path an output of its own."""
        muls = {mul for mul, _ in product.irreps_in1}
        outputs = [found.i_out for found in product.instructions]
        return (
            len(muls) == 1
            and all(mul == 1 for mul, _ in product.irreps_in2)
            and len(set(outputs)) == len(outputs) == len(product.irreps_out)
            and all(found.connection_mode == "uvu" and found.has_weight for found in product.instructions)
        )

    def forward(
        self,
        x: torch.Tensor,
        edge_attr: torch.Tensor,
        edge_weight: torch.Tensor,
        edge_dst: torch.Tensor,
        edge_src: torch.Tensor,
    ) -> torch.Tensor:
        """``(n_total, dim_in)`` features, ``(n_edges, dim_sh)`` harmonics, radial weights: ``(n_total, dim_out)``."""
        n_edges, mul = edge_attr.shape[0], self._mul
        parts = torch.split(x, [mul * dim for dim in self._dims], dim=1)
        blocks = [part.reshape(-1, mul, dim).transpose(1, 2) for part, dim in zip(parts, self._dims, strict=True)]
        matrix = (edge_attr @ self._coefficients).reshape(n_edges, sum(self._dims_out), sum(self._dims))
        mixed = torch.bmm(matrix, torch.cat(blocks, dim=1).index_select(0, edge_src))
        radial = edge_weight.reshape(n_edges, self._n_paths, mul).index_select(1, self._path_of_row)
        messages = (mixed * radial).reshape(n_edges, -1)
        summed = x.new_zeros((x.shape[0], messages.shape[1])).index_add(0, edge_dst, messages)
        parts = torch.split(summed.reshape(-1, sum(self._dims_out), mul), self._dims_out, dim=1)
        return torch.cat([part.transpose(1, 2).reshape(x.shape[0], -1) for part in parts], dim=1)


class _SelfConnectionByType(torch.nn.Module):
    """A self-connection whose weights are contracted with the embeddings of types instead of those of atoms.

    It is bilinear in features and embedding, so ``sum_uv W_uvw x_u a_v = sum_tu (sum_v W_uvw A_tv) (o_t x_u)`` with
    embeddings ``A_tv`` of types and ``o_t`` one where the atom is of type t: less work where there are fewer types
    than features of an embedding. e3nn normalises 3j symbols to 1, those of l x 0 -> l are 1 / sqrt(2 l + 1).
    """

    def __init__(self, connection: Any, embedding: torch.Tensor) -> None:
        super().__init__()
        self.connection = connection
        self.embedding = embedding

    def forward(self, features: torch.Tensor, is_type: torch.Tensor) -> torch.Tensor:
        """``(n_total, dim_in)`` and ``(n_total, n_types)`` to ``(n_total, dim_out)``."""
        irreps_in, irreps_out = self.connection.irreps_in1, self.connection.irreps_out
        parts_in = irreps_in.slices()
        parts: list[Any] = [0.0] * len(irreps_out)
        for _, instruction, weight in self.connection.weight_views(yield_instruction=True):
            mul, ir = irreps_in[instruction.i_in1]
            by_type = torch.einsum("tv,uvw->tuw", self.embedding, weight).reshape(-1, weight.shape[2])
            x = features[:, parts_in[instruction.i_in1]].reshape(-1, mul, ir.dim).transpose(1, 2)
            spread = (is_type[:, None, :, None] * x[:, :, None, :]).reshape(-1, by_type.shape[0])
            mixed = (spread @ by_type).reshape(-1, ir.dim, weight.shape[2]).transpose(1, 2)
            scale = instruction.path_weight / ir.dim**0.5
            parts[instruction.i_out] = parts[instruction.i_out] + scale * mixed.reshape(-1, ir.dim * weight.shape[2])
        rows = features.shape[0]
        return torch.cat(
            [
                features.new_zeros((rows, mul * ir.dim)) if isinstance(part, float) else part
                for part, (mul, ir) in zip(parts, irreps_out, strict=True)
            ],
            dim=1,
        )


def inputs_of(
    batch: FrameBatch,
    lookup: TypeLookup,
    r_max: float,
    cache: NeighbourCache | None = None,
    device: torch.device = CPU,
) -> list[torch.Tensor]:
    """The graph's inputs for a batch, in the order of `INPUTS`, on a device.

    A graph compiled for any size takes no size of 0 or 1. Where there would be one, a ghost frame of three atoms
    follows, and everything of the batch stays where it is.

    Raises:
        InputError: An element or a state that the model does not know.
    """
    types = types_of(batch, lookup)
    first, second, vectors = pairs_of(batch, r_max, cache)
    n_atoms = np.asarray(batch.n_atoms, dtype=np.int64)
    return placed(with_ghost(vectors, np.stack([first, second]), types, n_atoms, r_max), device)


def with_ghost(
    vectors: FloatArray, pairs: IntArray, types: IntArray, n_atoms: IntArray, r_max: float
) -> list[NDArray[Any]]:
    """The graph's inputs in the order of `INPUTS`, with a ghost frame where a size would be 0 or 1.

    Args:
        vectors: ``(n_pairs, 3)``, Angstrom.
        pairs: ``(2, n_pairs)``.
        types: ``(n_total,)``.
        n_atoms: ``(n_frames,)``.
        r_max: Cutoff, Angstrom.
    """
    if n_atoms.size < 2 or len(vectors) < 2:
        ghost = types.size
        vectors = np.concatenate([vectors, 0.5 * r_max * np.eye(3)])
        pairs = np.concatenate([pairs, ghost + np.array([[0, 0, 1], [1, 2, 2]])], axis=1)
        types = np.concatenate([types, np.zeros(3, dtype=types.dtype)])
        n_atoms = np.append(n_atoms, 3)
    frames = np.repeat(np.arange(n_atoms.size), n_atoms)
    return [vectors, pairs, types, frames, n_atoms]


def pairs_of(batch: FrameBatch, r_max: float, cache: NeighbourCache | None) -> tuple[IntArray, IntArray, FloatArray]:
    """Both atoms of each undirected pair closer than the cutoff, and the vector from the first to the second."""
    positions = batch.positions
    if not batch.pbc.any() and batch.n_atoms.max() <= ALL_PAIRS_ATOMS and _n_pairs(batch) <= MAX_KEPT_PAIRS:
        first, second = all_pairs(np.asarray(batch.n_atoms, dtype=np.int64))
        vectors = positions[second] - positions[first]
        is_near = np.einsum("px,px->p", vectors, vectors) < r_max * r_max
        return (first, second, vectors) if is_near.all() else (first[is_near], second[is_near], vectors[is_near])
    edges = neighbours_of(batch, r_max) if cache is None else cache.of(batch)
    is_kept = is_undirected(edges.edge_index, edges.cell_shift)
    first, second = edges.edge_index[:, is_kept]
    vectors = positions[second] - positions[first]
    if edges.cell_shift is not None:
        vectors += np.einsum("px,pxy->py", edges.cell_shift[is_kept], batch.cell[batch.frame_of_atom[first]])
    return first, second, vectors


def is_undirected(edge_index: IntArray, cell_shift: FloatArray | None) -> NDArray[np.bool_]:
    """``(n_edges,)`` edges that stand for their pair: of an edge and its reverse, one.

    Args:
        edge_index: ``(2, n_edges)``.
        cell_shift: ``(n_edges, 3)``; None where no frame is periodic.
    """
    first, second = edge_index
    is_kept: NDArray[np.bool_] = first < second
    if cell_shift is not None:
        is_own_image = first == second
        if is_own_image.any():  # of an image and its opposite, the one whose first shift that is not zero is positive
            is_kept = is_kept | is_own_image & (np.sign(cell_shift) @ np.array([9.0, 3.0, 1.0]) > 0)
    return is_kept


def _n_pairs(batch: FrameBatch) -> int:
    return int((batch.n_atoms * (batch.n_atoms - 1) // 2).sum())


def all_pairs(n_atoms: IntArray) -> tuple[IntArray, IntArray]:
    """All pairs within each molecule of a batch.

    Args:
        n_atoms: ``(n_frames,)``, int64.
    """
    return _all_pairs(n_atoms.tobytes())


@lru_cache(maxsize=8)
def _all_pairs(n_atoms: bytes) -> tuple[IntArray, IntArray]:
    """All pairs within each molecule of a batch; walkers ask for the same at every step."""
    counts = np.frombuffer(n_atoms, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    parts = [np.stack(np.triu_indices(int(count), k=1)) + start for count, start in zip(counts, starts, strict=True)]
    first, second = np.concatenate(parts, axis=1)
    return first, second
