"""Batched dynamics on a flat array of atoms: velocity Verlet (NVE) and BAOAB Langevin (NVT).

B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34 (2013): half kick (B), half drift (A), thermostat (O),
half drift (A), new forces, half kick (B). A step is split at the force evaluation, which belongs to the caller:
``first_half`` gives the positions at which forces are wanted, ``second_half`` takes them. Nose-Hoover chains are in
`alsys.dynamics.nose_hoover`; a barostat (`alsys.dynamics.barostat`) acts between ``first_half`` and the forces.

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

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays
from alsys.units import ACCELERATION, BOLTZMANN

IntegratorState = Mapping[str, FloatArray]
"""All that an integrator remembers from one step to the next, by name; positions and velocities are the caller's."""


class Integrator(Protocol):
    """Moves all walkers of a batch by one step, in two halves with new forces between them.

    Attributes:
        masses: ``(n_total,)``, amu.
        n_atoms: ``(n_walkers,)``.
        n_degrees: ``(n_walkers,)`` degrees of freedom.
        temperatures: ``(n_walkers,)`` targets, K.
        targets: The same, where walkers are moved.
    """

    masses: FloatArray
    n_atoms: IntArray
    n_degrees: IntArray
    temperatures: FloatArray
    targets: Array

    def to(self, arrays: Arrays) -> None:
        """Goes on with walkers that are elsewhere; what is remembered goes along."""
        ...

    def maxwell(self, rng: np.random.Generator) -> Array:
        """``(n_total, 3)`` velocities of the canonical distribution, Angstrom/fs."""
        ...

    def maxwell_of(self, k: int, rng: np.random.Generator) -> FloatArray:
        """``(n_atoms, 3)`` velocities of walker `k` of the canonical distribution, Angstrom/fs."""
        ...

    def kinetic_energy(self, velocities: Array) -> Array:
        """``(n_walkers,)``, eV."""
        ...

    def first_half(
        self, positions: Array, velocities: Array, forces: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """New positions, where the caller evaluates forces, and velocities on the way; arguments stay as they are."""
        ...

    def second_half(self, velocities: Array, forces: Array) -> Array:
        """Velocities at the end of the step; called once after each `first_half`."""
        ...

    def set_temperatures(self, temperatures: ArrayLike) -> None:
        """New targets ``(n_walkers,)``, K, from the next half step on. Velocities are left alone."""
        ...

    def reset(self, k: int, rng: np.random.Generator) -> None:
        """Forgets what was remembered of walker `k`, which begins anew."""
        ...

    def state_of(self) -> dict[str, FloatArray]:
        """A copy of all that is remembered; after `restore`, steps go on bit for bit."""
        ...

    def restore(self, state: IntegratorState) -> None:
        """Takes a state of an integrator of the same kind and batch."""
        ...


class VelocityVerlet:
    """Velocity Verlet at constant energy, and the base of the thermostats.

    W. C. Swope et al., J. Chem. Phys. 76, 637 (1982). Centres of mass are held at rest: what a net force
    on a walker would add is taken away once a step.

    Args:
        masses: ``(n_total,)``, amu.
        temperatures: ``(n_walkers,)``, K, or ``(n_total,)`` and equal within each walker; here of `maxwell` only.
        timestep: fs.
        n_atoms: ``(n_walkers,)`` atoms of each walker, to keep its centre of mass at rest (lone atoms move); None
            makes each atom a walker by itself, so that nothing is held.

    Attributes:
        temperatures: ``(n_walkers,)`` targets, K.
        thermal: ``(n_total, 1)`` standard deviation of a velocity component, Angstrom/fs.
        masses: ``(n_total,)``, amu.
        n_atoms, n_degrees: ``(n_walkers,)`` atoms and degrees of freedom of each walker.

    Raises:
        InputError: A shape that does not fit, a negative temperature or a time step that is not positive.
    """

    def __init__(
        self, masses: ArrayLike, temperatures: ArrayLike, timestep: float, n_atoms: ArrayLike | None = None
    ) -> None:
        mass = np.asarray(masses, dtype=np.float64)[:, None]
        counts = np.ones(len(mass), dtype=np.int64) if n_atoms is None else np.array(n_atoms, dtype=np.int64)
        if counts.sum() != len(mass) or counts.min(initial=1) < 1:
            raise InputError("walkers and masses do not fit", field="n_atoms", value=counts.tolist())
        if timestep <= 0:
            raise InputError("a time step is positive", field="timestep", value=timestep)
        self.masses: FloatArray = mass[:, 0]
        self.n_atoms: IntArray = counts
        self.n_degrees = degrees_of_freedom(counts)
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        is_lone = counts == 1
        self._some_lone, self._all_lone = bool(is_lone.any()), bool(is_lone.all())
        self._timestep = float(timestep)
        self._place(HOST)
        self.set_temperatures(temperatures)

    def to(self, arrays: Arrays) -> None:
        """Goes on with walkers that are elsewhere."""
        self._place(arrays)
        self.set_temperatures(self.temperatures)

    def _place(self, arrays: Arrays) -> None:
        """Puts the constants where walkers are."""
        self._arrays = arrays
        self._walkers = arrays.segments(self.n_atoms)
        mass = self.masses[:, None]
        self._mass, self._total_mass, self._is_moving, self._half_kick, self._twice = arrays.of(
            [
                mass,
                np.add.reduceat(mass, self._starts),
                (self.n_atoms > 1)[:, None],
                0.5 * self._timestep * ACCELERATION / mass,
                mass[:, 0] / ACCELERATION,
            ]
        )

    def maxwell(self, rng: np.random.Generator) -> Array:
        """``(n_total, 3)`` velocities of the canonical distribution, Angstrom/fs."""
        return self._at_rest(self.thermal * self._arrays.normal((len(self.masses), 3), rng))

    def maxwell_of(self, k: int, rng: np.random.Generator) -> FloatArray:
        """``(n_atoms, 3)`` velocities of walker `k` of the canonical distribution, Angstrom/fs."""
        start, count = int(self._starts[k]), int(self.n_atoms[k])
        masses = self.masses[start : start + count, None]
        thermal = np.sqrt(BOLTZMANN * self.temperatures[k] / masses * ACCELERATION)
        velocities: FloatArray = thermal * rng.normal(size=(count, 3))
        if count > 1:
            velocities -= (masses * velocities).sum(axis=0) / masses.sum()
        return velocities

    def kinetic_energy(self, velocities: Array) -> Array:
        """``(n_walkers,)``, eV."""
        return 0.5 * self._twice_kinetic(velocities)

    def first_half(
        self, positions: Array, velocities: Array, forces: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """B, A, A: new positions, and velocities that lack the last half kick."""
        velocities = self._at_rest(velocities + self._half_kick * forces)
        return positions + self._timestep * velocities, velocities

    def second_half(self, velocities: Array, forces: Array) -> Array:
        """B: velocities after the last half kick."""
        return velocities + self._half_kick * forces

    def set_temperatures(self, temperatures: ArrayLike) -> None:
        """New targets ``(n_walkers,)``, K; velocities are left alone.

        Raises:
            InputError: A shape that does not fit, or a temperature that is negative or not finite.
        """
        values = np.array(temperatures, dtype=np.float64)
        if values.shape == self.masses.shape and len(self.masses) != self.n_atoms.size:
            per_walker = values[self._starts]
            if (np.repeat(per_walker, self.n_atoms) != values).any():
                raise InputError("atoms of one walker have one temperature", field="temperatures")
            values = per_walker
        if values.shape != self.n_atoms.shape:
            raise InputError("one temperature for each walker is wanted", field="temperatures", value=values.shape)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise InputError("a temperature is negative or not finite", field="temperatures", value=values.tolist())
        self.temperatures: FloatArray = values
        (self.targets,) = self._arrays.of([values])
        per_atom = self._walkers.spread(self.targets)[:, None]
        self.thermal = self._arrays.xp.sqrt(BOLTZMANN * per_atom / self._mass * ACCELERATION)

    def reset(self, k: int, rng: np.random.Generator) -> None:
        """Nothing is remembered of a walker; no random number is drawn."""

    def state_of(self) -> dict[str, FloatArray]:
        """The targets."""
        return {"temperatures": self.temperatures.copy()}

    def restore(self, state: IntegratorState) -> None:
        """Takes the targets."""
        self.set_temperatures(state["temperatures"])

    def _twice_kinetic(self, velocities: Array) -> Array:
        return self._walkers.sum(self._twice * self._arrays.xp.einsum("ax,ax->a", velocities, velocities))

    def _at_rest(self, velocities: Array) -> Array:
        """Takes the velocity of each walker's centre of mass away; lone atoms move."""
        if self._all_lone:
            return velocities
        drift = self._walkers.sum(self._mass * velocities) / self._total_mass
        if self._some_lone:
            drift = self._arrays.xp.where(self._is_moving, drift, 0.0)
        return velocities - self._walkers.spread(drift)


class Langevin(VelocityVerlet):
    """BAOAB for atoms of any number of walkers, each with its own temperature.

    Args:
        masses: ``(n_total,)``, amu.
        temperatures: ``(n_walkers,)`` of each walker's thermostat, K, or ``(n_total,)`` and equal within each walker.
        timestep: fs.
        friction: One for all or ``(n_walkers,)``, 1/fs; 0 conserves energy.
        n_atoms: ``(n_walkers,)`` atoms of each walker, to keep its centre of mass at rest (lone atoms move); None
            lets it diffuse. The thermostat acts on the other ``3 n - 3`` degrees of freedom, which stay canonical.

    Raises:
        InputError: As `VelocityVerlet`, and for a negative friction.
    """

    def __init__(
        self,
        masses: ArrayLike,
        temperatures: ArrayLike,
        timestep: float,
        friction: ArrayLike,
        n_atoms: ArrayLike | None = None,
    ) -> None:
        rates = np.asarray(friction, dtype=np.float64)
        if (rates < 0).any():
            raise InputError("friction is not negative", field="friction", value=friction)
        self._half_step = 0.5 * timestep
        decay: FloatArray = np.exp(-rates * timestep)
        counts = 1 if n_atoms is None else np.asarray(n_atoms, dtype=np.int64)
        each: FloatArray | float = float(decay) if rates.ndim == 0 else np.repeat(decay, counts)[:, None]
        self._on_host = (np.asarray(each), np.asarray(np.sqrt(1.0 - each**2)))
        self._is_damped = bool((rates > 0).any())
        super().__init__(masses, temperatures, timestep, n_atoms)

    def first_half(
        self, positions: Array, velocities: Array, forces: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """B, A, O, A: new positions, and velocities that lack the last half kick."""
        velocities = velocities + self._half_kick * forces
        positions = positions + self._half_step * velocities
        if self._is_damped:
            noise = self._noise * self._arrays.normal(velocities.shape, rng)
            velocities = self._at_rest(self._decay * velocities + noise)
        return positions + self._half_step * velocities, velocities

    def set_temperatures(self, temperatures: ArrayLike) -> None:
        """New targets ``(n_walkers,)``, K; velocities are left alone.

        Raises:
            InputError: A shape that does not fit, or a temperature that is negative or not finite.
        """
        super().set_temperatures(temperatures)
        self._noise = self.thermal * self._loss

    def _place(self, arrays: Arrays) -> None:
        super()._place(arrays)
        self._decay, self._loss = arrays.of(self._on_host)


def degrees_of_freedom(n_atoms: ArrayLike) -> IntArray:
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
