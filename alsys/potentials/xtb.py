"""GFN2-xTB and GFN1-xTB with tblite: one function of a frame, the same wherever it is evaluated.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019). Every evaluation starts from tblite's own
guess, so its values depend on the frame only, whatever was evaluated before: what a label's baseline was taken away
with is added back, to rounding. Runs in the process that calls it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from alsys.config.labeling import GFN1Baseline, GFN2Baseline
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.units import BOHR, HARTREE, HARTREE_PER_BOHR

MAX_NUMBER = 86
"""GFN-xTB ends at radon."""


class XTBFailure(Exception):
    """tblite gave no energy, in one line; its SCF did not converge, or the frame makes no sense."""


@dataclass(frozen=True, slots=True)
class XTBMethod:
    """A method and how tightly it is converged.

    Attributes:
        name: ``GFN2-xTB`` or ``GFN1-xTB``.
        accuracy: tblite's accuracy factor; smaller is tighter.
        max_cycles: SCF iterations.
    """

    name: str
    accuracy: float = 0.1
    max_cycles: int = 250

    @classmethod
    def of(cls, config: GFN2Baseline | GFN1Baseline) -> XTBMethod:
        """The method of a baseline."""
        return cls("GFN2-xTB" if config.kind == "gfn2-xtb" else "GFN1-xTB", config.accuracy)

    @property
    def spec(self) -> dict[str, object]:
        """What decides the values: the specification of the level of theory."""
        return {"engine": "tblite", "method": self.name, "accuracy": self.accuracy}


@dataclass(frozen=True, slots=True)
class XTBValues:
    """What xTB says of a frame.

    Attributes:
        energy: eV.
        forces: ``(n_atoms, 3)``, eV/Angstrom.
        stress: ``(3, 3)``, eV/Angstrom^3, tension positive; None for molecules.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray | None


def require_tblite() -> Any:
    """Imports the interface of tblite.

    Its OpenMP library takes its number of threads from the environment, once, when it is loaded: one thread, unless the
    environment says otherwise, since molecules of tens of atoms are slower with more.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    is_set = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        from tblite import interface
    except ImportError as error:
        raise EnvironmentProblem(f"xTB needs the package tblite, which cannot be imported ({error})") from error
    finally:
        if not is_set:
            del os.environ["OMP_NUM_THREADS"]
    return interface


def check_frame(frame: Frame) -> None:
    """Refuses what xTB cannot treat at all.

    Raises:
        InputError: An element beyond radon, one or two periodic directions, or an impossible spin.
    """
    if int(frame.numbers.max()) > MAX_NUMBER:
        raise InputError("GFN-xTB ends at radon", field="element", value=int(frame.numbers.max()))
    if frame.pbc.any() and not frame.pbc.all():
        raise InputError("tblite takes no or three periodic directions", field="pbc", value=frame.pbc.tolist())
    electrons, unpaired = int(frame.numbers.sum()) - frame.charge, frame.multiplicity - 1
    if (electrons - unpaired) % 2 or unpaired > electrons or electrons < 1:
        raise InputError(
            f"is impossible with {electrons} electrons, which xTB wants to know",
            field="multiplicity",
            value=frame.multiplicity,
            remedy="give the charge and the multiplicity of the structure",
        )


def calculator_of(frame: Frame, name: str) -> Any:
    """Tblite's calculator of a molecule or a cell, which prints nothing.

    Raises:
        EnvironmentProblem: tblite is missing.
    """
    lattice, periodic = (frame.cell / BOHR, np.ones(3, dtype=bool)) if frame.pbc.all() else (None, None)
    positions, unpaired = frame.positions / BOHR, frame.multiplicity - 1
    calculator = require_tblite().Calculator(
        name, np.asarray(frame.numbers), positions, float(frame.charge), unpaired, lattice, periodic
    )
    calculator.set("verbosity", 0)
    return calculator


def single_point(frame: Frame, method: XTBMethod) -> XTBValues:
    """Energy, forces and stress of a frame that `check_frame` does not refuse.

    Raises:
        XTBFailure: The SCF does not converge, atoms stand on top of each other, or the numbers are not finite.
        EnvironmentProblem: tblite is missing.
    """
    try:
        calculator = calculator_of(frame, method.name)
        calculator.set("accuracy", method.accuracy)
        calculator.set("max-iter", method.max_cycles)
        result = calculator.singlepoint()
    except RuntimeError as error:  # tblite's own errors are among them
        raise XTBFailure(str(error).strip().splitlines()[-1][:300]) from error
    energy = float(result.get("energy")) * HARTREE
    forces = -np.asarray(result.get("gradient")) * HARTREE_PER_BOHR
    stress = None
    if frame.pbc.all():
        stress = np.asarray(result.get("virial")) * HARTREE / abs(float(np.linalg.det(frame.cell)))
        stress = 0.5 * (stress + stress.T)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise XTBFailure("energy or forces are not finite")
    return XTBValues(energy, forces, stress)
