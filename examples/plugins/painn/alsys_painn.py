"""A small PaiNN (K. Schuett, O. Unke, M. Gastegger, ICML 2021, arXiv:2102.03150) in plain torch.

The worked example of `docs/potentials.md`: all that a package must bring so that a campaign may say
`model: {kind: painn}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from alsys.errors import InputError
from alsys.potentials.plugins import Graph, NetworkOrder


class Settings(BaseModel):
    """What a campaign file may say under ``model.settings``."""

    model_config = ConfigDict(extra="forbid")

    features: int = Field(32, ge=4, le=512, description="Channels of scalars and of vectors.")
    layers: int = Field(2, ge=1, le=8, description="Rounds of messages.")
    radial: int = Field(12, ge=4, le=64, description="Radial functions.")


class PaiNN:
    """Entry point ``painn`` of the group ``alsys.potentials``."""

    settings_model = Settings

    @staticmethod
    def check(settings: Settings, elements: Sequence[str]) -> None:
        """Refuses what cannot be built."""
        if len(elements) > settings.features:
            raise InputError(
                f"must be at least the number of elements, {len(elements)}",
                field="model.settings.features",
                value=settings.features,
            )

    @staticmethod
    def build(settings: Settings, order: NetworkOrder) -> torch.nn.Module:
        """A network with fresh random weights."""
        return Network(settings, len(order.elements), order.r_max, order.n_neighbours)


class Network(torch.nn.Module):
    """Scalars and vectors of each atom exchange messages along edges; the scalars end as an energy."""

    def __init__(self, settings: Settings, n_elements: int, r_max: float, n_neighbours: float) -> None:
        super().__init__()
        n = settings.features
        self.n_features, self.r_max, self.scale = n, r_max, 1.0 / math.sqrt(max(n_neighbours, 1.0))
        self.embedding = torch.nn.Embedding(n_elements, n)
        self.register_buffer("waves", math.pi / r_max * torch.arange(1, settings.radial + 1, dtype=torch.float64))
        layers = range(settings.layers)
        self.filters = torch.nn.ModuleList(torch.nn.Linear(settings.radial, 3 * n) for _ in layers)
        self.messages = torch.nn.ModuleList(_mlp(n, 3 * n) for _ in layers)
        self.mixers = torch.nn.ModuleList(torch.nn.Linear(n, 2 * n, bias=False) for _ in layers)
        self.updates = torch.nn.ModuleList(_mlp(2 * n, 3 * n) for _ in layers)
        self.readout = _mlp(n, 1)

    def forward(self, graph: Graph) -> torch.Tensor:
        """``(n_atoms,)`` energies without unit."""
        centre, neighbour = graph.edges
        length = graph.vectors.norm(dim=1, keepdim=True)
        direction = graph.vectors / length
        x = length / self.r_max
        cut = (1.0 - x.clamp(max=1.0) ** 2) ** 3  # vanishes with two derivatives at the cutoff
        radial = torch.sin(self.waves.to(length.dtype) * length) / length * cut
        scalars = self.embedding(graph.types)
        vectors = scalars.new_zeros((graph.n_atoms, 3, self.n_features))
        for filter_, message, mixer, update in zip(self.filters, self.messages, self.mixers, self.updates, strict=True):
            weights = filter_(radial) * cut * message(scalars)[neighbour]
            ds, along, carried = weights.split(self.n_features, dim=1)
            dv = along[:, None, :] * direction[:, :, None] + carried[:, None, :] * vectors[neighbour]
            scalars = scalars + self.scale * torch.zeros_like(scalars).index_add(0, centre, ds)
            vectors = vectors + self.scale * torch.zeros_like(vectors).index_add(0, centre, dv)
            left, right = mixer(vectors).split(self.n_features, dim=2)
            norm = (left.square().sum(dim=1) + 1e-8).sqrt()  # smooth where a vector is zero
            on_self, on_dot, on_vectors = update(torch.cat([scalars, norm], dim=1)).split(self.n_features, dim=1)
            scalars = scalars + on_self + on_dot * (left * right).sum(dim=1)
            vectors = vectors + on_vectors[:, None, :] * right
        return self.readout(scalars).reshape(-1)


def _mlp(n_in: int, n_out: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(n_in, n_in), torch.nn.SiLU(), torch.nn.Linear(n_in, n_out))
