"""MACE (I. Batatia et al., NeurIPS 2022, arXiv:2206.07697; package mace-torch) as a potential of alsys.

mace-torch pins e3nn 0.4.4 and excludes NequIP, so this package is installed in an environment of its own, where
trainers and explorers run (`runtime.environments`); see README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mace  # before e3nn 0.4.4, whose constants torch 2.6 and later load only because of what mace sets  # isort: skip
import numpy as np
import torch
from e3nn import get_optimization_defaults, o3, set_optimization_defaults
from mace.modules import interaction_classes
from pydantic import BaseModel, ConfigDict, Field

from alsys.errors import InputError
from alsys.potentials.plugins import Graph, NetworkOrder


class Settings(BaseModel):
    """What a campaign file may say under ``model.settings``."""

    model_config = ConfigDict(extra="forbid")

    channels: int = Field(32, ge=1, le=512, description="Of each order of the hidden features.")
    max_l: int = Field(1, ge=0, le=3, description="Highest order of the hidden features.")
    max_ell: int = Field(2, ge=1, le=4, description="Highest order of the spherical harmonics of edges.")
    layers: int = Field(2, ge=1, le=6)
    correlation: int = Field(2, ge=1, le=4, description="Neighbours in one product; MACE's usual value is 3.")
    num_bessels: int = Field(8, ge=2, le=32, description="Radial functions.")
    polynomial_cutoff_p: int = Field(5, ge=3, le=24, description="Exponent of the cutoff function.")
    radial_mlp: tuple[int, ...] = Field((64, 64, 64), min_length=1, max_length=5)


class Mace:
    """Entry point ``mace`` of the group ``alsys.potentials``."""

    settings_model = Settings

    @staticmethod
    def check(settings: Settings, elements: Sequence[str]) -> None:
        """Refuses what cannot be built."""
        if settings.max_l > settings.max_ell:
            raise InputError(
                f"must be at most max_ell, {settings.max_ell}", field="model.settings.max_l", value=settings.max_l
            )

    @staticmethod
    def build(settings: Settings, order: NetworkOrder) -> torch.nn.Module:
        """A network with fresh random weights."""
        hidden = o3.Irreps.spherical_harmonics(settings.max_l) * settings.channels
        with _building_in(order.dtype):
            model = mace.modules.MACE(
                r_max=order.r_max,
                num_bessel=settings.num_bessels,
                num_polynomial_cutoff=settings.polynomial_cutoff_p,
                max_ell=settings.max_ell,
                interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],  # nothing for a free atom
                interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
                num_interactions=settings.layers,
                num_elements=len(order.elements),
                hidden_irreps=hidden.sort()[0].simplify(),
                MLP_irreps=o3.Irreps("16x0e"),
                gate=torch.nn.functional.silu,
                atomic_energies=np.zeros(len(order.elements)),  # alsys adds them
                avg_num_neighbors=max(order.n_neighbours, 1.0),
                atomic_numbers=list(order.numbers),
                correlation=settings.correlation,
                radial_MLP=list(settings.radial_mlp),
            )
        return Network(model, len(order.elements))


class Network(torch.nn.Module):
    """MACE on a graph of alsys."""

    def __init__(self, model: torch.nn.Module, n_elements: int) -> None:
        super().__init__()
        self.mace, self.n_elements = model, n_elements

    def forward(self, graph: Graph) -> torch.Tensor:
        """``(n_atoms,)`` energies without unit.

        MACE takes positions and adds a shift to each difference of two: all positions are zero here, and the shifts
        are the vectors, images of periodic cells included.
        """
        vectors = graph.vectors
        counts = torch.bincount(graph.frame, minlength=graph.n_frames)
        data = {
            "positions": vectors.new_zeros((graph.n_atoms, 3)),
            "shifts": vectors,
            "edge_index": graph.edges,
            "node_attrs": torch.nn.functional.one_hot(graph.types, self.n_elements).to(vectors.dtype),
            "batch": graph.frame,
            "ptr": torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            "cell": vectors.new_zeros((3 * graph.n_frames, 3)),
        }
        energies: torch.Tensor = self.mace(data, compute_force=False)["node_energy"]
        return energies


@contextmanager
def _building_in(dtype: torch.dtype) -> Iterator[None]:
    """e3nn makes its constants in torch's default type; without TorchScript, which compiles for each new shape."""
    before, defaults = torch.get_default_dtype(), get_optimization_defaults()
    torch.set_default_dtype(dtype)
    set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        set_optimization_defaults(**defaults)
