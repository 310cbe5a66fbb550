"""Predicted label costs against times drawn from a known law."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_numbers

from alsys.errors import InputError
from alsys.exploration.label_cost import PRIOR_SLOPE, LabelCostModel

H, C, OXYGEN = (atomic_numbers[s] for s in "HCO")


def alkane(n: int) -> list[int]:
    return [C] * n + [H] * (2 * n + 2)


def law(numbers: list[int], power: float) -> float:
    return 1e-3 * sum(numbers) ** power


def test_the_power_law_behind_the_times_is_found() -> None:
    rng, model = np.random.default_rng(0), LabelCostModel()
    for _ in range(300):
        numbers = alkane(int(rng.integers(1, 9)))
        model.observe(numbers, law(numbers, 3.2) * float(np.exp(rng.normal(0, 0.1))))
    assert model.slope == pytest.approx(3.2, abs=0.1)
    assert model.predict(alkane(20)) == pytest.approx(law(alkane(20), 3.2), rel=0.2)


def test_a_fifth_of_absurd_times_hardly_matters() -> None:
    rng, model = np.random.default_rng(1), LabelCostModel()
    for k in range(300):
        numbers = alkane(int(rng.integers(1, 9)))
        seconds = law(numbers, 2.8) * float(np.exp(rng.normal(0, 0.1)))
        model.observe(numbers, seconds * (1000.0 if k % 5 == 0 else 1.0))
    assert model.predict(alkane(5)) == pytest.approx(law(alkane(5), 2.8), rel=0.25)


def test_before_there_are_data_larger_molecules_cost_more() -> None:
    model = LabelCostModel(fallback_s=7.0)
    assert model.predict([C, C, OXYGEN] + [H] * 6) == pytest.approx(7.0)
    assert model.predict(alkane(8)) > model.predict(alkane(4)) > model.predict(alkane(1)) > 0
    assert model.slope == PRIOR_SLOPE


def test_one_label_sets_the_level_and_the_prior_the_slope() -> None:
    model = LabelCostModel()
    model.observe(alkane(4), 12.0)
    assert model.predict(alkane(4)) == pytest.approx(12.0)
    expected = 12.0 * (sum(alkane(8)) / sum(alkane(4))) ** PRIOR_SLOPE
    assert model.predict(alkane(8)) == pytest.approx(expected, rel=1e-6)


def test_a_composition_may_lie_off_the_line() -> None:
    rng, model = np.random.default_rng(2), LabelCostModel()
    odd = [OXYGEN] * 3
    for _ in range(100):
        numbers = alkane(int(rng.integers(1, 9)))
        model.observe(numbers, law(numbers, 2.5) * float(np.exp(rng.normal(0, 0.05))))
    for _ in range(15):
        model.observe(odd, 5.0 * law(odd, 2.5))
    assert model.predict(odd) == pytest.approx(5.0 * law(odd, 2.5), rel=0.4)
    assert model.predict(alkane(3)) == pytest.approx(law(alkane(3), 2.5), rel=0.15)


def test_basis_functions_can_be_the_size() -> None:
    model = LabelCostModel({H: 5.0, C: 14.0, OXYGEN: 14.0})
    for n in range(1, 9):
        for _ in range(5):
            model.observe(alkane(n), float(14 * n + 5 * (2 * n + 2)) ** 2.0)
    assert model.slope == pytest.approx(2.0, abs=0.02)
    with pytest.raises(InputError, match="without a size"):
        model.predict([7])


def test_unknown_times_are_left_out_and_old_ones_forgotten() -> None:
    model = LabelCostModel(window=20)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        model.observe(alkane(3), seconds)
    assert model.n_labels == 0
    for seconds in [1.0] * 30 + [50.0] * 20:
        model.observe(alkane(3), seconds)
    assert model.n_labels == 20
    assert model.predict(alkane(3)) == pytest.approx(50.0, rel=1e-6)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="positive"):
        LabelCostModel(fallback_s=0.0)
    with pytest.raises(InputError, match="at least one atom"):
        LabelCostModel().predict([])
