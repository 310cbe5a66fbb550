"""What a committee says of frames that explorers are asked about: deviations, and errors where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, FrameBatch
from alsys.potentials.calibration import sample_atoms

BATCH = 64
"""Frames that are evaluated at once."""


def rescore(committee: Committee, frames: Sequence[Frame]) -> dict[str, float]:
    """Deviation of each frame by its identity, eV/Angstrom."""
    deviations: dict[str, float] = {}
    for start in range(0, len(frames), BATCH):
        part = frames[start : start + BATCH]
        values = committee.evaluate(FrameBatch.of(part)).frame_deviation.tolist()
        deviations.update(zip((frame.frame_id for frame in part), values, strict=True))
    return deviations


def compare(
    committee: Committee, labelled: Sequence[tuple[Frame, FloatArray]]
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Force deviation and length of the force error of atoms of labelled frames, by the frame's identity.

    Args:
        committee: It has not been trained on them.
        labelled: Frames with their ``(n_atoms, 3)`` forces, eV/Angstrom.
    """
    compared: dict[str, tuple[FloatArray, FloatArray]] = {}
    for start in range(0, len(labelled), BATCH):
        part = labelled[start : start + BATCH]
        prediction = committee.evaluate(FrameBatch.of([frame for frame, _ in part]))
        ends = np.cumsum([frame.n_atoms for frame, _ in part])[:-1]
        predicted = np.split(prediction.forces, ends)
        deviations = np.split(prediction.force_deviation, ends)
        for (frame, forces), force, deviation in zip(part, predicted, deviations, strict=True):
            error = np.sqrt(np.square(force - forces).sum(axis=1))
            compared[frame.frame_id] = (sample_atoms(deviation), sample_atoms(error))
    return compared
