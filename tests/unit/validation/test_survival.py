from __future__ import annotations

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.validation.survival import kaplan_meier

# Remission of leukaemia under 6-MP (E. J. Freireich et al., Blood 21, 699 (1963)), the textbook example
FAILED = [6, 6, 6, 7, 10, 13, 16, 22, 23]
CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]


def remission() -> tuple[list[int], list[bool]]:
    return FAILED + CENSORED, [True] * len(FAILED) + [False] * len(CENSORED)


def test_the_textbook_example() -> None:
    curve = kaplan_meier(*remission())
    assert curve.times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert curve.n_at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    expected = [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    np.testing.assert_allclose(curve.survival, expected, atol=5e-5)
    # the intervals that Stata's `sts list` prints
    np.testing.assert_allclose(curve.low, [0.6197, 0.5631, 0.5032, 0.4316, 0.3675, 0.2678, 0.1881], atol=6e-5)
    np.testing.assert_allclose(curve.high, [0.9516, 0.9228, 0.8894, 0.8491, 0.8049, 0.7468, 0.6801], atol=6e-5)


def test_the_mean_within_the_time_looked_at() -> None:
    mean, error = kaplan_meier(*remission()).mean
    assert mean == pytest.approx(23.287, abs=2e-3)  # R: print(survfit(...), rmean = 35)
    assert error == pytest.approx(2.828, abs=2e-3)


def test_without_censoring_it_is_the_plain_share_and_mean() -> None:
    times = np.random.default_rng(0).exponential(10.0, 50)
    curve = kaplan_meier(times, np.ones(50, dtype=bool))
    np.testing.assert_allclose(curve.survival, 1.0 - np.arange(1, 51) / 50, atol=1e-12)
    mean, error = curve.mean
    assert mean == pytest.approx(times.mean())
    assert error == pytest.approx(times.std() / np.sqrt(50))
    assert curve.low[-1] == 0.0
    assert 0.0 < curve.high[-1] < 0.1


def test_when_none_failed_the_share_has_an_exact_bound() -> None:
    curve = kaplan_meier([5.0] * 10, [False] * 10)
    share, low, high = curve.last
    assert (share, high) == (1.0, 1.0)
    assert low**10 == pytest.approx(0.025)
    assert curve.mean == (5.0, 0.0)


@pytest.mark.parametrize("times", [[], [-1.0], [np.nan]])
def test_times_that_mean_nothing_are_refused(times: list[float]) -> None:
    with pytest.raises(InputError, match="time"):
        kaplan_meier(times, [True] * len(times))
