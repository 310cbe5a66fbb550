"""torch-sim's models: a file that was exported ``--to torch-sim``, with the spread of its committee.

Imports torch_sim; `pip install torch-sim-atomistic`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nequip.data._nl import NEIGHBORLIST_BACKEND_MATSCIPY
from nequip.integrations.torchsim import NequIPTorchSimCalc

from alsys.interop.committee_graph import ENERGY_STD, FORCES_STD
from alsys.interop.compiled_models import bound_in, bound_tensor, load_compiled, transforms_of, trusted_tensor
from alsys.potentials.force_bound import ForceBound


class CommitteeModel(NequIPTorchSimCalc):  # type: ignore[misc]
    """A torch-sim ``ModelInterface`` of a committee's mean, with its spread.

    Outputs beside ``energy``, ``forces`` and ``stress`` (eV, eV/Angstrom, eV/Angstrom^3): ``energy_std``
    ``(n_systems,)``, ``forces_std`` ``(n_atoms,)``, and where errors were measured ``force_bound`` ``(n_atoms,)`` and
    ``is_trusted`` ``(n_systems,)``, as of `alsys.interop.compiled_models.CompiledCalculator`.

    Args:
        bound: Of the model; None for none.
        card: Of the file.
        kwargs: NequIP's.
    """

    def __init__(self, *args: Any, bound: ForceBound | None = None, card: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.bound = bound
        self.card = card or {}

    def save_extra_outputs(self, out: dict[str, torch.Tensor], results: dict[str, torch.Tensor]) -> None:
        """Puts the spread and the bound beside energies and forces."""
        if FORCES_STD not in out:
            return
        deviation = out[FORCES_STD].detach()
        results["forces_std"], results["energy_std"] = deviation, out[ENERGY_STD].detach().reshape(-1)
        if self.bound is not None:
            n = results["energy"].shape[0]
            results["force_bound"] = bound_tensor(self.bound, deviation)
            results["is_trusted"] = trusted_tensor(self.bound, deviation, self.system_idx, n)


def load_model(path: str | Path) -> CommitteeModel:
    """The model in a file that was exported ``--to torch-sim``.

    Args:
        path: Ends in ``.nequip.pt2``.

    Raises:
        InputError: It is no such file.
    """
    from nequip.scripts._compile_utils import BATCH_TARGET

    model, metadata, card = load_compiled(Path(path), BATCH_TARGET["output"])
    steps = transforms_of(metadata, NEIGHBORLIST_BACKEND_MATSCIPY)
    return CommitteeModel(model=model, device="cpu", transforms=steps, bound=bound_in(card), card=card)
