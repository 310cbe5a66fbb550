"""Committees as NequIP's models: built from a state, and evaluated as committees again to compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alsys.frames import FloatArray
from alsys.potentials.architectures import build_model, elements_of
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, has_volume
from alsys.potentials.nequip import input_of, load_weights, type_lookup
from alsys.potentials.tracing import evaluating

Fields = Mapping[str, torch.Tensor]
"""NequIP's fields by name."""


def mean_model(state: CommitteeState) -> torch.nn.Module:
    """A NequIP model whose energy is the mean of the members'; of one member, that member itself.

    Args:
        state: Networks of kind nequip or allegro that tell no states apart.
    """
    models = _members(state)
    if len(models) == 1:
        return models[0]
    from nequip.nn import ForceStressOutput

    from alsys.interop.committee_graph import MeanEnergy

    top: Any = models[0]
    top.model = ForceStressOutput(func=MeanEnergy([model.get_submodule("model.func") for model in models]))
    return models[0].eval()


def spread_model(state: CommitteeState) -> torch.nn.Module:
    """As `mean_model`, with ``forces_std`` and ``energy_std`` among its outputs (`alsys.interop.committee_graph`).

    Args:
        state: As of `mean_model`.
    """
    from alsys.interop.committee_graph import CommitteeOutput

    models = _members(state)
    top: Any = models[0]
    top.model = CommitteeOutput([model.get_submodule("model.func") for model in models])
    return models[0].eval()


def _members(state: CommitteeState) -> list[torch.nn.Module]:
    models = []
    for weights in state.members:
        model = build_model(state.spec)
        load_weights(model, weights)
        models.append(model.eval())
    return models


class ModelCommittee:
    """What an exported model says of batches, as a `alsys.potentials.base.Committee` of one member.

    Args:
        call: The model: NequIP's fields to its outputs.
        state: What it was made of.
        is_batched: It takes several frames at once, and never fewer than two; else one by one.
    """

    def __init__(self, call: Callable[[Fields], Fields], state: CommitteeState, *, is_batched: bool = False) -> None:
        self._call = call
        self._state = state
        self._is_batched = is_batched
        self._lookup = type_lookup(elements_of(state.spec))

    @property
    def version(self) -> int:
        """That of the state."""
        return self._state.version

    def load(self, state: CommitteeState) -> None:
        """An exported model keeps its weights.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("an exported model keeps its weights")

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Energies, forces and stress; deviations where the model has them, else NaN.

        Args:
            batch: Frames of two atoms or more.
            members: Not looked at: there is one.
        """
        frames = list(batch.frames())
        parts = [frames] if self._is_batched and len(frames) > 1 else [[frame] for frame in frames]
        said = [self._said(FrameBatch.of(part * (2 if self._is_batched and len(part) == 1 else 1))) for part in parts]
        n = batch.n_frames
        energy, stress = (np.concatenate([one[k] for one in said]) for k in (0, 2))
        forces, deviation = (np.concatenate([one[k] for one in said]) for k in (1, 3))
        energy_std = np.concatenate([one[4] for one in said])
        if self._is_batched and n == 1:
            energy, stress, energy_std = energy[:1], stress[:1], energy_std[:1]
            forces, deviation = forces[: batch.numbers.size], deviation[: batch.numbers.size]
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        return CommitteePrediction(
            energy=energy,
            energy_std=energy_std,
            forces=forces,
            force_deviation=deviation,
            frame_deviation=np.maximum.reduceat(deviation, starts),
            stress=stress if has_volume(batch).any() and not np.isnan(stress).all() else None,
        )

    def _said(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        data = input_of(batch, self._lookup, float(str(self._state.spec["r_max"])))
        n_edges = data["edge_index"].shape[1]
        data.setdefault("cell", torch.zeros((batch.n_frames, 3, 3), dtype=torch.float64))
        data.setdefault("edge_cell_shift", torch.zeros((n_edges, 3), dtype=torch.float64))
        with evaluating():
            out = {name: value.detach().double().numpy() for name, value in self._call(data).items()}
        stress = out["stress"].reshape(-1, 3, 3) if out.get("stress") is not None else None
        if stress is None or stress.size == 0:
            stress = np.full((batch.n_frames, 3, 3), np.nan)
        stress = np.where(has_volume(batch)[:, None, None], stress, np.nan)
        energy = out["total_energy"] if "total_energy" in out else out["atomic_energy"].sum(keepdims=True)
        deviation = out.get("forces_std", np.full(batch.numbers.size, np.nan))
        energy_std = out.get("energy_std", np.full(batch.n_frames, np.nan))
        return energy.reshape(-1), out["forces"], stress, deviation, energy_std
