"""Calculators of ASE by name (A. H. Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017)).

Which ones, and which of their parameters, is data: `alsys.config.ase_calculators`. Labels are computed inside the child
process (`alsys.potentials.ase_single_points`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from alsys.config.ase_calculators import CALCULATORS
from alsys.config.engines import ASELabeling
from alsys.errors import EnvironmentProblem, FailureKind
from alsys.frames import Frame
from alsys.labeling.checks import check_electrons
from alsys.labeling.engine import Computed, Failed
from alsys.potentials.ase_single_points import SinglePoints, check_treated


class ASEEngine:
    """One calculator of the allow-list."""

    settings_model: ClassVar[type[ASELabeling]] = ASELabeling

    def __init__(self, settings: ASELabeling) -> None:
        self._name = settings.calculator
        self._points = SinglePoints(settings.calculator, settings.parameters)

    @classmethod
    def spec(cls, settings: ASELabeling) -> Mapping[str, object]:
        """Calculator and parameters."""
        return {"engine": "ase", "calculator": settings.calculator, "parameters": dict(settings.parameters)}

    @classmethod
    def check(cls, settings: ASELabeling, frame: Frame) -> None:
        """Refuses what the calculator has no word for, and a calculator that is missing."""
        check_treated(settings.calculator, frame)
        if CALCULATORS[settings.calculator].has_spin:
            check_electrons(frame)
        problem = SinglePoints(settings.calculator, settings.parameters).problem()
        if problem is not None:
            raise EnvironmentProblem(f"labeling.calculator: {settings.calculator} cannot run here: {problem}")

    def compute(self, frame: Frame) -> Computed | Failed:
        """Energy, forces and, for cells and calculators that have it, stress."""
        from ase.calculators.calculator import (
            CalculationFailed,
            PropertyNotImplementedError,
            SCFError,
        )

        try:
            point = self._points.of_frame(frame)
        except SCFError as error:
            return Failed(FailureKind.SCF_NOT_CONVERGED, str(error))
        except (PropertyNotImplementedError, NotImplementedError) as error:
            return Failed(FailureKind.UNSUPPORTED, f"{self._name}: {error}")
        except CalculationFailed as error:
            return Failed(FailureKind.CRASHED, str(error))
        return Computed(point.energy, point.forces, point.stress)
