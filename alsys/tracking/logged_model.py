"""What MLflow keeps of a bundle: the logged model, what it needs where it is served, and tags to find it by.

A logged model is code and data: `pyfunc_model.py`, the bundle, and the wheel of alsys-model that reads it. Nothing is
pickled, and what is written down as needed can be installed by pip.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from ase.data import chemical_symbols

from alsys.frames import Frame
from alsys.interop.served import COLUMNS
from alsys.plugins import POTENTIALS
from alsys.potentials.base import CommitteeState
from alsys.tracking import model_wheel
from alsys.tracking.server import Tag
from alsys.tracking.training_data import TrainingData

MODEL_NAME: Final = "committee"
_WITH: Final = {"nequip": ("nequip",), "allegro": ("nequip", "nequip-allegro"), "pair": ()}
_BASELINES: Final = {"tblite": ("tblite",)}


def log_model(run_id: str, bundle: Path, tags: Mapping[str, str], step: int, example: Frame | None) -> str:
    """Logs a bundle to a run of the server that MLflow is pointed at.

    Args:
        run_id: The run.
        bundle: Folder.
        tags: Of the model.
        step: Labels that it was trained on.
        example: A structure that it knows, as an example of the input; None for none.

    Returns:
        Identity of the logged model.
    """
    import mlflow
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory(prefix="alsys-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's, on type hints and examples: the signature is given
        wheel = model_wheel.build(Path(folder))
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=MODEL_NAME,
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"bundle": str(bundle)},
                code_paths=[str(wheel)],
                signature=_signature(),
                input_example=None if example is None else _example(example),
                pip_requirements=[f"code/{wheel.name}", *requirements(bundle)],
                tags=dict(tags),
                step=step,
            )
    return str(info.model_id)


def requirements(bundle: Path) -> list[str]:
    """What a committee needs where it is served, beside alsys-model; given, because MLflow would take half a minute.

    Versions are those of here, without a local part such as ``+cpu``, which no index has.
    """
    model = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    names = ["mlflow", "torch", "numpy", "safetensors", *_WITH.get(model["kind"], ())]
    names += _BASELINES.get((model.get("baseline") or {}).get("engine", ""), ())
    versions = {name: metadata.version(name) for name in names}
    if model["kind"] not in _WITH and (found := POTENTIALS.distribution(model["kind"])) is not None:
        versions[found[0]] = found[1]
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def tags_of(state: CommitteeState, data: TrainingData | None) -> dict[str, str]:
    """By which registries search: ``tags.`alsys.elements` LIKE '%O%'``."""
    elements = state.spec.get("elements")
    tags = {Tag.KIND: state.kind, Tag.MEMBERS: str(state.n_members)}
    if isinstance(elements, list | tuple):
        tags[Tag.ELEMENTS] = " ".join(str(e) if isinstance(e, str) else chemical_symbols[int(e)] for e in elements)
    if state.seen is not None:
        tags[Tag.CHARGES] = " ".join(str(q) for q in sorted({one.charge for one in state.seen.states}))
        tags[Tag.MULTIPLICITIES] = " ".join(str(m) for m in sorted({one.multiplicity for one in state.seen.states}))
    if data is not None:
        tags |= {Tag.SYSTEMS: ", ".join(data.systems)[:MAX_TAG], Tag.PERIODIC: data.periodic}
    return tags


MAX_TAG: Final = 5000
"""Longest text of a tag that all servers take."""


def metrics_of(card: Mapping[str, Any]) -> dict[str, float]:
    """The finite metrics of a card, by name."""
    metrics = {str(key): float(value) for key, value in sorted((card.get("metrics") or {}).items())}
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


def _example(frame: Frame) -> Any:
    import pandas as pd  # type: ignore[import-untyped]

    structure: dict[str, object] = {"numbers": frame.numbers.tolist(), "positions": frame.positions.tolist()}
    if frame.pbc.any():
        structure |= {"cell": frame.cell.tolist(), "pbc": frame.pbc.tolist()}
    structure |= {"charge": frame.charge, "multiplicity": frame.multiplicity}
    return pd.DataFrame({"structure": [json.dumps(structure)]})


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    vector = Array(DataType.double)
    types = {
        "energy": DataType.double,
        "energy_std": DataType.double,
        "forces": Array(vector),
        "force_deviation": vector,
        "deviation": DataType.double,
        "stress": Array(vector),
        "force_bound": vector,
        "is_trusted": DataType.boolean,
        "reason": DataType.string,
    }
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "structure")]),
        outputs=Schema([ColSpec(types[name], name, required=False) for name in COLUMNS]),
    )
