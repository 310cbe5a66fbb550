"""Harmonic vibrations of a model beside those of the reference, each at its own minimum.

Modes are compared in the order of their wavenumbers, and once more by the overlap of their displacements, which tells
modes that changed places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from alsys.dynamics.vibrations import Vibrations, displaced, hessian_from
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import Committee, FrameBatch
from alsys.validation.minima import NoForces, superposition

BATCH_ATOMS = 2000


@dataclass(frozen=True, slots=True)
class VibrationComparison:
    """Vibrations of a model beside those of the reference.

    Attributes:
        mean: Mean absolute error of wavenumbers in their order, 1/cm.
        largest: The largest one.
        assigned_mean: Mean absolute error of modes that overlap most, 1/cm.
        zero_point: Error of the zero-point energy, eV.
    """

    mean: float
    largest: float
    assigned_mean: float
    zero_point: float


def committee_hessian(committee: Committee, frame: Frame, step: float) -> FloatArray:
    """The same of a model's mean forces, in batches.

    Raises:
        NoForces: Forces that are not finite.
    """
    frames = displaced(frame, step)
    size = max(1, BATCH_ATOMS // frame.n_atoms)
    forces: list[FloatArray] = []
    for k in range(0, len(frames), size):
        prediction = committee.evaluate(FrameBatch.of(frames[k : k + size]))
        forces += list(prediction.forces.reshape(-1, frame.n_atoms, 3))
    if not all(np.isfinite(f).all() for f in forces):
        raise NoForces("forces around the minimum are not finite")
    return hessian_from(forces, step)


def compare_vibrations(
    reference: Vibrations, model: Vibrations, reference_frame: Frame, model_frame: Frame
) -> VibrationComparison:
    """How far two sets of vibrations of one molecule are apart.

    Args:
        reference: Of the reference.
        model: Of the model; as many.
        reference_frame: Minimum of the reference.
        model_frame: Minimum of the model; modes are turned as it has to be turned to lie on the other.
    """
    errors = np.abs(model.wavenumbers - reference.wavenumbers)
    modes = model.modes
    if not reference_frame.pbc.any():
        rotation = superposition(reference_frame.positions, model_frame.positions)
        modes = (modes.reshape(len(modes), -1, 3) @ rotation).reshape(len(modes), -1)
    overlap = np.abs(reference.modes @ modes.T)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    assigned = np.abs(model.wavenumbers[columns] - reference.wavenumbers[rows])
    return VibrationComparison(
        float(errors.mean()),
        float(errors.max()),
        float(assigned.mean()),
        model.zero_point_energy - reference.zero_point_energy,
    )
