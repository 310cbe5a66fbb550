"""How good a committee is: errors on frames it has not seen, with intervals, and against the champion.

Intervals are 95 % percentile bootstraps over frames, the unit that is drawn at random (B. Efron, Ann. Stat. 7, 1
(1979)); the difference to the champion is a paired bootstrap on the same frames. Of frames with masked atoms only the
others count, and no energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alsys.frames import Arm, FloatArray, IntArray
from alsys.labels import Prediction
from alsys.metrics import Metrics, Name
from alsys.potentials.base import Committee, FrameBatch
from alsys.store.base import Snapshot

N_BOOTSTRAP = 2000
BATCH_ATOMS = 2000
MAX_EVALUATED = 4000
"""Frames of the training and of the validation set whose errors are measured after a fit."""


@dataclass(frozen=True, slots=True)
class FrameErrors:
    """Errors of a committee's mean on each frame of a snapshot, over atoms that are not masked; eV, eV/Angstrom.

    Attributes:
        force_mae: ``(n_frames,)`` mean absolute error of force components.
        force_mse: ``(n_frames,)`` mean squared error of force components.
        energy: ``(n_frames,)`` absolute error of the energy per atom; NaN for a frame with masked atoms.
        deviation: ``(n_frames,)`` largest force deviation of an atom.
        mean_deviation: ``(n_frames,)`` mean force deviation over atoms.
        stress: ``(n_frames,)`` mean absolute error of stress components, eV/Angstrom^3; NaN where either has none, and
            for a frame with masked atoms.
    """

    force_mae: FloatArray
    force_mse: FloatArray
    energy: FloatArray
    deviation: FloatArray
    mean_deviation: FloatArray
    stress: FloatArray


def predictions_of(
    committee: Committee, snapshot: Snapshot, n_newest: int, *, is_difference: bool = False
) -> dict[str, Prediction]:
    """What a committee predicts for the newest labels of a snapshot, by frame.

    Free atoms, imported frames and masked ones are left out.

    Args:
        committee: The committee.
        snapshot: Labels.
        n_newest: So many of them.
        is_difference: It was fitted to labels minus baselines, which are added back; frames without one are left out.
    """
    predictions: dict[str, Prediction] = {}
    if n_newest < 1:
        return predictions
    molecules = snapshot.select(~snapshot.is_arm(Arm.ATOM, Arm.IMPORTED) & snapshot.is_whole)
    if is_difference:
        if molecules.baseline_energy is None:
            return predictions
        molecules = molecules.select(np.isfinite(molecules.baseline_energy))
    newest = molecules.select(np.arange(max(0, molecules.n_frames - n_newest), molecules.n_frames))
    for rows in chunks_of(newest):
        part = newest.select(rows)
        result = committee.evaluate(batch_of(part))
        ends = part.offsets[1:-1]
        energies, all_forces = result.energy, result.forces
        if is_difference:
            assert part.baseline_energy is not None
            assert part.baseline_forces is not None
            energies, all_forces = energies + part.baseline_energy, all_forces + part.baseline_forces
        forces, deviations = np.split(all_forces, ends), np.split(result.force_deviation, ends)
        for i, frame_id in enumerate(part.frame_ids):
            predictions[frame_id] = Prediction(float(energies[i]), forces[i], deviations[i], committee.version)
    return predictions


def evaluate(committee: Committee, snapshot: Snapshot) -> FrameErrors:
    """Evaluates a committee on labelled frames, in batches of about 2,000 atoms.

    Each frame must have an atom that is not masked.
    """
    parts: list[tuple[FloatArray, ...]] = []
    for rows in chunks_of(snapshot):
        part = snapshot.select(rows)
        prediction = committee.evaluate(batch_of(part))
        starts, is_trusted, n_trusted = part.offsets[:-1], part.mask, part.n_trusted
        error = np.where(is_trusted[:, None], prediction.forces - part.forces, 0.0)
        deviation = np.where(is_trusted, prediction.force_deviation, 0.0)
        energy = np.abs(prediction.energy - part.energy) / part.n_atoms
        stress = np.full(part.n_frames, np.nan)
        if prediction.stress is not None:
            stress = np.where(part.is_whole, np.abs(prediction.stress - part.stress).mean(axis=(1, 2)), np.nan)
        parts.append(
            (
                np.add.reduceat(np.abs(error).sum(axis=1), starts) / (3.0 * n_trusted),
                np.add.reduceat(np.square(error).sum(axis=1), starts) / (3.0 * n_trusted),
                np.where(part.is_whole, energy, np.nan),
                np.maximum.reduceat(deviation, starts),
                np.add.reduceat(deviation, starts) / n_trusted,
                stress,
            )
        )
    if not parts:
        return FrameErrors(*(np.zeros(0) for _ in range(6)))
    return FrameErrors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def error_correlation(committee: Committee, snapshot: Snapshot) -> float | None:
    """Mean correlation of the force errors of two members: near 1, members err alike and their spread says little.

    Pearson's, over components of atoms that are not masked, mean over pairs of members. The gain of a committee's mean
    falls with it (N. Ueda, R. Nakano, Proc. ICNN 1, 90 (1996)).

    Returns:
        None without two members, a frame, or an error.
    """
    errors = []
    for rows in chunks_of(snapshot):
        part = snapshot.select(rows)
        forces = committee.evaluate(batch_of(part)).member_forces
        if forces is None or len(forces) < 2:
            return None
        errors.append((forces - part.forces)[:, part.mask].reshape(len(forces), -1))
    if not errors:
        return None
    together = np.concatenate(errors, axis=1)
    if not (together.std(axis=1) > 0.0).all():
        return None
    correlation = np.atleast_2d(np.corrcoef(together))
    return float(correlation[np.triu_indices(len(correlation), k=1)].mean())


def thinned(snapshot: Snapshot) -> Snapshot:
    """At most `MAX_EVALUATED` frames, evenly spaced: imported data may be far more than a mean error needs."""
    if snapshot.n_frames <= MAX_EVALUATED:
        return snapshot
    return snapshot.select(np.linspace(0, snapshot.n_frames - 1, MAX_EVALUATED).astype(np.int64))


def chunks_of(snapshot: Snapshot) -> list[IntArray]:
    """Rows of a snapshot in consecutive groups of about 2,000 atoms, at least one frame each."""
    group = (np.cumsum(snapshot.n_atoms) - 1) // BATCH_ATOMS
    return [np.flatnonzero(group == value) for value in np.unique(group)]


def batch_of(snapshot: Snapshot) -> FrameBatch:
    """The frames of a snapshot as one batch."""
    return FrameBatch(
        snapshot.n_atoms, snapshot.numbers, snapshot.positions, snapshot.cell, snapshot.pbc,
        snapshot.charge, snapshot.multiplicity,
    )  # fmt: skip


def bootstrap_interval(values: FloatArray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `values`; needs at least two."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, values.size, (N_BOOTSTRAP, values.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_ratio(values: FloatArray, reference: FloatArray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `values` over that of `reference`, on the same frames; needs at least two."""
    drawn = np.random.default_rng(seed).integers(0, values.size, (N_BOOTSTRAP, values.size))
    low, high = np.quantile(values[drawn].mean(axis=1) / reference[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def fit_metrics(
    committee: Committee,
    champion: Committee | None,
    train: Snapshot,
    validation: Snapshot,
    random: Snapshot,
    *,
    wall_s: float,
    epochs: float,
    seed: int,
) -> tuple[Metrics, tuple[tuple[float, float], ...]]:
    """Metrics and calibration of a fit, as documented in `alsys.training.base.TrainedCommittee`."""
    metrics: dict[Name, float] = {
        "wall_s": wall_s,
        "epochs": epochs,
        "n_train": float(train.n_frames),
        "n_validation": float(validation.n_frames),
        "n_random": float(random.n_frames),
        "force_mae_train": float(evaluate(committee, thinned(train)).force_mae.mean()),
    }
    if validation.n_frames:
        errors = evaluate(committee, thinned(validation))
        metrics |= {
            "force_mae_validation": float(errors.force_mae.mean()),
            **_mean_of_known("energy_mae_validation", errors.energy),
        }
    if not random.n_frames:
        return Metrics(metrics), ()
    errors = evaluate(committee, random)
    metrics |= {
        "force_mae_random_arm": float(errors.force_mae.mean()),
        "force_rmse_random_arm": float(np.sqrt(errors.force_mse.mean())),
        **_mean_of_known("energy_mae_random_arm", errors.energy),
        "force_deviation_random_arm": float(errors.mean_deviation.mean()),
        **_mean_of_known("stress_mae_random_arm", errors.stress),
    }
    if random.n_frames >= 2:
        low, high = bootstrap_interval(errors.force_mae, seed)
        metrics |= {"force_mae_random_arm_low": low, "force_mae_random_arm_high": high}
    if champion is not None:
        old = evaluate(champion, random)
        metrics["champion_force_mae_random_arm"] = float(old.force_mae.mean())
        if random.n_frames >= 2:
            low, high = bootstrap_interval(errors.force_mae - old.force_mae, seed)
            metrics |= {"difference_low": low, "difference_high": high}
    correlation = error_correlation(committee, random)
    if correlation is not None and random.n_frames >= 2:
        metrics["error_correlation"] = correlation
    calibration = tuple(zip(errors.deviation.tolist(), errors.force_mae.tolist(), strict=True))
    return Metrics(metrics), calibration


def _mean_of_known(name: Name, values: FloatArray) -> dict[Name, float]:
    """Mean over frames whose energies or stresses count; no entry where there is none."""
    known = values[~np.isnan(values)]
    return {name: float(known.mean())} if known.size else {}


def half_batches(train: Snapshot, first: int) -> tuple[list[FrameBatch], list[NDArray[np.bool_]]]:
    """Every other frame, from `first` on, in batches, and the atoms of each that were learned from."""
    half = train.select(np.arange(first, train.n_frames, 2))
    parts = [half.select(rows) for rows in chunks_of(half)]
    return [batch_of(part) for part in parts], [part.mask for part in parts]
