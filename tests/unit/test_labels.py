"""Labels: the identity of a level is all that decides the value, and a label is one frame at one level."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alsys.errors import FailureKind
from alsys.labels import Label, LabelCost, LabelFailure, LevelOfTheory, label_id_of

SPEC = {"engine": "pyscf", "xc": "pbe", "basis": "def2-svp", "nested": {"b": 1, "a": 2.5}}
FRAME_ID = "dbfca29bce385da94e11841ff70e0571"
SPECS = st.dictionaries(
    st.text(max_size=8),
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    max_size=6,
)
HEX = st.binary(min_size=16, max_size=16).map(bytes.hex)


def test_identities_are_for_ever() -> None:
    """Identities are in stores on disk: these values must never change."""
    level = LevelOfTheory(SPEC)
    assert level.canonical == '{"basis":"def2-svp","engine":"pyscf","nested":{"a":2.5,"b":1},"xc":"pbe"}'
    assert level.level_id == "b8709d8bfccebb182e81c8a3d3004b4b"
    assert label_id_of(FRAME_ID, level.level_id) == "36464253f6b03a5aa331dfc9a012438e"


@given(SPECS, st.randoms())
def test_a_level_does_not_depend_on_the_order_of_its_settings(spec: dict[str, object], random: object) -> None:
    items = list(spec.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    level = LevelOfTheory(spec)
    assert LevelOfTheory(dict(items)).level_id == level.level_id
    assert len(bytes.fromhex(level.level_id)) == 16
    assert pickle.loads(pickle.dumps(level)) == level


@given(SPECS)
def test_every_setting_counts(spec: dict[str, object]) -> None:
    level = LevelOfTheory(spec)
    assert LevelOfTheory({**spec, "one more setting": 0}).level_id != level.level_id
    for key in spec:
        assert LevelOfTheory({**spec, key: "another value!"}).level_id != level.level_id
        assert LevelOfTheory({k: v for k, v in spec.items() if k != key}).level_id != level.level_id


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_setting_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        LevelOfTheory({"conv_tol": value})


@given(HEX, HEX, HEX)
def test_a_label_is_one_frame_at_one_level(first: str, second: str, level_id: str) -> None:
    assert (label_id_of(first, level_id) == label_id_of(second, level_id)) == (first == second)
    assert (label_id_of(level_id, first) == label_id_of(level_id, second)) == (first == second)
    if first != second:
        assert label_id_of(first, second) != label_id_of(second, first)


def test_the_values_and_the_cost_are_not_part_of_the_identity() -> None:
    level_id = LevelOfTheory(SPEC).level_id
    first = Label(FRAME_ID, level_id, -1.0, np.zeros((3, 3)))
    again = Label(FRAME_ID, level_id, -1.1, np.ones((3, 3)), LabelCost(wall_s=5.0, scf_cycles=12, host="node7"))
    assert first.label_id == again.label_id == label_id_of(FRAME_ID, level_id)


def test_both_outcomes_travel() -> None:
    label = Label(FRAME_ID, LevelOfTheory(SPEC).level_id, -115.5, np.arange(9.0).reshape(3, 3), LabelCost(cpu_s=2.0))
    back = pickle.loads(pickle.dumps(label))
    assert (back.frame_id, back.level_id, back.energy, back.cost) == (
        label.frame_id,
        label.level_id,
        label.energy,
        label.cost,
    )
    np.testing.assert_array_equal(back.forces, label.forces)
    failure = LabelFailure(FRAME_ID, FailureKind.SCF_NOT_CONVERGED, "100 cycles", LabelCost(wall_s=3.0))
    assert pickle.loads(pickle.dumps(failure)) == failure
