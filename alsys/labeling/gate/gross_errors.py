"""Gross errors that a rough prediction is enough to tell: wrong sign, wrong unit, forces at the wrong atoms.

Each test asks whether a changed label fits the prediction far better than the label does. A frame where the prediction
is merely bad passes, since no change makes it fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alsys.frames import FloatArray

BETTER = 0.25
"""Share of the squared residual that may remain for a changed label to be the likelier one."""
SCALE = 3.0
"""Factor, or one over it, beyond which forces are in the wrong unit; a committee fitted too briefly may halve them."""


ROUNDING = 1e-12
"""Relative errors of sums below which a label is looked at by itself."""


def may_be_scaled(forces: FloatArray, predicted: FloatArray) -> NDArray[np.bool_]:
    """``(n_labels,)``: where `best_scale` may give a factor; elsewhere it gives none.

    Args:
        forces: ``(n_labels, n_atoms, 3)`` of labels, eV/Angstrom.
        predicted: ``(n_labels, n_atoms, 3)``, eV/Angstrom.
    """
    products, own, other = (
        (a * b).sum(axis=(1, 2)) for a, b in ((forces, predicted), (forces, forces), (predicted, predicted))
    )
    margin = 1.0 - ROUNDING
    is_near: NDArray[np.bool_] = (
        (products > 0.0) & (own < SCALE**2 * other * margin) & (other < SCALE**2 * own * margin)
    )
    return ~is_near


def may_be_swapped(forces: FloatArray, predicted: FloatArray) -> NDArray[np.bool_]:
    """``(n_labels,)``: where `swapped_atoms` may find some; elsewhere it finds none.

    No exchange leaves less than every atom's distance to the predicted force that is nearest to its own.

    Args:
        forces: ``(n_labels, n_atoms, 3)`` of labels, eV/Angstrom.
        predicted: ``(n_labels, n_atoms, 3)``, eV/Angstrom.
    """
    own, other = np.square(forces).sum(axis=2), np.square(predicted).sum(axis=2)
    cost = own[:, :, None] + other[:, None, :] - 2.0 * (forces @ predicted.transpose(0, 2, 1))
    before = np.trace(cost, axis1=1, axis2=2)
    least = cost.min(axis=2).sum(axis=1)
    may: NDArray[np.bool_] = least <= BETTER * before + ROUNDING * (own.sum(axis=1) + other.sum(axis=1))
    return may


def residual_square(forces: FloatArray, predicted: FloatArray) -> float:
    """Sum of squared differences, (eV/Angstrom)^2."""
    return float(((forces - predicted) ** 2).sum())


def best_scale(forces: FloatArray, predicted: FloatArray) -> float | None:
    """The factor between label and prediction where it is far from one and explains most of the difference.

    Negative for a wrong sign. Least squares in both directions: ``F.P / P.P`` has the sign, ``|F| / |P|`` the size.

    Args:
        forces: ``(n_atoms, 3)`` of the label, eV/Angstrom.
        predicted: ``(n_atoms, 3)``, eV/Angstrom.
    """
    product, own, other = (float((a * b).sum()) for a, b in ((forces, predicted), (forces, forces), (predicted,) * 2))
    if own <= 0.0 or other <= 0.0 or product == 0.0:
        return None
    factor = product / abs(product) * (own / other) ** 0.5
    if factor > 0.0 and 1.0 / SCALE < factor < SCALE:
        return None
    # compare shapes at the size of the prediction, so that a label far too large or small is not judged by its size
    left = residual_square(forces / factor, predicted)
    return factor if left < BETTER * min(residual_square(forces, predicted), 4.0 * other) else None


def swapped_atoms(forces: FloatArray, predicted: FloatArray) -> tuple[tuple[int, int], ...]:
    """Pairs of rows that must be exchanged for the label to fit the prediction; empty where that does not help enough.

    Greedy: the exchange that gains most comes first, until nothing gains.
    """
    rows = list(range(len(forces)))
    cost = ((forces[:, None] - predicted[None]) ** 2).sum(axis=2)
    before = float(cost.trace())
    swaps: list[tuple[int, int]] = []
    while len(swaps) < len(rows):
        now = cost[rows]
        own = now.diagonal()
        gain = own[:, None] + own[None] - now - now.T
        i, j = divmod(int(gain.argmax()), len(rows))
        if gain[i, j] <= 0.01 * before:
            break
        rows[i], rows[j] = rows[j], rows[i]
        swaps.append((min(i, j), max(i, j)))
    after = float(cost[rows, range(len(rows))].sum())
    # with enough exchanges anything fits better, so each further one must earn its place
    return tuple(swaps) if swaps and after < BETTER / (1.0 + 0.5 * (len(swaps) - 1)) * before else ()
