"""One composition has one state for a model that cannot tell states apart, and a model is asked for what it learned."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.states import (
    MAX_COMPOSITIONS,
    CompositionStates,
    ElectronicState,
    SeenStates,
    compositions,
    formula_of,
    multiplicity_of_spin,
)

WATER, HYDROXYL, METHYLENE = [8, 1, 1], [1, 8], [1, 6, 1]
CATION, TRIPLET = ElectronicState(1, 2), ElectronicState(0, 3)


def seen(*frames: tuple[list[int], int, int], is_told_apart: bool = False) -> SeenStates:
    numbers = [z for frame in frames for z in frame[0]]
    return SeenStates.of(
        [len(frame[0]) for frame in frames],
        numbers,
        [frame[1] for frame in frames],
        [frame[2] for frame in frames],
        is_told_apart=is_told_apart,
    )


@pytest.mark.parametrize(
    ("numbers", "formula"), [(WATER, "H2O"), ([1, 6, 1, 8, 1, 1], "CH4O"), ([11, 17], "ClNa"), ([1, 7, 6], "CHN")]
)
def test_formulas_are_hills(numbers: list[int], formula: str) -> None:
    assert formula_of(numbers) == formula


@pytest.mark.parametrize(
    ("numbers", "first", "second", "says"),
    [
        (WATER, (0, 1), (1, 2), "H2O with charge +1, multiplicity 2"),
        (METHYLENE, (0, 1), (0, 3), "CH2 with charge 0, multiplicity 3"),
        (HYDROXYL, (0, 2), (-1, 1), "HO with charge -1, multiplicity 1"),
    ],
)
def test_a_second_state_of_a_composition_is_a_conflict(
    numbers: list[int], first: tuple[int, int], second: tuple[int, int], says: str
) -> None:
    known = CompositionStates()
    assert known.add(numbers, *first, "system a") is None
    assert known.add(numbers[::-1], *first, "system b") is None
    assert known.add([*numbers, 2], *second, "system c") is None
    conflict = known.add(numbers[::-1], *second, "frame 3")
    assert says in str(conflict)
    assert str(conflict).startswith("frame 3 has")
    assert "system a" in str(conflict)


def test_frames_of_a_snapshot_are_taken_at_once() -> None:
    known = CompositionStates()
    sizes, numbers = [3, 2, 3], [*WATER, *HYDROXYL, *METHYLENE]
    assert known.add_all(sizes, numbers, [0, -1, 0], [1, 1, 3], "the campaign") is None
    conflict = known.add_all([2, 3], [*HYDROXYL, 1, 8, 1], [-1, 1], [1, 2], "the file")
    assert conflict is not None
    assert (conflict.formula, conflict.second, conflict.second_place) == ("H2O", CATION, "the file")


def test_compositions_are_counted() -> None:
    found = compositions([3, 2, 3, 3], [*WATER, *HYDROXYL, 1, 1, 8, 1, 8, 1], [0, -1, 0, 1], [1, 1, 1, 2])
    assert [(formula_of(one.numbers), one.state.charge, one.n_frames) for one in found] == [
        ("H2O", 0, 2), ("HO", -1, 1), ("H2O", 1, 1),
    ]  # fmt: skip


def test_a_model_is_refused_what_it_has_not_learned() -> None:
    plain = seen((WATER, 0, 1), ([8, 8], 0, 3))
    plain.check(WATER, ElectronicState())
    plain.check([8, 1, 1, 8, 1, 1], ElectronicState())  # a composition that is new, in a state that is not
    with pytest.raises(InputError, match=r"H2O with charge 0, multiplicity 1 only.*\(got \(0, 3\)\)"):
        plain.check(WATER, TRIPLET)
    with pytest.raises(InputError, match="has learned charge 0, multiplicity 1; charge 0, multiplicity 3 only"):
        plain.check(METHYLENE, CATION)


def test_what_is_not_said_is_completed() -> None:
    both = seen((WATER, 0, 1), (WATER, 1, 2), ([8, 8], 0, 3), is_told_apart=True)
    assert both.complete(WATER, None, None) == ElectronicState()
    assert both.complete(WATER, 1, None) == both.complete(WATER, None, 2) == CATION
    assert both.complete([8, 8], None, None) == TRIPLET
    assert seen((WATER, 1, 2)).complete(METHYLENE, None, None) == CATION
    assert seen((WATER, 1, 2)).complete(WATER, 0, None) == ElectronicState()
    assert seen((WATER, 1, 2), (HYDROXYL, 0, 2)).complete(METHYLENE, None, None) == ElectronicState()


def test_a_record_comes_back_from_json() -> None:
    record = seen((WATER, 0, 1), (WATER, 1, 2), is_told_apart=True)
    assert SeenStates.from_json(json.loads(json.dumps(record.to_json()))) == record
    for broken in ({}, {"states": [[0]], "by_formula": {}, "is_told_apart": False},
                   {"states": [[0, 0]], "by_formula": {}, "is_told_apart": False},
                   {"states": [[0.5, 1]], "by_formula": {}, "is_told_apart": False}):  # fmt: skip
        with pytest.raises((KeyError, TypeError, ValueError)):
            SeenStates.from_json(broken)


def test_a_record_is_bounded() -> None:
    sizes = np.arange(1, MAX_COMPOSITIONS + 20)
    record = SeenStates.of(sizes, np.ones(sizes.sum(), dtype=int), sizes % 2, 1 + sizes % 2)
    assert len(record.by_formula) == MAX_COMPOSITIONS
    assert len(record.states) == 2


@pytest.mark.parametrize(
    ("spin", "n_electrons", "multiplicity"),
    [(1, 10, 1), (0, 10, 1), (2, 10, 3), (3, 10, 3), (2, 9, 2), (1, 9, 2), (0.5, 9, 2), (1.5, 9, 4), (0, 9, None),
     (0.5, 10, None), (-1, 9, None), (0.3, 10, None), (float("nan"), 10, None)],
)  # fmt: skip
def test_a_spin_is_what_fits_the_electrons(spin: float, n_electrons: int, multiplicity: int | None) -> None:
    assert multiplicity_of_spin(spin, n_electrons) == multiplicity
