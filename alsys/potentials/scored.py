"""A committee whose force deviation is replaced by another score of each atom, in the same unit.

A state names its score and carries what the score learned from the atoms trained on, with a scale that makes its mean
equal the mean force deviation on those atoms, so that both start from the same guess and calibration does the rest.
Scores made of features need the first member only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.arrays import HOST, Arrays
from alsys.potentials.base import Committee, CommitteePrediction, CommitteeState, FrameBatch, arrays_for
from alsys.potentials.uncertainty import UNCERTAINTIES, uncertainty_from_state

COMMITTEE = "committee"
SCALE = "scale"
Mask = NDArray[np.bool_]


class ScoredCommittee:
    """Evaluates a committee and scores its atoms.

    Args:
        committee: It has loaded the state.
        state: Names the score.

    Raises:
        InputError: The state has no such score.
    """

    def __init__(self, committee: Committee, state: CommitteeState) -> None:
        self._committee = committee
        self._take_score(state)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._committee.version

    @property
    def arrays(self) -> Arrays:
        """Where walkers under it are moved."""
        return arrays_for(self._committee)

    def load(self, state: CommitteeState) -> None:
        """Takes new weights and their score.

        Raises:
            InputError: They do not fit, or the state has no such score.
        """
        self._committee.load(state)
        self._take_score(state)

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """As the committee does; force and frame deviations are scaled scores, eV/Angstrom.

        Raises:
            InputError: As of the committee.
        """
        prediction = self._committee.evaluate(batch, members)
        if prediction.features is None:
            return prediction
        arrays = HOST if isinstance(batch.positions, np.ndarray) else self.arrays
        deviation = self._scale * self._score.atom(prediction, batch, arrays)
        largest = arrays.segments(batch.n_atoms).max(deviation)
        return dataclasses.replace(prediction, force_deviation=deviation, frame_deviation=largest)

    def _take_score(self, state: CommitteeState) -> None:
        arrays = dict(state.score_state)
        if SCALE not in arrays:
            raise InputError("the committee carries no score", field="score", value=state.score)
        self._scale = float(np.asarray(arrays.pop(SCALE)))
        self._score = uncertainty_from_state(state.score, arrays)


def scored(committee: Committee, state: CommitteeState) -> Committee:
    """The committee with the score that its state names."""
    return committee if state.score == COMMITTEE else ScoredCommittee(committee, state)


def fit_score(
    name: str,
    committee: Committee,
    first: Sequence[FrameBatch],
    second: Sequence[FrameBatch],
    masks: tuple[Sequence[Mask], Sequence[Mask]] | None = None,
) -> Mapping[str, NDArray[np.generic]]:
    """What a score learns from the frames trained on, as `CommitteeState.score_state` wants it.

    The scale comes from the second half, judged by a score that has seen the first half only: on its own frames a score
    is too small, a distance even zero.

    Args:
        name: One of `alsys.potentials.uncertainty.UNCERTAINTIES`.
        committee: Newly fitted.
        first: Half of the frames it was fitted to.
        second: The other half; may be empty, then the scale is 1.
        masks: ``(n_total,)`` atoms of each batch of both halves that were learned from; None for all.

    Raises:
        InputError: Unknown score, or a committee without features.
    """
    if name not in UNCERTAINTIES:
        raise InputError("unknown score", field="uncertainty", value=name, remedy=f"one of {', '.join(UNCERTAINTIES)}")
    score = UNCERTAINTIES[name]()
    learned = masks or (_all(first), _all(second))
    score.fit(*_atoms_of(committee, first, learned[0]))
    scale = 1.0
    if second:
        predictions = [committee.evaluate(batch) for batch in second]
        is_learned = np.concatenate(learned[1])
        raw = np.concatenate([score.atom(p, b) for p, b in zip(predictions, second, strict=True)])[is_learned]
        deviation = np.concatenate([prediction.force_deviation for prediction in predictions])[is_learned]
        is_known = np.isfinite(raw)
        mean = float(raw[is_known].mean()) if is_known.any() else 0.0
        scale = float(deviation.mean()) / mean if mean > 0 else 1.0
        score.update(*_atoms_of(committee, second, learned[1]))
    return {**score.state(), SCALE: np.array(scale)}


def _all(batches: Sequence[FrameBatch]) -> list[Mask]:
    return [np.ones(batch.numbers.size, dtype=np.bool_) for batch in batches]


def _atoms_of(
    committee: Committee, batches: Sequence[FrameBatch], masks: Sequence[Mask]
) -> tuple[FloatArray, NDArray[np.int32]]:
    """Features and atomic numbers of all atoms that were learned from."""
    features = [committee.evaluate(batch, [0]).features for batch in batches]
    known = [values for values in features if values is not None]
    if len(known) < len(batches):
        raise InputError("this kind of model has no features", field="uncertainty", value="features")
    is_learned = np.concatenate(masks)
    return np.concatenate(known)[is_learned], np.concatenate([batch.numbers for batch in batches])[is_learned]
