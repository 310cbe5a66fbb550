"""How long walkers stay sound: the Kaplan-Meier estimate, for walks that are cut off alive.

E. L. Kaplan, P. Meier, J. Am. Stat. Assoc. 53, 457 (1958). Intervals are Greenwood's variance on the scale log(-log S)
(J. D. Kalbfleisch, R. L. Prentice, The Statistical Analysis of Failure Time Data, 1980), and at S = 0 or 1, where that
has none, the exact binomial bound of n walkers that all did alike. The mean is restricted to the longest time looked at
(P. Royston, M. K. B. Parmar, BMC Med. Res. Methodol. 13, 152 (2013)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class SurvivalCurve:
    """A staircase that begins at time 0 with 1 and falls at each time of a failure.

    Attributes:
        times: ``(n_steps,)`` distinct times of failures, rising, fs.
        survival: ``(n_steps,)`` share alive from that time on.
        low, high: ``(n_steps,)`` 95 % interval.
        n_at_risk: ``(n_steps,)`` walkers alive and watched just before.
        n_failed: ``(n_steps,)`` failures at that time.
        end: Longest time looked at, fs.
        n_walkers: Walkers in all.
    """

    times: FloatArray
    survival: FloatArray
    low: FloatArray
    high: FloatArray
    n_at_risk: IntArray
    n_failed: IntArray
    end: float
    n_walkers: int

    @property
    def last(self) -> tuple[float, float, float]:
        """Share alive at the end, and its 95 % interval."""
        if self.times.size:
            return float(self.survival[-1]), float(self.low[-1]), float(self.high[-1])
        return 1.0, 0.025 ** (1.0 / self.n_walkers), 1.0

    @property
    def mean(self) -> tuple[float, float]:
        """Mean time alive within `end`, fs, and its standard error: the area below the curve."""
        edges = np.concatenate([[0.0], self.times, [self.end]])
        areas = np.diff(edges) * np.concatenate([[1.0], self.survival])
        beyond = np.cumsum(areas[::-1])[::-1][1:]  # area from each failure on
        left = self.n_at_risk - self.n_failed
        terms = np.where(left > 0, self.n_failed / np.maximum(self.n_at_risk * left, 1), 0.0)
        return float(areas.sum()), math.sqrt(float((np.square(beyond) * terms).sum()))


def kaplan_meier(times: ArrayLike, is_failure: ArrayLike) -> SurvivalCurve:
    """The estimate from when each walker was last watched.

    Args:
        times: ``(n_walkers,)`` when it failed, or was last seen alive, fs.
        is_failure: ``(n_walkers,)`` whether it failed then.

    Raises:
        InputError: No walker, or a time that is negative or not finite.
    """
    when, failed = np.asarray(times, dtype=np.float64), np.asarray(is_failure, dtype=np.bool_)
    if when.size == 0 or when.shape != failed.shape or not (np.isfinite(when) & (when >= 0)).all():
        raise InputError("one finite time, not negative, is wanted for each walker", field="times", value=when.tolist())
    steps = np.unique(when[failed])
    n_failed = np.array([int((failed & (when == t)).sum()) for t in steps], dtype=np.int64)
    n_at_risk = np.array([int((when >= t).sum()) for t in steps], dtype=np.int64)
    survival = np.asarray(np.cumprod(1.0 - n_failed / np.maximum(n_at_risk, 1)), dtype=np.float64)
    low, high = np.zeros(steps.size), np.ones(steps.size)
    total = 0.0
    for k in range(steps.size):
        left = int(n_at_risk[k] - n_failed[k])
        if left == 0:
            low[k], high[k] = 0.0, 1.0 - 0.025 ** (1.0 / when.size)
            continue
        total += float(n_failed[k]) / (float(n_at_risk[k]) * left)
        width = Z_95 * math.sqrt(total) / abs(math.log(float(survival[k])))
        low[k], high[k] = (float(survival[k]) ** math.exp(sign * width) for sign in (1.0, -1.0))
    return SurvivalCurve(steps, survival, low, high, n_at_risk, n_failed, float(when.max()), int(when.size))
