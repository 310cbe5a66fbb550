"""GFN2-xTB and GFN1-xTB with tblite: a real electronic-structure method at milliseconds per label.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019). Runs in a child process, since Fortran
may stop the process it runs in.
"""

from __future__ import annotations

import numpy as np

from alsys.config.labeling import XTBLabeling
from alsys.errors import FailureKind, InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.checks import check_electrons, fused_atoms
from alsys.labeling.child import ChildProcess
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.units import BOHR, HARTREE, HARTREE_PER_BOHR

MAX_NUMBER = 86


def level_of(config: XTBLabeling) -> LevelOfTheory:
    """The level of theory of a config."""
    return LevelOfTheory({"engine": "tblite", "method": config.method, "accuracy": config.accuracy})


class XTBLabeler:
    """Labels with tblite."""

    def __init__(self, config: XTBLabeling) -> None:
        self._level = level_of(config)
        self._child = ChildProcess(
            "alsys.labeling.xtb:XTBEngine", config, timeout_s=config.timeout_s, memory_mb=config.memory_mb
        )

    @property
    def level(self) -> LevelOfTheory:
        """Method and accuracy."""
        return self._level

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return self._child.pid

    def check(self, frame: Frame) -> None:
        """Refuses impossible spins, elements beyond radon and partly periodic cells."""
        check_electrons(frame)
        if int(frame.numbers.max()) > MAX_NUMBER:
            raise InputError("GFN-xTB ends at radon", field="element", value=int(frame.numbers.max()))
        if frame.pbc.any() and not frame.pbc.all():
            raise InputError("tblite takes no or three periodic directions", field="pbc", value=frame.pbc.tolist())

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces."""
        return self._child.label(frame)

    def close(self) -> None:
        """Ends the child."""
        self._child.close()


class XTBEngine:
    """Runs in the child."""

    def __init__(self, config: XTBLabeling) -> None:
        self._config = config
        self._level_id = level_of(config).level_id

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces, or why there are none."""
        from tblite.exceptions import TBLiteRuntimeError

        fused = fused_atoms(frame)
        if fused is not None:
            return LabelFailure(frame.frame_id, FailureKind.UNPHYSICAL_FRAME, fused)
        try:
            energy, gradient, virial = self._single_point(frame)
        except (TBLiteRuntimeError, RuntimeError) as error:
            kind = FailureKind.SCF_NOT_CONVERGED if "SCF" in str(error) else FailureKind.UNPHYSICAL_FRAME
            return LabelFailure(frame.frame_id, kind, str(error).strip().splitlines()[-1][:300])
        stress = virial * HARTREE / abs(float(np.linalg.det(frame.cell))) if frame.pbc.all() else None
        return Label(frame.frame_id, self._level_id, energy * HARTREE, -gradient * HARTREE_PER_BOHR, stress=stress)

    def _single_point(self, frame: Frame) -> tuple[float, FloatArray, FloatArray]:
        """Energy, ``(n_atoms, 3)`` gradient and ``(3, 3)`` dE/d(strain), atomic units."""
        from tblite.interface import Calculator

        config = self._config
        lattice, periodic = (frame.cell / BOHR, np.ones(3, dtype=bool)) if frame.pbc.all() else (None, None)
        calculator = Calculator(
            config.method,
            np.asarray(frame.numbers),
            frame.positions / BOHR,
            float(frame.charge),
            frame.multiplicity - 1,
            lattice,
            periodic,
        )
        calculator.set("accuracy", config.accuracy)
        calculator.set("max-iter", config.max_cycles)
        calculator.set("verbosity", 0)
        result = calculator.singlepoint()
        return float(result.get("energy")), np.asarray(result.get("gradient")), np.asarray(result.get("virial"))
