"""Frames: identity is content, to the last bit and no further; what is no frame is refused."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alsys.errors import InputError
from alsys.frames import ARMS, Arm, Candidate, Frame, PointCharges, Source

WATER = Frame.molecule([8, 1, 1], [[0, 0, 0], [0, 0, 0.96], [0, 0.93, -0.24]])
COORDINATES = st.floats(min_value=-1e3, max_value=1e3, allow_nan=False)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    n_atoms = draw(st.integers(1, 6))
    numbers = draw(arrays(np.int32, n_atoms, elements=st.integers(1, 118)))
    positions = draw(arrays(np.float64, (n_atoms, 3), elements=COORDINATES))
    cell = draw(arrays(np.float64, (3, 3), elements=COORDINATES))
    pbc = draw(arrays(np.bool_, 3))
    return Frame(numbers, positions, cell, pbc, draw(st.integers(-3, 3)), draw(st.integers(1, 5)))


def test_the_identity_is_for_ever() -> None:
    """Identities are in stores on disk: this value must never change."""
    assert WATER.frame_id == "dbfca29bce385da94e11841ff70e0571"


@given(frames())
def test_identity_survives_copies_and_other_memory_layouts(frame: Frame) -> None:
    for same in (
        pickle.loads(pickle.dumps(frame)),
        copy.deepcopy(frame),
        frame.with_positions(frame.positions.tolist()),
        frame.with_positions(np.asfortranarray(frame.positions)),
        frame.with_positions(frame.positions.astype(">f8")),
        Frame(frame.numbers.astype(np.int64), frame.positions, frame.cell, frame.pbc, frame.charge, frame.multiplicity),
    ):
        assert same == frame
        assert same.frame_id == frame.frame_id
        assert hash(same) == hash(frame)
        np.testing.assert_array_equal(same.positions, frame.positions)


@given(frames(), st.data())
def test_the_smallest_change_makes_another_frame(frame: Frame, data: st.DataObject) -> None:
    positions = frame.positions.copy()
    i = data.draw(st.integers(0, positions.size - 1))
    positions.flat[i] = np.nextafter(positions.flat[i], np.inf)
    charged = Frame(frame.numbers, frame.positions, frame.cell, frame.pbc, frame.charge + 1, frame.multiplicity)
    excited = Frame(frame.numbers, frame.positions, frame.cell, frame.pbc, frame.charge, frame.multiplicity + 1)
    open_cell = Frame(frame.numbers, frame.positions, frame.cell, ~frame.pbc, frame.charge, frame.multiplicity)
    for other in (frame.with_positions(positions), charged, excited, open_cell):
        assert other != frame
        assert other.frame_id != frame.frame_id


def test_the_sign_of_zero_does_not_matter() -> None:
    negative = Frame.molecule([1], [[-0.0, 0.0, -0.0]])
    assert negative == Frame.molecule([1], [[0.0, 0.0, 0.0]])
    assert not np.signbit(negative.positions).any()


def test_charge_and_multiplicity_cannot_be_mistaken_for_each_other() -> None:
    first = Frame.molecule([1], [[0, 0, 0]], charge=1, multiplicity=2)
    assert first != Frame.molecule([1], [[0, 0, 0]], charge=2, multiplicity=1)


def test_the_order_of_atoms_is_part_of_the_identity() -> None:
    order = [1, 0, 2]
    assert Frame.molecule(WATER.numbers[order], WATER.positions[order]) != WATER


def test_a_frame_does_not_change_with_the_arrays_it_was_made_from() -> None:
    positions = np.zeros((1, 3))
    frame = Frame.molecule([1], positions)
    before = frame.frame_id
    positions[0, 0] = 5.0
    assert frame.positions[0, 0] == 0.0
    assert frame.with_positions(frame.positions).frame_id == before
    for array in (frame.numbers, frame.positions, frame.cell, frame.pbc):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


def test_frames_are_keys() -> None:
    assert len({WATER, pickle.loads(pickle.dumps(WATER)), WATER.with_positions(np.zeros((3, 3)))}) == 2
    assert WATER not in {WATER.frame_id}


@pytest.mark.parametrize(
    ("numbers", "positions", "field"),
    [
        ([], np.zeros((0, 3)), "numbers"),
        ([[1]], [[0, 0, 0]], "numbers"),
        ([0], [[0, 0, 0]], "numbers"),
        ([119], [[0, 0, 0]], "numbers"),
        ([-1], [[0, 0, 0]], "numbers"),
        ([1], [[0, 0]], "positions"),
        ([1, 1], [[0, 0, 0]], "positions"),
        ([1], [[math.nan, 0, 0]], "positions"),
        ([1], [[0, math.inf, 0]], "positions"),
    ],
)
def test_what_is_no_frame_is_refused(numbers: object, positions: object, field: str) -> None:
    with pytest.raises(InputError) as caught:
        Frame.molecule(numbers, positions)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_bad_cell_or_spin_is_refused() -> None:
    with pytest.raises(InputError, match="cell"):
        Frame(WATER.numbers, WATER.positions, np.zeros(3), WATER.pbc)
    with pytest.raises(InputError, match="finite"):
        Frame(WATER.numbers, WATER.positions, np.full((3, 3), math.nan), WATER.pbc)
    with pytest.raises(InputError, match="pbc"):
        Frame(WATER.numbers, WATER.positions, WATER.cell, np.zeros(2, dtype=bool))
    with pytest.raises(InputError, match="multiplicity"):
        Frame.molecule([1], [[0, 0, 0]], multiplicity=0)


def test_arms_keep_their_codes() -> None:
    """Codes are in stores on disk: new arms go to the end."""
    assert [arm.value for arm in ARMS][:4] == ["atom", "initial", "uncertain", "random"]


def test_a_candidate_travels() -> None:
    candidate = Candidate(WATER, Source("water", Arm.UNCERTAIN, "langevin", 7, 3, 120, 0.25, 300.0))
    assert pickle.loads(pickle.dumps(candidate)) == candidate


def test_point_charges_are_part_of_the_identity() -> None:
    around = PointCharges([[0.0, 0.0, 3.0], [0.0, 1.0, 4.0]], [0.4, -0.4])
    embedded = replace(WATER, environment=around)
    assert embedded != WATER
    assert replace(embedded, environment=None) == WATER
    assert replace(WATER, environment=PointCharges(around.positions, -around.values)) != embedded
    for same in (pickle.loads(pickle.dumps(embedded)), copy.deepcopy(embedded)):
        assert same == embedded
        np.testing.assert_array_equal(same.environment.values, around.values)
    moved = embedded.with_positions(WATER.positions + 0.1)
    assert moved.environment is around
    assert moved != WATER.with_positions(WATER.positions + 0.1)


def test_point_charges_that_cannot_be_are_refused() -> None:
    for positions, values in (
        ([[0.0, 0.0, 1.0]], [math.nan]),
        ([[0.0, 0.0]], [1.0]),
        (np.zeros((0, 3)), []),
        ([[0.0, 0.0, 1.0]], [1.0, 2.0]),
    ):
        with pytest.raises(InputError, match="environment"):
            PointCharges(positions, values)
    with pytest.raises(InputError, match="periodic"):
        Frame([1], np.zeros((1, 3)), np.eye(3), [True] * 3, environment=PointCharges([[0.0, 0.0, 1.0]], [1.0]))


def test_frames_made_together_are_those_made_one_by_one() -> None:
    rng = np.random.default_rng(0)
    positions, cells = rng.normal(size=(3, 2, 3)), rng.normal(size=(3, 3, 3))
    positions[1, 0, 0] = -0.0
    for pbc, given_cells in (((False,) * 3, None), ((True, True, False), cells)):
        several = Frame.several([8, 1], positions, given_cells, pbc, -1, 1)
        single = [
            Frame(np.array([8, 1]), x, np.zeros((3, 3)) if given_cells is None else h, np.array(pbc), -1, 1)
            for x, h in zip(positions, cells, strict=True)
        ]
        assert several == single
        for frame, other in zip(several, single, strict=True):
            assert np.array_equal(frame.positions, other.positions)
            assert np.array_equal(frame.cell, other.cell)
            assert not frame.positions.flags.writeable
            assert pickle.loads(pickle.dumps(frame)) == other
    assert Frame.several([1], np.zeros((0, 1, 3)), None, (False,) * 3, 0, 2) == []


@pytest.mark.parametrize("row", [0, 2])
def test_frames_made_together_are_checked_like_one(row: int) -> None:
    positions = np.zeros((3, 2, 3))
    positions[row, 1, 2] = np.nan
    with pytest.raises(InputError, match="finite"):
        Frame.several([8, 1], positions, None, (False,) * 3, -1, 1)
    with pytest.raises(InputError, match="n_atoms"):
        Frame.several([8, 1, 1], np.zeros((3, 2, 3)), None, (False,) * 3, 0, 1)
