"""Whether stresses fit: against the energies of slightly strained cells, against GFN-xTB, and against the forces.

- *Strain*: between two near frames whose cells differ, the energy rises by V sigma : strain minus F dx (trapezoid),
  which needs no method: it confirms unit, sign and volume at once. Data of an equation of state have such pairs.
- *xTB*: stresses of GFN-xTB, frame by frame and as they differ between frames: methods disagree about pressure.
- *Forces*: a pair potential fitted to the forces (`alsys.interop.pair_fit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from alsys.frames import FloatArray
from alsys.interop.pair_fit import STRESS_CLEAR, STRESS_TOLERANCE
from alsys.interop.ratio_check import Check, Sample, groups_of, held_against

MAX_STRAIN: Final = 0.06
MIN_STRAIN: Final = 1e-4
MAX_DISPLACEMENT: Final = 0.25
"""Angstrom, root mean square beyond the strain."""
N_PAIRS: Final = 30
MIN_PAIRS: Final = 3
MAX_GROUP: Final = 60
MIN_COSINE: Final = 0.8
MIN_XTB_COSINE: Final = 0.7


def check_strains(samples: Sequence[Sample]) -> Check:
    """Energies of near frames in strained cells against their stresses."""
    found: list[tuple[float, float, float]] = []
    for rows in groups_of(samples, by_cell=False):
        part = [samples[i] for i in rows if samples[i].stress is not None and samples[i].frame.pbc.all()]
        part = part[:: max(1, len(part) // MAX_GROUP)][:MAX_GROUP]
        found += [pair for k, a in enumerate(part) for b in part[k + 1 :] if (pair := _strained(a, b))]
    found = sorted(found)[:N_PAIRS]
    if len(found) < MIN_PAIRS:
        return Check()
    rise, work = np.array([pair[1] for pair in found]), np.array([pair[2] for pair in found])
    what = f"energies of {len(found)} pairs of strained cells differ by {{ratio}} times what their stresses say"
    return held_against(work, rise, what, MIN_COSINE, STRESS_CLEAR, STRESS_TOLERANCE)


def _strained(one: Sample, other: Sample) -> tuple[float, float, float] | None:
    """Size of the strain, and of two near frames what energies and what stresses say of it, eV; None for others."""
    a, b = one.frame, other.frame
    strain = np.linalg.solve(a.cell, b.cell) - np.eye(3)
    symmetric = 0.5 * (strain + strain.T)
    size = float(np.abs(symmetric).max())
    if not MIN_STRAIN < size < MAX_STRAIN or float(np.abs(strain - symmetric).max()) > 0.02:
        return None
    step = b.positions - a.positions @ (np.eye(3) + strain)
    fractional = step @ np.linalg.inv(b.cell)
    step = (fractional - np.round(fractional)) @ b.cell
    if np.sqrt(np.square(step).sum(axis=1).mean()) > MAX_DISPLACEMENT:
        return None
    work = sum(
        0.5 * abs(float(np.linalg.det(s.frame.cell))) * float((s.stress * symmetric).sum())
        for s in (one, other)
        if s.stress is not None
    )
    pushed = 0.5 * float(((one.forces + other.forces) * step).sum())
    return size, other.energy - one.energy + pushed, work


def check_xtb(samples: Sequence[Sample], theirs: Sequence[FloatArray | None]) -> Check:
    """Stresses against those of GFN-xTB, as they differ from their mean where there are enough frames.

    Args:
        samples: The frames.
        theirs: Their stresses by GFN-xTB; None where there are none.
    """
    both = ((sample.stress, other) for sample, other in zip(samples, theirs, strict=True))
    pairs = [(mine, other) for mine, other in both if mine is not None and other is not None]
    if len(pairs) < 3:
        return Check()
    mine, others = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    mine, others = mine - mine.mean(axis=0), others - others.mean(axis=0)
    what = f"GFN-xTB stresses of {len(pairs)} frames differ {{ratio}} times as much"
    return held_against(mine, others, what, MIN_XTB_COSINE, STRESS_CLEAR, STRESS_TOLERANCE)


def together(strains: Check, others: Sequence[Check]) -> Check:
    """One verdict: that of strained cells, which is exact, else what the others agree on."""
    if strains.fits is not None:
        return strains
    spoken = [check for check in others if check.fits is not None]
    if spoken and all(check.fits == spoken[0].fits for check in spoken):
        return spoken[0]
    if spoken:
        return Check(text="; but ".join(check.text for check in spoken))
    return next((check for check in (strains, *others) if check.text), Check())
