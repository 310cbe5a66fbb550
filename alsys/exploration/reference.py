"""A cheap quantum-chemical potential for exploration: GFN-xTB with tblite, in this process.

First frames are sampled with it, and clusters grow until its forces settle. Labels come from `alsys.labeling`, in
processes of their own.
"""

from __future__ import annotations

import numpy as np

from alsys.dynamics.minima import EnergyForces
from alsys.frames import FloatArray, Frame
from alsys.potentials.xtb import calculator_of
from alsys.units import BOHR, HARTREE, HARTREE_PER_BOHR


def xtb_potential(frame: Frame) -> EnergyForces:
    """GFN2-xTB for a frame's atoms, charge and spin; GFN1-xTB where it is periodic.

    tblite takes about ten times as long for GFN2-xTB in a periodic box, for its multipoles.

    Raises:
        ValueError: A frame that is periodic in one or two directions.
    """
    if frame.pbc.any() and not frame.pbc.all():
        raise ValueError("tblite takes no or three periodic directions")

    calculator = calculator_of(frame, "GFN1-xTB" if frame.pbc.all() else "GFN2-xTB")

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        calculator.update(np.ascontiguousarray(positions) / BOHR)
        result = calculator.singlepoint()
        return float(result.get("energy")) * HARTREE, -np.asarray(result.get("gradient")) * HARTREE_PER_BOHR

    return evaluate
