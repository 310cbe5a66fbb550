"""Committees of networks that take walkers on a device, and say there what they say.

A batch of numpy is evaluated as ever. Of one whose positions are tensors (`alsys.potentials.base.FrameBatch`), means,
spreads and features stay where they are, and nothing is copied but what `alsys.potentials.device_graph` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alsys.potentials.arrays import Array
from alsys.potentials.base import (
    CommitteePrediction,
    CommitteeState,
    FrameBatch,
    chosen_members,
    committee_prediction,
)
from alsys.potentials.compiled import CompiledNequIPCommittee
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.device_graph import DeviceGraph
from alsys.potentials.nequip import MemberTensors, NequIPCommittee, TypeLookup, state_energies


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """What members are given: pairs for packages, or NequIP's fields."""

    pairs: list[torch.Tensor] | None
    fields: dict[str, torch.Tensor]


class DeviceCommittee:
    """A committee of NequIP or Allegro, eager or compiled, for walkers on its device.

    Args:
        committee: It has loaded the state.
        state: Specification and weights.
        arrays: Where members are.

    Attributes:
        arrays: Where walkers under it are moved.
    """

    def __init__(
        self, committee: NequIPCommittee | CompiledNequIPCommittee, state: CommitteeState, arrays: DeviceArrays
    ) -> None:
        self._committee, self.arrays = committee, arrays
        self._state_energies: list[Array] = []
        self._take(state)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._committee.version

    def load(self, state: CommitteeState) -> None:
        """Takes new weights.

        Raises:
            InputError: They do not fit the specification.
        """
        self._committee.load(state)
        self._take(state)

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Mean energies (eV), forces (eV/Angstrom) and stress, their spread over members, and features.

        Args:
            batch: Frames; with positions and cells on the device, what is said is there too.
            members: Which members to evaluate; None for all.

        Raises:
            InputError: An element or a state that the model does not know, or a member that is not there.
        """
        if isinstance(batch.positions, np.ndarray):
            return self._committee.evaluate(batch, members)
        n_members = self._state.n_members
        chosen = chosen_members(members, n_members)
        graph = self._graph_of(batch)
        inputs, is_stressed = self._inputs(batch), bool(graph.has_stress.any())
        energies, forces, stresses = [], [], []
        features: torch.Tensor | None = None
        for k in chosen:
            said = self._member(k, inputs, batch, is_stressed)
            energies.append(_value(said.energy[: batch.n_frames]) + self._state_energies[k])
            forces.append(_value(said.forces))
            features = features if said.features is None else _value(said.features)
            if said.stress is not None:
                stress = _value(said.stress)
                stresses.append(torch.where(graph.is_stressed[:, None, None], stress, torch.nan))
        return committee_prediction(
            batch,
            torch.stack(energies),
            torch.stack(forces),
            features,
            torch.stack(stresses).mean(dim=0) if stresses else None,
            n_members=n_members,
            arrays=self.arrays,
            atoms=graph.atoms,
        )

    def _take(self, state: CommitteeState) -> None:
        self._state, self._lookup = state, TypeLookup.of(state.spec)
        self._graph = DeviceGraph(self._lookup, float(str(state.spec["r_max"])), self.arrays)

    def _graph_of(self, batch: FrameBatch) -> DeviceGraph:
        if self._graph.see(batch):
            self._state_energies = self.arrays.of(
                [state_energies(self._lookup, batch, weights) for weights in self._state.members]
            )
        return self._graph

    def _inputs(self, batch: FrameBatch) -> _Inputs:
        if isinstance(self._committee, CompiledNequIPCommittee) and self._committee.is_compiled:
            return _Inputs(self._graph.compiled_inputs(batch), {})
        return _Inputs(None, self._graph.eager_inputs(batch))

    def _member(self, k: int, inputs: _Inputs, batch: FrameBatch, is_stressed: bool) -> MemberTensors:
        committee = self._committee
        if inputs.pairs is not None:
            assert isinstance(committee, CompiledNequIPCommittee)
            return committee.member(k, inputs.pairs, batch.cell if is_stressed else None, batch.numbers.size)
        eager = committee.eager if isinstance(committee, CompiledNequIPCommittee) else committee
        return eager.member(k, inputs.fields, is_stressed=is_stressed)


def _value(tensor: torch.Tensor) -> torch.Tensor:
    """In double precision, without what it was made from."""
    return tensor.detach().double()
