"""Frame features: means by element."""

from __future__ import annotations

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.selection.frame_features import frame_features

NUMBERS = np.array([8, 1, 1, 1, 6, 1])
ATOMS = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_each_element_has_its_mean() -> None:
    found = frame_features(ATOMS, NUMBERS, [3, 3])
    assert found.dtype == np.float64
    assert found.tolist() == [[3.0, 4.0, 0.0, 0.0, 0.0, 1.0], [8.0, 9.0, 8.0, 9.0, 0.0, 0.0]]


def test_like_atoms_may_change_places() -> None:
    order = np.array([0, 2, 1, 5, 4, 3])
    assert np.array_equal(frame_features(ATOMS[order], NUMBERS[order], [3, 3]), frame_features(ATOMS, NUMBERS, [3, 3]))


def test_columns_of_two_calls_can_be_aligned() -> None:
    whole = frame_features(ATOMS, NUMBERS, [3, 3])
    water = frame_features(ATOMS[:3], NUMBERS[:3], [3], elements=[1, 6, 8])
    assert np.array_equal(water, whole[:1])
    with pytest.raises(InputError, match="without a column"):
        frame_features(ATOMS, NUMBERS, [3, 3], elements=[1, 8])


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        frame_features(ATOMS, NUMBERS, [3, 2])
    with pytest.raises(InputError, match="do not fit"):
        frame_features(ATOMS, NUMBERS[:5], [3, 3])
    with pytest.raises(InputError, match="do not fit"):
        frame_features(ATOMS, NUMBERS, [6, 0])
