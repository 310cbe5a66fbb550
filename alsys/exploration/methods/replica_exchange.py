"""Replica exchange: walkers on a ladder of temperatures that swap them by the Metropolis rule.

Y. Sugita, Y. Okamoto, Chem. Phys. Lett. 314, 141 (1999). Replicas i and j on neighbouring rungs swap temperatures with
probability ``min(1, exp[(1/kT_i - 1/kT_j)(E_i - E_j)])``, which leaves the product of their canonical distributions as
it is; the caller rescales their velocities by ``sqrt(T_new / T_old)``. Pairs that begin at even and at odd rungs
alternate. Temperatures rise by a constant factor. A walker that begins anew keeps its rung, and takes part again after
one interval, when its memory of the start has faded somewhat; each start breaks detailed balance, as it must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from alsys.exploration.methods.base import Group
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray, IntArray
from alsys.units import BOLTZMANN


def ladder(lowest: float, highest: float, rungs: int) -> FloatArray:
    """``(rungs,)`` temperatures with a constant ratio, K; the lowest alone where there is one rung."""
    return np.geomspace(lowest, highest, rungs) if rungs > 1 else np.array([lowest])


class ReplicaExchange(Plain):
    """Replicas that swap temperatures.

    Args:
        lowest: Temperature of the first rung, K.
        highest: Temperature of the last rung, K.
        rungs: Rungs of a ladder; fewer where there are fewer walkers. More walkers make further ladders, of which the
            last one may lack its upper rungs.
        interval: Calls of `exchange` between two attempts.
        n_walkers: Walkers of the group.

    Attributes:
        n_tried: Pairs that could have been swapped, so far.
        n_swapped: Pairs that were.
    """

    name: ClassVar[str] = "replica-exchange"
    takes_tensors: ClassVar[bool] = True

    def __init__(self, lowest: float, highest: float, rungs: int, interval: int, n_walkers: int) -> None:
        rungs = min(rungs, n_walkers)
        super().__init__(ladder(lowest, highest, rungs).tolist(), n_walkers)
        self.n_tried = self.n_swapped = 0
        self._rungs, self._interval, self._n_calls = rungs, interval, 0
        self._walker_on = np.arange(n_walkers)

    def temperatures(self, step: IntArray) -> FloatArray:
        """``(n_walkers,)`` temperatures of the rungs that walkers stand on now, K."""
        return self._targets.copy()

    def exchange(self, group: Group, rng: np.random.Generator) -> Sequence[tuple[int, int]]:
        """Pairs that swapped temperatures, at every `interval`-th call."""
        self._n_calls += 1
        if self._n_calls % self._interval:
            return ()
        first = (self._n_calls // self._interval + 1) % 2
        swapped: list[tuple[int, int]] = []
        for rung in range(len(self._walker_on) - 1):
            within = rung % self._rungs
            if within == self._rungs - 1 or within % 2 != first:
                continue
            i, j = int(self._walker_on[rung]), int(self._walker_on[rung + 1])
            if min(group.step[i], group.step[j]) < self._interval:
                continue
            self.n_tried += 1
            cold, hot = self._targets[i], self._targets[j]
            exponent = (1.0 / cold - 1.0 / hot) / BOLTZMANN * (group.energy[i] - group.energy[j])
            if exponent >= 0.0 or rng.random() < np.exp(exponent):  # false for NaN
                self._walker_on[rung], self._walker_on[rung + 1] = j, i
                self._targets[i], self._targets[j] = hot, cold
                swapped.append((i, j))
        self.n_swapped += len(swapped)
        return swapped
