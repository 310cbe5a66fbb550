"""Rough forces from the labels alone: a pair potential that tells a wrong sign before there is a committee.

Linear in its coefficients, so it is one ridge regression; iterated with weights that fall with a frame's error, so that
one wrong label in ten does not bend it. Fitted to a fixed sample of the labels seen (those with the smallest
identities), hence independent of their order. Molecules only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from alsys.frames import FloatArray, Frame
from alsys.labels import Label
from alsys.potentials.base import FrameBatch
from alsys.potentials.pair import PairModelSpec

MAX_FRAMES = 40
MIN_FRAMES = 10
MAX_ATOMS = 40
R_MAX = 5.0
N_BASIS = 14
RIDGE = 1e-3
"""Share of the mean square of a coefficient's column."""
ITERATIONS = 6
FOLDS = 5


@dataclass(frozen=True, slots=True)
class RoughPrediction:
    """Forces ``(n_atoms, 3)`` of the pair potential, and its errors on frames left out of a fit, eV/Angstrom."""

    forces: FloatArray
    past_errors: FloatArray


@dataclass(frozen=True, slots=True)
class _Fit:
    spec: PairModelSpec
    elements: frozenset[int]
    folds: dict[str, int]
    coefficients: list[FloatArray]
    errors: FloatArray


class RoughForces:
    """A pair potential of the labels seen so far. A label in the sample is predicted by a fit that left it out."""

    def __init__(self) -> None:
        self._sample: dict[str, tuple[Frame, FloatArray]] = {}
        self._fit: _Fit | None = None

    def observe(self, frame: Frame, label: Label) -> None:
        """Takes a label into the sample, if it belongs there."""
        if not _is_small_molecule(frame) or label.label_id in self._sample:
            return
        if len(self._sample) >= MAX_FRAMES:
            last = max(self._sample)
            if label.label_id >= last:
                return
            del self._sample[last]
        self._sample[label.label_id] = (frame, label.forces)
        self._fit = None

    def forget(self, label_id: str) -> None:
        """Takes a label out of the sample."""
        if self._sample.pop(label_id, None) is not None:
            self._fit = None

    def predict(self, frame: Frame, label_id: str) -> RoughPrediction | None:
        """Forces of a frame; None where there are too few labels, or an element is new."""
        if len(self._sample) < MIN_FRAMES or not _is_small_molecule(frame):
            return None
        if self._fit is None:
            self._fit = _fit(self._sample)
        fit = self._fit
        if not {int(z) for z in frame.numbers} <= fit.elements:
            return None
        _, design = fit.spec.design(FrameBatch.of([frame]))
        chosen = fit.coefficients[fit.folds.get(label_id, FOLDS)]
        return RoughPrediction((design @ chosen).reshape(-1, 3), fit.errors)


def _is_small_molecule(frame: Frame) -> bool:
    return 1 < frame.n_atoms <= MAX_ATOMS and not frame.pbc.any()


def _fit(sample: dict[str, tuple[Frame, FloatArray]]) -> _Fit:
    """One fit without each fold, and one with all."""
    ids = sorted(sample)
    frames = [sample[key][0] for key in ids]
    elements = frozenset(int(z) for frame in frames for z in frame.numbers)
    symbols = [chemical_symbols[z] for z in sorted(elements)]
    spec = PairModelSpec({"elements": symbols, "r_max": R_MAX, "n_basis": N_BASIS})
    designs = [spec.design(FrameBatch.of([frame]))[1] for frame in frames]
    targets = [sample[key][1].ravel() for key in ids]
    coefficients = []
    errors = np.zeros(len(ids))
    for fold in range(FOLDS + 1):
        inside = [i for i in range(len(ids)) if i % FOLDS != fold]
        solution = _robust([designs[i] for i in inside], [targets[i] for i in inside])
        coefficients.append(solution)
        for i in range(len(ids)):
            if i % FOLDS == fold:
                errors[i] = np.sqrt(np.square(designs[i] @ solution - targets[i]).mean())
    return _Fit(spec, elements, {key: i % FOLDS for i, key in enumerate(ids)}, coefficients, errors)


def _robust(designs: list[FloatArray], targets: list[FloatArray]) -> FloatArray:
    """Ridge regression with Cauchy weights of frames, scale from the median error."""
    grams = [design.T @ design for design in designs]
    moments = [design.T @ target for design, target in zip(designs, targets, strict=True)]
    # a frame starts with the weight of its size, so that ten times the force does not have a hundred times the say
    sizes = np.array([float(np.square(target).mean()) for target in targets])
    weights = 1.0 / (1.0 + sizes / max(float(np.median(sizes)), 1e-12))
    solution: FloatArray = np.zeros(len(moments[0]))
    for _ in range(ITERATIONS):
        gram = np.einsum("f,fij->ij", weights, np.stack(grams))
        ridge = RIDGE * max(float(np.trace(gram)) / len(gram), 1e-12)
        solution = np.linalg.solve(gram + ridge * np.eye(len(gram)), np.einsum("f,fi->i", weights, np.stack(moments)))
        errors = np.array([float(np.square(d @ solution - t).mean()) for d, t in zip(designs, targets, strict=True)])
        weights = 1.0 / (1.0 + errors / max(float(np.median(errors)), 1e-12))
    return solution
