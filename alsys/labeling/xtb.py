"""GFN2-xTB and GFN1-xTB with tblite: a real electronic-structure method at milliseconds per label.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019). Runs in a child process, since Fortran
may stop the process it runs in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from alsys.config.labeling import XTBLabeling
from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.checks import check_electrons
from alsys.labeling.engine import Computed, Failed
from alsys.potentials.xtb import XTBFailure, XTBMethod, check_frame, single_point


class XTBEngine:
    """A method of tblite."""

    settings_model: ClassVar[type[XTBLabeling]] = XTBLabeling

    def __init__(self, settings: XTBLabeling) -> None:
        self._method = XTBMethod(settings.method, settings.accuracy, settings.max_cycles)

    @classmethod
    def spec(cls, settings: XTBLabeling) -> Mapping[str, object]:
        """Method and accuracy."""
        return XTBMethod(settings.method, settings.accuracy).spec

    @classmethod
    def check(cls, settings: XTBLabeling, frame: Frame) -> None:
        """Refuses impossible spins, elements beyond radon and partly periodic cells."""
        check_electrons(frame)
        check_frame(frame)

    def compute(self, frame: Frame) -> Computed | Failed:
        """Energy, forces and, for cells, stress."""
        try:
            values = single_point(frame, self._method)
        except XTBFailure as error:
            kind = FailureKind.SCF_NOT_CONVERGED if "SCF" in str(error) else FailureKind.UNPHYSICAL_FRAME
            return Failed(kind, str(error))
        return Computed(values.energy, values.forces, values.stress)
