"""Measures of a committee on frames that it has not seen: errors, skill, coverage, blind spots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from alsys.frames import FloatArray
from alsys.metrics import LossName, Metrics, Name, PartName
from alsys.potentials.base import Committee
from alsys.potentials.calibration import Band, ForceCalibration
from alsys.store.base import Snapshot
from alsys.training.evaluate import N_BOOTSTRAP, batch_of, bootstrap_interval, chunks_of

LOSS_NAMES: Final[dict[str, tuple[LossName, LossName, LossName]]] = {
    "energy": ("holdout_energy_mae", "holdout_champion_energy_mae", "holdout_energy_loss_low"),
    "stress": ("holdout_stress_mae", "holdout_champion_stress_mae", "holdout_stress_loss_low"),
}
"""Metrics of a quantity: of the new version, of the champion, and of how much worse the new one is."""
MIN_PAIRS = 3
"""Frames from which skill is measured on them, and those of a system from which a paired test says anything."""
TOLERATED_GROWTH = 2.0
"""Error of energies or stresses over the champion's that is tolerated: offsets wander from fit to fit."""
N_FOLDS = 5


@dataclass(frozen=True, slots=True)
class AtomErrors:
    """Force errors of a committee on frames, atom by atom, over atoms that are not masked.

    Attributes:
        deviation: One ``(n_trusted,)`` of each frame: what is compared with the trust band, eV/Angstrom.
        error: Likewise: lengths of the force errors, eV/Angstrom.
        mae, mse, square: ``(n_frames,)`` mean absolute and mean squared error, and mean square, of force components.
        energy: ``(n_frames,)`` absolute error of the energy per atom, eV; NaN for a frame with masked atoms.
        stress: ``(n_frames,)`` mean absolute error of stress components, eV/Angstrom^3; NaN where either has none.
    """

    deviation: tuple[FloatArray, ...]
    error: tuple[FloatArray, ...]
    mae: FloatArray
    mse: FloatArray
    square: FloatArray
    energy: FloatArray
    stress: FloatArray


def atom_errors(committee: Committee, snapshot: Snapshot) -> AtomErrors:
    """Evaluates a committee on labelled frames; each must have an atom that is not masked."""
    deviations: list[FloatArray] = []
    differences: list[FloatArray] = []
    truths: list[FloatArray] = []
    energies: list[float] = []
    stresses: list[float] = []
    for rows in chunks_of(snapshot):
        part = snapshot.select(rows)
        prediction = committee.evaluate(batch_of(part))
        for i in range(part.n_frames):
            atoms = np.arange(part.offsets[i], part.offsets[i + 1])
            atoms = atoms[part.mask[atoms]]
            deviations.append(prediction.force_deviation[atoms])
            differences.append(prediction.forces[atoms] - part.forces[atoms])
            truths.append(part.forces[atoms])
        is_whole = part.is_whole
        energies += np.where(is_whole, np.abs(prediction.energy - part.energy) / part.n_atoms, np.nan).tolist()
        stress = np.full_like(part.stress, np.nan) if prediction.stress is None else prediction.stress
        stresses += np.where(is_whole, np.abs(stress - part.stress).mean(axis=(1, 2)), np.nan).tolist()
    return AtomErrors(
        deviation=tuple(deviations),
        error=tuple(np.linalg.norm(difference, axis=1) for difference in differences),
        mae=np.array([np.abs(difference).mean() for difference in differences]),
        mse=np.array([np.square(difference).mean() for difference in differences]),
        square=np.array([np.square(truth).mean() for truth in truths]),
        energy=np.array(energies),
        stress=np.array(stresses),
    )


def skill(errors: AtomErrors, seed: int) -> Metrics:
    """Share of the variance of forces that is explained, and its upper 95 % bootstrap limit over frames."""
    total = float(errors.square.sum())
    if total <= 0.0:
        return Metrics()
    chosen = np.random.default_rng(seed).integers(0, errors.mse.size, (N_BOOTSTRAP, errors.mse.size))
    squares = errors.square[chosen].sum(axis=1)
    explained = 1.0 - errors.mse[chosen].sum(axis=1) / np.maximum(squares, np.finfo(np.float64).tiny)
    return Metrics(
        {
            "holdout_skill": 1.0 - float(errors.mse.sum()) / total,
            "holdout_skill_high": float(np.quantile(explained, 0.975)),
        }
    )


def by_system(
    random: Snapshot,
    new: AtomErrors,
    known: Snapshot,
    old: AtomErrors | None,
    *,
    tolerated_loss: float,
    seed: int,
) -> Metrics:
    """Errors of each system of the random arm beside the champion's; empty where there is one system only.

    Args:
        random: The random arm.
        new: Errors of the new committee on it.
        known: The part of it whose elements the champion knows.
        old: Errors of the champion on that; None where there is none.
        tolerated_loss: Relative growth of an error that counts as none.
        seed: Of the bootstrap.
    """
    codes = np.unique(random.system)
    if codes.size < 2:
        return Metrics()
    row_of = {frame_id: row for row, frame_id in enumerate(random.frame_ids)}
    metrics: dict[tuple[PartName, str], float] = {}
    for code in codes:
        name, mine = random.systems[int(code)], random.system == code
        metrics["force_mae_random_arm", name] = float(new.mae[mine].mean())
        metrics["n_random", name] = float(mine.sum())
        rows = np.flatnonzero(known.system == code)
        if old is None or rows.size < 2:
            continue
        mae = np.array([new.mae[row_of[known.frame_ids[row]]] for row in rows])
        low, high = bootstrap_interval(mae - old.mae[rows], seed)
        metrics["difference_low", name], metrics["difference_high", name] = low, high
        if rows.size >= MIN_PAIRS:
            metrics["p_worse", name] = p_positive(mae - (1.0 + tolerated_loss) * old.mae[rows])
    return Metrics(parts=metrics)


def losses(
    random: Snapshot, new: AtomErrors, known: Snapshot, old: AtomErrors, quantities: Sequence[str], seed: int
) -> Metrics:
    """How energies and stresses fare beside the champion's.

    Args:
        random: The random arm.
        new: Errors of the new committee on it.
        known: The part of it whose elements the champion knows.
        old: Errors of the champion on that.
        quantities: ``energy``, ``stress``.
        seed: Of the bootstrap.
    """
    row_of = {frame_id: row for row, frame_id in enumerate(random.frame_ids)}
    rows = np.array([row_of[frame_id] for frame_id in known.frame_ids])
    codes = np.unique(known.system)
    parts = {"": np.ones(known.n_frames, dtype=np.bool_)}
    if codes.size > 1:
        parts |= {known.systems[int(code)]: known.system == code for code in codes}
    whole: dict[Name, float] = {}
    by_part: dict[tuple[PartName, str], float] = {}
    for quantity in quantities:
        mine, theirs = getattr(new, quantity)[rows], getattr(old, quantity)
        for system, is_part in parts.items():
            is_counted = is_part & np.isfinite(mine) & np.isfinite(theirs)
            if is_counted.sum() < MIN_PAIRS:
                continue
            after, before = mine[is_counted], theirs[is_counted]
            low = bootstrap_interval(after - TOLERATED_GROWTH * before, seed)[0]
            values = float(after.mean()), float(before.mean()), low
            for name, value in zip(LOSS_NAMES[quantity], values, strict=True):
                if system:
                    by_part[name, system] = value
                else:
                    whole[name] = value
    return Metrics(whole, by_part)


def p_positive(values: FloatArray) -> float:
    """p-value of the one-sided t-test of "the mean is at most zero"; at least two values."""
    mean, spread = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    if spread <= 0.0:
        return 0.0 if mean > 0 else 1.0
    return float(special.stdtr(values.size - 1, -mean / spread))


def coverage(errors: AtomErrors, band: Band) -> tuple[float, float]:
    """Share of atoms whose error is within the band, mean over frames, and its standard error."""
    shares = [float((e <= band.error(d)).mean()) for d, e in zip(errors.deviation, errors.error, strict=True)]
    spread = float(np.std([*shares, 0.5, 1.0]))  # a run of perfect frames must not claim certainty
    return float(np.mean(shares)), spread / math.sqrt(len(shares))


def blind_spots(errors: AtomErrors, tolerated_error: float, probability: float) -> Metrics:
    """How often a frame is trusted that is wrong, with a band calibrated on other frames.

    Args:
        errors: Of at least `N_FOLDS` times two frames.
        tolerated_error: Force error of an atom beyond which a frame should not have been trusted, eV/Angstrom.
        probability: Share of atoms that the band is to cover.
    """
    n = len(errors.error)
    fold = np.arange(n) % N_FOLDS
    is_trusted, is_blind = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    for k in range(N_FOLDS):
        calibration = ForceCalibration(probability, window=n, half_life=math.inf)
        calibration.observe([(errors.deviation[i], errors.error[i]) for i in np.flatnonzero(fold != k)])
        edge = calibration.band.deviation(tolerated_error)
        for i in np.flatnonzero(fold == k):
            is_trusted[i] = errors.deviation[i].max() < edge
            is_blind[i] = is_trusted[i] and errors.error[i].max() > tolerated_error
    return Metrics(
        {
            "blind_spots": float(is_blind.mean()),
            "blind_spots_high": upper_limit(int(is_blind.sum()), n),
            "trusted": float(is_trusted.mean()),
        }
    )


def upper_limit(k: int, n: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson limit of a share of which `k` out of `n` were seen."""
    return 1.0 if k >= n else float(special.betaincinv(k + 1, n - k, confidence))
