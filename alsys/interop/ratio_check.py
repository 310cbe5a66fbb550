"""What the unit check looks at, and what one of its checks says: the ratio of values to a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from alsys.frames import FloatArray, Frame

TOLERANCE: Final = 1.4
"""Ratio up to which a unit fits; the nearest other one is 1.89 away (Bohr for Angstrom)."""
CLEAR: Final = 1.65
"""Ratio from which it does not; in between a check says nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled frame: eV, ``(n_atoms, 3)`` eV/Angstrom, what it is called in its file, and its stress.

    Attributes:
        stress: ``(3, 3)``, eV/Angstrom^3, tension positive; None where there is none.
    """

    frame: Frame
    energy: float
    forces: FloatArray
    place: str
    stress: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What one check says.

    Attributes:
        fits: True where the units fit, False where others would, None where it says nothing.
        factor: What the values must be multiplied with to fit, signed.
        text: For the log and for people.
    """

    fits: bool | None = None
    factor: float = 1.0
    text: str = ""


NOTHING: Final = Check()
"""A check that says nothing."""


def rated(
    ratio: float, is_clear: bool, text: str, sign: float = 1.0, clear: float = CLEAR, tolerance: float = TOLERANCE
) -> Check:
    """A check from the factor that the values lack.

    Args:
        ratio: Reference over value, positive.
        is_clear: Whether both belong together so well that the ratio means something.
        text: What was compared.
        sign: -1 where they are of opposite sign.
        clear: Ratio from which it does not fit.
        tolerance: Ratio up to which it does.
    """
    if not is_clear or not math.isfinite(ratio) or ratio <= 0:
        return Check(text=text)
    off = abs(math.log(ratio))
    if sign > 0 and off <= math.log(tolerance):
        return Check(True, ratio, text)
    return Check(False, sign * ratio, text) if sign < 0 or off >= math.log(clear) else Check(text=text)


def compared(mine: FloatArray, theirs: FloatArray) -> tuple[float, float]:
    """Cosine of two arrays, and norm of the second over that of the first; NaN where one of them is zero."""
    norm, other = float(np.linalg.norm(mine)), float(np.linalg.norm(theirs))
    if norm == 0.0 or other == 0.0:
        return math.nan, math.nan
    return float(mine.ravel() @ theirs.ravel()) / (norm * other), other / norm


def held_against(
    mine: FloatArray,
    theirs: FloatArray,
    text: str,
    least_cosine: float,
    clear: float = CLEAR,
    tolerance: float = TOLERANCE,
) -> Check:
    """A check of values against a reference; of nothing where one of both is zero.

    Args:
        mine: Values.
        theirs: The reference, in the same order.
        text: What was compared, with ``{ratio}`` for what the reference is in terms of the values.
        least_cosine: From which on they belong together.
        clear: As of `rated`.
        tolerance: Likewise.
    """
    cosine, ratio = compared(mine, theirs)
    if not math.isfinite(cosine):
        return NOTHING
    said = f"{text.format(ratio=f'{ratio:.3g}')} (cosine {cosine:+.2f})"
    return rated(ratio, abs(cosine) >= least_cosine, said, math.copysign(1.0, cosine), clear, tolerance)


def groups_of(samples: Sequence[Sample], *, by_cell: bool = True) -> list[list[int]]:
    """Rows of frames of the same atoms in the same order, charge and spin, where there are several.

    Args:
        samples: The frames.
        by_cell: Whether their cells must be the same too.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        frame = sample.frame
        cell = frame.cell.tobytes() if frame.pbc.any() and by_cell else b""
        key = (frame.numbers.tobytes(), cell, frame.pbc.tobytes(), frame.charge, frame.multiplicity)
        groups.setdefault(key, []).append(i)
    return [rows for rows in groups.values() if len(rows) > 1]


def spaced(n: int, k: int) -> list[int]:
    """At most `k` of ``range(n)``, evenly spaced."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, k))}) if n else []
