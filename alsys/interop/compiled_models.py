"""Compiled exports in Python: ASE's calculator and the card that is in the file.

`alsys models export CAMPAIGN m.nequip.pt2 --to ase-pt2` writes the file. It is machine code: whoever loads one executes
it. NequIP's own calculators read it too, without the spread.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from nequip.integrations.ase import NequIPCalculator

from alsys.errors import InputError
from alsys.interop.committee_graph import ENERGY_STD, FORCES_STD
from alsys.metrics import Metrics
from alsys.potentials.force_bound import ForceBound

CARD: Final = "alsys_card"
OUTPUTS: Final = "alsys_outputs"
"""Entries of a compiled file's metadata."""


class CompiledCalculator(NequIPCalculator):  # type: ignore[misc]
    """NequIP's calculator, with the spread of a committee and the bound on errors that goes with it.

    Results beside NequIP's (eV, eV/Angstrom): ``energy_std``, ``forces_std`` ``(n_atoms,)``, ``max_force_deviation``,
    and where errors were measured ``force_bound`` ``(n_atoms,)`` and ``is_trusted``: no atom deviates more than those
    that the bound was fitted to. Bonds are not looked at, as `alsys.load_calculator` does.

    Args:
        bound: Of the model; None for none.
        card: Of the file.
        kwargs: NequIP's.
    """

    implemented_properties: ClassVar[list[str]] = [
        *NequIPCalculator.implemented_properties,
        "energy_std",
        "forces_std",
        "max_force_deviation",
        "force_bound",
        "is_trusted",
    ]

    def __init__(self, *args: Any, bound: ForceBound | None = None, card: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.bound = bound
        self.card = card or {}

    def save_extra_outputs(self, out: dict[str, torch.Tensor]) -> None:
        """Puts the spread and the bound into the results."""
        if FORCES_STD not in out:
            return
        deviation = out[FORCES_STD].detach().double().cpu().numpy()
        self.results |= {
            "forces_std": deviation,
            "energy_std": float(out[ENERGY_STD][0]),
            "max_force_deviation": float(deviation.max()),
        }
        if self.bound is not None:
            self.results |= {
                "force_bound": self.bound.band.error(deviation),
                "is_trusted": self.bound.trusts(deviation),
            }


def load_ase_calculator(path: str | Path) -> CompiledCalculator:
    """ASE's calculator of a file that was exported ``--to ase-pt2``.

    Args:
        path: Ends in ``.nequip.pt2``.

    Raises:
        InputError: It is no such file.
    """
    from nequip.scripts._compile_utils import ASE_TARGET

    model, metadata, card = load_compiled(Path(path), ASE_TARGET["output"])
    return CompiledCalculator(
        model=model, device="cpu", transforms=transforms_of(metadata), bound=bound_in(card), card=card
    )


def load_compiled(
    path: Path, expected: list[str] | None = None
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]:
    """A compiled file: the model with all of its outputs, NequIP's metadata, and the card.

    Args:
        path: The file.
        expected: Outputs that NequIP's integration asks for; None for whatever there are.

    Raises:
        InputError: It is no such file, or of another kind.
    """
    from nequip.model.inference_models import load_compiled_model

    if not path.is_file() or not path.name.endswith(".nequip.pt2"):
        raise InputError("is no file that ends in .nequip.pt2", source=str(path), remedy="see `alsys models export`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, metadata = load_compiled_model(str(path), "cpu", None, expected)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"cannot be loaded for this: {reason}", source=str(path), remedy="export it again") from error
    if OUTPUTS in metadata:
        model.output_keys = metadata[OUTPUTS].split()
    card = json.loads(metadata[CARD]) if CARD in metadata else {}
    return model, metadata, card


def transforms_of(metadata: dict[str, Any], backend: str | None = None) -> list[Any]:
    """NequIP's steps from atoms to its fields: types and neighbours.

    Args:
        metadata: Of a compiled file.
        backend: NequIP's name of what finds neighbours; None for its default.
    """
    from nequip.data._nl import DEFAULT_NEIGHBORLIST_BACKEND
    from nequip.integrations.utils import basic_transforms

    names = metadata["type_names"]
    same = {name: name for name in names}
    chosen = backend or DEFAULT_NEIGHBORLIST_BACKEND
    steps: list[Any] = basic_transforms(metadata, metadata["r_max"], names, same, neighborlist_backend=chosen)
    return steps


def bound_in(card: dict[str, Any]) -> ForceBound | None:
    """The bound on errors in a card; None where there is none."""
    return ForceBound.of(Metrics.read(card.get("metrics", {})))


def bound_tensor(bound: ForceBound, deviation: torch.Tensor) -> torch.Tensor:
    """``(n_total,)`` bounds on force errors, eV/Angstrom, of such deviations."""
    return torch.as_tensor(bound.band.error(deviation.detach().double().cpu().numpy()), device=deviation.device)


def trusted_tensor(bound: ForceBound, deviation: torch.Tensor, system_idx: torch.Tensor, n: int) -> torch.Tensor:
    """``(n,)`` whether no atom of a system deviates more than those that the bound was fitted to."""
    values, systems = deviation.detach().double().cpu().numpy(), system_idx.cpu().numpy()
    is_within = np.isfinite(values) & (values <= bound.largest_deviation)
    trusted = np.ones(n, dtype=bool)
    np.logical_and.at(trusted, systems, is_within)
    return torch.as_tensor(trusted, device=deviation.device)
