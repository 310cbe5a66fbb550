"""ONNX files: the graph of a committee with its derivatives in it, for ONNX Runtime.

Forces are made by automatic differentiation when the graph is traced, so that what is written has none left. Stress
needs a determinant, which ONNX Runtime lacks in float64: the file has the virial, which whoever evaluates it divides by
the volume.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from alsys.errors import EnvironmentProblem, InputError
from alsys.interop.committee_graph import ENERGY_STD, FORCES_STD
from alsys.interop.committee_models import Fields, ModelCommittee, mean_model, spread_model
from alsys.interop.compiled_models import CARD
from alsys.interop.nequip_export import example_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.tracing import tracing

SUFFIX: Final = ".onnx"
PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")
OUTPUTS: Final = ("atomic_energy", "total_energy", "forces", "virial")
OPSET: Final = 18


def check_installed() -> None:
    """Refuses where a package is missing.

    Raises:
        InputError: One is.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"needs packages that are not installed here: {', '.join(missing)}", field="--to", value="onnx",
            remedy=f"pip install {' '.join(PACKAGES)}",
        )  # fmt: skip


def write_onnx(path: Path, state: CommitteeState, card: Mapping[str, object]) -> None:
    """Writes the file.

    Args:
        path: File to make; ends in ``.onnx``.
        state: Networks that tell no states apart.
        card: Goes into its metadata.

    Raises:
        EnvironmentProblem: torch cannot translate the model.
    """
    from nequip.data._key_registry import get_dynamic_shapes
    from nequip.nn.compile import ListInputOutputWrapper
    from nequip.scripts._compile_utils import ASE_TARGET
    from nequip.utils.compile import prepare_model_for_compile
    from nequip.utils.fx import nequip_make_fx

    has_spread = state.n_members > 1
    outputs = [*OUTPUTS, *([FORCES_STD, ENERGY_STD] if has_spread else [])]
    inputs: list[str] = ASE_TARGET["input"]
    model = spread_model(state) if has_spread else mean_model(state)
    data: dict[str, torch.Tensor] = ASE_TARGET["data_settings"](dict(example_of(state)))
    sizes: dict[str, Any] = {name: torch.export.Dim(f"num_{name}s", min=2) for name in ("node", "edge")}
    sizes = ASE_TARGET["batch_map_settings"]({"graph": None, **sizes})
    with tracing(), _quiet():
        try:
            prepared = prepare_model_for_compile(ListInputOutputWrapper(model, inputs, outputs), "cpu")
            graph = nequip_make_fx(model=prepared, data={name: data[name] for name in inputs}, fields=inputs)
            arguments = tuple(data[name] for name in inputs)
            exported = torch.export.export(graph, arguments, dynamic_shapes=get_dynamic_shapes(inputs, sizes))
            program: Any = torch.onnx.export(
                exported, arguments, dynamo=True, input_names=inputs, output_names=outputs, opset_version=OPSET,
                verbose=False,
            )  # fmt: skip
            program.model.metadata_props[CARD] = json.dumps(card)
            program.save(str(path))
        except Exception as error:  # whatever a translator leads to
            message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            raise EnvironmentProblem(f"torch cannot write this model as ONNX: {message}") from error


def read_onnx(path: Path, state: CommitteeState) -> ModelCommittee:
    """An ONNX file as a committee, through ONNX Runtime, to compare it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [one.name for one in session.get_inputs()]
    outputs = [one.name for one in session.get_outputs()]

    def call(fields: Fields) -> Fields:
        values = session.run(None, {name: fields[name].numpy() for name in inputs})
        said = {name: torch.as_tensor(value) for name, value in zip(outputs, values, strict=True)}
        volume = torch.linalg.det(fields["cell"].reshape(3, 3)).abs()
        return {**said, "stress": -said.pop("virial").reshape(1, 3, 3) / volume}

    return ModelCommittee(call, state)


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what torch says of its own exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
