"""Molecular dynamics under a temperature that is piecewise linear in the time since a walk began.

Schedules as in simulated annealing (S. Kirkpatrick et al., Science 220, 671 (1983)), here mostly upwards: one walk
passes from where the committee is right to where it begins to fail, and stays for a short time only at each
temperature.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from alsys.dynamics import ramps
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray, IntArray


class Ramp(Plain):
    """Molecular dynamics along a ramp of temperatures.

    Args:
        steps: ``(n_points,)`` steps since a walk began, rising from 0.
        temperatures: ``(n_points,)`` temperatures there, K; the last one is kept.
        n_walkers: Walkers of the group.
    """

    name: ClassVar[str] = "ramp"
    takes_tensors: ClassVar[bool] = True

    def __init__(self, steps: ArrayLike, temperatures: ArrayLike, n_walkers: int) -> None:
        self._schedule = ramps.Ramp(np.asarray(steps, dtype=np.float64), np.asarray(temperatures, dtype=np.float64))
        super().__init__([float(self._schedule.values[0])], n_walkers)

    def temperatures(self, step: IntArray) -> FloatArray:
        """``(n_walkers,)`` target temperatures at each walker's own step, K."""
        return self._schedule.at(step)
