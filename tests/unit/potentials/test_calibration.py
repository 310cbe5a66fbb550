"""Calibration on synthetic committees whose true error distribution is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alsys.frames import FloatArray
from alsys.potentials.calibration import MAX_ATOMS, Band, ForceCalibration, n_distinct_members, sample_atoms

Frames = list[tuple[FloatArray, FloatArray]]


def frames(
    n: int, factor: float, exponent: float = 1.0, seed: int = 0, n_atoms: int = 9, spread: float = 0.7
) -> Frames:
    """Frames whose errors are ``factor * deviation ** exponent`` times the length of a normal vector."""
    rng = np.random.default_rng(seed)
    made: Frames = []
    for _ in range(n):
        deviation = 0.05 * np.exp(spread * (rng.normal() + 0.5 * rng.normal(size=n_atoms)))
        size = np.sqrt(np.square(rng.normal(size=(n_atoms, 3))).mean(axis=1))
        made.append((deviation, factor * deviation**exponent * size))
    return made


def covered(calibration: ForceCalibration, test: Frames) -> float:
    return float(np.mean([(error <= calibration.band.error(deviation)).mean() for deviation, error in test]))


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("probability", [0.8, 0.9])
def test_the_band_covers_what_was_asked_for(probability: float, exponent: float) -> None:
    calibration = ForceCalibration(probability)
    calibration.observe(frames(200, 3.0, exponent))
    assert covered(calibration, frames(1000, 3.0, exponent, seed=1)) == pytest.approx(probability, abs=0.03)
    assert calibration.band.exponent == pytest.approx(exponent, abs=0.1)


def test_coverage_holds_in_every_class_of_deviation_when_the_spread_saturates() -> None:
    calibration = ForceCalibration(0.9)
    calibration.observe(frames(200, 1.0, 0.5))
    test = frames(1000, 1.0, 0.5, seed=1)
    deviation, error = (np.concatenate(column) for column in zip(*test, strict=True))
    is_small = deviation < np.quantile(deviation, 0.2)
    within = error <= calibration.band.error(deviation)
    assert within[is_small].mean() == pytest.approx(0.9, abs=0.04)
    assert within[~is_small].mean() == pytest.approx(0.9, abs=0.04)


def test_after_a_shift_coverage_is_back_within_a_hundred_frames() -> None:
    calibration = ForceCalibration(0.9)
    calibration.observe(frames(100, 2.0))
    shifted = frames(1000, 4.0, seed=1)
    assert covered(calibration, shifted) < 0.7
    for frame in frames(100, 4.0, seed=2):
        calibration.observe([frame])
    assert 0.87 <= covered(calibration, shifted) <= 0.93


def test_overconfidence_raises_an_alarm_and_its_end_clears_it() -> None:
    calibration = ForceCalibration(0.9)
    calibration.observe(frames(50, 2.0))
    for frame in frames(60, 2.0, seed=1):
        calibration.observe([frame])
    assert calibration.alarm is None
    for frame in frames(20, 20.0, seed=2):
        calibration.observe([frame])
    assert calibration.alarm is not None
    assert "overconfident" in calibration.alarm
    for frame in frames(150, 20.0, seed=3):
        calibration.observe([frame])
    assert calibration.alarm is None


def test_a_band_that_is_far_too_wide_is_said_so() -> None:
    calibration = ForceCalibration(0.9)
    calibration.observe(frames(100, 20.0))
    for frame in frames(40, 0.2, seed=1):
        calibration.observe([frame])
    assert calibration.alarm is not None
    assert "underconfident" in calibration.alarm


def test_coverage_is_counted_before_a_label_is_learned_from() -> None:
    calibration = ForceCalibration(0.9)
    calibration.observe(frames(20, 1.0))
    before = calibration.coverage.n_frames
    far = (np.full(9, 0.1), np.full(9, 100.0))
    calibration.observe([far] * 3)
    assert calibration.coverage.n_frames == before + 3
    assert [share for _, share in calibration._covered][-3:] == [0.0, 0.0, 0.0]


def test_a_forgotten_frame_is_as_if_it_had_not_been_seen() -> None:
    names = [f"f{i}" for i in range(60)]
    pairs = frames(60, 2.0)
    wrong = (np.full(9, 0.1), np.full(9, 1e6))

    def observe(calibration: ForceCalibration, name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
        calibration.observe_frames([name], [pair[0].size], pair[0].tolist(), pair[1].tolist())

    clean, poisoned = ForceCalibration(0.9), ForceCalibration(0.9)
    for name, pair in zip(names, pairs, strict=True):
        observe(clean, name, pair)
        observe(poisoned, name, pair)
    for k in range(20):
        observe(poisoned, f"wrong{k}", wrong)
    assert poisoned.band.error(np.array([0.1]))[0] > 10 * clean.band.error(np.array([0.1]))[0]
    assert poisoned.alarm is not None
    for k in range(20):
        poisoned.forget(f"wrong{k}")
    poisoned.forget("never seen")
    assert poisoned.band.factor == pytest.approx(clean.band.factor, rel=0.05)
    assert poisoned.alarm is None
    for name in names:
        poisoned.forget(name)
    assert not poisoned.is_fitted
    assert poisoned.band == Band(2.0, 1.0)


def test_before_there_are_pairs_the_band_is_twice_the_deviation() -> None:
    calibration = ForceCalibration()
    assert not calibration.is_fitted
    assert calibration.band.error(np.array([0.1]))[0] == pytest.approx(0.2)
    assert math.isnan(calibration.coverage.share)
    calibration.observe([(np.array([np.nan]), np.array([1.0]))])
    assert calibration.n_frames == 0


def test_the_edge_of_the_band_is_where_the_bound_reaches_the_error() -> None:
    band = Band(2.5, 0.7)
    assert band.error(np.array([band.deviation(0.15)]))[0] == pytest.approx(0.15)


def test_copies_of_a_member_do_not_count() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(40, 3))
    members = one + 0.05 * rng.normal(size=(4, 40, 3))
    assert n_distinct_members(members) == 4
    assert n_distinct_members(np.stack([one] * 4)) == 1
    assert n_distinct_members(np.stack([members[0], members[0], members[1], members[2]])) == 3
    assert n_distinct_members(members[:2]) == 2


def test_large_frames_are_thinned_evenly() -> None:
    values = np.arange(1000.0)
    kept = sample_atoms(values)
    assert kept.size == MAX_ATOMS
    assert kept[0] == 0
    assert kept[-1] == 999
    assert np.diff(kept).max() < 17
    assert sample_atoms(values[:5]).size == 5
