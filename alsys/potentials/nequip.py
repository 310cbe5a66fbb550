"""Committees of NequIP models (S. Batzner et al., Nat. Commun. 13, 2453 (2022)).

A state's specification holds the builder arguments; energy shifts and scales are float64 buffers of each member's
state dict, so a state is complete and `load` takes all of it without rebuilding. Members share one neighbour list and
are evaluated one after another on the whole batch. NequIP scales, shifts and sums atomic energies in float64 whatever
the type of the network, so total energies of thousands of eV keep the precision of the network's few eV. Features are
the scalars of which NequIP's linear readout makes atomic energies (``node_features`` after the last layer). Threads may
build, copy and evaluate at the same time (`alsys.potentials.tracing`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from alsys.config.accelerations import Kernels
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.accelerations import accelerated, first_line
from alsys.potentials.architectures import (
    SPEC_KEYS,
    STATE_ENERGIES,
    architecture_of,
    blank_model,
    build_model,
    elements_of,
    kind_of,
    prepare,
    states_of,
)
from alsys.potentials.base import (
    CommitteePrediction,
    CommitteeState,
    FrameBatch,
    chosen_members,
    committee_prediction,
    has_volume,
)
from alsys.potentials.devices import CPU, fetched, placed
from alsys.potentials.neighbours import neighbours_of
from alsys.potentials.probe import MemberValues, first_odd, probe_of
from alsys.potentials.tracing import evaluating
from alsys.states import ElectronicState, unknown_state

logger = logging.getLogger(__name__)

__all__ = [
    "SPEC_KEYS",
    "MemberValues",
    "NequIPCommittee",
    "TypeLookup",
    "blank_model",
    "build_model",
    "elements_of",
    "input_of",
    "is_weight",
    "load_weights",
    "prepare",
    "readout_features",
    "state_energies",
    "type_lookup",
    "types_of",
    "weights_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TypeLookup:
    """Types of atoms: elements within states of charge and multiplicity.

    Attributes:
        by_number: ``(119,)`` place of each atomic number among the elements; -1 for those that the model does not know.
        n_elements: Elements that it knows.
        states: States that it tells apart; empty where it tells none apart.
    """

    by_number: NDArray[np.int64]
    n_elements: int
    states: tuple[ElectronicState, ...] = ()

    @classmethod
    def of(cls, spec: Mapping[str, object]) -> TypeLookup:
        """That of a specification."""
        return type_lookup(elements_of(spec), states_of(spec))

    def states_in(self, batch: FrameBatch) -> NDArray[np.int64] | None:
        """``(n_frames,)`` place of each frame's state among the states; None where the model tells none apart.

        Raises:
            InputError: A state that the model does not know.
        """
        if not self.states:
            return None
        n = batch.n_frames
        charge = np.zeros(n, dtype=np.int64) if batch.charge is None else batch.charge
        multiplicity = np.ones(n, dtype=np.int64) if batch.multiplicity is None else batch.multiplicity
        rows = np.full(n, -1, dtype=np.int64)
        for k, state in enumerate(self.states):
            rows[(charge == state.charge) & (multiplicity == state.multiplicity)] = k
        if n and rows.min() < 0:
            first = int(rows.argmin())
            raise unknown_state(ElectronicState(int(charge[first]), int(multiplicity[first])), self.states)
        return rows


def type_lookup(elements: Sequence[str], states: tuple[ElectronicState, ...] = ()) -> TypeLookup:
    """Types of atoms of a model with these elements and states."""
    lookup = np.full(119, -1, dtype=np.int64)
    for i, symbol in enumerate(elements):
        lookup[atomic_numbers[symbol]] = i
    return TypeLookup(lookup, len(elements), states)


def types_of(batch: FrameBatch, lookup: TypeLookup) -> NDArray[np.int64]:
    """``(n_total,)`` type of each atom.

    Raises:
        InputError: An element or a state that the model does not know.
    """
    types = lookup.by_number[batch.numbers]
    if types.min() < 0:
        known = ", ".join(chemical_symbols[z] for z in np.flatnonzero(lookup.by_number >= 0))
        unknown = " ".join(chemical_symbols[z] for z in sorted({int(z) for z in batch.numbers[types < 0]}))
        raise InputError(f"the model does not know these elements, only {known}", field="numbers", value=unknown)
    states = lookup.states_in(batch)
    return types if states is None else types + lookup.n_elements * np.repeat(states, batch.n_atoms)


def state_energies(lookup: TypeLookup, batch: FrameBatch, weights: Mapping[str, NDArray[Any]]) -> FloatArray:
    """``(n_frames,)`` energies of the frames' states, eV: what a model's own energies lack; zeros where it has none."""
    rows = lookup.states_in(batch)
    if rows is None:
        return np.zeros(batch.n_frames)
    found: FloatArray = np.asarray(weights[STATE_ENERGIES], dtype=np.float64)[rows]
    return found


def input_of(
    batch: FrameBatch, lookup: TypeLookup, r_max: float, device: torch.device = CPU
) -> dict[str, torch.Tensor]:
    """NequIP's input fields for a batch, on a device.

    Raises:
        InputError: An element or a state that the model does not know.
    """
    types = types_of(batch, lookup)
    edges = neighbours_of(batch, r_max)
    data: dict[str, NDArray[Any]] = {
        "pos": batch.positions,
        "atom_types": types,
        "edge_index": edges.edge_index,
        "batch": batch.frame_of_atom,
        "num_atoms": np.asarray(batch.n_atoms, dtype=np.int64),
    }
    if edges.cell_shift is not None:
        data |= {"edge_cell_shift": edges.cell_shift, "cell": batch.cell}
    return dict(zip(data, placed(list(data.values()), device), strict=True))


def load_weights(model: torch.nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copies a state dict of numpy arrays into a model.

    Raises:
        InputError: The weights are of another architecture.
    """
    own = model.state_dict()
    given = {name: np.array(value) for name, value in weights.items() if is_weight(name)}
    device = next(iter(own.values())).device
    tensors = dict(zip(given, placed(list(given.values()), device), strict=True))
    fixed = {name: value for name, value in own.items() if not is_weight(name)}
    for name, tensor in tensors.items():
        if name in own and torch.promote_types(own[name].dtype, tensor.dtype) != own[name].dtype:  # would be cut
            raise InputError(
                f"the weights do not fit the specification: {name} is {tensor.dtype} and not {own[name].dtype}",
                field="members",
            )
    try:
        model.load_state_dict({**tensors, **fixed})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"the weights do not fit the specification: {reason}", field="members") from error


def is_weight(name: str) -> bool:
    """False for the fixed numbers in e3nn's tensor products, which only copies of a model have in their state dict."""
    return "._tensor_constant" not in name


def weights_of(model: torch.nn.Module) -> dict[str, NDArray[np.generic]]:
    """A model's state dict as numpy arrays of its own, without what is no weight."""
    weights = {name: value for name, value in model.state_dict().items() if is_weight(name)}
    return {name: value.copy() for name, value in zip(weights, fetched(list(weights.values())), strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class MemberTensors:
    """What one member says of a batch, where it was evaluated, in its own precision.

    Attributes:
        energy: ``(n_frames,)``, eV, without those of states.
        forces: ``(n_total, 3)``, eV/Angstrom.
        features: ``(n_total, n_features)``; None where there are none, or nobody asked.
        stress: ``(n_frames, 3, 3)``, eV/Angstrom^3, whatever it is in frames that have none; None where nobody asked.
    """

    energy: torch.Tensor
    forces: torch.Tensor
    features: torch.Tensor | None
    stress: torch.Tensor | None


class NequIPCommittee:
    """Evaluates a committee of NequIP models.

    Args:
        state: Specification and weights.
        threads: Threads of torch in this process.
        device: Where models are evaluated.
        kernels: Of tensor products (`alsys.potentials.accelerations`), used with weights with which all members say
            the same on a probe as without; None for none.

    Raises:
        InputError: The specification cannot be built, or the weights do not fit it.
    """

    def __init__(
        self, state: CommitteeState, threads: int = 1, device: torch.device = CPU, kernels: Kernels | None = None
    ) -> None:
        torch.set_num_threads(threads)
        self._device = device
        self._kernels = kernels
        self._state = state
        self._models: list[torch.nn.Module] = []
        self._fast: list[torch.nn.Module] = []
        self._is_fast = False
        self.load(state)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._state.version

    @property
    def device(self) -> torch.device:
        """Where models are evaluated."""
        return self._device

    @property
    def lookup(self) -> TypeLookup:
        """Types of its atoms."""
        return self._lookup

    @property
    def is_accelerated(self) -> bool:
        """Whether kernels are used with the weights in use."""
        return self._is_fast

    def load(self, state: CommitteeState) -> None:
        """Copies new weights into the models; rebuilds them only where the specification differs.

        Raises:
            InputError: The weights do not fit the specification.
        """
        if state.n_members != len(self._models) or architecture_of(state.spec) != architecture_of(self._state.spec):
            self._models = [blank_model(state.spec).to(self._device) for _ in state.members]
            self._fast = []
            self._lookup = TypeLookup.of(state.spec)
        for model, weights in zip(self._models, state.members, strict=True):
            load_weights(model, weights)
        self._state, self._is_fast = state, False
        if self._kernels is not None:
            self._use(self._kernels)

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Mean energies (eV), forces (eV/Angstrom) and stress, their spread over members, and features.

        Args:
            batch: Frames.
            members: Which members to evaluate; None for all.

        Raises:
            InputError: An element or a state that the model does not know, or a member that is not there.
        """
        values = self.evaluate_members(batch, members)
        return committee_prediction(
            batch, values.energies, values.forces, values.features, values.mean_stress, n_members=len(self._models)
        )

    def evaluate_members(self, batch: FrameBatch, members: Sequence[int] | None = None) -> MemberValues:
        """What each member says.

        Raises:
            InputError: An element or a state that the model does not know, or a member that is not there.
        """
        chosen = chosen_members(members, len(self._models))
        data = input_of(batch, self._lookup, float(str(self._state.spec["r_max"])), self._device)
        has_stress = has_volume(batch)
        energies, forces, stresses = [], [], []
        features: FloatArray | None = None
        for k in chosen:
            out = self.member(k, data, is_stressed=bool(has_stress.any()))
            asked = {"energy": out.energy, "forces": out.forces, "stress": out.stress, "features": out.features}
            said = {name: value for name, value in asked.items() if value is not None}
            values = dict(zip(said, map(_doubles, fetched(list(said.values()))), strict=True))
            energies.append(values["energy"] + state_energies(self._lookup, batch, self._state.members[k]))
            forces.append(values["forces"])
            features = values.get("features", features)
            if has_stress.any():
                stress = values["stress"]
                stress[~has_stress] = np.nan
                stresses.append(stress)
        return MemberValues(np.stack(energies), np.stack(forces), features, np.stack(stresses) if stresses else None)

    def _use(self, kernels: Kernels) -> None:
        """Has members run on kernels where they say what they say without; kernels that cannot be made are given up."""
        spec = self._state.spec
        probe = probe_of(spec, (3, 4, 6))
        expected = self.evaluate_members(probe)
        try:
            if not self._fast:
                plain = [blank_model(spec).to(self._device) for _ in self._state.members]
                self._fast = [accelerated(model, kind_of(spec), kernels) for model in plain]
            for model, weights in zip(self._fast, self._state.members, strict=True):
                load_weights(model, weights)
            self._is_fast = True
            found = self.evaluate_members(probe)
        except Exception as error:  # whatever a compiler, its absence, a full card or another version leads to
            logger.warning("%s cannot be used, evaluating without: %s", kernels.name, first_line(error))
            self._fast, self._is_fast, self._kernels = [], False, None
            return
        if odd := first_odd(found, expected, probe, str(spec["dtype"])):
            self._is_fast = False
            text = "member %d differs by %.1e with kernels of %s, evaluating without"
            logger.warning(text, *odd, kernels.name)

    def member(self, k: int, data: Mapping[str, torch.Tensor], *, is_stressed: bool) -> MemberTensors:
        """What member `k` says of `input_of` a batch; features of the first one only.

        Args:
            k: The member.
            data: NequIP's input fields.
            is_stressed: Whether stress is wanted.
        """
        model = (self._fast if self._is_fast else self._models)[k]
        with evaluating():
            out = model(dict(data))
            features = readout_features(model.get_submodule("model.func"), out) if k == 0 else None
        stress = out["stress"].reshape(-1, 3, 3) if is_stressed else None
        return MemberTensors(out["total_energy"].reshape(-1), out["forces"], features, stress)

    def atomic_energies(self, k: int, data: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``(n_total,)`` what member `k` says of the atoms of `input_of` a batch, eV, without energies of states."""
        with evaluating():
            found: torch.Tensor = self._models[k](dict(data))["atomic_energy"]
        return found.detach().reshape(-1)


def readout_features(network: Any, output: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """``(n_total, n_features)`` what the linear end of a model's readout makes atomic energies of, without a gradient.

    NequIP has it in its output; of networks of other packages it is not known: None. Allegro's readout is a network on
    pairs: what enters its last layer is summed over the pairs of an atom, as Allegro sums energies.

    Args:
        network: The part ``model.func`` of a model.
        output: Its output fields.
    """
    if not hasattr(network, "edge_readout"):
        found = output.get("node_features")
        return None if found is None else found.detach()
    hidden = network.edge_readout.mlp_module.mlp[:-1](output["edge_features"].detach())
    fields = {name: output[name] for name in ("pos", "edge_index", "atom_types")}
    features: torch.Tensor = network.edge_eng_sum({**fields, "edge_energy": hidden})["atomic_energy"]
    return features.detach()


def _doubles(values: NDArray[Any]) -> FloatArray:
    """In float64, a copy."""
    array: FloatArray = values.astype(np.float64)
    return array
