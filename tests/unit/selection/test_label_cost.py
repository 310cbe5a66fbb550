"""Predicted label costs against times drawn from a known law."""

from __future__ import annotations

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.selection.label_cost import PRIOR_SLOPE, LabelCostModel


def alkane(n: int) -> int:
    """Electrons of a chain of `n` carbon atoms."""
    return 6 * n + 2 * n + 2


def law(n_electrons: int, power: float) -> float:
    return 1e-3 * float(n_electrons) ** power


def test_the_power_law_behind_the_times_is_found() -> None:
    rng, model = np.random.default_rng(0), LabelCostModel()
    for _ in range(300):
        n = alkane(int(rng.integers(1, 9)))
        model.observe(n, law(n, 3.2) * float(np.exp(rng.normal(0, 0.1))))
    assert model.slope == pytest.approx(3.2, abs=0.1)
    assert model.predict(alkane(20)) == pytest.approx(law(alkane(20), 3.2), rel=0.2)


def test_a_fifth_of_absurd_times_hardly_matters() -> None:
    rng, model = np.random.default_rng(1), LabelCostModel()
    for k in range(300):
        n = alkane(int(rng.integers(1, 9)))
        seconds = law(n, 2.8) * float(np.exp(rng.normal(0, 0.1)))
        model.observe(n, seconds * (1000.0 if k % 5 == 0 else 1.0))
    assert model.predict(alkane(5)) == pytest.approx(law(alkane(5), 2.8), rel=0.25)


def test_before_there_are_data_larger_molecules_cost_more() -> None:
    model = LabelCostModel()
    assert model.predict(26) == pytest.approx(1.0), "ethanol"
    assert model.predict(alkane(8)) > model.predict(alkane(4)) > model.predict(alkane(1)) > 0
    assert model.slope == PRIOR_SLOPE


def test_one_label_sets_the_level_and_the_prior_the_slope() -> None:
    model = LabelCostModel()
    model.observe(alkane(4), 12.0)
    assert model.predict(alkane(4)) == pytest.approx(12.0)
    expected = 12.0 * (alkane(8) / alkane(4)) ** PRIOR_SLOPE
    assert model.predict(alkane(8)) == pytest.approx(expected, rel=1e-6)


def test_a_size_may_lie_off_the_line() -> None:
    rng, model = np.random.default_rng(2), LabelCostModel()
    odd = 24
    for _ in range(100):
        n = alkane(int(rng.integers(1, 9)))
        model.observe(n, law(n, 2.5) * float(np.exp(rng.normal(0, 0.05))))
    for _ in range(15):
        model.observe(odd, 5.0 * law(odd, 2.5))
    assert model.predict(odd) == pytest.approx(5.0 * law(odd, 2.5), rel=0.4)
    assert model.predict(alkane(3)) == pytest.approx(law(alkane(3), 2.5), rel=0.15)


def test_unknown_times_are_left_out_and_old_ones_forgotten() -> None:
    model = LabelCostModel(window=20)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        model.observe(alkane(3), seconds)
    assert model.n_labels == 0
    for seconds in [1.0] * 30 + [50.0] * 20:
        model.observe(alkane(3), seconds)
    assert model.n_labels == 20
    assert model.predict(alkane(3)) == pytest.approx(50.0, rel=1e-6)


def test_predictions_change_only_when_it_is_said() -> None:
    rng, model = np.random.default_rng(3), LabelCostModel()
    before, n_changes = model.predict(40), 0
    for _ in range(2000):
        has_changed = model.observe(int(rng.choice([10, 20, 40])), float(rng.lognormal()))
        n_changes += has_changed
        assert has_changed or model.predict(40) == before
        before = model.predict(40)
    assert 40 < n_changes < 200


def test_nonsense_is_refused() -> None:
    for n_electrons in (0, -1):
        with pytest.raises(InputError, match="at least one electron"):
            LabelCostModel().predict(n_electrons)
        with pytest.raises(InputError, match="at least one electron"):
            LabelCostModel().observe(n_electrons, 1.0)
