"""Harmonic vibrations of any potential energy surface: its Hessian by central differences of forces, and normal modes.

Translations and, without a cell, rotations are projected out of the mass-weighted Hessian (W. H. Miller, N. C. Handy,
J. E. Adams, J. Chem. Phys. 72, 99 (1980)), so that what is left are 3N-6 vibrations, 3N-5 of a linear molecule, or the
3N-3 at the zone centre of a supercell. Imaginary wavenumbers are negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from alsys.dynamics.minima import EnergyForces
from alsys.frames import FloatArray, Frame
from alsys.units import ACCELERATION, PLANCK_LIGHT, SPEED_OF_LIGHT

IMAGINARY = 10.0
"""Imaginary wavenumbers below this, 1/cm, are noise of the differences and not counted."""
STEP = 0.01
"""Finite difference of Hessians, Angstrom."""


@dataclass(frozen=True, slots=True)
class Vibrations:
    """Normal modes.

    Attributes:
        wavenumbers: ``(n_modes,)`` rising, 1/cm; imaginary ones are negative.
        modes: ``(n_modes, 3 n_atoms)`` orthonormal mass-weighted displacements.
    """

    wavenumbers: FloatArray
    modes: FloatArray

    @property
    def n_imaginary(self) -> int:
        """Imaginary modes beyond `IMAGINARY`."""
        return int((self.wavenumbers < -IMAGINARY).sum())

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the real ones, eV."""
        return 0.5 * PLANCK_LIGHT * float(self.wavenumbers[self.wavenumbers > 0].sum())


def displaced(frame: Frame, step: float) -> list[Frame]:
    """The ``6 n_atoms`` frames whose forces make the Hessian: each coordinate forward, then backward by `step`."""
    frames: list[Frame] = []
    for k in range(3 * frame.n_atoms):
        shift = np.zeros(3 * frame.n_atoms)
        shift[k] = step
        frames += [frame.with_positions(frame.positions + s * shift.reshape(-1, 3)) for s in (1.0, -1.0)]
    return frames


def hessian_from(forces: Sequence[FloatArray], step: float) -> FloatArray:
    """``(3 n_atoms, 3 n_atoms)`` second derivatives, eV/Angstrom^2, from forces on the frames of `displaced`."""
    flat = np.stack([f.ravel() for f in forces])
    matrix: FloatArray = (flat[1::2] - flat[::2]) / (2.0 * step)
    return 0.5 * (matrix + matrix.T)


def hessian_of(frame: Frame, potential: EnergyForces, step: float = STEP) -> FloatArray:
    """``(3 n_atoms, 3 n_atoms)`` second derivatives of a potential, eV/Angstrom^2, by central differences of forces."""
    return hessian_from([potential(moved.positions)[1] for moved in displaced(frame, step)], step)


def vibrations(frame: Frame, hessian: FloatArray) -> Vibrations:
    """Normal modes of a frame with this Hessian.

    Args:
        frame: Its minimum.
        hessian: ``(3 n_atoms, 3 n_atoms)``, eV/Angstrom^2.
    """
    roots = np.sqrt(np.repeat(atomic_masses[frame.numbers], 3))
    weighted = hessian / np.outer(roots, roots)
    still = _rigid_motions(frame)
    _, vectors = np.linalg.eigh(still.T @ still)  # eigenvalues 0 first: what is no rigid motion
    inner = vectors[:, : 3 * frame.n_atoms - len(still)]
    values, modes = np.linalg.eigh(inner.T @ weighted @ inner)
    omega = np.sign(values) * np.sqrt(np.abs(values) * ACCELERATION)
    return Vibrations(omega / (2.0 * np.pi * SPEED_OF_LIGHT), (inner @ modes).T)


def _rigid_motions(frame: Frame) -> FloatArray:
    """``(n_rigid, 3 n_atoms)`` orthonormal mass-weighted translations and rotations: 3, 5 or 6."""
    masses = atomic_masses[frame.numbers]
    motions = [np.tile(axis, (frame.n_atoms, 1)) for axis in np.eye(3)]
    if not frame.pbc.any():
        centred = frame.positions - masses @ frame.positions / masses.sum()
        motions += [np.cross(axis, centred) for axis in np.eye(3)]
    weighted = np.stack([(np.sqrt(masses)[:, None] * motion).ravel() for motion in motions])
    _, sizes, vectors = np.linalg.svd(weighted, full_matrices=False)
    kept: FloatArray = vectors[sizes > 1e-4 * sizes[0]]
    return kept
