"""The calibration diagram: how often the true force error of an atom lies within what was claimed, at each confidence.

Two claims are looked at. The raw one takes the force deviation for the standard deviation of a Gaussian in three
dimensions. The calibrated one is the conformal band that the campaign trusts (`alsys.potentials.calibration`), fitted
on four fifths of the trajectories and tested on the fifth, in turn, so that no frame tests what it has fitted. A claim
is as good as the diagonal is near (V. Kuleshov, N. Fenner, S. Ermon, ICML 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, rankdata

from alsys.frames import FloatArray, IntArray
from alsys.potentials.calibration import FLOOR, ForceCalibration

NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Confidences looked at."""
N_FOLDS = 5
MIN_FRAMES = 10
"""Frames below which there is no diagram."""

AtomPairs = tuple[FloatArray, FloatArray]
"""``(n_atoms,)`` deviations and lengths of force errors of one frame, eV/Angstrom."""


@dataclass(frozen=True, slots=True)
class CalibrationDiagram:
    """Shares covered, mean over frames, at each confidence in `NOMINAL`.

    Attributes:
        nominal: ``(n,)`` what was claimed.
        calibrated: ``(n,)`` share within the conformal band.
        calibrated_error: ``(n,)`` standard error, from the scatter between frames.
        raw: ``(n,)`` share within the Gaussian of the deviation.
        rank_correlation: Spearman's, of deviation and error over atoms; NaN where one of them is constant.
        n_frames: Frames it is taken over.
    """

    nominal: FloatArray
    calibrated: FloatArray
    calibrated_error: FloatArray
    raw: FloatArray
    rank_correlation: float
    n_frames: int

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers worth keeping.

        ``miscalibration`` and ``miscalibration_raw`` (mean distance to the diagonal), ``coverage_90``, its standard
        error ``coverage_90_error``, ``coverage_90_raw``, ``rank_correlation``, ``n_frames``.
        """
        at = NOMINAL.index(0.9)
        return {
            "miscalibration": float(np.abs(self.calibrated - self.nominal).mean()),
            "miscalibration_raw": float(np.abs(self.raw - self.nominal).mean()),
            "coverage_90": float(self.calibrated[at]),
            "coverage_90_error": float(self.calibrated_error[at]),
            "coverage_90_raw": float(self.raw[at]),
            "rank_correlation": self.rank_correlation,
            "n_frames": float(self.n_frames),
        }


def calibration_diagram(
    frames: Sequence[AtomPairs], trajectories: IntArray, seed: int = 0
) -> CalibrationDiagram | None:
    """The diagram of frames the model was not trained on.

    Args:
        frames: Deviations and errors of each frame's atoms; pairs that are not finite and frames without any are left
            out.
        trajectories: ``(n_frames,)`` frames of one trajectory are in one fold.
        seed: Of the folds.

    Returns:
        None with fewer than `MIN_FRAMES` frames, or all on one trajectory.
    """
    pairs, groups = _usable(frames, trajectories)
    if len(pairs) < MIN_FRAMES or np.unique(groups).size < 2:
        return None
    nominal = np.array(NOMINAL)
    raw = np.array([[_gaussian_share(pair, p) for p in NOMINAL] for pair in pairs])
    held = np.zeros((len(pairs), nominal.size))
    fold_of = _folds(groups, seed)
    for fold in np.unique(fold_of):
        test = np.flatnonzero(fold_of == fold)
        rest = [pairs[k] for k in np.flatnonzero(fold_of != fold)]
        for column, p in enumerate(NOMINAL):
            calibration = ForceCalibration(p, window=len(rest), half_life=1e9, min_frames=2)
            calibration.observe(rest)
            for k in test:
                deviation, error = pairs[k]
                held[k, column] = float((error <= calibration.band.error(deviation)).mean())
    deviation, error = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    return CalibrationDiagram(
        nominal,
        held.mean(axis=0),
        held.std(axis=0) / np.sqrt(len(pairs)),
        raw.mean(axis=0),
        rank_correlation(deviation, error),
        len(pairs),
    )


def rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Spearman's, with average ranks for ties; NaN for fewer than three pairs or constant data."""
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _usable(frames: Sequence[AtomPairs], trajectories: IntArray) -> tuple[list[AtomPairs], IntArray]:
    pairs: list[AtomPairs] = []
    groups: list[int] = []
    for (deviation, error), trajectory in zip(frames, trajectories.tolist(), strict=True):
        is_finite = np.isfinite(deviation) & np.isfinite(error)
        if is_finite.any():
            pairs.append((deviation[is_finite], error[is_finite]))
            groups.append(trajectory)
    return pairs, np.array(groups, dtype=np.int64)


def _gaussian_share(pair: AtomPairs, probability: float) -> float:
    """Share of atoms whose error is within the sphere that holds `probability` of a Gaussian.

    The deviation is its standard deviation in all three directions together.
    """
    deviation, error = pair
    radius = np.maximum(deviation, FLOOR) * np.sqrt(chi2.ppf(probability, 3) / 3.0)
    return float((error <= radius).mean())


def _folds(groups: IntArray, seed: int) -> IntArray:
    unique = np.random.default_rng(seed).permutation(np.unique(groups))
    fold_of = {int(group): k % min(N_FOLDS, unique.size) for k, group in enumerate(unique)}
    return np.array([fold_of[int(group)] for group in groups], dtype=np.int64)
