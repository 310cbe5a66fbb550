"""Rough forces from the labels alone: a pair potential that tells a wrong sign before there is a committee.

Linear in its coefficients, so it is one ridge regression; iterated with weights that fall with a frame's error, so that
one wrong label in ten does not bend it. Fitted to a fixed sample of the labels seen (those with the smallest
identities), hence independent of their order. Each charge and multiplicity has a fit of its own: pairs cannot tell them
apart. Molecules only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

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
ITERATIONS = 5
FOLDS = 5


@dataclass(frozen=True, slots=True)
class PairPrediction:
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


@dataclass(frozen=True, slots=True)
class _Sums:
    """What a fit needs of a frame: design transposed times design and times forces, squared forces, components."""

    gram: FloatArray
    moment: FloatArray
    square: float
    count: float

    @classmethod
    def of(cls, design: FloatArray, forces: FloatArray) -> _Sums:
        """Those of a design ``(3 n_atoms, n_coefficients)`` and ``(3 n_atoms,)`` forces."""
        return cls(design.T @ design, design.T @ forces, float(forces @ forces), float(forces.size))


class PairForces:
    """Pair potentials of the labels seen so far. A label in the sample is predicted by a fit that left it out."""

    def __init__(self) -> None:
        self._by_state: dict[tuple[int, int], _OfState] = {}

    def observe(self, frame: Frame, label: Label) -> None:
        """Takes a label into the sample of its state, if it belongs there."""
        self._by_state.setdefault((frame.charge, frame.multiplicity), _OfState()).observe(frame, label)

    def forget(self, label_id: str) -> None:
        """Takes a label out of the samples."""
        for one in self._by_state.values():
            one.forget(label_id)

    def prepare(self, labelled: Sequence[tuple[Frame, str]]) -> None:
        """Works out at once what predictions for these frames and labels take; those of before are dropped."""
        of_state: dict[tuple[int, int], list[tuple[Frame, str]]] = defaultdict(list)
        for frame, label_id in labelled:
            of_state[frame.charge, frame.multiplicity].append((frame, label_id))
        for state, one in self._by_state.items():
            one.prepare(of_state[state])

    def predict(self, frame: Frame, label_id: str) -> PairPrediction | None:
        """Forces of a frame; None where there are too few labels of its state, or an element is new."""
        one = self._by_state.get((frame.charge, frame.multiplicity))
        return None if one is None else one.predict(frame, label_id)


class _OfState:
    """The labels of one charge and multiplicity."""

    def __init__(self) -> None:
        self._sample: dict[str, tuple[Frame, FloatArray]] = {}
        self._fit: _Fit | None = None
        self._elements: frozenset[int] = frozenset()
        self._sums: dict[str, _Sums] = {}
        self._prepared: dict[str, FloatArray] = {}

    def observe(self, frame: Frame, label: Label) -> None:
        """Takes a label into the sample, if it belongs there."""
        if not _is_small_molecule(frame) or label.label_id in self._sample:
            return
        if len(self._sample) >= MAX_FRAMES:
            last = max(self._sample)
            if label.label_id >= last:
                return
            self._remove(last)
        self._sample[label.label_id] = (frame, label.forces)
        self._fit = None

    def forget(self, label_id: str) -> None:
        """Takes a label out of the sample."""
        if label_id in self._sample:
            self._remove(label_id)
            self._fit = None

    def prepare(self, labelled: Sequence[tuple[Frame, str]]) -> None:
        """Designs of these frames, in one batch."""
        self._prepared = {}
        chosen = [
            (frame, label_id)
            for frame, label_id in labelled
            if _is_small_molecule(frame) and self._elements.issuperset(frame.numbers.tolist())
        ]
        if not chosen:
            return
        _, design = _spec_of(self._elements).design(FrameBatch.of([frame for frame, _ in chosen]))
        ends = np.cumsum([3 * frame.n_atoms for frame, _ in chosen])[:-1]
        self._prepared = {key: part for (_, key), part in zip(chosen, np.split(design, ends), strict=True)}

    def predict(self, frame: Frame, label_id: str) -> PairPrediction | None:
        """Forces of a frame; None where there are too few labels, or an element is new."""
        if len(self._sample) < MIN_FRAMES or not _is_small_molecule(frame):
            return None
        if self._fit is None:
            self._fit = self._fitted()
        fit = self._fit
        if not {int(z) for z in frame.numbers} <= fit.elements:
            return None
        design = self._prepared.get(label_id)
        if design is None:
            design = _design(fit.spec, frame)
        chosen = fit.coefficients[fit.folds.get(label_id, FOLDS)]
        return PairPrediction((design @ chosen).reshape(-1, 3), fit.errors)

    def _remove(self, label_id: str) -> None:
        del self._sample[label_id]
        self._sums.pop(label_id, None)

    def _fitted(self) -> _Fit:
        """One fit without each fold, and one with all."""
        ids = sorted(self._sample)
        elements = frozenset(int(z) for frame, _ in self._sample.values() for z in frame.numbers)
        spec = _spec_of(elements)
        if elements != self._elements:
            self._elements, self._sums, self._prepared = elements, {}, {}
        for key in ids:
            if key not in self._sums:
                frame, forces = self._sample[key]
                design = self._prepared.get(key)
                self._sums[key] = _Sums.of(_design(spec, frame) if design is None else design, forces.ravel())
        sums = [self._sums[key] for key in ids]
        grams, moments = np.stack([one.gram for one in sums]), np.stack([one.moment for one in sums])
        squares, counts = np.array([one.square for one in sums]), np.array([one.count for one in sums])
        folds = np.arange(len(ids)) % FOLDS
        is_fitted = folds != np.arange(FOLDS + 1)[:, None]
        coefficients, squared = _robust(grams, moments, squares, counts, is_fitted)
        errors = np.sqrt(squared[folds, np.arange(len(ids))])  # each by the fit that left it out
        return _Fit(spec, elements, dict(zip(ids, folds.tolist(), strict=True)), list(coefficients), errors)


def _spec_of(elements: frozenset[int]) -> PairModelSpec:
    symbols = [chemical_symbols[z] for z in sorted(elements)]
    return PairModelSpec({"elements": symbols, "r_max": R_MAX, "n_basis": N_BASIS})


def _design(spec: PairModelSpec, frame: Frame) -> FloatArray:
    """``(3 n_atoms, n_coefficients)`` derivatives of a frame's forces."""
    return spec.design(FrameBatch.of([frame]))[1]


def _is_small_molecule(frame: Frame) -> bool:
    return 1 < frame.n_atoms <= MAX_ATOMS and not frame.pbc.any()


def _robust(
    grams: FloatArray, moments: FloatArray, squares: FloatArray, counts: FloatArray, is_fitted: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Ridge regressions with Cauchy weights of frames, scale from the median error.

    Args:
        grams: ``(n_frames, n, n)``, design transposed times design of each frame.
        moments: ``(n_frames, n)``, design transposed times forces.
        squares: ``(n_frames,)`` sums of squared forces.
        counts: ``(n_frames,)`` force components.
        is_fitted: ``(n_fits, n_frames)``, frames that each fit learns from.

    Returns:
        Solutions ``(n_fits, n)``, and their mean squared errors of all frames ``(n_fits, n_frames)``,
        (eV/Angstrom)^2.
    """
    n_frames, n = moments.shape
    rows, n_fitted = np.arange(len(is_fitted)), is_fitted.sum(axis=1)
    # a frame starts with the weight of its size, so that ten times the force does not have a hundred times the say
    errors: FloatArray = np.tile(squares / counts, (len(is_fitted), 1))
    solutions: FloatArray = np.zeros((len(is_fitted), n))
    for _ in range(ITERATIONS):
        in_order = np.sort(np.where(is_fitted, errors, np.inf), axis=1)
        medians = 0.5 * (in_order[rows, (n_fitted - 1) // 2] + in_order[rows, n_fitted // 2])
        weights = is_fitted / (1.0 + errors / np.maximum(medians, 1e-12)[:, None])
        gram = (weights @ grams.reshape(n_frames, -1)).reshape(-1, n, n)
        ridges = RIDGE * np.maximum(np.trace(gram, axis1=1, axis2=2) / n, 1e-12)
        solutions[:] = np.linalg.solve(gram + ridges[:, None, None] * np.eye(n), (weights @ moments)[..., None])[..., 0]
        own = ((grams @ solutions.T) * solutions.T).sum(axis=1).T
        errors[:] = np.maximum(own - 2.0 * solutions @ moments.T + squares, 0.0) / counts
    return solutions, errors
