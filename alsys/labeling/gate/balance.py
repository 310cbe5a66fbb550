"""Forces that move or turn a molecule as a whole: a converged gradient has none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from alsys.frames import FloatArray, Frame
from alsys.labels import Label


def net_force(label: Label) -> float:
    """Length of the sum of all forces, eV/Angstrom."""
    return math.hypot(*label.forces.sum(axis=0).tolist())


def net_torque(frame: Frame, label: Label) -> float:
    """Length of the net torque about the centroid, eV; NaN for a periodic or embedded frame, where it tells nothing.

    The gradient of a converged molecule has none. That of an unconverged one has, though its net force vanishes: basis
    functions move with the atoms, but only a stationary density turns with them.
    """
    return float(torques_and_turning_forces([frame], label.forces[None])[0][0])


def net_forces(frames: Sequence[Frame], forces: FloatArray) -> FloatArray:
    """``(n_frames,)`` as `net_force`; NaN for frames in point charges, which pull: their own forces are in no label.

    Args:
        frames: Of one number of atoms.
        forces: ``(n_frames, n_atoms, 3)``, eV/Angstrom.
    """
    lengths: FloatArray = np.sqrt(np.square(forces.sum(axis=1)).sum(axis=1))
    lengths[[frame.environment is not None for frame in frames]] = math.nan
    return lengths


def torques_and_turning_forces(frames: Sequence[Frame], forces: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Net torques, eV, and the lengths of the parts of the forces that turn molecules rigidly, eV/Angstrom.

    The latter are ``sqrt(T I^-1 T)`` with the torque T and ``I = sum_i (r_i^2 - r_i r_i)``. White noise of the forces
    gives three degrees of freedom whatever the size of the molecule, as does ``|net force| / sqrt(n)`` for shifts. Both
    are NaN where `net_torque` is.

    Args:
        frames: Of one number of atoms.
        forces: ``(n_frames, n_atoms, 3)``, eV/Angstrom.
    """
    positions = np.stack([frame.positions for frame in frames])
    arms = positions - positions.mean(axis=1, keepdims=True)
    turned, second = arms.transpose(0, 2, 1) @ forces, arms.transpose(0, 2, 1) @ arms
    torques = np.stack([turned[:, i, j] - turned[:, j, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1)
    moments, axes = np.linalg.eigh(np.trace(second, axis1=1, axis2=2)[:, None, None] * np.eye(3) - second)
    parts = (torques[:, None, :] @ axes)[:, 0]
    # nothing turns a linear molecule about its axis
    turns = moments > 1e-6 * moments[:, 2:]
    turning = np.sqrt((np.square(parts) / np.where(turns, moments, np.inf)).sum(axis=1))
    lengths = np.sqrt(np.square(torques).sum(axis=1))
    tells_nothing = [frame.environment is not None or bool(frame.pbc.any()) for frame in frames]
    lengths[tells_nothing] = turning[tells_nothing] = math.nan
    return lengths, turning


def largest_forces(forces: FloatArray) -> FloatArray:
    """``(n_frames,)`` lengths of the largest force of an atom, eV/Angstrom.

    Args:
        forces: ``(n_frames, n_atoms, 3)``, eV/Angstrom.
    """
    lengths: FloatArray = np.sqrt(np.square(forces).sum(axis=2).max(axis=1))
    return lengths
