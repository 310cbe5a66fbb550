"""Figures of labels that findings rest on, worked out for all labels of a call in arrays.

They depend on a frame, its label and what a committee expects of it, and on nothing that was seen before, so it makes
no difference how many labels come together. Labels of one number of atoms are one batch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray, Frame
from alsys.labeling.gate.balance import largest_forces, net_forces, torques_and_turning_forces
from alsys.labeling.gate.expectations import Composition
from alsys.labeling.gate.findings import Finding
from alsys.labeling.gate.gross_errors import may_be_scaled, may_be_swapped
from alsys.labels import Label, Prediction

FORCE_FLOOR = 5e-3
"""Residual of an atom's force that is always allowed, eV/Angstrom; smaller deviations say nothing."""
MAX_PAIRS = 1_000_000
"""Pairs of atoms that are compared in one batch."""

Judged = tuple[Frame, Label, Prediction | None]
"""What was labelled, its label, and what a committee expects of it."""


@dataclass(frozen=True, slots=True)
class Residual:
    """A label against what a committee expects.

    Attributes:
        prediction: What it expects.
        energy: Difference per atom, eV.
        ratio: Its size over the committee's own deviation.
        force: Largest error of an atom's force, eV/Angstrom.
        may_be_scaled: Whether the forces may have another sign or unit.
        may_be_swapped: Whether the forces may belong to other atoms.
    """

    prediction: Prediction
    energy: float
    ratio: float
    force: float
    may_be_scaled: bool
    may_be_swapped: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What is worked out once of a label.

    Attributes:
        frame: What was labelled.
        label: Its label.
        label_id: Its identity.
        broken: What makes it no label at all; the figures below tell nothing then.
        composition: Of the frame.
        net_force: Length of the sum of forces, eV/Angstrom; NaN for a frame in point charges.
        torque: Length of the net torque, eV; NaN for a periodic or embedded frame.
        turning: Length of the part of the forces that turns the molecule, eV/Angstrom; NaN likewise.
        largest_force: Of an atom, eV/Angstrom.
        residual: Against a committee; None where there is no prediction, or none that can be compared with.
    """

    frame: Frame
    label: Label
    label_id: str
    broken: Finding | None
    composition: Composition
    net_force: float = math.nan
    torque: float = math.nan
    turning: float = math.nan
    largest_force: float = math.nan
    residual: Residual | None = None


def figures_of(rows: Sequence[Judged]) -> list[Figures]:
    """Figures of labels, in order."""
    found: list[Figures | None] = [None] * len(rows)
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, (frame, label, _) in enumerate(rows):
        broken = _broken(frame, label)
        if broken is None:
            by_size[frame.n_atoms].append(i)
        else:
            found[i] = Figures(frame, label, label.label_id, broken, composition_of(frame))
    for n_atoms, chosen in by_size.items():
        at_once = max(1, MAX_PAIRS // n_atoms**2)
        for start in range(0, len(chosen), at_once):
            batch = chosen[start : start + at_once]
            for i, figures in zip(batch, _of_one_size([rows[i] for i in batch]), strict=True):
                found[i] = figures
    return [figures for figures in found if figures is not None]


def composition_of(frame: Frame) -> Composition:
    """Counts of the elements, charge and multiplicity."""
    return _composition(tuple(frame.numbers.tolist()), frame.charge, frame.multiplicity)


@lru_cache(maxsize=1024)
def _composition(numbers: tuple[int, ...], charge: int, multiplicity: int) -> Composition:
    return tuple(sorted(Counter(numbers).items())), charge, multiplicity


def _of_one_size(rows: Sequence[Judged]) -> Iterator[Figures]:
    frames = [frame for frame, _, _ in rows]
    forces = np.stack([label.forces for _, label, _ in rows])
    net = net_forces(frames, forces).tolist()
    torques, turnings = torques_and_turning_forces(frames, forces)
    columns = zip(net, torques.tolist(), turnings.tolist(), largest_forces(forces).tolist(), strict=True)
    for (frame, label, _), column, residual in zip(rows, columns, _residuals(rows, forces), strict=True):
        yield Figures(frame, label, label.label_id, None, composition_of(frame), *column, residual)


def _residuals(rows: Sequence[Judged], forces: FloatArray) -> list[Residual | None]:
    """Against predictions that can be compared with.

    Args:
        rows: Labels of frames of one size.
        forces: ``(n_labels, n_atoms, 3)``, eV/Angstrom.
    """
    found: list[Residual | None] = [None] * len(rows)
    known = [(i, p) for i, (_, _, p) in enumerate(rows) if p is not None and _is_comparable(p, forces.shape[1])]
    if not known:
        return found
    predictions = [prediction for _, prediction in known]
    predicted = np.stack([prediction.forces for prediction in predictions])
    is_finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(predicted), axis=(1, 2))
    own, expected = forces[[i for i, _ in known]][is_finite], predicted[is_finite]
    known = [row for row, is_whole in zip(known, is_finite.tolist(), strict=True) if is_whole]
    columns = zip(
        largest_forces(own - expected).tolist(),
        _mean_deviations([prediction for _, prediction in known]),
        may_be_scaled(own, expected),
        may_be_swapped(own, expected),
        strict=True,
    )
    for (i, prediction), (force, deviation, is_scaled, is_swapped) in zip(known, columns, strict=True):
        energy = (rows[i][1].energy - prediction.energy) / forces.shape[1]
        ratio = abs(energy) / max(deviation, FORCE_FLOOR) if math.isfinite(deviation) else 0.0
        found[i] = Residual(prediction, energy, ratio, force, bool(is_scaled), bool(is_swapped))
    return found


def _is_comparable(prediction: Prediction, n_atoms: int) -> bool:
    """Whether shapes fit and the energy is finite: a committee may itself predict NaN."""
    return prediction.forces.shape == (n_atoms, 3) and math.isfinite(prediction.energy)


def _mean_deviations(predictions: Sequence[Prediction]) -> list[float]:
    if not predictions:
        return []
    means: NDArray[np.float64] = np.stack([prediction.deviations for prediction in predictions]).mean(axis=1)
    return [float(mean) for mean in means.tolist()]


def _broken(frame: Frame, label: Label) -> Finding | None:
    """What makes a label no label at all."""
    if label.frame_id != frame.frame_id or label.forces.shape != (frame.n_atoms, 3):
        message = f"forces {label.forces.shape} for {frame.n_atoms} atoms, or the label of another frame"
        return Finding("shape", float(len(label.forces)), float(frame.n_atoms), True, message)
    broken = {
        "energy": not math.isfinite(label.energy),
        "forces": not np.isfinite(label.forces).all(),
        "stress": label.stress is not None and not np.isfinite(label.stress).all(),
    }
    name = next((name for name, is_broken in broken.items() if is_broken), None)
    return None if name is None else Finding("not-finite", math.nan, math.inf, True, f"{name} is not finite")
