"""Forces that move or turn a molecule as a whole: a converged gradient has none."""

from __future__ import annotations

import math

import numpy as np

from alsys.frames import Frame
from alsys.labels import Label


def net_force(label: Label) -> float:
    """Length of the sum of all forces, eV/Angstrom."""
    return math.hypot(*label.forces.sum(axis=0).tolist())


def net_torque(frame: Frame, label: Label) -> float:
    """Length of the net torque about the centroid, eV; NaN for a periodic or embedded frame, where it tells nothing.

    The gradient of a converged molecule has none. That of an unconverged one has, though its net force vanishes: basis
    functions move with the atoms, but only a stationary density turns with them.
    """
    return torque_and_turning_force(frame, label)[0]


def torque_and_turning_force(frame: Frame, label: Label) -> tuple[float, float]:
    """The net torque, and the length of the part of the forces that turns the molecule rigidly, eV/Angstrom.

    The latter is ``sqrt(T I^-1 T)`` with the torque T and ``I = sum_i (r_i^2 - r_i r_i)``. White noise of the forces
    gives three degrees of freedom whatever the size of the molecule, as does ``|net force| / sqrt(n)`` for shifts. Both
    are NaN where `net_torque` is.
    """
    if frame.environment is not None or frame.pbc.any():
        return math.nan, math.nan
    arms = frame.positions - frame.positions.sum(axis=0) / frame.n_atoms
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = (arms.T @ label.forces).tolist()
    torque = np.array([yz - zy, zx - xz, xy - yx])
    second = arms.T @ arms
    moments, axes = np.linalg.eigh(second.trace() * np.eye(3) - second)
    *_, largest = moments.tolist()
    parts = zip((torque @ axes).tolist(), moments.tolist(), strict=True)
    # nothing turns a linear molecule about its axis
    turning = sum(part * part / moment for part, moment in parts if moment > 1e-6 * largest)
    return math.sqrt(float(torque @ torque)), math.sqrt(turning)


def own_net_force(frame: Frame, label: Label) -> float:
    """As `net_force`; NaN for a frame in point charges, which pull at it: their own forces are no part of a label."""
    return math.nan if frame.environment is not None else net_force(label)
