"""A committee as an MLflow pyfunc model, logged as code: this file and the bundle, nothing pickled.

MLflow runs this file where the model is loaded, so it imports nothing heavy before `load_context`. Input: a column
`structure` of JSON objects with `numbers` (atomic numbers), `positions` (Angstrom) and, optionally, `cell` (row
vectors, Angstrom), `pbc`, `charge` and `multiplicity` (or what else an import knows them by). Where these two are not
given, they are those of the only state which the model has learned of this composition or at all, or else of neutral
singlets; a state that it has not learned is refused. Output, a row each: `energy` and `energy_std` (eV), `forces`
(eV/Angstrom), `force_deviation` of each atom and its maximum `deviation` (eV/Angstrom); energy and forces are NaN where
the model's baseline failed.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.models
import mlflow.pyfunc
import numpy as np

if TYPE_CHECKING:
    from alsys.frames import Frame
    from alsys.states import SeenStates


class CommitteeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Mean and spread of a committee for a table of structures."""

    def load_context(self, context: Any) -> None:
        """Builds the committee from the bundle among the artifacts."""
        from alsys.potentials.bundle import read_bundle
        from alsys.potentials.factory import build_committee

        state = read_bundle(Path(context.artifacts["bundle"]))
        self._committee, self._seen = build_committee(state), state.seen

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow checks data by hints
        """One row for each structure of the column `structure`.

        Raises:
            InputError: A structure that cannot be read, or an element, charge or multiplicity that the model does not
                know.
        """
        import pandas as pd  # type: ignore[import-untyped]

        from alsys.potentials.base import FrameBatch

        structures: list[Any] = []
        for cell in model_input["structure"]:  # a dictionary of lists arrives as one row that holds the list
            structures += cell if isinstance(cell, list | tuple | np.ndarray) else [cell]
        frames = [_frame(structure, row, self._seen) for row, structure in enumerate(structures)]
        if not frames:
            return pd.DataFrame(columns=["energy", "energy_std", "forces", "force_deviation", "deviation"])
        batch = FrameBatch.of(frames)
        prediction = self._committee.evaluate(batch)
        splits = np.cumsum(batch.n_atoms)[:-1]
        return pd.DataFrame(
            {
                "energy": prediction.energy,
                "energy_std": prediction.energy_std,
                "forces": [part.tolist() for part in np.split(prediction.forces, splits)],
                "force_deviation": [part.tolist() for part in np.split(prediction.force_deviation, splits)],
                "deviation": prediction.frame_deviation,
            }
        )


_STRUCTURE = ("numbers", "positions", "cell", "pbc")


def _frame(structure: Any, row: int, seen: SeenStates | None) -> Frame:
    from alsys.errors import InputError
    from alsys.frames import Frame
    from alsys.interop.account import FileAccount
    from alsys.interop.keys import select
    from alsys.interop.stated_electrons import check_possible, stated_electrons
    from alsys.states import NEUTRAL_SINGLET, ElectronicState

    try:
        content = json.loads(structure) if isinstance(structure, str | bytes) else structure
        numbers = np.asarray(content["numbers"], dtype=np.int32)
        facts = {str(name): value for name, value in content.items() if name not in _STRUCTURE}
        charge, multiplicity = stated_electrons(select(tuple(facts), ()), facts, numbers, FileAccount(), "structure")
        state = ElectronicState(charge or 0, 1 if multiplicity is None else multiplicity)
        if seen is not None:
            state = seen.complete(numbers, charge, multiplicity)
            seen.check(numbers, state)
        elif state != NEUTRAL_SINGLET:
            warnings.warn(f"structure[{row}]: {state}: nobody has recorded what this model has learned", stacklevel=2)
        pbc = np.asarray(content.get("pbc") or [False] * 3, dtype=np.bool_)
        check_possible(numbers, state, seen, "structure", is_periodic=bool(pbc.any()))
        return Frame(
            numbers=numbers,
            positions=np.asarray(content["positions"], dtype=np.float64),
            cell=np.asarray(content.get("cell") or np.zeros((3, 3)), dtype=np.float64),
            pbc=pbc,
            charge=state.charge,
            multiplicity=state.multiplicity,
        )
    except InputError as error:
        raise error.located(source=f"structure[{row}]") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = 'give {"numbers": [...], "positions": [[x, y, z], ...]}'
        raise InputError(f"not a structure: {error}", field=f"structure[{row}]", remedy=remedy) from error


mlflow.models.set_model(CommitteeModel())
