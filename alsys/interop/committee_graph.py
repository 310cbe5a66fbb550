"""A committee as one NequIP model: the mean of its members' energies, with forces from it, and the spread on request.

NequIP's packager copies this file into packages, where it runs without alsys: it imports torch and NequIP only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from nequip.data import AtomicDataDict
from nequip.nn import ForceStressOutput, GraphModuleMixin

FORCES_STD: Final = "forces_std"
"""Output field: ``(n_total,)`` sqrt(<|F_k - <F>|^2>) over members k, eV/Angstrom."""
ENERGY_STD: Final = "energy_std"
"""Output field: ``(n_frames,)`` standard deviation of the energy over members, eV."""

_ENERGIES = (AtomicDataDict.PER_ATOM_ENERGY_KEY, AtomicDataDict.TOTAL_ENERGY_KEY)
_MEANS = (*_ENERGIES, AtomicDataDict.FORCE_KEY, AtomicDataDict.VIRIAL_KEY, AtomicDataDict.STRESS_KEY)


class MeanEnergy(GraphModuleMixin, torch.nn.Module):  # type: ignore[misc]
    """Mean over members of the energies of atoms and frames.

    Args:
        networks: Members, from NequIP's fields to energies; all for the same types of atoms.
    """

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)
        first: Any = networks[0]
        out = {name: first.irreps_out[name] for name in _ENERGIES}
        GraphModuleMixin._init_irreps(self, irreps_in=first.irreps_in, irreps_out=out)

    def forward(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds ``atomic_energy`` ``(n_total, 1)`` and ``total_energy`` ``(n_frames, 1)``, eV, to NequIP's fields."""
        networks: Any = self.networks
        said = [network(data.copy()) for network in networks]
        means = {name: torch.stack([one[name] for one in said]).mean(dim=0) for name in _ENERGIES}
        return {**data, **means}


class CommitteeOutput(GraphModuleMixin, torch.nn.Module):  # type: ignore[misc]
    """Mean energies, forces, virials and stresses of members, and their spread; each member is differentiated alone.

    Args:
        networks: As of `MeanEnergy`.
    """

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList([ForceStressOutput(func=network) for network in networks])
        first: Any = self.members[0]
        added = {FORCES_STD: None, ENERGY_STD: None}
        out = {**first.irreps_out, **added}
        GraphModuleMixin._init_irreps(self, irreps_in=first.irreps_in, irreps_out=out)

    def forward(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds NequIP's outputs, the means, and `FORCES_STD` and `ENERGY_STD` to its fields."""
        members: Any = self.members
        said = [member(data.copy()) for member in members]
        out = {**data, **{name: torch.stack([one[name] for one in said]).mean(dim=0) for name in _MEANS}}
        away = torch.stack([one[AtomicDataDict.FORCE_KEY] for one in said]) - out[AtomicDataDict.FORCE_KEY]
        out[FORCES_STD] = away.square().sum(dim=2).mean(dim=0).sqrt()
        energies = torch.stack([one[AtomicDataDict.TOTAL_ENERGY_KEY] for one in said])
        out[ENERGY_STD] = (energies - energies.mean(dim=0)).square().mean(dim=0).sqrt().reshape(-1)
        return out
