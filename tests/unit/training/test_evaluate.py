"""Errors are what they say, and intervals cover what they promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from alsys.frames import Arm
from alsys.potentials.base import FrameBatch
from alsys.store.base import Snapshot
from alsys.training.evaluate import BATCH_ATOMS, bootstrap_interval, bootstrap_ratio, chunks_of, evaluate, fit_metrics
from support.committees import HarmonicCommittee

MakeSnapshot = Callable[..., Snapshot]


def harmonic(data: Snapshot, stiffness: float = 1.0, noise: float = 0.0) -> Snapshot:
    """Labels of a harmonic committee, with errors of one size and random signs."""
    prediction = HarmonicCommittee(stiffness).evaluate(FrameBatch.of([data.frame(i) for i in range(data.n_frames)]))
    signs = np.random.default_rng(1).choice([-1.0, 1.0], prediction.forces.shape)
    return dataclasses.replace(data, energy=prediction.energy + noise, forces=prediction.forces + noise * signs)


def test_errors_of_each_frame(make_snapshot: MakeSnapshot) -> None:
    data = harmonic(make_snapshot(8, 2), noise=0.25)
    committee = HarmonicCommittee(deviation=lambda batch: batch.n_atoms / 100.0)
    errors = evaluate(committee, data)
    np.testing.assert_allclose(errors.force_mae, 0.25)
    np.testing.assert_allclose(errors.force_mse, 0.0625)
    np.testing.assert_allclose(errors.energy, 0.25 / data.n_atoms)
    np.testing.assert_allclose(errors.deviation, data.n_atoms / 100.0)
    np.testing.assert_allclose(errors.mean_deviation, data.n_atoms / 100.0)


def test_large_snapshots_go_in_pieces_and_in_order(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(900, 0)
    chunks = chunks_of(data)
    np.testing.assert_array_equal(np.concatenate(chunks), np.arange(data.n_frames))
    assert len(chunks) > 1
    assert max(int(data.n_atoms[rows].sum()) for rows in chunks) <= BATCH_ATOMS + data.n_atoms.max()
    errors = evaluate(HarmonicCommittee(2.0), harmonic(data))
    np.testing.assert_allclose(errors.energy * data.n_atoms, harmonic(data).energy, rtol=1e-9, atol=1e-12)


def test_no_frame_gives_no_error(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot(4, 0)
    errors = evaluate(HarmonicCommittee(), data.select(data.is_arm(Arm.RANDOM)))
    assert errors.force_mae.shape == (0,)


def test_intervals_cover_the_mean_of_the_population() -> None:
    """95 % nominal; a percentile bootstrap of 20 skewed values covers a little less."""
    rng = np.random.default_rng(0)
    samples = rng.lognormal(0.0, 0.5, (200, 20))
    mean = float(np.exp(0.125))
    covered = [low <= mean <= high for low, high in (bootstrap_interval(sample) for sample in samples)]
    assert 0.85 <= np.mean(covered) <= 0.99


def test_the_ratio_of_errors_on_the_same_frames_is_known_better_than_either() -> None:
    rng = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(200):
        reference = rng.lognormal(0.0, 0.5, 20)
        values = reference * rng.normal(1.1, 0.05, 20)
        low, high = bootstrap_ratio(values, reference)
        covered.append(low <= 1.1 <= high)
        widths.append((high - low) / np.diff(bootstrap_interval(values))[0])
    assert 0.85 <= np.mean(covered) <= 0.99
    assert np.mean(widths) < 0.2


def parts(make_snapshot: MakeSnapshot, n_random: int) -> tuple[Snapshot, Snapshot]:
    data = harmonic(make_snapshot(6, n_random), noise=0.25)
    return data.select(data.is_arm(Arm.INITIAL)), data.select(data.is_arm(Arm.RANDOM))


def test_a_better_committee_is_better_beyond_the_interval(make_snapshot: MakeSnapshot) -> None:
    train, random = parts(make_snapshot, 8)
    none = train.select(np.zeros(0, dtype=int))
    metrics, calibration = fit_metrics(
        HarmonicCommittee(), HarmonicCommittee(3.0), train, none, random, wall_s=1.0, epochs=2.0, seed=0
    )
    assert metrics["force_mae_random_arm"] == pytest.approx(0.25)
    assert metrics["force_rmse_random_arm"] == pytest.approx(0.25)
    assert metrics["champion_force_mae_random_arm"] > 0.25
    assert metrics["difference_low"] <= metrics["difference_high"] < 0
    difference = metrics["force_mae_random_arm"] - metrics["champion_force_mae_random_arm"]
    assert metrics["difference_low"] <= difference <= metrics["difference_high"]
    assert len(calibration) == 8
    assert "force_mae_validation" not in metrics


def test_a_committee_compared_with_itself_differs_by_nothing(make_snapshot: MakeSnapshot) -> None:
    train, random = parts(make_snapshot, 5)
    metrics, _ = fit_metrics(
        HarmonicCommittee(3.0), HarmonicCommittee(3.0), train, random, random, wall_s=1.0, epochs=2.0, seed=0
    )
    assert metrics["difference_low"] == metrics["difference_high"] == 0.0
    assert metrics["force_mae_random_arm_low"] < metrics["force_mae_random_arm"] < metrics["force_mae_random_arm_high"]
    assert metrics["force_mae_validation"] == metrics["force_mae_random_arm"]


@pytest.mark.parametrize("n_random", [0, 1])
def test_no_interval_without_two_frames(make_snapshot: MakeSnapshot, n_random: int) -> None:
    train, random = parts(make_snapshot, n_random)
    none = train.select(np.zeros(0, dtype=int))
    metrics, calibration = fit_metrics(
        HarmonicCommittee(), HarmonicCommittee(), train, none, random, wall_s=1.0, epochs=2.0, seed=0
    )
    assert len(calibration) == n_random
    assert ("force_mae_random_arm" in metrics) is bool(n_random)
    assert not {"difference_low", "force_mae_random_arm_low"} & set(metrics)
    assert np.isfinite(list(metrics.values())).all()
