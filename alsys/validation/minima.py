"""Minima of the reference and of a model, and how far they lie apart.

The reference's minimum is where all scans and Hessians of the reference begin: it depends on the level of theory and
the start structure only, so that their labels serve every model version. The model relaxes from there to its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alsys.dynamics.geometry import BONDED, MIN_CONTACT, is_sound, pair_ratios, superpositions
from alsys.dynamics.minima import EnergyForces, Minimum
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.base import Committee, FrameBatch


class NoForces(Exception):
    """A model gave no finite energy or forces."""


@dataclass(frozen=True, slots=True)
class MinimumComparison:
    """A model's minimum beside the reference's.

    Attributes:
        rmsd: Root mean square displacement of atoms after the best fit, Angstrom.
        bond_mean: Mean absolute error of bond lengths, Angstrom; NaN without bonds.
        bond_max: The largest one.
        strain: Energy that the model gives away between both minima, eV.
    """

    rmsd: float
    bond_mean: float
    bond_max: float
    strain: float


def committee_potential(committee: Committee, frame: Frame) -> EnergyForces:
    """A committee's mean as a potential energy surface of a frame's atoms; raises `NoForces` where it has no value."""

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        if not np.isfinite(positions).all():
            raise NoForces("atoms left for infinity")
        prediction = committee.evaluate(FrameBatch.of([frame.with_positions(positions)]))
        if not (np.isfinite(prediction.energy).all() and np.isfinite(prediction.forces).all()):
            raise NoForces("energy or forces are not finite")
        return float(prediction.energy[0]), prediction.forces

    return evaluate


def compare_minima(reference: Minimum, model: Minimum, model_energy_at_reference: float) -> MinimumComparison:
    """How far two minima of one molecule or crystal lie apart.

    Args:
        reference: Of the reference.
        model: Of the model, relaxed from there.
        model_energy_at_reference: What the model says of the reference's minimum, eV.
    """
    before, after = reference.frame.positions, model.frame.positions
    errors = np.zeros(0)
    if reference.frame.pbc.any():
        moved = after - before
        rmsd = float(np.sqrt(np.square(moved - moved.mean(axis=0)).sum(axis=1).mean()))
    else:
        rmsd = superposed_rmsd(before, after)
        i, j, ratio = pair_ratios(reference.frame.numbers, before)
        is_bond = ratio < BONDED
        errors = np.abs(_lengths(after, i, j) - _lengths(before, i, j))[is_bond]
    return MinimumComparison(
        rmsd,
        float(errors.mean()) if errors.size else float("nan"),
        float(errors.max()) if errors.size else float("nan"),
        model_energy_at_reference - model.energy,
    )


def is_same_molecule(reference: Frame, model: Frame) -> bool:
    """Whether a model's minimum still is the molecule it began as."""
    return is_sound(reference, model, MIN_CONTACT)


def superposition(fixed: FloatArray, moving: FloatArray) -> FloatArray:
    """``(3, 3)`` rotation ``R`` that brings centred `moving` closest to centred `fixed`: ``moving @ R``.

    Args:
        fixed: ``(n_atoms, 3)``, Angstrom.
        moving: ``(n_atoms, 3)``, Angstrom.
    """
    (rotation,) = superpositions((moving - moving.mean(axis=0))[None], fixed - fixed.mean(axis=0))
    return np.asarray(rotation)


def superposed_rmsd(fixed: FloatArray, moving: FloatArray) -> float:
    """Root mean square distance of atoms after the best fit, Angstrom."""
    fitted = (moving - moving.mean(axis=0)) @ superposition(fixed, moving)
    return float(np.sqrt(np.square(fitted - (fixed - fixed.mean(axis=0))).sum(axis=1).mean()))


def _lengths(positions: FloatArray, i: IntArray, j: IntArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(positions[i] - positions[j], axis=1)
    return lengths
