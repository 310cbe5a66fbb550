"""What a committee says of frames that explorers are asked about: deviations, and errors where the truth is known.

Of a frame that was carved out of a larger one, only the atoms that are not masked count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray, Frame
from alsys.labels import Prediction
from alsys.potentials.base import Committee, FrameBatch
from alsys.potentials.calibration import sample_atoms

BATCH = 64
"""Frames that are evaluated at once."""


def predict(committee: Committee, frames: Sequence[Frame]) -> dict[str, Prediction]:
    """What the committee says of frames, by their identity."""
    predictions: dict[str, Prediction] = {}
    for start in range(0, len(frames), BATCH):
        part = frames[start : start + BATCH]
        result = committee.evaluate(FrameBatch.of(part))
        ends = np.cumsum([frame.n_atoms for frame in part])[:-1]
        forces, deviations = np.split(result.forces, ends), np.split(result.force_deviation, ends)
        for i, frame in enumerate(part):
            energy = float(result.energy[i])
            predictions[frame.frame_id] = Prediction(energy, forces[i], deviations[i], committee.version)
    return predictions


def compare(
    committee: Committee,
    labelled: Sequence[tuple[Frame, FloatArray]],
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Force deviation and length of the force error of atoms of labelled frames, by the frame's identity.

    Args:
        committee: It has not been trained on them.
        labelled: Frames with their ``(n_atoms, 3)`` forces, eV/Angstrom.
        masks: ``(n_atoms,)`` atoms that count, of frames where not all do, by identity.
    """
    compared: dict[str, tuple[FloatArray, FloatArray]] = {}
    for start in range(0, len(labelled), BATCH):
        part = labelled[start : start + BATCH]
        prediction = committee.evaluate(FrameBatch.of([frame for frame, _ in part]))
        ends = np.cumsum([frame.n_atoms for frame, _ in part])[:-1]
        predicted = np.split(prediction.forces, ends)
        deviations = np.split(prediction.force_deviation, ends)
        for (frame, forces), force, deviation in zip(part, predicted, deviations, strict=True):
            error = counting(np.sqrt(np.square(force - forces).sum(axis=1)), frame.frame_id, masks)
            deviation = counting(deviation, frame.frame_id, masks)
            compared[frame.frame_id] = (sample_atoms(deviation), sample_atoms(error))
    return compared


def counting(values: FloatArray, frame_id: str, masks: Mapping[str, NDArray[np.bool_]] | None) -> FloatArray:
    """Those of a frame's values that belong to atoms that count."""
    mask = (masks or {}).get(frame_id)
    return values if mask is None else values[mask]
