"""A committee as an MLflow pyfunc model, logged as code: this file and the bundle, nothing pickled.

MLflow runs this file where the model is loaded, so it imports nothing heavy before `load_context`. Input: a column
`structure` of JSON objects; output, a row each: `alsys.interop.served.ServedModel.rows`. A structure that cannot be
answered fails alone, with its `reason`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np
import pandas as pd  # type: ignore[import-untyped]


class CommitteeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Mean and spread of a committee for a table of structures."""

    def load_context(self, context: Any) -> None:
        """Builds the committee from the bundle among the artifacts."""
        from alsys.interop.served import ServedModel

        self._model = ServedModel.of(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row for each structure of the column `structure`."""
        from alsys.interop.served import COLUMNS

        structures: list[Any] = []
        for cell in model_input["structure"]:  # a dictionary of lists arrives as one row that holds the list
            structures += cell if isinstance(cell, list | tuple | np.ndarray) else [cell]
        table = pd.DataFrame(self._model.rows(structures), columns=list(COLUMNS), dtype=object)
        whole = [name for name in COLUMNS if len(table) and table[name].notna().all()]
        return table.assign(**{name: table[name].infer_objects() for name in whole})  # with None, numbers become NaN


mlflow.models.set_model(CommitteeModel())
