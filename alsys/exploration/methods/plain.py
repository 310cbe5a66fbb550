"""Molecular dynamics at given temperatures; walkers start at trusted frames, drawn at random.

The thermostat is the explorer's (BAOAB Langevin, B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34). It is
also what the other methods are where they say nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from alsys.exploration.methods.base import Group
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import Array


class Plain:
    """Molecular dynamics at given temperatures.

    Args:
        temperatures: Thermostats, K; walker `k` has number `k` of them, over and over.
        n_walkers: Walkers of the group.
    """

    name: ClassVar[str] = "plain"
    takes_tensors: ClassVar[bool] = True

    def __init__(self, temperatures: Sequence[float], n_walkers: int) -> None:
        self._targets: FloatArray = np.resize(np.asarray(temperatures, dtype=np.float64), n_walkers)

    def start(self, k: int, trusted: Sequence[Frame], rng: np.random.Generator) -> Frame:
        """A trusted frame, each as likely as any other."""
        return trusted[int(rng.integers(len(trusted)))]

    def temperatures(self, step: IntArray) -> FloatArray:
        """``(n_walkers,)`` target temperatures, K."""
        return self._targets

    def bias(self, group: Group) -> Array | None:
        """None: nothing is added to the committee's forces."""
        return None

    def exchange(self, group: Group, rng: np.random.Generator) -> Sequence[tuple[int, int]]:
        """Nothing is swapped."""
        return ()
