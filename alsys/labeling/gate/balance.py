"""Forces that move or turn a molecule as a whole: a converged gradient has none."""

from __future__ import annotations

import math

import numpy as np

from alsys.frames import Frame
from alsys.labels import Label


def net_force(label: Label) -> float:
    """Length of the sum of all forces, eV/Angstrom."""
    return float(np.linalg.norm(label.forces.sum(axis=0)))


def net_torque(frame: Frame, label: Label) -> float:
    """Length of the net torque about the centroid, eV; NaN for a periodic or embedded frame, where it tells nothing.

    The gradient of a converged molecule has none. That of an unconverged one has, though its net force vanishes: basis
    functions move with the atoms, but only a stationary density turns with them.
    """
    if frame.pbc.any() or frame.environment is not None:
        return math.nan
    arms = frame.positions - frame.positions.mean(axis=0)
    return float(np.linalg.norm(np.cross(arms, label.forces).sum(axis=0)))


def turning_force(frame: Frame, label: Label) -> float:
    """Length of the part of the forces that turns the molecule rigidly, eV/Angstrom; NaN where `net_torque` is.

    ``sqrt(T I^-1 T)`` with the torque T and ``I = sum_i (r_i^2 - r_i r_i)``. White noise of the forces gives three
    degrees of freedom whatever the size of the molecule, as does ``|net force| / sqrt(n)`` for shifts.
    """
    if frame.pbc.any() or frame.environment is not None:
        return math.nan
    arms = frame.positions - frame.positions.mean(axis=0)
    inertia = float(np.square(arms).sum()) * np.eye(3) - arms.T @ arms
    torque = np.cross(arms, label.forces).sum(axis=0)
    return math.sqrt(max(float(torque @ np.linalg.pinv(inertia, rcond=1e-6, hermitian=True) @ torque), 0.0))


def own_net_force(frame: Frame, label: Label) -> float:
    """As `net_force`; NaN for a frame in point charges, which pull at it: their own forces are no part of a label."""
    return math.nan if frame.environment is not None else net_force(label)
