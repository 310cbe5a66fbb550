"""A committee as a service: a table of structures in, a row of plain values for each, for whoever sends JSON.

A structure that cannot be read, or that the model cannot treat, fails alone: its row has the reason and nothing else.
What is not there is None, never NaN, which is no JSON.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.dynamics.surroundings import Surroundings
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.interop.account import FileAccount
from alsys.interop.keys import select
from alsys.interop.stated_electrons import check_possible, stated_electrons
from alsys.interop.trust import Trust, bound_of, check_apart
from alsys.outside.contents import read_json
from alsys.potentials.base import Committee, CommitteePrediction, FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee
from alsys.states import NEUTRAL_SINGLET, ElectronicState, SeenStates

COLUMNS: Final = (
    "energy", "energy_std", "forces", "force_deviation", "deviation", "stress", "force_bound", "is_trusted", "reason",
)  # fmt: skip
"""Of a row; ``reason`` is None where there is an answer."""
STRUCTURE: Final = ("numbers", "positions", "cell", "pbc")


class ServedModel:
    """A committee that answers structure by structure.

    Args:
        committee: The model.
        seen: States that it has learned; None where nobody has recorded them.
        trust: What is known of its errors.
    """

    def __init__(self, committee: Committee, seen: SeenStates | None = None, trust: Trust | None = None) -> None:
        self._committee, self._seen, self._trust = committee, seen, trust or Trust()

    @classmethod
    def of(cls, bundle: Path) -> ServedModel:
        """From a bundle folder.

        Raises:
            InputError: It is damaged.
        """
        state = read_bundle(bundle)
        bound = bound_of(state, read_json(bundle / "card.json"))
        return cls(build_committee(state), state.seen, Trust(bound, state.surroundings or frozenset()))

    def rows(self, structures: Sequence[Any]) -> list[dict[str, Any]]:
        """One row for each structure, in order.

        Args:
            structures: JSON objects, as text or as mappings, with ``numbers`` (atomic numbers), ``positions``
                (Angstrom) and, optionally, ``cell`` (row vectors, Angstrom), ``pbc``, charge and multiplicity under
                the names that an import knows.

        Returns:
            `COLUMNS`: ``energy`` and ``energy_std`` (eV), ``forces`` (eV/Angstrom), ``force_deviation`` of each atom
            and its maximum ``deviation`` (eV/Angstrom), ``stress`` (3 x 3, eV/Angstrom^3, tension positive) of
            periodic frames, ``force_bound`` of each atom (eV/Angstrom) and ``is_trusted`` where errors were measured.
        """
        rows: list[dict[str, Any]] = [dict.fromkeys(COLUMNS) for _ in structures]
        frames: dict[int, Frame] = {}
        for i, structure in enumerate(structures):
            try:
                frames[i] = self._frame(structure)
                check_apart(Surroundings.of(frames[i]))
            except InputError as error:
                frames.pop(i, None)
                rows[i]["reason"] = str(error.located(source=f"structure[{i}]"))
        for i, row in self._answers(frames).items():
            rows[i] |= row
        return rows

    def _answers(self, frames: Mapping[int, Frame]) -> dict[int, dict[str, Any]]:
        """Evaluated together; one by one where one of them is refused."""
        if not frames:
            return {}
        batch = FrameBatch.of(list(frames.values()))
        try:
            prediction = self._committee.evaluate(batch)
        except InputError as error:
            if len(frames) > 1:
                return {i: row for i, frame in frames.items() for row in self._answers({i: frame}).values()}
            (i,) = frames
            return {i: {"reason": str(error.located(source=f"structure[{i}]"))}}
        bounds = np.concatenate([[0], np.cumsum(batch.n_atoms)]).tolist()
        return {
            i: self._row(frame, prediction, k, slice(bounds[k], bounds[k + 1]))
            for k, (i, frame) in enumerate(frames.items())
        }

    def _row(self, frame: Frame, prediction: CommitteePrediction, k: int, atoms: slice) -> dict[str, Any]:
        if prediction.is_failed is not None and prediction.is_failed[k]:
            return {"reason": "the baseline of the model failed on this structure: no energy, no forces"}
        if not np.isfinite(prediction.energy[k]):
            return {"reason": "the model gives no number for this structure"}
        judged, _ = self._trust.judge(Surroundings.of(frame), prediction.force_deviation[atoms])
        return {
            "energy": _plain(prediction.energy[k]),
            "energy_std": _plain(prediction.energy_std[k]),
            "forces": _plain(prediction.forces[atoms]),
            "force_deviation": _plain(prediction.force_deviation[atoms]),
            "deviation": _plain(prediction.frame_deviation[k]),
            "stress": None if prediction.stress is None else _plain(prediction.stress[k]),
            **{name: value if isinstance(value, bool) else _plain(value) for name, value in judged.items()},
        }

    def _frame(self, structure: Any) -> Frame:
        """A structure that the model may treat.

        Raises:
            InputError: It cannot be read, or its charge or multiplicity is none that the model has learned.
        """
        try:
            content = json.loads(structure) if isinstance(structure, str | bytes) else structure
            numbers = np.asarray(content["numbers"], dtype=np.int32)
            facts = {str(name): value for name, value in content.items() if name not in STRUCTURE}
            charge, multiplicity = stated_electrons(
                select(tuple(facts), ()), facts, numbers, FileAccount(), "structure"
            )
            state = ElectronicState(charge or 0, 1 if multiplicity is None else multiplicity)
            if self._seen is not None:
                state = self._seen.complete(numbers, charge, multiplicity)
                self._seen.check(numbers, state)
            pbc = np.asarray(content.get("pbc") or [False] * 3, dtype=np.bool_)
            check_possible(numbers, state, self._seen, "structure", is_periodic=bool(pbc.any()))
            if self._seen is None and state != NEUTRAL_SINGLET:
                warnings.warn(f"{state}: nobody has recorded what this model has learned", stacklevel=2)
            return Frame(
                numbers=numbers,
                positions=np.asarray(content["positions"], dtype=np.float64),
                cell=np.asarray(content.get("cell") or np.zeros((3, 3)), dtype=np.float64),
                pbc=pbc,
                charge=state.charge,
                multiplicity=state.multiplicity,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            remedy = 'give {"numbers": [...], "positions": [[x, y, z], ...]}'
            raise InputError(f"not a structure: {error}", remedy=remedy) from error


def _plain(values: NDArray[Any]) -> Any:
    """Lists, or a number; None where it is not finite."""
    array = np.asarray(values, dtype=np.float64)
    return array.tolist() if np.isfinite(array).all() else None
