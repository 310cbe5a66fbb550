"""The model that MLflow serves: a bundle as an artifact, this file as code. Nothing is pickled.

Input: a table with columns ``numbers`` and ``positions`` (Angstrom), and optionally ``cell`` and ``pbc``, lists or JSON
text, one row for each structure. Output: ``energy`` (eV), ``forces`` (eV/Angstrom), ``energy_std`` and
``max_force_deviation`` for each row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from alsys.frames import Frame
from alsys.potentials.base import FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee


class CommitteeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Evaluates a committee on a table of structures."""

    def load_context(self, context: Any) -> None:
        """Reads the bundle."""
        self._committee = build_committee(read_bundle(Path(context.artifacts["bundle"])))

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """One record for each row."""
        rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        return [self._record(row) for row in rows]

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        values = {key: json.loads(value) if isinstance(value, str) else value for key, value in row.items()}
        frame = Frame(
            numbers=np.asarray(values["numbers"], dtype=np.int32),
            positions=np.asarray([list(p) for p in values["positions"]], dtype=np.float64),
            cell=np.asarray(values.get("cell", np.zeros((3, 3))), dtype=np.float64),
            pbc=np.asarray(values.get("pbc", [False] * 3), dtype=np.bool_),
        )
        prediction = self._committee.evaluate(FrameBatch.of([frame]))
        return {
            "energy": float(prediction.energy[0]),
            "forces": prediction.forces.tolist(),
            "energy_std": float(prediction.energy_std[0]),
            "max_force_deviation": float(prediction.frame_deviation[0]),
        }


mlflow.models.set_model(CommitteeModel())
