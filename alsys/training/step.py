"""The loss of a batch and its gradient: what one step of training costs.

All weights of a model are one flat vector in the order of its parameters, so that optimisers, averages and copies are
single operations. `EagerStep` runs NequIP itself. `CompiledStep` runs one graph that torch's AOTInductor made of the
whole step (energies, forces, loss, gradient by the weights) on undirected pairs (`alsys.potentials.undirected`): 5
times faster on a CPU. It is compiled once for an architecture and takes weights, shifts and scales as inputs. Its
first gradient is compared with the eager one; where they differ, training stays eager, with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from alsys.potentials.compiled import probe_of
from alsys.potentials.nequip import SPEC_KEYS, blank_model, elements_of, type_lookup
from alsys.potentials.packages import cached_package, default_folder, is_cached, key_of, quiet
from alsys.potentials.tracing import evaluating, tracing
from alsys.potentials.undirected import UndirectedNequIP, inputs_of
from alsys.training.loss import LossWeights, loss_of
from alsys.training.tensors import Targets, TrainingBatch

logger = logging.getLogger(__name__)

FORMAT = 1
TOLERANCE = {"float32": 1e-3, "float64": 1e-8}
"""Largest difference of a compiled gradient to the eager one, relative to its norm."""
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
SCALES = "model.func.per_type_energy_scale_shift.scales"


class Step(Protocol):
    """Gives the loss and its gradient."""

    @property
    def is_on_pairs(self) -> bool:
        """Whether batches must hold pairs instead of NequIP's edges."""
        ...

    def gradient(
        self, weights: torch.Tensor, batch: TrainingBatch, balance: LossWeights
    ) -> tuple[float, torch.Tensor]:
        """Loss of a batch and its gradient.

        Args:
            weights: ``(n_weights,)`` of the model.
            batch: Input and targets.
            balance: Weights of the parts of the loss.

        Returns:
            The loss and ``(n_weights,)``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter of a model lies in the flat vector.

    Attributes:
        names: Of the state dict.
        shapes: Likewise.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, model: torch.nn.Module) -> Layout:
        """The layout of a model's parameters that are trained."""
        named = [(name, p.shape) for name, p in model.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in named), tuple(shape for _, shape in named))

    @property
    def sizes(self) -> list[int]:
        """Numbers in each parameter."""
        return [shape.numel() for shape in self.shapes]

    def flat(self, model: torch.nn.Module) -> torch.Tensor:
        """``(n_weights,)``, a copy."""
        parameters = dict(model.named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.names])

    @torch.no_grad()
    def write(self, weights: torch.Tensor, model: torch.nn.Module) -> None:
        """Copies a flat vector into a model."""
        parameters = dict(model.named_parameters())
        for name, shape, part in zip(self.names, self.shapes, weights.split(self.sizes), strict=True):
            parameters[name].copy_(part.reshape(shape))


class EagerStep:
    """Steps of NequIP as it is.

    Args:
        model: The model; its weights are overwritten.
        loss: Kind of loss (`alsys.training.loss`).
    """

    is_on_pairs = False

    def __init__(self, model: torch.nn.Module, loss: str) -> None:
        self._model = model
        self._loss = loss
        self._layout = Layout.of(model)
        by_name = dict(model.named_parameters())
        self._parameters = [by_name[name] for name in self._layout.names]

    def gradient(
        self, weights: torch.Tensor, batch: TrainingBatch, balance: LossWeights
    ) -> tuple[float, torch.Tensor]:
        """Loss and gradient of a batch of edges."""
        self._layout.write(weights, self._model)
        with evaluating():
            out = self._model(dict(batch.data))
        virial = out["virial"].reshape(-1, 3, 3) if batch.targets.has_stress else None
        value = loss_of(self._loss, out["total_energy"].reshape(-1), out["forces"], virial, batch.targets, balance)
        parts = torch.autograd.grad(value, self._parameters)
        return float(value.detach()), torch.cat([part.reshape(-1) for part in parts])
