"""Batched dynamics on a flat array of atoms: BAOAB Langevin and, at zero friction, velocity Verlet.

B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34 (2013): half kick (B), half drift (A), thermostat (O),
half drift (A), new forces, half kick (B). A step is split at the force evaluation, which belongs to the caller:
``first_half`` gives the positions at which forces are wanted, ``second_half`` takes them.

=============  ==========================================  =================
symbol         meaning                                     unit
=============  ==========================================  =================
``x``          positions ``(n_total, 3)``                  Angstrom
``v``          velocities ``(n_total, 3)``                 Angstrom/fs
``f``          forces ``(n_total, 3)``                     eV/Angstrom
``m``          masses ``(n_total,)``                       amu
``gamma``      friction                                    1/fs
=============  ==========================================  =================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alsys.frames import FloatArray
from alsys.units import ACCELERATION, BOLTZMANN


class Langevin:
    """BAOAB for atoms of any number of walkers, each with its own temperature.

    Args:
        masses: ``(n_total,)``, amu.
        temperatures: ``(n_total,)`` of each atom's thermostat, K.
        timestep: fs.
        friction: 1/fs; 0 conserves energy.
        n_atoms: ``(n_walkers,)`` atoms of each walker, to keep its centre of mass at rest (lone atoms move); None
            lets it diffuse. The thermostat acts on the other ``3 n - 3`` degrees of freedom, which stay canonical.
    """

    def __init__(
        self,
        masses: ArrayLike,
        temperatures: ArrayLike,
        timestep: float,
        friction: float,
        n_atoms: ArrayLike | None = None,
    ) -> None:
        mass = np.asarray(masses, dtype=np.float64)[:, None]
        temperature = np.asarray(temperatures, dtype=np.float64)[:, None]
        self.thermal = np.sqrt(BOLTZMANN * temperature / mass * ACCELERATION)
        self._mass = mass
        self._half_kick = 0.5 * timestep * ACCELERATION / mass
        self._half_step = 0.5 * timestep
        self._decay = float(np.exp(-friction * timestep))
        self._noise = self.thermal * np.sqrt(1.0 - self._decay**2)
        self._n_atoms = None if n_atoms is None else np.asarray(n_atoms, dtype=np.int64)

    def maxwell(self, rng: np.random.Generator) -> FloatArray:
        """``(n_total, 3)`` velocities of the canonical distribution, Angstrom/fs."""
        return self._at_rest(self.thermal * rng.normal(size=(len(self.thermal), 3)))

    def first_half(
        self, positions: FloatArray, velocities: FloatArray, forces: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """B, A, O, A: new positions, and velocities that lack the last half kick."""
        velocities = velocities + self._half_kick * forces
        positions = positions + self._half_step * velocities
        if self._decay < 1.0:
            velocities = self._at_rest(self._decay * velocities + self._noise * rng.normal(size=velocities.shape))
        return positions + self._half_step * velocities, velocities

    def second_half(self, velocities: FloatArray, forces: FloatArray) -> FloatArray:
        """B: velocities after the last half kick."""
        return velocities + self._half_kick * forces

    def _at_rest(self, velocities: FloatArray) -> FloatArray:
        """Takes the velocity of each walker's centre of mass away, where that is wanted."""
        if self._n_atoms is None:
            return velocities
        starts = np.concatenate([[0], np.cumsum(self._n_atoms)[:-1]])
        drift = np.add.reduceat(self._mass * velocities, starts) / np.add.reduceat(self._mass, starts)
        drift[self._n_atoms == 1] = 0.0
        return velocities - np.repeat(drift, self._n_atoms, axis=0)


def degrees_of_freedom(n_atoms: ArrayLike) -> NDArray[np.int64]:
    """``(n_walkers,)`` degrees of freedom where centres of mass are at rest: ``3 n - 3``, and 3 for a lone atom."""
    return 3 * np.maximum(np.asarray(n_atoms, dtype=np.int64) - 1, 1)


def kinetic_temperature(
    masses: FloatArray,
    velocities: FloatArray,
    starts: ArrayLike,
    n_atoms: ArrayLike,
    n_degrees: ArrayLike | None = None,
) -> FloatArray:
    """``(n_walkers,)`` temperature from the kinetic energy, K.

    Args:
        masses: ``(n_total,)``, amu.
        velocities: ``(n_total, 3)``, Angstrom/fs.
        starts: ``(n_walkers,)`` first atom of each walker.
        n_atoms: ``(n_walkers,)``.
        n_degrees: ``(n_walkers,)`` degrees of freedom; None for 3 an atom.
    """
    twice = masses * np.square(velocities).sum(axis=1) / ACCELERATION
    total: FloatArray = np.add.reduceat(twice, np.asarray(starts))
    degrees = 3.0 * np.asarray(n_atoms) if n_degrees is None else np.asarray(n_degrees)
    return total / (degrees * BOLTZMANN)
