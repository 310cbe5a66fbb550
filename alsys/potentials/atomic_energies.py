"""Energies of atoms: the share of each atom in a committee's energy.

Networks and pair potentials write the energy as a sum over atoms (Behler and Parrinello, Phys. Rev. Lett. 98, 146401
(2007), eq. 1). The sum is the energy; how it is shared is the model's own, differs between members, and no experiment
measures it. A baseline that is added to a model has no such shares.
"""

from __future__ import annotations

import numpy as np
import torch

from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.devices import CPU, fetched
from alsys.potentials.nequip import NequIPCommittee, input_of, state_energies
from alsys.potentials.pair import PairModelSpec


class AtomicEnergies:
    """Evaluates the energies of atoms, in the mean over members, not compiled.

    Args:
        state: The committee.
        threads: Threads of torch in this process.
        device: Where networks are evaluated.

    Raises:
        InputError: It has a baseline.
    """

    def __init__(self, state: CommitteeState, threads: int = 1, device: torch.device = CPU) -> None:
        if state.baseline is not None:
            raise InputError(
                "has no energies of atoms: a baseline is added to it", field="baseline", value=dict(state.baseline)
            )
        self._state = state
        self._networks = None if state.kind == "pair" else NequIPCommittee(state, threads, device)

    def evaluate(self, batch: FrameBatch) -> FloatArray:
        """``(n_total,)`` eV; those of a frame add up to its energy.

        Raises:
            InputError: An element or a state that the model does not know.
        """
        return self._of_pairs(batch) if self._networks is None else self._of_networks(self._networks, batch)

    def _of_pairs(self, batch: FrameBatch) -> FloatArray:
        """Half of each pair's energy, and the free atom."""
        spec = PairModelSpec(self._state.spec)
        features, types = spec.features(spec.table(batch), batch.numbers.size), spec.types(batch.numbers)
        members = self._state.members
        found: FloatArray = np.mean(
            [features @ np.ravel(one["coefficients"]) + np.asarray(one["shifts"])[types] for one in members], axis=0
        )
        return found

    def _of_networks(self, networks: NequIPCommittee, batch: FrameBatch) -> FloatArray:
        """A network's own atomic energies; what a state of charge adds to a frame is shared equally."""
        data = input_of(batch, networks.lookup, float(str(self._state.spec["r_max"])), networks.device)
        total = np.zeros(batch.numbers.size)
        for k, weights in enumerate(self._state.members):
            (atomic,) = fetched([networks.atomic_energies(k, data)])
            states = state_energies(networks.lookup, batch, weights) / batch.n_atoms
            total += atomic.astype(np.float64) + np.repeat(states, batch.n_atoms)
        mean: FloatArray = total / self._state.n_members
        return mean
