"""Any network on edges as a graph to compile: inputs, outputs and derivatives of `alsys.potentials.undirected`.

Nothing is shared between an edge and its reverse: Allegro weights each by the element of its centre. Vectors of pairs
hold cells and images, so one graph serves molecules and periodic frames.
"""

from __future__ import annotations

from typing import Any

import torch

from alsys.potentials.nequip import readout_features
from alsys.potentials.undirected import forces_and_virial


class DirectedNetwork(torch.nn.Module):
    """Energies, forces, features and virials of a batch of pairs.

    Args:
        model: What `alsys.potentials.nequip.build_model` gives; used up, but its parameters and buffers live on.
        is_trained: Energies, forces and virials keep their graph, so that a loss of them has a gradient.
    """

    def __init__(self, model: torch.nn.Module, *, is_trained: bool = False) -> None:
        super().__init__()
        self._is_trained = is_trained
        network: Any = model.get_submodule("model.func")
        self.network = network

    def forward(
        self,
        pair_vectors: torch.Tensor,
        pairs: torch.Tensor,
        atom_types: torch.Tensor,
        batch: torch.Tensor,
        num_atoms: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `alsys.potentials.undirected.UndirectedNequIP.forward`."""
        vectors = pair_vectors.detach().requires_grad_(True)
        data = self.network(
            {
                "edge_vectors": torch.cat([vectors, -vectors]),
                "edge_index": torch.cat([pairs, pairs.flip(0)], dim=1),
                "atom_types": atom_types,
                "batch": batch,
                "num_atoms": num_atoms,
                "pos": vectors.new_empty((atom_types.shape[0], 0)),  # for its number of rows only
            }
        )
        energy = data["total_energy"]
        (slope,) = torch.autograd.grad([energy.sum()], [vectors], create_graph=self._is_trained)
        forces, virial = forces_and_virial(pair_vectors, slope, pairs, batch, atom_types.shape[0], num_atoms.shape[0])
        kept = energy if self._is_trained else energy.detach()
        features = readout_features(self.network, data)
        assert features is not None  # NequIP's and Allegro's have some
        return kept, forces, features, virial
