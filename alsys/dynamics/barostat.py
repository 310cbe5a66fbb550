"""Stochastic cell rescaling: constant pressure for the periodic walkers of a batch, isotropic, first order in time.

M. Bernetti, G. Bussi, J. Chem. Phys. 153, 114107 (2020). With ``lambda = sqrt(V)`` the noise does not depend on the
volume::

    d lambda = -(lambda beta / 2 tau) (P0 - P - kT / 2V) dt + sqrt(kT beta / 2 tau) dW

Positions scale by ``mu = (V' / V)^(1/3)`` about the centre of mass, velocities by ``1 / mu``. Volumes are distributed
as ``V^N exp(-P0 V / kT) Z_config(V)``, whatever the compressibility assumed: that and ``tau`` only set how fast.

=============  ==========================================  ====================
symbol         meaning                                     unit
=============  ==========================================  ====================
``P0``         target pressure                             eV/Angstrom^3
``P``          pressure of the moment                      eV/Angstrom^3
``beta``       compressibility assumed                     Angstrom^3/eV
``tau``        relaxation time                             fs
=============  ==========================================  ====================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alsys.dynamics.integrators import Integrator
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.arrays import HOST, Array, Arrays
from alsys.units import BOLTZMANN

MAX_STEP = 0.2
"""Largest change of ``ln V`` in one step; only a model that is badly wrong, or a start far off, wants more."""


class StochasticCellRescaling:
    """Changes cells towards a pressure; call it between `Integrator.first_half` and the evaluation of the forces.

    There the forces are never stale: those of the second half kick belong to the scaled positions. The stress is that
    of the step before, so that ``tau`` must be long compared with the time step. Only walkers that are periodic in all
    three directions are touched; molecules and slabs stay at constant volume.

    Args:
        integrator: The thermostat of the same batch: it knows the walkers, their kinetic energy and temperatures.
        is_periodic: ``(n_walkers, 3)`` periodic directions of each walker.
        pressures: ``(n_walkers,)`` targets, or one for all, eV/Angstrom^3.
        timestep: fs.
        relaxation: ``tau``, fs.
        compressibility: ``beta``, Angstrom^3/eV; about that of the system.

    Attributes:
        pressures: ``(n_walkers,)`` targets, eV/Angstrom^3.
        rows: Walkers that are touched.

    Raises:
        InputError: A shape that does not fit, a value that is not finite, a compressibility that is not positive, or a
            relaxation shorter than 100 steps (volumes of ten atoms are then off by a third of a percent).
    """

    def __init__(
        self,
        integrator: Integrator,
        is_periodic: NDArray[np.bool_],
        pressures: ArrayLike,
        timestep: float,
        relaxation: float,
        compressibility: float,
    ) -> None:
        if relaxation < 100.0 * timestep:
            raise InputError(
                "the barostat is faster than the time step can follow",
                field="relaxation",
                value=relaxation,
                remedy="use 1000 time steps or so",
            )
        if not 0 < compressibility < np.inf:
            raise InputError("a compressibility is positive", field="compressibility", value=compressibility)
        periodic = np.asarray(is_periodic, dtype=np.bool_)
        n_atoms = integrator.n_atoms
        if periodic.shape != (n_atoms.size, 3):
            raise InputError("walkers and periodic directions do not fit", field="is_periodic", value=periodic.shape)
        self._integrator = integrator
        self._pace = compressibility * timestep / (2.0 * relaxation)
        self.rows = np.flatnonzero(periodic.all(axis=1))
        self._is_all = self.rows.size == n_atoms.size
        self._place(HOST)
        self.set_pressures(pressures)

    def to(self, arrays: Arrays) -> None:
        """Goes on with walkers that are elsewhere, as the integrator does."""
        self._place(arrays)
        self.set_pressures(self.pressures)

    def _place(self, arrays: Arrays) -> None:
        """Puts the constants where walkers are."""
        n_atoms = self._integrator.n_atoms
        counts = n_atoms[self.rows]
        offsets = np.concatenate([[0], np.cumsum(n_atoms)])
        atoms = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in self.rows] or [np.arange(0)])
        self._arrays, self._walkers = arrays, arrays.segments(counts)
        mass = self._integrator.masses[atoms][:, None]
        # Positions have 3 n degrees of freedom even where a centre of mass is at rest: its share of the pressure is kT.
        still = (3 * counts - self._integrator.n_degrees[self.rows]).astype(np.float64)
        self._at, self._atoms, self._mass, self._still = arrays.of([self.rows, atoms, mass, still])
        if self.rows.size:
            self._total_mass = self._walkers.sum(self._mass)

    def set_pressures(self, pressures: ArrayLike) -> None:
        """New targets, ``(n_walkers,)`` or one for all, eV/Angstrom^3.

        Raises:
            InputError: A shape that does not fit, or a value that is not finite.
        """
        values = np.asarray(pressures, dtype=np.float64)
        if values.shape not in ((), self._integrator.n_atoms.shape):
            raise InputError("one pressure for each walker is wanted", field="pressures", value=values.shape)
        if not np.isfinite(values).all():
            raise InputError("a pressure is not finite", field="pressures", value=values.tolist())
        self.pressures: FloatArray = np.broadcast_to(values, self._integrator.n_atoms.shape).copy()
        (self._targets,) = self._arrays.of([self.pressures[self.rows]])

    def pressure_of(self, velocities: Array, cell: Array, stress: Array) -> Array:
        """``(n_rows,)`` pressures of the periodic walkers, eV/Angstrom^3, the ideal part of all 3 n degrees included.

        Args:
            velocities: ``(n_total, 3)``, Angstrom/fs.
            cell: ``(n_walkers, 3, 3)``, Angstrom.
            stress: ``(n_walkers, 3, 3)`` of the potential, tension positive, eV/Angstrom^3.
        """
        return self._pressure(velocities, self._volume(cell[self._at]), stress)

    def rescale(
        self, positions: Array, velocities: Array, cell: Array, stress: Array, rng: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """One step of the volume.

        Args:
            positions: ``(n_total, 3)`` after `Integrator.first_half`, not wrapped into the cell, Angstrom.
            velocities: ``(n_total, 3)`` after it, Angstrom/fs.
            cell: ``(n_walkers, 3, 3)``, Angstrom.
            stress: ``(n_walkers, 3, 3)`` at the last evaluation, tension positive, eV/Angstrom^3; rows of walkers that
                are not periodic are not read.
            rng: Source of chance.

        Returns:
            New positions, velocities and cell. A walker whose pressure is not finite keeps its cell.
        """
        if not self.rows.size:
            return positions, velocities, cell
        xp, rows, atoms = self._arrays.xp, self._at, self._atoms
        thermal = BOLTZMANN * self._integrator.targets[rows]
        volume = self._volume(cell[rows])
        excess = self._pressure(velocities, volume, stress) - self._targets
        noise = xp.sqrt(thermal * self._pace / volume) * self._arrays.normal((self.rows.size,), rng)
        growth = 1.0 + self._pace * (excess + thermal / (2.0 * volume)) + noise
        bound = float(np.exp(0.5 * MAX_STEP))
        growth = xp.where(xp.isfinite(growth), xp.clip(growth, 1.0 / bound, bound), 1.0)  # of lambda
        scale = self._arrays.cube_root(xp.square(growth))
        per_atom = self._walkers.spread(scale)[:, None]
        if self._is_all:
            return self._scaled(positions, scale, per_atom), velocities / per_atom, cell * scale[:, None, None]
        positions, velocities, cell = (self._arrays.copied(array) for array in (positions, velocities, cell))
        positions[atoms] = self._scaled(positions[atoms], scale, per_atom)
        velocities[atoms] /= per_atom
        cell[rows] *= scale[:, None, None]
        return positions, velocities, cell

    def _scaled(self, positions: Array, scale: Array, per_atom: Array) -> Array:
        """Positions of the periodic walkers, scaled about their centres of mass."""
        centre = self._walkers.sum(self._mass * positions) / self._total_mass
        return per_atom * positions + self._walkers.spread((1.0 - scale)[:, None] * centre)

    def _pressure(self, velocities: Array, volume: Array, stress: Array) -> Array:
        rows = self._at
        thermal = BOLTZMANN * self._integrator.targets[rows]
        twice = 2.0 * self._integrator.kinetic_energy(velocities)[rows] + self._still * thermal
        tension = stress[rows, 0, 0] + stress[rows, 1, 1] + stress[rows, 2, 2]
        return (twice / volume - tension) / 3.0

    def _volume(self, cell: Array) -> Array:
        """``(n_rows,)`` volumes of ``(n_rows, 3, 3)`` cells, Angstrom^3."""
        a, b, c = (cell[:, k].T for k in range(3))
        return self._arrays.xp.abs(
            a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])
        )
