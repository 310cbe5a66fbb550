"""When a walk ends: one rule for explorers, first frames, teachers, model tests and validation.

Positions are judged before a potential sees them, forces and kinetic energies after. A walker is too hot where its
kinetic energy is above ``1/2 kT max(ratio n, q)``: ``n`` are its degrees of freedom, and ``q`` is the quantile that a
chi-square variable of ``n`` degrees of freedom exceeds with probability `IMPROBABLE`. Twice the kinetic energy over kT
is such a variable at equilibrium, so a healthy walker is stopped in one step of 1e10 at most: a diatomic is five times
as hot as its thermostat in one step of 600, and nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtri

from alsys.dynamics.geometry import MIN_CONTACT, Bonds, Flags, GeometryCheck, named
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays
from alsys.units import BOLTZMANN

MAX_FORCE = 50.0
"""Force on an atom beyond which a walk ends, eV/Angstrom; labelled frames rarely exceed 15."""
IMPROBABLE = 1e-10
"""Probability at equilibrium, a step, of a kinetic energy that counts as too hot, at most."""
NOT_FINITE = "not-finite"
VOLUMES = (0.5, 2.0)
"""Volume, in units of the start structure's, outside of which a walk ends."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of what a walker may do.

    Attributes:
        max_temperature_ratio: Kinetic over thermostat temperature; more where so much is not improbable.
        min_distance: Closest contact, as a share of the covalent sum; None where geometry is not asked, for a
            potential that is itself the reference.
        is_reactive: Bonds may break and form.
    """

    max_temperature_ratio: float = 5.0
    min_distance: float | None = MIN_CONTACT
    is_reactive: bool = False


class StopRule:
    """Which walkers of a batch make no sense any more, and why.

    Args:
        starts: Start structure of each walker: what is bonded, its volume.
        n_degrees: ``(n_walkers,)`` degrees of freedom.
        limits: What is allowed.
        bonds: Bonds that must keep their lengths, of walkers with the same atoms.
    """

    def __init__(
        self,
        starts: Sequence[Frame],
        n_degrees: IntArray,
        limits: Limits,
        bonds: Bonds | None = None,
    ) -> None:
        self._n_atoms = np.array([frame.n_atoms for frame in starts], dtype=np.int64)
        self._of_walkers: tuple[FloatArray, ...] = (
            np.concatenate([frame.positions for frame in starts]),
            0.5 * BOLTZMANN * heat_limits(n_degrees, limits.max_temperature_ratio),
            np.abs(np.linalg.det(np.stack([frame.cell for frame in starts]))),
        )
        self._bonds = bonds
        self._geometry: GeometryCheck | None = None
        if limits.min_distance is not None:
            self._geometry = GeometryCheck(starts, limits.min_distance, limits.is_reactive)
        self.to(HOST)

    def to(self, arrays: Arrays) -> None:
        """Goes on with walkers that are elsewhere."""
        self._arrays = arrays
        self._walkers = arrays.segments(self._n_atoms)
        self._start_positions, self._hottest, self._volume = arrays.of(self._of_walkers)
        if self._geometry is not None:
            self._geometry.to(arrays)

    def of_positions(self, positions: Array, cell: Array, is_scaled: bool = False) -> dict[int, str]:
        """Before forces are known: ``not-finite``, ``too-close``, ``broken``, ``fused``, ``bond`` or ``volume``.

        The first reason of each walker wins, from the crudest to the finest. Of a device it costs one copy, and another
        one where a cluster has lost a link, where frames are periodic, and where bonds must keep their lengths.

        Args:
            positions: ``(n_total, 3)``, Angstrom.
            cell: ``(n_walkers, 3, 3)`` cells of the moment, Angstrom.
            is_scaled: Whether cells change, and volumes are judged.
        """
        xp, flags = self._arrays.xp, list[Flags]()
        is_lost = self._walkers.any(~xp.isfinite(positions.sum(axis=1)))
        if not self._arrays.is_on_host or is_lost.any():
            positions = xp.where(self._walkers.spread(is_lost)[:, None], self._start_positions, positions)
        if is_scaled:
            volume = xp.abs(xp.linalg.det(cell))
            flags.append(Flags("volume", (volume < VOLUMES[0] * self._volume) | (volume > VOLUMES[1] * self._volume)))
        if self._bonds is not None:
            flags.append(Flags("bond", self._bonds.are_off(self._arrays.read([positions])[0])))
        if self._geometry is not None:
            flags += self._geometry.flags(positions, cell)
        return named(self._arrays, [*flags, Flags(NOT_FINITE, is_lost)])

    def of_forces(self, forces: Array, known: Array | None = None) -> list[Flags]:
        """Once they are known: ``force-too-large`` or ``not-finite``, the last of which counts.

        Args:
            forces: ``(n_total, 3)`` of the potential, without what a method adds, eV/Angstrom.
            known: ``(n_walkers,)`` what else must be finite, such as energies.
        """
        xp = self._arrays.xp
        with np.errstate(over="ignore", invalid="ignore"):
            largest = self._walkers.max(xp.einsum("ax,ax->a", forces, forces))  # NaN where there is one
        is_off = ~(largest <= MAX_FORCE**2)
        if self._arrays.is_on_host and not is_off.any() and (known is None or np.isfinite(known).all()):
            return []
        is_finite = xp.isfinite(largest) if known is None else xp.isfinite(largest) & xp.isfinite(known)
        return [Flags("force-too-large", largest > MAX_FORCE**2), Flags(NOT_FINITE, ~is_finite)]

    def of_heat(self, kinetic: Array, temperatures: Array, excess: Array | float = 0.0) -> list[Flags]:
        """At the end of a step: ``too-hot``.

        Args:
            kinetic: ``(n_walkers,)`` kinetic energies, eV.
            temperatures: ``(n_walkers,)`` of the thermostats, K.
            excess: ``(n_walkers,)`` potential energy that may have turned into heat, eV.
        """
        return [Flags("too-hot", kinetic > self._hottest * temperatures + excess)]


def heat_limits(n_degrees: ArrayLike, ratio: float) -> FloatArray:
    """``(n_walkers,)`` twice the kinetic energy over kT above which walkers are too hot; see the module.

    Args:
        n_degrees: ``(n_walkers,)`` degrees of freedom.
        ratio: Kinetic over thermostat temperature that is too hot in a large system.
    """
    degrees = np.asarray(n_degrees, dtype=np.float64)
    limits: FloatArray = np.maximum(ratio * degrees, chdtri(degrees, IMPROBABLE))
    return limits
