"""What a label will cost: seconds learned from past labels, by the number of electrons of their frames.

The logarithm of the seconds is a straight line in the logarithm of the electrons, fitted robustly (Huber's weights,
P. J. Huber, Ann. Math. Stat. 35, 73 (1964)) over the newest labels, with a weak prior for the slope, so that a campaign
of one molecule has a sensible line too. What a size deviates from the line is learned as the median of its own
residuals. Before there are data, costs grow with the prior's power of the size, which is all a ranking needs.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from alsys.errors import InputError
from alsys.frames import FloatArray

PRIOR_SLOPE = 2.5
"""Power of the electrons with which density-functional theory with Gaussian functions grows, roughly."""
PRIOR_SPREAD = 1.0
"""Standard deviation of that power before there are data."""
SLOPES = (0.0, 6.0)
FALLBACK_ELECTRONS = 26
"""Of ethanol, whose label takes a second before there are data."""
SHRINKAGE = 3.0
"""Labels of a size at which its own deviation counts by half."""
HUBER = 1.345
LEAST_SPREAD = 0.02
"""Least standard deviation of the logarithm: times closer than this are equal."""
MIN_GROWTH = 0.05
"""Share of new labels among those that the fit looks at with which it is made anew; at once for a new size."""


class LabelCostModel:
    """Predicts seconds of labels from those there are.

    Args:
        window: Newest labels that the fit looks at.

    Attributes:
        slope: Power of the electrons with which seconds grow.
    """

    def __init__(self, *, window: int = 1024) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=window)
        self._n_new = 0
        self._level = -PRIOR_SLOPE * math.log(FALLBACK_ELECTRONS)
        self._own: dict[int, float] = {}
        self.slope = PRIOR_SLOPE

    @property
    def n_labels(self) -> int:
        """Labels that the next fit rests on."""
        return len(self._seen)

    def observe(self, n_electrons: int, wall_s: float) -> bool:
        """Takes one finished label in; a time that is not positive and finite is unknown and left out.

        Args:
            n_electrons: Of its frame, at least 1.
            wall_s: Wall time of the label.

        Returns:
            Whether predictions have changed; they stay what they are until it has returned true.

        Raises:
            InputError: No electrons.
        """
        _check(n_electrons)
        if not (math.isfinite(wall_s) and wall_s > 0):
            return False
        self._seen.append((n_electrons, math.log(wall_s)))
        self._n_new += 1
        if self._n_new < MIN_GROWTH * self.n_labels and n_electrons in self._own:
            return False
        self._fit()
        return True

    def predict(self, n_electrons: int) -> float:
        """Seconds that a label of a frame with so many electrons will take.

        Raises:
            InputError: No electrons.
        """
        _check(n_electrons)
        logarithm = self._level + self.slope * math.log(n_electrons) + self._own.get(n_electrons, 0.0)
        return math.exp(min(max(logarithm, -50.0), 50.0))

    def _fit(self) -> None:
        sizes, y = np.array([s[0] for s in self._seen]), np.array([s[1] for s in self._seen])
        x = np.log(sizes)
        self._level, self.slope = _line(x, y)
        residuals = y - self._level - self.slope * x
        self._own = {}
        for size in np.unique(sizes):
            own = residuals[sizes == size]
            self._own[int(size)] = float(np.median(own)) * own.size / (own.size + SHRINKAGE)
        self._n_new = 0


def _check(n_electrons: int) -> None:
    if n_electrons < 1:
        raise InputError("needs at least one electron", field="n_electrons", value=n_electrons)


def _line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Level and slope of a robust line with a prior on the slope.

    Starts from medians, which half of the data cannot spoil, and weighs down what is far from the line.
    """
    slope = PRIOR_SLOPE
    level = float(np.median(y - slope * x))
    for _ in range(50):
        residual = y - level - slope * x
        spread = max(1.4826 * float(np.median(np.abs(residual))), LEAST_SPREAD)
        weight = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(residual), 1e-300))
        x0, y0 = np.average(x, weights=weight), np.average(y, weights=weight)
        prior = (spread / PRIOR_SPREAD) ** 2
        covariance = float((weight * (x - x0) * (y - y0)).sum()) + prior * PRIOR_SLOPE
        new = float(np.clip(covariance / (float((weight * np.square(x - x0)).sum()) + prior), *SLOPES))
        change, slope = abs(new - slope), new
        level = float(y0 - slope * x0)
        if change < 1e-8:
            break
    return level, slope
