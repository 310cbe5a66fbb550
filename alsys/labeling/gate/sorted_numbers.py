"""Numbers in order, so that medians and limits are read and not worked out anew with every label.

Adding or removing one costs O(log n) comparisons, a quantile is an element. All of it is a function of the set of
numbers.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Iterable

import numpy as np

from alsys.frames import FloatArray

NORMAL_TAIL = 1.2816
"""Quantile 0.9 of the normal distribution."""
MAD = 1.4826
"""Standard deviation over the median absolute deviation, normal distribution."""


class SortedNumbers:
    """Finite numbers.

    Args:
        values: In any order.
    """

    def __init__(self, values: Iterable[float] | FloatArray = ()) -> None:
        column = np.array(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
        column.sort()
        self._values = array("d", column.tobytes())

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float) -> None:
        """Takes one more."""
        bisect.insort(self._values, value)

    def remove(self, value: float) -> None:
        """Leaves out one that is there."""
        del self._values[bisect.bisect_left(self._values, value)]

    def with_others(self, others: SortedNumbers) -> SortedNumbers:
        """These and those."""
        return SortedNumbers(np.concatenate([self._values, others._values]))

    def quantile(self, share: float) -> float:
        """Linear between neighbours. There must be a number."""
        return self._between(share, self._values.__getitem__)

    @property
    def median(self) -> float:
        """The middle."""
        return self.quantile(0.5)

    def distance_quantile(self, share: float) -> float:
        """Quantile of the distances from the median."""
        values, middle = self._values, self.median

        def distance(k: int) -> float:
            """The k-th smallest: of k + 1 neighbours that are nearest to the median, one end is the farthest."""
            first = bisect.bisect_left(
                range(len(values) - k), True, key=lambda i: values[i + k] - middle >= middle - values[i]
            )
            ends = [middle - values[first - 1]] if first else []
            if first + k < len(values):
                ends.append(values[first + k] - middle)
            return min(ends)

        return self._between(share, distance)

    @property
    def scatter(self) -> float:
        """Robust standard deviation: that of a normal distribution with this median distance from the median."""
        return MAD * self.distance_quantile(0.5)

    def upper_limit(self, scales: float) -> float:
        """Limit of positive, skewed numbers: median plus `scales` times the spread above it, wider for few of them.

        The spread is that between the median and the 0.9 quantile, which one wrong number in twenty barely moves.
        """
        return self._limit(self.median, self.quantile(0.9), scales)

    def distance_limit(self, scales: float) -> float:
        """As `upper_limit`, of the distances from the median."""
        return self._limit(self.distance_quantile(0.5), self.distance_quantile(0.9), scales)

    def is_beyond(self, distance: float, scales: float) -> bool:
        """Whether a distance from the median is above `distance_limit`, which mostly is above the 0.9 quantile."""
        is_surely_below = scales >= NORMAL_TAIL and self.is_distance_below(distance, 0.9)
        return not is_surely_below and distance > self.distance_limit(scales)

    def is_distance_below(self, distance: float, share: float) -> bool:
        """Whether a distance from the median is surely not above `distance_quantile`, by counting those as near."""
        values, middle = self._values, self.median
        n_near = bisect.bisect_right(values, middle + distance) - bisect.bisect_left(values, middle - distance)
        return n_near <= share * (len(values) - 1)

    def _limit(self, middle: float, high: float, scales: float) -> float:
        return middle + scales * (high - middle) / NORMAL_TAIL * (1.0 + 8.0 / len(self._values))

    def _between(self, share: float, kth: Callable[[int], float]) -> float:
        place = share * (len(self._values) - 1)
        k = int(place)
        low = kth(k)
        return low if k == place else low + (kth(k + 1) - low) * (place - k)
