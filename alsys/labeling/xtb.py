"""GFN2-xTB and GFN1-xTB with tblite: a real electronic-structure method at milliseconds per label.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019). Runs in a child process, since Fortran
may stop the process it runs in.
"""

from __future__ import annotations

from alsys.config.labeling import XTBLabeling
from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.checks import check_alone, check_electrons, fused_atoms
from alsys.labeling.child import ChildLabeler, ChildProcess
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.potentials.xtb import XTBFailure, XTBMethod, check_frame, single_point


def level_of(config: XTBLabeling) -> LevelOfTheory:
    """The level of theory of a config."""
    return LevelOfTheory(XTBMethod(config.method, config.accuracy).spec)


class XTBLabeler(ChildLabeler):
    """Labels with tblite."""

    def __init__(self, config: XTBLabeling) -> None:
        child = ChildProcess(
            "alsys.labeling.xtb:XTBEngine", config, timeout_s=config.timeout_s, memory_mb=config.memory_mb
        )
        super().__init__(level_of(config), child)

    def check(self, frame: Frame) -> None:
        """Refuses impossible spins, elements beyond radon and partly periodic cells."""
        check_electrons(frame)
        check_alone(frame)
        check_frame(frame)


class XTBEngine:
    """Runs in the child."""

    def __init__(self, config: XTBLabeling) -> None:
        self._method = XTBMethod(config.method, config.accuracy, config.max_cycles)
        self._level_id = level_of(config).level_id

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy, forces and, for cells, stress, or why there are none."""
        fused = fused_atoms(frame)
        if fused is not None:
            return LabelFailure(frame.frame_id, FailureKind.UNPHYSICAL_FRAME, fused)
        try:
            values = single_point(frame, self._method)
        except XTBFailure as error:
            kind = FailureKind.SCF_NOT_CONVERGED if "SCF" in str(error) else FailureKind.UNPHYSICAL_FRAME
            return LabelFailure(frame.frame_id, kind, str(error))
        return Label(frame.frame_id, self._level_id, values.energy, values.forces, stress=values.stress)
