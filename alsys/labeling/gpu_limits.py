"""What gpu4pyscf (1.9) does not have of what PySCF has: such labels are made on the CPU."""

from __future__ import annotations

from typing import Any

from alsys.config.labeling import PySCFLabeling
from alsys.errors import InputError

SOLVENT_MODELS = ("ddcosmo",)
"""Solvent models that it lacks."""
MAX_MOMENTUM = 4
"""Highest angular momentum of orbitals (`gpu4pyscf.scf.jk.LMAX`): g."""
MAX_FITTING_MOMENTUM = 6
"""Of a fitting basis (`gpu4pyscf.df.int3c2e_bdiv.L_AUX_MAX`): i."""


def check_gpu(molecule: Any, config: PySCFLabeling) -> None:
    """Refuses what gpu4pyscf cannot compute.

    Args:
        molecule: PySCF's.
        config: The level of theory.

    Raises:
        InputError: With the field that asks for it.
    """
    if config.solvent_model in SOLVENT_MODELS:
        raise _missing("solvent_model", config.solvent_model, "cpcm")
    if _highest(molecule) > MAX_MOMENTUM:
        raise _missing("basis", config.basis, "a basis without h functions")
    if config.density_fit:
        from pyscf.df.addons import make_auxmol

        if _highest(make_auxmol(molecule, config.auxbasis)) > MAX_FITTING_MOMENTUM:
            raise _missing("auxbasis", config.auxbasis, "one without k functions, for example def2-universal-jkfit")


def _missing(name: str, value: object, instead: str) -> InputError:
    return InputError(
        "gpu4pyscf does not have it", field=f"labeling.{name}", value=value,
        remedy=f"set device: auto, which takes the CPU, or {instead}",
    )  # fmt: skip


def _highest(molecule: Any) -> int:
    return max(int(molecule.bas_angular(shell)) for shell in range(molecule.nbas))
