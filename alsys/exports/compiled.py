"""Compiled files (`.nequip.pt2`) of torch's AOTInductor, as `nequip-compile` writes them.

One file holds the mean of all members and, for ASE and torch-sim, the spread: outputs beyond those that NequIP's own
calculators ask for, which these leave alone. The card is in the file's metadata. It suits the kind of processor that it
was compiled on. Compiling takes most of a minute for each member on an idle core.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from alsys.errors import EnvironmentProblem
from alsys.interop.committee_graph import ENERGY_STD, FORCES_STD
from alsys.interop.committee_models import ModelCommittee, mean_model, spread_model
from alsys.interop.compiled_models import CARD, OUTPUTS, load_compiled
from alsys.interop.nequip_export import example_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.tracing import tracing

SUFFIX: Final = ".nequip.pt2"
TARGETS: Final = {"ase-pt2": "ase", "torch-sim": "batch", "lammps-nequip": "pair_nequip"}
"""NequIP's name of what is compiled for each kind of export."""


def write_compiled(path: Path, state: CommitteeState, kind: str, card: Mapping[str, object]) -> None:
    """Compiles a committee.

    Args:
        path: File to make; ends in ``.nequip.pt2``.
        state: Networks that tell no states apart.
        kind: One of `TARGETS`.
        card: Goes along.

    Raises:
        EnvironmentProblem: torch cannot compile it here.
    """
    from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
    from nequip.utils.aot import aot_export_model
    from nequip.utils.aoti_metadata import NEQUIP_AOTI_INPUTS_KEY, NEQUIP_AOTI_OUTPUTS_KEY, serialize_aoti_keys
    from nequip.utils.global_state import get_latest_global_state

    target: dict[str, Any] = COMPILE_TARGET_DICT[TARGETS[kind]]
    has_spread = kind != "lammps-nequip" and state.n_members > 1
    model: Any = spread_model(state) if has_spread else mean_model(state)
    outputs = [*target["output"], *([FORCES_STD, ENERGY_STD] if has_spread else [])]
    given = {**model.metadata, **get_latest_global_state(only_metadata_related=True)}
    metadata = {name: str(int(value)) if isinstance(value, bool) else str(value) for name, value in given.items()}
    metadata |= {
        NEQUIP_AOTI_INPUTS_KEY: serialize_aoti_keys(target["input"]),
        NEQUIP_AOTI_OUTPUTS_KEY: serialize_aoti_keys(target["output"]),
        OUTPUTS: serialize_aoti_keys(outputs),
        CARD: json.dumps(card),
    }
    sizes = {name: torch.export.Dim(f"num_{name}s", min=2) for name in ("frame", "node", "edge")}
    sizes = target["batch_map_settings"]({"graph": sizes["frame"], "node": sizes["node"], "edge": sizes["edge"]})
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)  # it warns of what it is slower without
    with (
        tracing(),
        warnings.catch_warnings(),
        torch._inductor.config.patch({"compile_threads": 1}),
    ):
        warnings.simplefilter("ignore")  # torch's and NequIP's, about their own code
        try:
            aot_export_model(
                model=model,
                device="cpu",
                input_fields=target["input"],
                output_fields=outputs,
                data=target["data_settings"](dict(example_of(state))),
                batch_map=sizes,
                output_path=str(path),
                inductor_configs={"aot_inductor.metadata": metadata},
            )
        except Exception as error:  # whatever a compiler, its absence or a full disk leads to
            message = (str(error).splitlines() or [""])[0][:200]
            raise EnvironmentProblem(
                f"torch cannot compile this model here: {type(error).__name__}: {message}"
            ) from error


def read_compiled(path: Path, state: CommitteeState, kind: str) -> ModelCommittee:
    """A compiled file as a committee, to compare it."""
    model, _, _ = load_compiled(path)
    return ModelCommittee(model, state, is_batched=TARGETS[kind] == "batch")
