"""A committee as a service: rows of plain values, and structures that fail alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.frames import Frame
from alsys.interop.served import COLUMNS, ServedModel
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.bundle import write_bundle
from alsys.potentials.factory import build_committee
from alsys.states import ElectronicState, SeenStates
from support.networks import random_state

WATER: dict[str, Any] = {"numbers": [8, 1, 1], "positions": [[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.48]]}


def pairs(seen: SeenStates | None = None) -> CommitteeState:
    rng = np.random.default_rng(1)
    members = tuple({"coefficients": rng.normal(size=(3, 8)), "shifts": np.array([-1.0, -2.0])} for _ in range(3))
    return CommitteeState(4, "pair", {"elements": ["H", "O"], "r_max": 4.0, "n_basis": 8}, members, seen=seen)


@pytest.fixture
def served(tmp_path: Path) -> ServedModel:
    return ServedModel.of(write_bundle(tmp_path / "v0004", pairs(), {"metrics": {}}))


def test_rows_are_what_the_committee_says(tmp_path: Path) -> None:
    """Molecules and boxes in one table."""
    state = random_state()
    box = {**WATER, "cell": (9 * np.eye(3)).tolist(), "pbc": [True] * 3}
    rows = ServedModel.of(write_bundle(tmp_path / "v0001", state, {})).rows([json.dumps(WATER), box])
    frames = [
        Frame.molecule(WATER["numbers"], WATER["positions"]),
        Frame(np.array(WATER["numbers"]), np.array(WATER["positions"]), 9 * np.eye(3), np.ones(3, bool)),
    ]
    expected = build_committee(state).evaluate(FrameBatch.of(frames))
    for k, row in enumerate(rows):
        assert tuple(row) == COLUMNS
        assert row["energy"] == pytest.approx(expected.energy[k])
        np.testing.assert_allclose(row["forces"], expected.forces[3 * k : 3 * k + 3])
        np.testing.assert_allclose(row["force_deviation"], expected.force_deviation[3 * k : 3 * k + 3])
        assert row["deviation"] == pytest.approx(max(row["force_deviation"]))
        assert row["reason"] is None
    assert rows[0]["stress"] is None
    assert expected.stress is not None
    np.testing.assert_allclose(rows[1]["stress"], expected.stress[1])
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ("{", "not a structure"),
        ("[" * 5000, "not a structure"),
        ({"numbers": [1]}, "positions"),
        ({"numbers": [8, 1], "positions": [[0, 0, 0]]}, "positions"),
        ({"numbers": [8, 1], "positions": [[0, 0, 0], [0, 0, float("nan")]]}, "positions"),
        ({"numbers": [6, 1], "positions": [[0, 0, 0], [0, 0, 1]]}, "does not know these elements"),
        ({**WATER, "cell": np.eye(3).tolist(), "pbc": [True] * 3}, "molecules only"),
        ({"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.01]]}, "apart"),
        ({**WATER, "charge": 0.5}, "whole"),
        ({**WATER, "charge": "x"}, "charge"),
        ({"numbers": [10**12], "positions": [[0, 0, 0]]}, "not a structure"),
        (None, "not a structure"),
        (7, "not a structure"),
    ],
)
def test_what_cannot_be_answered_fails_alone(served: ServedModel, structure: Any, words: str) -> None:
    rows = served.rows([WATER, structure, json.dumps(WATER)])
    assert words in rows[1]["reason"]
    assert "structure[1]" in rows[1]["reason"]
    assert "\n" not in rows[1]["reason"]
    assert {name for name, value in rows[1].items() if value is not None} == {"reason"}
    assert rows[0]["energy"] == rows[2]["energy"] is not None
    assert rows[0]["reason"] is rows[2]["reason"] is None


def test_nothing_is_answered_with_nothing(served: ServedModel) -> None:
    assert served.rows([]) == []


def test_states_that_were_not_learned_are_refused(tmp_path: Path) -> None:
    seen = SeenStates((ElectronicState(1, 2),), {"H2O": (ElectronicState(1, 2),)}, is_told_apart=True)
    model = ServedModel.of(write_bundle(tmp_path / "v0004", pairs(seen), {}))
    cation, neutral = model.rows([WATER, {**WATER, "charge": 0, "multiplicity": 1}])
    assert cation["reason"] is None, "the only state that it has learned"
    assert neutral["energy"] is None
    assert "charge" in neutral["reason"]
