"""Committees of NequIP models (S. Batzner et al., Nat. Commun. 13, 2453 (2022)).

A state's specification holds the builder arguments; energy shifts and scales are buffers of each member's state dict,
so a state is complete and `load` takes all of it without rebuilding. Members share one neighbour list and are evaluated
one after another on the whole batch. Energies are summed in float64, whatever the members' type.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, committee_prediction
from alsys.potentials.neighbours import neighbours_of

SPEC_KEYS = ("elements", "r_max", "num_layers", "l_max", "num_features", "parity", "dtype", "avg_num_neighbors")
_lock = threading.Lock()
_is_ready = False


def build_model(spec: Mapping[str, Any], seed: int = 0) -> torch.nn.Module:
    """One NequIP model with zero shifts and unit scales.

    Args:
        spec: ``elements`` (symbols), ``r_max`` (Angstrom), ``num_layers``, ``l_max``, ``num_features``, ``parity``,
            ``dtype`` and ``avg_num_neighbors``.
        seed: Seed of the initial weights.
    """
    global _is_ready
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    elements = [str(symbol) for symbol in spec["elements"]]
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside e3nn and torch while a model is built
        if not _is_ready:
            set_global_state()
            _is_ready = True
        model: torch.nn.Module = NequIPGNNModel(
            seed=seed,
            model_dtype=spec["dtype"],
            type_names=elements,
            r_max=float(spec["r_max"]),
            num_layers=int(spec["num_layers"]),
            l_max=int(spec["l_max"]),
            num_features=int(spec["num_features"]),
            parity=bool(spec["parity"]),
            avg_num_neighbors=float(spec["avg_num_neighbors"]),
            per_type_energy_shifts=dict.fromkeys(elements, 0.0),
            per_type_energy_scales=dict.fromkeys(elements, 1.0),
            compile_mode="eager",
        )
    return model


def type_lookup(elements: Sequence[str]) -> NDArray[np.int64]:
    """``(119,)`` type of each atomic number; -1 for elements the model does not know."""
    lookup = np.full(119, -1, dtype=np.int64)
    for i, symbol in enumerate(elements):
        lookup[atomic_numbers[symbol]] = i
    return lookup


def input_of(batch: FrameBatch, lookup: NDArray[np.int64], r_max: float) -> dict[str, torch.Tensor]:
    """NequIP's input fields for a batch.

    Raises:
        InputError: An element that the model does not know.
    """
    types = lookup[batch.numbers]
    if types.min() < 0:
        unknown = sorted({int(z) for z in batch.numbers[types < 0]})
        raise InputError("the model does not know these elements", field="numbers", value=unknown)
    edges = neighbours_of(batch, r_max)
    data = {
        "pos": torch.from_numpy(np.ascontiguousarray(batch.positions)),
        "atom_types": torch.from_numpy(types),
        "edge_index": torch.from_numpy(edges.edge_index),
        "batch": torch.from_numpy(batch.frame_of_atom),
        "num_atoms": torch.from_numpy(np.asarray(batch.n_atoms, dtype=np.int64)),
    }
    if edges.cell_shift is not None:
        data["edge_cell_shift"] = torch.from_numpy(edges.cell_shift)
        data["cell"] = torch.from_numpy(np.ascontiguousarray(batch.cell))
    return data


def load_weights(model: torch.nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copies a state dict of numpy arrays into a model."""
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


def weights_of(model: torch.nn.Module) -> dict[str, NDArray[np.generic]]:
    """A model's state dict as numpy arrays of its own."""
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


class NequIPCommittee:
    """Evaluates a committee of NequIP models.

    Args:
        state: Specification and weights.
        threads: Threads of torch in this process.
    """

    def __init__(self, state: CommitteeState, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._state = state
        self._lookup = type_lookup([str(e) for e in _elements(state.spec)])
        self._models = [build_model(state.spec) for _ in state.members]
        for model in self._models:
            model.eval()
        self.load(state)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._state.version

    def load(self, state: CommitteeState) -> None:
        """Copies new weights into the models; rebuilds them only where the specification differs."""
        if any(state.spec.get(key) != self._state.spec.get(key) for key in SPEC_KEYS) or (
            state.n_members != len(self._models)
        ):
            self._lookup = type_lookup([str(e) for e in _elements(state.spec)])
            self._models = [build_model(state.spec).eval() for _ in state.members]
        for model, weights in zip(self._models, state.members, strict=True):
            load_weights(model, weights)
        self._state = state

    def evaluate(self, batch: FrameBatch) -> CommitteePrediction:
        """Mean energies (eV) and forces (eV/Angstrom), and their spread over members."""
        data = input_of(batch, self._lookup, float(str(self._state.spec["r_max"])))
        energies, forces = [], []
        for model in self._models:
            out = model(dict(data))
            energies.append(out["total_energy"].detach().reshape(-1).double().numpy())
            forces.append(out["forces"].detach().double().numpy())
        return committee_prediction(batch, np.stack(energies), np.stack(forces))


def _elements(spec: Mapping[str, object]) -> Sequence[object]:
    elements = spec["elements"]
    if not isinstance(elements, list | tuple):
        raise InputError("must be a list of element symbols", field="elements", value=elements)
    return elements
