"""What a label will cost: seconds learned from past labels, by size and composition.

The logarithm of the seconds is a straight line in the logarithm of the size, fitted robustly (Huber's weights, P. J.
Huber, Ann. Math. Stat. 35, 73 (1964)) over the newest labels, with a weak prior for the slope, so that a campaign of
one molecule has a sensible line too. What a composition deviates from the line is learned as the median of its own
residuals. Before there are data, costs grow with the prior's power of the size, which is all a ranking needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray

PRIOR_SLOPE = 2.5
"""Power of the size with which density-functional theory with Gaussian functions grows, roughly."""
PRIOR_SPREAD = 1.0
"""Standard deviation of that power before there are data."""
SLOPES = (0.0, 6.0)
FALLBACK_SIZE = 26.0
"""Electrons of ethanol, the size that takes `fallback_s`."""
SHRINKAGE = 3.0
"""Labels of a composition at which its own deviation counts by half."""
HUBER = 1.345
LEAST_SPREAD = 0.02
"""Least standard deviation of the logarithm: times closer than this are equal."""


class LabelCostModel:
    """Predicts seconds of labels from those there are.

    Args:
        sizes: Size of each element by atomic number, for example basis functions; None for its electrons.
        fallback_s: Seconds of a molecule of the size of ethanol before there are data.
        window: Newest labels that the fit looks at.
    """

    def __init__(
        self, sizes: Mapping[int, float] | None = None, *, fallback_s: float = 1.0, window: int = 1024
    ) -> None:
        if not (np.isfinite(fallback_s) and fallback_s > 0):
            raise InputError("must be a positive number", field="fallback_s", value=fallback_s)
        self._sizes = None if sizes is None else dict(sizes)
        self._seen: deque[tuple[tuple[int, ...], float, float]] = deque(maxlen=window)
        self._level = float(np.log(fallback_s)) - PRIOR_SLOPE * float(np.log(FALLBACK_SIZE))
        self._slope = PRIOR_SLOPE
        self._own: dict[tuple[int, ...], float] = {}
        self._is_fresh = True

    @property
    def n_labels(self) -> int:
        """Labels that the next prediction rests on."""
        return len(self._seen)

    @property
    def slope(self) -> float:
        """Power of the size with which seconds grow."""
        self._refresh()
        return self._slope

    def observe(self, numbers: ArrayLike, seconds: float) -> None:
        """Takes one finished label in; a time that is not positive and finite is unknown and left out.

        Args:
            numbers: ``(n_atoms,)`` atomic numbers.
            seconds: Wall time of the label.

        Raises:
            InputError: An element without a size.
        """
        composition, size = self._describe(numbers)
        if np.isfinite(seconds) and seconds > 0:
            self._seen.append((composition, float(np.log(size)), float(np.log(seconds))))
            self._is_fresh = False

    def predict(self, numbers: ArrayLike) -> float:
        """Seconds that a label of these atoms will take.

        Args:
            numbers: ``(n_atoms,)`` atomic numbers.

        Raises:
            InputError: An element without a size.
        """
        composition, size = self._describe(numbers)
        self._refresh()
        logarithm = self._level + self._slope * float(np.log(size)) + self._own.get(composition, 0.0)
        return float(np.exp(np.clip(logarithm, -50.0, 50.0)))

    def _describe(self, numbers: ArrayLike) -> tuple[tuple[int, ...], float]:
        atoms = sorted(np.asarray(numbers, dtype=np.int64).tolist())
        if not atoms:
            raise InputError("needs at least one atom", field="numbers", value=atoms)
        if self._sizes is None:
            return tuple(atoms), float(sum(atoms))
        if missing := sorted({z for z in atoms if self._sizes.get(z, 0.0) <= 0}):
            raise InputError("elements without a size", field="sizes", value=[chemical_symbols[z] for z in missing])
        return tuple(atoms), float(sum(self._sizes[z] for z in atoms))

    def _refresh(self) -> None:
        if self._is_fresh:
            return
        x, y = np.array([s[1] for s in self._seen]), np.array([s[2] for s in self._seen])
        self._level, self._slope = _line(x, y)
        residuals: dict[tuple[int, ...], list[float]] = {}
        for (composition, *_), residual in zip(self._seen, y - self._level - self._slope * x, strict=True):
            residuals.setdefault(composition, []).append(float(residual))
        self._own = {c: float(np.median(r)) * len(r) / (len(r) + SHRINKAGE) for c, r in residuals.items()}
        self._is_fresh = True


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
