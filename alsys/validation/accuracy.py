"""Errors on the labels of the random arm, which no model is trained on: parity, and how errors fall with labels.

Frames with masked atoms count with the others' forces and without an energy, as in training. Intervals are 95 %
bootstraps over frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray, IntArray
from alsys.potentials.base import Committee
from alsys.store.base import Snapshot
from alsys.training.evaluate import batch_of, bootstrap_interval, chunks_of
from alsys.validation.results import finite


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model's mean beside labels.

    Attributes:
        n_atoms: ``(n_frames,)``.
        energy: ``(n_frames,)`` of labels, eV.
        model_energy: ``(n_frames,)``, eV; NaN where the model has none, or atoms are masked.
        forces: ``(n_total, 3)`` of labels, eV/Angstrom.
        model_forces: ``(n_total, 3)``; NaN where the model has none.
        deviation: ``(n_total,)`` what the model says of its own error, eV/Angstrom.
        is_trusted: ``(n_total,)`` atoms that count.
        composition: ``(n_frames,)`` equal for frames of the same atoms.
        trajectory: ``(n_frames,)``.
    """

    n_atoms: IntArray
    energy: FloatArray
    model_energy: FloatArray
    forces: FloatArray
    model_forces: FloatArray
    deviation: FloatArray
    is_trusted: NDArray[np.bool_]
    composition: IntArray
    trajectory: IntArray

    @property
    def frame_of_atom(self) -> IntArray:
        """``(n_total,)``."""
        return np.repeat(np.arange(self.n_atoms.size), self.n_atoms)

    @property
    def counts(self) -> NDArray[np.bool_]:
        """``(n_total,)`` atoms that are trusted and that the model has a force for."""
        known: NDArray[np.bool_] = self.is_trusted & np.isfinite(self.model_forces).all(axis=1)
        return known

    @property
    def n_failed(self) -> int:
        """Frames that the model has no forces for."""
        bad = ~np.isfinite(self.model_forces).all(axis=1)
        return int(np.unique(self.frame_of_atom[bad]).size)

    def atoms_of_frames(self) -> list[tuple[FloatArray, FloatArray]]:
        """Deviations and lengths of the force error of each frame's atoms that count, frame by frame."""
        error = np.linalg.norm(self.model_forces - self.forces, axis=1)
        ends = np.cumsum(self.n_atoms)[:-1]
        counts = np.split(self.counts, ends)
        return [
            (d[c], e[c]) for d, e, c in zip(np.split(self.deviation, ends), np.split(error, ends), counts, strict=True)
        ]


def compare_labels(committee: Committee, snapshot: Snapshot) -> Comparison:
    """Evaluates a model on labelled frames, at least one."""
    parts = [(snapshot.select(rows), rows) for rows in chunks_of(snapshot)]
    predictions = [committee.evaluate(batch_of(part)) for part, _ in parts]
    energies = np.concatenate([p.energy for p in predictions])
    formulas = [tuple(sorted(numbers.tolist())) for numbers in np.split(snapshot.numbers, snapshot.offsets[1:-1])]
    order = {formula: k for k, formula in enumerate(sorted(set(formulas)))}
    return Comparison(
        n_atoms=snapshot.n_atoms,
        energy=snapshot.energy,
        model_energy=np.where(snapshot.is_whole, energies, np.nan),
        forces=snapshot.forces,
        model_forces=np.concatenate([p.forces for p in predictions]),
        deviation=np.concatenate([p.force_deviation for p in predictions]),
        is_trusted=snapshot.mask,
        composition=np.array([order[formula] for formula in formulas], dtype=np.int64),
        trajectory=snapshot.trajectory,
    )


def parity_metrics(compared: Comparison, seed: int = 0) -> dict[str, float]:
    """Errors as numbers.

    ``energy_mae``, ``energy_rmse`` (per atom, eV), ``energy_mae_shifted`` (after the mean error of each composition is
    taken away), ``force_mae``, ``force_rmse``, ``force_worst`` (eV/Angstrom), ``force_r2``, 95 % intervals of both
    MAEs (``..._from``, ``..._to``), ``n_frames``, ``n_failed``. Only what can be had from the frames is there.
    """
    counts = compared.counts
    error = (compared.model_forces - compared.forces)[counts]
    frames = compared.frame_of_atom[counts]
    metrics: dict[str, float] = {"n_frames": float(compared.n_atoms.size), "n_failed": float(compared.n_failed)}
    if error.size:
        spread = np.square(compared.forces[counts] - compared.forces[counts].mean(axis=0)).sum()
        metrics |= {
            "force_mae": float(np.abs(error).mean()),
            "force_rmse": float(np.sqrt(np.square(error).mean())),
            "force_worst": float(np.abs(error).max()),
            "force_r2": 1.0 - float(np.square(error).sum() / spread) if spread > 0 else float("nan"),
        }
        sums, sizes = np.bincount(frames, np.abs(error).mean(axis=1)), np.bincount(frames)
        per_frame = sums[sizes > 0] / sizes[sizes > 0]
        metrics |= _interval("force_mae", per_frame, seed)
    known = np.isfinite(compared.model_energy)
    if known.any():
        per_atom = ((compared.model_energy - compared.energy) / compared.n_atoms)[known]
        kind = compared.composition[known]
        shifted = per_atom - (np.bincount(kind, per_atom) / np.maximum(np.bincount(kind), 1))[kind]
        metrics |= {
            "energy_mae": float(np.abs(per_atom).mean()),
            "energy_rmse": float(np.sqrt(np.square(per_atom).mean())),
            "energy_mae_shifted": float(np.abs(shifted).mean()),
            **_interval("energy_mae", np.abs(per_atom), seed),
        }
    return finite(metrics)


def parity_points(compared: Comparison, n_max: int = 400, seed: int = 0) -> dict[str, list[list[float]]]:
    """At most `n_max` pairs (label, model) each of ``forces`` (eV/Angstrom) and ``energies`` (eV per atom).

    Energies are relative to the mean label of their composition. The largest errors are always among the points.
    """
    counts = compared.counts
    label, model = compared.forces[counts].ravel(), compared.model_forces[counts].ravel()
    rows = _chosen(np.abs(model - label), n_max, seed)
    forces = np.stack([label[rows], model[rows]], axis=1)
    known = np.isfinite(compared.model_energy)
    kind = compared.composition[known]
    per_atom, predicted = (
        values[known] / compared.n_atoms[known] for values in (compared.energy, compared.model_energy)
    )
    mean = (np.bincount(kind, per_atom) / np.maximum(np.bincount(kind), 1))[kind] if kind.size else per_atom
    rows = _chosen(np.abs(predicted - per_atom), n_max, seed)
    energies = np.stack([(per_atom - mean)[rows], (predicted - mean)[rows]], axis=1)
    return {"forces": forces.tolist(), "energies": energies.tolist()}


def learning_exponent(n_labels: Sequence[float], errors: Sequence[float]) -> float:
    """Slope of log error against log labels, by least squares; NaN with fewer than two different numbers of labels."""
    usable = [(n, e) for n, e in zip(n_labels, errors, strict=True) if n > 0 and e > 0]
    if len({n for n, _ in usable}) < 2:
        return float("nan")
    x, y = np.log([n for n, _ in usable]), np.log([e for _, e in usable])
    x = x - x.mean()
    return float((x * y).sum() / np.square(x).sum())


def _chosen(errors: FloatArray, n_max: int, seed: int) -> IntArray:
    """Indices of at most `n_max` values: a tenth are the largest, the others are at random."""
    if errors.size <= n_max:
        return np.arange(errors.size)
    order = np.argsort(-errors)
    n_top = n_max // 10
    others = np.random.default_rng(seed).choice(order[n_top:], n_max - n_top, replace=False)
    return np.sort(np.concatenate([order[:n_top], others]))


def _interval(name: str, values: FloatArray, seed: int) -> dict[str, float]:
    if values.size < 2:
        return {}
    low, high = bootstrap_interval(values, seed)
    return {f"{name}_from": low, f"{name}_to": high}
