"""Whether forces are the slope of the energy: evidence that does not come from a second label of the same kind.

An engine that errs in the same way every time gives the same wrong forces at tighter settings. Two energies, a
hundredth of an Angstrom along the label's own forces and against them, tell a wrong sign, unit or order of atoms
without any other method: ``(E(x - h d) - E(x + h d)) / 2 h`` is ``|F|`` where ``d = F / |F|`` (central difference).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from alsys.frames import Frame
from alsys.labels import Label, LabelFailure

STEP = 0.01
"""Largest displacement of an atom, Angstrom."""
LEAST_FORCE = 0.02
"""Length of all forces together below which energies tell nothing of them, eV/Angstrom."""


def with_slope(
    frame: Frame, outcome: Label | LabelFailure, label: Callable[[Frame], Label | LabelFailure]
) -> Label | LabelFailure:
    """A label that says how the energy falls along its forces; as it was where that cannot be known.

    Args:
        frame: What was labelled.
        outcome: Its label.
        label: Labels a frame as this one was.
    """
    if isinstance(outcome, LabelFailure) or outcome.forces.shape != frame.positions.shape:
        return outcome
    length = float(np.linalg.norm(outcome.forces))
    if not math.isfinite(length) or length < LEAST_FORCE:
        return outcome
    direction = outcome.forces / length
    step = STEP / float(np.sqrt(np.square(direction).sum(axis=1)).max())
    energies = []
    for sign in (-1.0, 1.0):
        moved = label(frame.with_positions(frame.positions + sign * step * direction))
        if isinstance(moved, LabelFailure) or not math.isfinite(moved.energy):
            return outcome
        energies.append(moved.energy)
    return replace(outcome, slope=(energies[0] - energies[1]) / (2.0 * step))
