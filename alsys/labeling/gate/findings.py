"""What is odd about a label, and what becomes of one that was labelled again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from alsys.config.labeling import QualityConfig
from alsys.frames import FloatArray, Frame
from alsys.labels import Label

SLOPE_SHARE = 0.3
"""How far the energy's slope along the forces may be from their length, as a share of it."""
SLOPE_FLOOR = 0.02
"""And by how much at least, eV/Angstrom: numerical noise of energies."""
LEVEL_ENERGY = 0.02
"""Energy per atom by which tighter settings may differ, eV: density fitting costs some 0.002."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd about a label.

    Attributes:
        check: Stable word: ``shape``, ``not-finite``, ``net-force``, ``torque``, ``largest-force``, ``spin``, ``gap``,
            ``energy``, ``residual-energy``, ``residual-force``, ``sign``, ``scale``, ``permutation``, ``pair-force``,
            ``relabelled``, ``reference``, ``slope``.
        value: What was found.
        limit: What is normal.
        is_fatal: No second label can make this one data.
        message: One line.
        stands: A limit that the level itself sets, from the config: the label stays out even where a second one agrees.
    """

    check: str
    value: float
    limit: float
    is_fatal: bool
    message: str
    stands: bool = False


Flagged = tuple[int, tuple[Finding, ...]]
"""Row of a reviewed label, and what is odd about it."""


class Verdict(StrEnum):
    """What becomes of a label that failed the gate once it has been labelled again."""

    KEEP = "keep"
    """The label is good; observe and `LabelChecks.clear` it."""
    DROP = "drop"
    """The label is wrong, or cannot be data."""


def settle(
    config: QualityConfig, frame: Frame, first: Label, findings: Sequence[Finding], second: Label | None
) -> Verdict:
    """What becomes of a label that failed the gate.

    Args:
        config: Limits.
        frame: What was labelled.
        first: The label that failed the gate.
        findings: What is odd about it.
        second: Its relabelling at tighter settings; None where that failed.
    """
    if second is None or any(f.is_fatal or f.stands for f in findings):
        return Verdict.DROP
    return Verdict.KEEP if agree(first, second, config.agreement) else Verdict.DROP


def agree(first: Label, second: Label, tolerance: float, *, energy_tolerance: float = 1e-3) -> bool:
    """Whether a label and its relabelling agree.

    Forces: root mean square difference within `tolerance`, and ten times that for an atom, since grids err locally.
    Energies: per atom within `energy_tolerance` at the same level, and within `LEVEL_ENERGY` at another.

    Args:
        first: A label.
        second: Another one of the same frame.
        tolerance: eV/Angstrom.
        energy_tolerance: Energy difference per atom at the same level, eV.
    """
    if first.frame_id != second.frame_id or first.forces.shape != second.forces.shape:
        return False
    difference = first.forces - second.forces
    energy = abs(first.energy - second.energy) / len(difference)
    if not (np.isfinite(difference).all() and math.isfinite(energy)):
        return False
    is_close = root_mean_square(difference) <= tolerance
    is_close = is_close and float(np.sqrt(np.square(difference).sum(axis=1)).max()) <= 10.0 * tolerance
    return is_close and energy <= (energy_tolerance if first.level_id == second.level_id else LEVEL_ENERGY)


def slope_finding(label: Label) -> Finding | None:
    """What is wrong with forces along which the energy does not fall as they say; None where nothing is known to be."""
    length = float(np.linalg.norm(label.forces))
    if math.isnan(label.slope) or abs(label.slope - length) <= max(SLOPE_SHARE * length, SLOPE_FLOOR):
        return None
    return finding("slope", label.slope, length, "eV/Angstrom is what the energy falls along the forces")


def root_mean_square(values: FloatArray) -> float:
    """Of all elements."""
    return math.sqrt(float(np.square(values).mean()))


def finding(check: str, value: float, limit: float, message: str, stands: bool = False) -> Finding:
    """Something odd, with its one line."""
    return Finding(check, value, limit, False, f"{check} {value:.4g} (limit {limit:.4g}): {message}", stands)
