from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.labels import Label
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer
from alsys.validation.accuracy import compare_labels, learning_exponent, parity_metrics, parity_points
from alsys.validation.calibration import calibration_diagram, rank_correlation


def snapshot_of(labeler: Any, n: int, mask: list[bool] | None = None) -> Snapshot:
    """`n` frames of two compositions, two on a trajectory."""
    rng = np.random.default_rng(0)
    candidates = []
    for k in range(n):
        numbers = [8, 1, 1] if k % 2 else [8, 1]
        start = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])[: len(numbers)]
        frame = Frame.molecule(numbers, start + rng.normal(scale=0.05, size=start.shape))
        masked = None if mask is None or k % 2 == 0 else np.array(mask)
        candidates.append(Candidate(frame, Source("m", Arm.RANDOM, "plain", trajectory=k // 2), masked))
    labels = [label for c in candidates if isinstance(label := labeler.label(c.frame), Label)]
    store = open_writer()
    store.stage(candidates=candidates, labels=labels, levels=[labeler.level])
    store.commit()
    return store.snapshot(labeler.level.level_id)


def test_parity_of_a_model_that_is_a_tenth_too_large(morse_labeler: Any, morse_committee: Any) -> None:
    snapshot = snapshot_of(morse_labeler(), 12)
    compared = compare_labels(morse_committee([1.0, 1.2]), snapshot)
    metrics = parity_metrics(compared)
    assert metrics["force_mae"] == pytest.approx(0.1 * np.abs(snapshot.forces).mean())
    assert metrics["force_rmse"] == pytest.approx(0.1 * np.sqrt(np.square(snapshot.forces).mean()))
    assert metrics["force_worst"] == pytest.approx(0.1 * np.abs(snapshot.forces).max())
    assert metrics["energy_mae"] == pytest.approx(0.1 * np.abs(snapshot.energy / snapshot.n_atoms).mean())
    assert metrics["energy_mae_shifted"] < metrics["energy_mae"]
    assert metrics["force_r2"] == pytest.approx(0.99, abs=2e-3)
    assert metrics["force_mae_from"] < metrics["force_mae"] < metrics["force_mae_to"]
    points = parity_points(compared, n_max=20)
    assert len(points["forces"]) == 20
    label, model = np.array(points["forces"]).T
    np.testing.assert_allclose(model, 1.1 * label, atol=1e-9)
    errors = np.abs(compared.model_forces - compared.forces)
    assert np.abs(model - label).max() == pytest.approx(errors.max()), "the largest error is shown"


def test_masked_atoms_do_not_count(morse_labeler: Any, morse_committee: Any) -> None:
    snapshot = snapshot_of(morse_labeler(), 6, mask=[True, False, False])
    compared = compare_labels(morse_committee([1.1, 1.1]), snapshot)
    assert np.isfinite(compared.model_energy).tolist() == [True, False] * 3
    trusted = snapshot.forces[snapshot.mask]
    assert parity_metrics(compared)["force_mae"] == pytest.approx(0.1 * np.abs(trusted).mean())
    assert [len(deviation) for deviation, _ in compared.atoms_of_frames()] == [2, 1] * 3


def test_a_model_without_forces_is_counted_and_nothing_else(morse_labeler: Any, morse_committee: Any) -> None:
    compared = compare_labels(morse_committee([np.nan, 1.0]), snapshot_of(morse_labeler(), 4))
    assert parity_metrics(compared) == {"n_frames": 4.0, "n_failed": 4.0}
    assert parity_points(compared) == {"forces": [], "energies": []}


def test_the_exponent_of_a_power_law() -> None:
    assert learning_exponent([10, 20, 40], [1.0, 0.5, 0.25]) == pytest.approx(-1.0)
    assert np.isnan(learning_exponent([10, 10], [1.0, 0.9]))


def gaussian_frames(factor: float, n: int = 400) -> tuple[list[tuple[FloatArray, FloatArray]], Any]:
    """Deviations, and errors of a Gaussian whose standard deviation is `factor` times as large."""
    rng = np.random.default_rng(2)
    frames = []
    for _ in range(n):
        deviation = rng.uniform(0.05, 0.5, 8)
        error = np.linalg.norm(rng.normal(size=(8, 3)) * (factor * deviation / np.sqrt(3.0))[:, None], axis=1)
        frames.append((deviation, error))
    return frames, np.arange(n) // 2


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_a_gaussian_is_on_the_diagonal_once_it_is_calibrated(factor: float) -> None:
    diagram = calibration_diagram(*gaussian_frames(factor))
    assert diagram is not None
    np.testing.assert_allclose(diagram.calibrated, diagram.nominal, atol=0.03)
    if factor == 1.0:
        np.testing.assert_allclose(diagram.raw, diagram.nominal, atol=0.03)
    else:
        # P(chi2_3 < q / 16) at the 90 % quantile q = 6.251
        assert diagram.metrics["coverage_90_raw"] == pytest.approx(0.0588, abs=0.02)
        assert diagram.metrics["miscalibration_raw"] > 0.3
    assert diagram.metrics["miscalibration"] < 0.02
    assert 0.0 < diagram.metrics["coverage_90_error"] < 0.01
    assert diagram.n_frames == 400


def test_frames_of_one_trajectory_are_never_on_both_sides() -> None:
    frames, _ = gaussian_frames(1.0, 20)
    assert calibration_diagram(frames, np.zeros(20, dtype=np.int64)) is None
    assert calibration_diagram(frames[:9], np.arange(9)) is None
    # trajectories of very different errors: a band fitted on the others covers all of the good and none of the bad
    mixed = [(d, e * (100.0 if k < 10 else 1.0)) for k, (d, e) in enumerate(frames)]
    diagram = calibration_diagram(mixed, np.array([0] * 10 + [1] * 10))
    assert diagram is not None
    assert diagram.metrics["coverage_90"] == pytest.approx(0.5, abs=0.05)


def test_pairs_that_are_not_finite_are_left_out() -> None:
    frames, groups = gaussian_frames(1.0, 40)
    broken = [(d, np.where(np.arange(8) < 4, np.nan, e)) for d, e in frames] + [(np.ones(2), np.full(2, np.inf))]
    diagram = calibration_diagram(broken, np.concatenate([groups, [99]]))
    assert diagram is not None
    assert diagram.n_frames == 40


def test_rank_correlation_of_known_values() -> None:
    # scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4])
    assert rank_correlation(np.array([1.0, 2, 2, 3]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.9486832980505139)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
