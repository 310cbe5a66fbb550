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
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtri

from alsys.dynamics.geometry import MIN_CONTACT, Bonds, GeometryCheck
from alsys.frames import FloatArray, Frame, IntArray
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
        n_atoms = np.array([frame.n_atoms for frame in starts], dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(n_atoms)])
        self._n_atoms = n_atoms
        self._start_positions: FloatArray = np.concatenate([frame.positions for frame in starts])
        self._hottest: FloatArray = 0.5 * BOLTZMANN * heat_limits(n_degrees, limits.max_temperature_ratio)
        self._bonds = bonds
        self._geometry: GeometryCheck | None = None
        if limits.min_distance is not None:
            self._geometry = GeometryCheck(starts, limits.min_distance, limits.is_reactive)
        self._volume = _volumes(np.stack([frame.cell for frame in starts]))

    def of_positions(self, positions: FloatArray, cell: FloatArray, is_scaled: bool = False) -> dict[int, str]:
        """Before forces are known: ``not-finite``, ``too-close``, ``broken``, ``fused``, ``bond`` or ``volume``.

        The first reason of each walker wins, from the crudest to the finest.

        Args:
            positions: ``(n_total, 3)``, Angstrom.
            cell: ``(n_walkers, 3, 3)`` cells of the moment, Angstrom.
            is_scaled: Whether cells change, and volumes are judged.
        """
        problems: dict[int, str] = {}
        is_lost = self._any_atom(~np.isfinite(positions.sum(axis=1)))
        if is_lost.any():
            positions = np.where(np.repeat(is_lost, self._n_atoms)[:, None], self._start_positions, positions)
        if is_scaled:
            volume = _volumes(cell)
            is_off = (volume < VOLUMES[0] * self._volume) | (volume > VOLUMES[1] * self._volume)
            problems.update((int(k), "volume") for k in np.flatnonzero(is_off))
        if self._bonds is not None:
            is_off = self._bonds.are_off(positions)
            problems.update((int(k), "bond") for k in np.flatnonzero(is_off))
        if self._geometry is not None:
            problems.update(self._geometry.problems(positions, cell))
        if is_lost.any():
            problems.update((int(k), NOT_FINITE) for k in np.flatnonzero(is_lost))
        return problems

    def of_forces(self, forces: FloatArray, known: FloatArray | None = None) -> dict[int, str]:
        """Once they are known: ``not-finite`` or ``force-too-large``.

        Args:
            forces: ``(n_total, 3)`` of the potential, without what a method adds, eV/Angstrom.
            known: ``(n_walkers,)`` what else must be finite, such as energies.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            squared = np.einsum("ax,ax->a", forces, forces)
            largest: FloatArray = np.maximum.reduceat(squared, self._offsets[:-1])  # NaN where there is one
        if (largest <= MAX_FORCE**2).all() and (known is None or np.isfinite(known).all()):
            return {}
        is_finite = np.isfinite(largest) if known is None else np.isfinite(largest) & np.isfinite(known)
        problems = {int(k): "force-too-large" for k in np.flatnonzero(largest > MAX_FORCE**2)}
        problems.update((int(k), NOT_FINITE) for k in np.flatnonzero(~is_finite))
        return problems

    def of_heat(
        self, kinetic: FloatArray, temperatures: FloatArray, excess: FloatArray | float = 0.0
    ) -> dict[int, str]:
        """At the end of a step: ``too-hot``.

        Args:
            kinetic: ``(n_walkers,)`` kinetic energies, eV.
            temperatures: ``(n_walkers,)`` of the thermostats, K.
            excess: ``(n_walkers,)`` potential energy that may have turned into heat, eV.
        """
        is_hot = kinetic > self._hottest * temperatures + excess
        return {int(k): "too-hot" for k in np.flatnonzero(is_hot)} if is_hot.any() else {}

    def _any_atom(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.logical_or.reduceat(mask, self._offsets[:-1])


def heat_limits(n_degrees: ArrayLike, ratio: float) -> FloatArray:
    """``(n_walkers,)`` twice the kinetic energy over kT above which walkers are too hot; see the module.

    Args:
        n_degrees: ``(n_walkers,)`` degrees of freedom.
        ratio: Kinetic over thermostat temperature that is too hot in a large system.
    """
    degrees = np.asarray(n_degrees, dtype=np.float64)
    limits: FloatArray = np.maximum(ratio * degrees, chdtri(degrees, IMPROBABLE))
    return limits


def _volumes(cell: FloatArray) -> FloatArray:
    volumes: FloatArray = np.abs(np.linalg.det(cell))
    return volumes
