"""Well-tempered metadynamics on torsions and distances; walkers on the same variable share its hills.

A. Barducci, G. Bussi, M. Parrinello, Phys. Rev. Lett. 100, 020603 (2008): every interval a Gaussian is added where the
walker is, of height ``w exp(-V(s) / k Delta T)``, and V converges to ``-(1 - 1 / gamma) F(s)`` with the bias factor
``gamma = (T + Delta T) / T``. Shared hills: P. Raiteri et al., J. Phys. Chem. B 110, 3533 (2006). Each walk biases one
variable; successive walks take them in turn.

Hills live on a grid of `N_NODES` values and slopes for each variable, joined by cubic Hermite splines: memory and cost
do not grow with the number of hills, and forces are the exact gradient of the splined bias. Hills outlive a walk, and
so drive the next one elsewhere, but not the process. Beyond a distance's range the bias is constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from alsys.exploration.methods.base import Group
from alsys.exploration.methods.plain import Plain
from alsys.exploration.methods.torsions import torsion_gradient, wrapped
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays, Constants
from alsys.units import BOLTZMANN

N_NODES: Final = 361
"""Nodes of each variable: one a degree for torsions, both ends included."""


class HillTable:
    """One-dimensional biases of several variables, each on its own grid.

    Args:
        lower, upper: ``(n_variables,)`` ends of the grids, rad or Angstrom.
        width: ``(n_variables,)`` standard deviation of hills, at least two spacings of the grid, rad or Angstrom.
        is_angle: ``(n_variables,)`` whether a variable is an angle from -pi to pi.
    """

    def __init__(self, lower: FloatArray, upper: FloatArray, width: FloatArray, is_angle: Sequence[bool]) -> None:
        self._lower, self._spacing, self._width = lower, (upper - lower) / (N_NODES - 1), width
        self._is_angle = list(is_angle)
        self._nodes = lower[:, None] + self._spacing[:, None] * np.arange(N_NODES)
        self._value, self._slope = np.zeros((len(lower), N_NODES)), np.zeros((len(lower), N_NODES))
        self._n_hills = 0
        self._tables, self._grid = Constants(), Constants()

    def evaluate(self, variable: IntArray, s: Array, arrays: Arrays = HOST) -> tuple[Array, Array]:
        """``(n,)`` bias and its derivative.

        Args:
            variable: ``(n,)`` numbers of the variables, on the host.
            s: ``(n,)`` values that they have, rad or Angstrom.
            arrays: Where values are.
        """
        xp = arrays.xp
        value_at, slope_at = self._tables.of(arrays, [self._value, self._slope], self._n_hills)
        variable, spacing, lower = self._grid.of(arrays, [variable, self._spacing[variable], self._lower[variable]])
        place = (s - lower) / spacing
        inside = xp.clip(place, 0.0, N_NODES - 1.0)
        left = xp.clip(arrays.whole(inside), 0, N_NODES - 2)
        t = inside - left
        v0, v1 = value_at[variable, left], value_at[variable, left + 1]
        d0, d1 = spacing * slope_at[variable, left], spacing * slope_at[variable, left + 1]
        c2, c3 = 3.0 * (v1 - v0) - 2.0 * d0 - d1, 2.0 * (v0 - v1) + d0 + d1
        value = v0 + t * (d0 + t * (c2 + t * c3))
        slope = (d0 + t * (2.0 * c2 + 3.0 * t * c3)) / spacing
        return value, xp.where(inside == place, slope, 0.0)

    def add(self, variable: int, s: float, height: float) -> None:
        """A hill of `height` eV at `s`."""
        distance = self._nodes[variable] - s
        if self._is_angle[variable]:
            distance = wrapped(distance)
        width = self._width[variable]
        hill = height * np.exp(-0.5 * np.square(distance / width))
        self._n_hills += 1
        self._value[variable] += hill
        self._slope[variable] -= distance / width**2 * hill

    def is_inside(self, variable: int, s: float) -> bool:
        """Whether `s` lies on the grid."""
        return bool(self._nodes[variable, 0] <= s <= self._nodes[variable, -1])


@dataclass(frozen=True, slots=True)
class Hills:
    """How hills are made.

    Attributes:
        height: Of the first one, eV.
        torsion_width: Standard deviation on torsions, rad.
        distance_width: Standard deviation on distances, Angstrom; at least ``max_distance / 180``.
        max_distance: Distances beyond are not biased, Angstrom.
        bias_factor: ``(T + Delta T) / T``.
        interval: Steps between two hills of a walker.
    """

    height: float
    torsion_width: float
    distance_width: float
    max_distance: float
    bias_factor: float
    interval: int


class Metadynamics(Plain):
    """Molecular dynamics driven from where it has been.

    Args:
        temperatures: Thermostats, K.
        n_walkers: Walkers of the group.
        torsions: ``(n_torsions, 4)`` atoms; variables 0 and following.
        distances: ``(n_distances, 2)`` atoms; the variables after them. At least one of both.
        hills: How hills are made.
        first: Variable of the first walk.
    """

    name: ClassVar[str] = "metadynamics"
    takes_tensors: ClassVar[bool] = True

    def __init__(
        self,
        temperatures: Sequence[float],
        n_walkers: int,
        torsions: IntArray,
        distances: IntArray,
        hills: Hills,
        first: int = 0,
    ) -> None:
        super().__init__(temperatures, n_walkers)
        self._torsions, self._distances = torsions.reshape(-1, 4), distances.reshape(-1, 2)
        self._hills, self._next = hills, first
        n_torsions, n_distances = len(self._torsions), len(self._distances)
        self.table = HillTable(
            np.repeat([-np.pi, 0.0], [n_torsions, n_distances]),
            np.repeat([np.pi, hills.max_distance], [n_torsions, n_distances]),
            np.repeat([hills.torsion_width, hills.distance_width], [n_torsions, n_distances]),
            [True] * n_torsions + [False] * n_distances,
        )
        self._constants = Constants()
        self._variable = np.zeros(n_walkers, dtype=np.int64)
        self._last_hill = np.zeros(n_walkers, dtype=np.int64)
        for k in range(n_walkers):
            self._take_variable(k)

    def start(self, k: int, trusted: Sequence[Frame], rng: np.random.Generator) -> Frame:
        """A trusted frame; the walker takes the next variable."""
        self._take_variable(k)
        return super().start(k, trusted, rng)

    def _take_variable(self, k: int) -> None:
        self._variable[k] = self._next % (len(self._torsions) + len(self._distances))
        self._next += 1
        self._last_hill[k] = 0
        self._on_torsion = np.flatnonzero(self._variable < len(self._torsions))[:, None]
        self._on_distance = np.flatnonzero(self._variable >= len(self._torsions))[:, None]

    def variables(self, positions: FloatArray) -> tuple[IntArray, Array]:
        """``(n_walkers,)`` number and value of the variable of each walker, rad or Angstrom."""
        return self._variable, self._measure(positions)[0]

    def free_energy(self, variable: int, s: FloatArray) -> Array:
        """``(n,)`` estimate of the free energy of a variable at values `s`, up to a constant, eV."""
        value, _ = self.table.evaluate(np.full(len(s), variable), s)
        return -value / (1.0 - 1.0 / self._hills.bias_factor)

    def bias(self, group: Group) -> Array:
        """Forces of the hills; walkers that are due have left theirs before."""
        s, parts = self._measure(group.positions, group.arrays)
        due = (group.step > self._last_hill) & (group.step % self._hills.interval == 0)
        if due.any():
            self._leave_hills(np.flatnonzero(due), group.arrays.read([s])[0], group)
        slope = self.table.evaluate(self._variable, s, group.arrays)[1]
        forces = group.arrays.xp.zeros_like(group.positions)
        for rows, atoms, gradient in parts:
            forces[rows, atoms] = -slope[rows, None] * gradient
        return forces

    def _leave_hills(self, rows: IntArray, s: FloatArray, group: Group) -> None:
        values = self.table.evaluate(self._variable[rows], s[rows])[0]
        ceiling = BOLTZMANN * group.temperatures[rows] * (self._hills.bias_factor - 1.0)
        heights = self._hills.height * np.exp(-values / ceiling)
        for k, height in zip(rows.tolist(), heights.tolist(), strict=True):
            self._last_hill[k] = group.step[k]
            if self.table.is_inside(int(self._variable[k]), float(s[k])):
                self.table.add(int(self._variable[k]), float(s[k]), height)

    def _measure(self, positions: Array, arrays: Arrays = HOST) -> tuple[Array, list[tuple[Array, Array, Array]]]:
        """Values, and for both kinds of variables: walkers ``(n, 1)``, atoms and gradients."""
        xp = arrays.xp
        s = xp.zeros_like(positions[:, 0, 0])
        parts: list[tuple[Array, Array, Array]] = []
        by_torsion, by_distance = self._on_torsion[:, 0], self._on_distance[:, 0]
        torsion_rows, torsion_atoms, distance_rows, distance_atoms = self._constants.of(
            arrays,
            [
                self._on_torsion,
                self._torsions[self._variable[by_torsion]],
                self._on_distance,
                self._distances[self._variable[by_distance] - len(self._torsions)],
            ],
        )
        if by_torsion.size:
            s[torsion_rows[:, 0]], gradient = torsion_gradient(positions[torsion_rows, torsion_atoms], xp)
            parts.append((torsion_rows, torsion_atoms, gradient))
        if by_distance.size:
            pair = positions[distance_rows, distance_atoms]
            vector = pair[:, 0] - pair[:, 1]
            length = xp.sqrt(xp.einsum("wx,wx->w", vector, vector))
            s[distance_rows[:, 0]] = length
            unit = vector / xp.clip(length, 1e-12, None)[:, None]
            parts.append((distance_rows, distance_atoms, xp.stack([unit, -unit], axis=1)))
        return s, parts
