"""Uncertainty-driven dynamics: a bias that lowers the energy where the members of the committee disagree.

M. Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023), equations 2 to 7. With the spread of the member energies (eq. 2,
a sum with the factor 1/2, not a mean) and ``rho`` (eq. 3),

    sigma^2 = 1/2 sum_i (E_i - <E>)^2,    rho^2 = 2 sigma^2 / (N_M N_A),
    E_bias = A [exp(-sigma^2 / (N_M N_A B^2)) - 1],
    F_bias = -A / (N_M N_A B^2) exp(-sigma^2 / (N_M N_A B^2)) sum_i (E_i - <E>) F_i .

The last line follows from ``-grad E_i = F_i`` and ``sum_i (E_i - <E>) <F> = 0``: no second derivative is needed.

The paper sets A and B by hand, and names that its major limitation. Here both are found. For a given gradient of
``rho`` the bias force is largest at ``rho = B``; B is `REACH` times the geometric mean of ``rho`` over the walks, so
that walkers are driven beyond what they know. A follows so that the RMS bias force is a chosen share of the RMS
force of the committee (the paper found a mean ratio of 0.36 useful, eq. 5, over atoms; a ratio of RMS does not blow up
where a physical force vanishes). Averages fade over `memory` calls, so new weights are followed. The amplitude, the
width and each walker's bias force are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from alsys.exploration.methods.base import Group
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray
from alsys.potentials.arrays import Array, Arrays

REACH = 3.0
"""B over the typical ``rho``. In the paper 5 for glycine (0.12 over 0.024 kcal/mol) and about 2 for acetylacetone."""
SMALLEST_RHO = 1e-5
"""Least ``rho`` that is learned from, eV: far below any committee's, and so only where members agree exactly."""
LARGEST_WIDTH = 1.0
"""Bound of B, eV."""
LARGEST_SHARE = 5.0
"""RMS bias force of one walker at most, in units of the wanted one."""
WRECK = 50.0
"""Force on an atom from which a walker is not learned from and not pushed, eV/Angstrom."""


def half_spread(member_energies: Array, n_atoms: int, xp: Any = np) -> Array:
    """``sigma^2 / (N_M N_A)`` with the paper's ``sigma^2`` (eq. 2), eV^2.

    Args:
        member_energies: ``(n_members, n_walkers)``, eV.
        n_atoms: Atoms of a walker.
        xp: `alsys.potentials.arrays.Arrays.xp` of the energies.
    """
    deviation = member_energies - member_energies.mean(axis=0)
    return 0.5 * xp.einsum("mw,mw->w", deviation, deviation) / deviation.shape[0] / n_atoms


def spread_force(member_energies: Array, member_forces: Array, xp: Any = np) -> Array:
    """``-grad sigma^2 / (N_M N_A)`` (eq. 7), ``(n_walkers, n_atoms, 3)``, eV^2/Angstrom.

    Args:
        member_energies: ``(n_members, n_walkers)``, eV.
        member_forces: ``(n_members, n_walkers, n_atoms, 3)``, eV/Angstrom.
        xp: As of `half_spread`.
    """
    n_members, _, n_atoms, _ = member_forces.shape
    deviation = (member_energies - member_energies.mean(axis=0)) / (n_members * n_atoms)
    return xp.einsum("mw,mwax->wax", deviation, member_forces)


def bias_energy(spread: FloatArray, amplitude: float, width: float) -> FloatArray:
    """``(n_walkers,)`` bias energies (eq. 4), eV.

    Args:
        spread: ``(n_walkers,)`` as from `half_spread`, eV^2.
        amplitude: A, eV.
        width: B, eV.
    """
    return amplitude * np.expm1(-spread / width**2)


def bias_forces(spread: Array, downhill: Array, amplitude: float, width: float, xp: Any = np) -> Array:
    """``(n_walkers, n_atoms, 3)`` bias forces (eq. 6), eV/Angstrom.

    Args:
        spread: ``(n_walkers,)`` as from `half_spread`, eV^2.
        downhill: ``(n_walkers, n_atoms, 3)`` as from `spread_force`, eV^2/Angstrom.
        amplitude: A, eV.
        width: B, eV.
        xp: As of `half_spread`.
    """
    slope = (-amplitude / width**2) * xp.exp(-spread / width**2)
    return slope[:, None, None] * downhill


class UncertaintyDriven(Plain):
    """Molecular dynamics pushed towards disagreement of the committee.

    Args:
        temperatures: Thermostats, K.
        n_walkers: Walkers of the group.
        ratio: Wanted ratio of the RMS bias force to the RMS force of the committee.
        max_amplitude: Bound of A, eV.
        memory: Calls over which averages fade.

    Attributes:
        amplitude: A in force, eV.
        width: B in force, eV.
    """

    name: ClassVar[str] = "udd"
    takes_tensors: ClassVar[bool] = True

    def __init__(
        self, temperatures: Sequence[float], n_walkers: int, ratio: float, max_amplitude: float, memory: int
    ) -> None:
        super().__init__(temperatures, n_walkers)
        self.amplitude, self.width = 0.0, LARGEST_WIDTH
        self._ratio, self._max_amplitude, self._memory = ratio, max_amplitude, memory
        self._n_calls = 0
        self._log_rho = self._unit_square = self._force_square = 0.0

    def bias(self, group: Group) -> Array:
        """Bias forces; amplitude and width have learned from this group before."""
        arrays, xp = group.arrays, group.arrays.xp
        with np.errstate(invalid="ignore", over="ignore"):  # a wreck may hold infinities; it is masked below
            spread = half_spread(group.member_energies, group.positions.shape[1], xp)
            downhill = spread_force(group.member_energies, group.member_forces, xp)
            force_square = xp.square(group.forces).sum(axis=2)
            finite = xp.isfinite(spread) & xp.isfinite(downhill.sum(axis=(1, 2)))
        is_sane = finite & (xp.amax(force_square, axis=1) < WRECK**2)  # false for NaN
        if not arrays.is_on_host or not is_sane.all():
            spread, downhill = xp.where(is_sane, spread, 0.0), xp.where(is_sane[:, None, None], downhill, 0.0)
        self._learn(arrays, is_sane, spread, downhill, force_square)
        forces = bias_forces(spread, downhill, self.amplitude, self.width, xp)
        limit = LARGEST_SHARE * self._ratio * math.sqrt(self._force_square)
        size = xp.sqrt(xp.square(forces).mean(axis=(1, 2)))
        return forces * (limit / xp.clip(size, limit + 1e-300, None))[:, None, None]

    def _learn(self, arrays: Arrays, is_sane: Array, spread: Array, downhill: Array, force_square: Array) -> None:
        """Follows the width, then the amplitude that the width asks for; of a device two copies."""
        xp = arrays.xp
        log_rhos = xp.log(xp.clip(2.0 * spread, SMALLEST_RHO**2, None))
        said = arrays.read([is_sane.any(), _mean(arrays, log_rhos, is_sane), _mean(arrays, force_square, is_sane)])
        if not said[0]:
            return
        self._n_calls += 1
        weight = max(1.0 / self._n_calls, 1.0 / self._memory)
        self._log_rho += weight * (0.5 * float(said[1]) - self._log_rho)
        self.width = min(REACH * math.exp(self._log_rho), LARGEST_WIDTH)
        squares = xp.square(bias_forces(spread, downhill, 1.0, self.width, xp))
        unit_square = float(arrays.read([_mean(arrays, squares, is_sane)])[0])
        self._unit_square += weight * (unit_square - self._unit_square)
        self._force_square += weight * (float(said[2]) / 3.0 - self._force_square)
        wanted = self._ratio * math.sqrt(self._force_square)
        self.amplitude = min(self._max_amplitude, wanted / max(math.sqrt(self._unit_square), 1e-300))


def _mean(arrays: Arrays, values: Array, is_sane: Array) -> Array:
    """Mean of ``(n_walkers, ...)`` over the sane walkers; of none, anything."""
    if arrays.is_on_host:
        return values[is_sane].mean() if is_sane.any() else values.sum()
    xp, size = arrays.xp, max(1, math.prod(values.shape[1:]))
    chosen = xp.where(is_sane.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)
    return chosen.sum() / (size * xp.clip(is_sane.sum(), 1, None))
