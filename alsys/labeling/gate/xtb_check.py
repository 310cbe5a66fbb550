"""The first labels held against GFN2-xTB: a wrong sign, unit or order of atoms shows at once.

The check is a function of the frame alone, so verdicts do not depend on what was labelled before. It is off by a third
of the forces and accuses only where a changed label fits it far better than the label does
(`alsys.labeling.gate.gross_errors`).
GFN2-xTB knows all elements up to radon and takes milliseconds for small molecules; where it has nothing to say, it
says nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from alsys.config.engines import LabelingConfig
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.xtb import XTBFailure, XTBMethod, check_frame, single_point

XTBCheck = Callable[[Frame], FloatArray | None]
"""Forces ``(n_atoms, 3)`` of a frame, eV/Angstrom; None where it cannot tell."""

MAX_ATOMS = 60
"""Larger molecules would keep other labels waiting for more than a tenth of a second."""
METHOD = XTBMethod("GFN2-xTB", accuracy=1.0)


def xtb_check_for(labeling: LabelingConfig) -> XTBCheck | None:
    """The check of labels of this kind; None for potentials that are made up, and for what is not known."""
    return gfn2_forces if labeling.kind in ("pyscf", "skala", "xtb", "ani") else None


def gfn2_forces(frame: Frame) -> FloatArray | None:
    """Forces of a small molecule with GFN2-xTB; None for boxes, large molecules and where its SCF fails."""
    if frame.pbc.any() or not 1 < frame.n_atoms <= MAX_ATOMS:
        return None
    try:
        check_frame(frame)
        return single_point(frame, METHOD).forces
    except (EnvironmentProblem, InputError, XTBFailure):  # a campaign does not end for want of a check
        return None
