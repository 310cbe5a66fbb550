"""Nose-Hoover chains: a deterministic thermostat for each walker of a batch.

G. J. Martyna, M. L. Klein, M. Tuckerman, J. Chem. Phys. 97, 2635 (1992); the splitting of G. J. Martyna et al., Mol.
Phys. 87, 1117 (1996): half a step of the chain, velocity Verlet, half a step of the chain. It is time
reversible and conserves the extended energy to second order in the time step.

=============  ==================================================  ============
symbol         meaning                                             unit
=============  ==================================================  ============
``tau``        relaxation time                                     fs
``eta``        ``(n_chain, n_walkers)`` thermostat positions       none
``w``          ``(n_chain, n_walkers)`` thermostat velocities      1/fs
``Q``          ``Q_1 = n_degrees kT tau^2``, others ``kT tau^2``   eV fs^2
=============  ==================================================  ============

An isolated molecule keeps the direction of its angular momentum, because its forces have no torque and velocities are
only scaled. What does not depend on that direction is canonical, provided the angular momentum is not zero at first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from alsys.dynamics.integrators import IntegratorState, VelocityVerlet
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.arrays import Array, Arrays
from alsys.units import BOLTZMANN

N_CHAIN = 3
"""Thermostats of a chain."""


class NoseHooverChains(VelocityVerlet):
    """Velocity Verlet between two half steps of a chain of `N_CHAIN` thermostats for each walker.

    Args:
        masses: ``(n_total,)``, amu.
        temperatures: ``(n_walkers,)``, K, or ``(n_total,)`` and equal within each walker; positive.
        timestep: fs.
        relaxation: ``tau``, fs; the kinetic energy swings with a period near ``2 pi tau / sqrt(2)``.
        n_atoms: ``(n_walkers,)``; None makes each atom a walker with a chain of its own.

    Raises:
        InputError: As `VelocityVerlet`; also for a relaxation shorter than five steps, which the splitting cannot
            follow, and for a temperature of zero.
    """

    def __init__(
        self,
        masses: ArrayLike,
        temperatures: ArrayLike,
        timestep: float,
        relaxation: float,
        n_atoms: ArrayLike | None = None,
    ) -> None:
        if relaxation < 5.0 * timestep:
            raise InputError(
                "the thermostat is faster than the time step can follow",
                field="relaxation",
                value=relaxation,
                remedy="use 100 time steps or so",
            )
        super().__init__(masses, temperatures, timestep, n_atoms)
        self._rate = 1.0 / relaxation**2
        self._eta: Array = np.zeros((N_CHAIN, self.n_atoms.size))
        self._w: Array = np.zeros((N_CHAIN, self.n_atoms.size))

    def to(self, arrays: Arrays) -> None:
        """Goes on with walkers that are elsewhere; the chains go along."""
        chains = self._arrays.read([self._eta, self._w])
        super().to(arrays)
        self._eta, self._w = arrays.of(chains)

    def _place(self, arrays: Arrays) -> None:
        super()._place(arrays)
        (self._degrees,) = arrays.of([self.n_degrees.astype(np.float64)])

    def first_half(
        self, positions: Array, velocities: Array, forces: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Chain, B, A, A: new positions, and velocities that lack the last half kick and the chain."""
        return super().first_half(positions, self._thermostatted(velocities), forces, rng)

    def second_half(self, velocities: Array, forces: Array) -> Array:
        """B, chain: velocities at the end of the step."""
        return self._thermostatted(super().second_half(velocities, forces))

    def thermostat_energy(self) -> FloatArray:
        """``(n_walkers,)`` energy of the chains, eV: conserved with kinetic and potential energy at fixed targets.

        The conserved quantity of Martyna, Klein and Tuckerman (1992).
        """
        eta, w = self._arrays.read([self._eta, self._w])
        thermal = BOLTZMANN * self.temperatures
        weight = np.ones_like(w)
        weight[0] = self.n_degrees
        energy: FloatArray = thermal * (weight * (0.5 * np.square(w) / self._rate + eta)).sum(axis=0)
        return energy

    def set_temperatures(self, temperatures: ArrayLike) -> None:
        """New targets ``(n_walkers,)``, K. Velocities, also those of the chains, are left alone.

        Raises:
            InputError: A shape that does not fit, or a temperature that is not positive or not finite.
        """
        super().set_temperatures(temperatures)
        if not (self.temperatures > 0).all():
            raise InputError(
                "Nose-Hoover chains need temperatures above zero",
                field="temperatures",
                value=self.temperatures.tolist(),
            )
        self._thermal = BOLTZMANN * self.targets

    def reset(self, k: int, rng: np.random.Generator) -> None:
        """A chain at zero, with velocities of the canonical distribution."""
        w = np.sqrt(self._rate) * rng.normal(size=N_CHAIN)
        w[0] /= np.sqrt(float(self.n_degrees[k]))
        self._eta[:, k] = 0.0
        (self._w[:, k],) = self._arrays.of([w])

    def state_of(self) -> dict[str, FloatArray]:
        """Targets, and positions and velocities of the chains."""
        eta, w = self._arrays.read([self._eta, self._w])
        return {**super().state_of(), "eta": eta.copy(), "w": w.copy()}

    def restore(self, state: IntegratorState) -> None:
        """Takes targets and chains.

        Raises:
            InputError: Chains of another batch.
        """
        eta, w = np.array(state["eta"], dtype=np.float64), np.array(state["w"], dtype=np.float64)
        if eta.shape != tuple(self._eta.shape) or w.shape != tuple(self._w.shape):
            raise InputError("a state of another batch", field="eta", value=eta.shape)
        super().restore(state)
        self._eta, self._w = self._arrays.of([eta, w])

    def _thermostatted(self, velocities: Array) -> Array:
        """Half a step of the chains, from the last thermostat to the atoms and back."""
        exp = self._arrays.xp.exp
        w, degrees, rate = self._w, self._degrees, self._rate
        quarter, eighth = 0.25 * self._timestep, 0.125 * self._timestep
        ratio = self._twice_kinetic(velocities) / (degrees * self._thermal)
        w[2] += quarter * (w[1] * w[1] - rate)
        outer = exp(-eighth * w[2])
        w[1] = (w[1] * outer + quarter * (degrees * w[0] * w[0] - rate)) * outer
        inner = exp(-eighth * w[1])
        w[0] = (w[0] * inner + quarter * rate * (ratio - 1.0)) * inner
        scale = exp(-2.0 * quarter * w[0])
        self._eta += 2.0 * quarter * w
        ratio *= scale * scale
        w[0] = (w[0] * inner + quarter * rate * (ratio - 1.0)) * inner
        w[1] = (w[1] * outer + quarter * (degrees * w[0] * w[0] - rate)) * outer
        w[2] += quarter * (w[1] * w[1] - rate)
        return velocities * self._walkers.spread(scale)[:, None]
