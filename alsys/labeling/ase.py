"""Calculators of ASE by name (A. H. Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017)).

Which ones, and which of their parameters, is data: `alsys.config.ase_calculators`. Each label runs in a folder of its
own inside the child process. Energies are the force-consistent ones where a calculator tells them apart.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alsys.config.ase_calculators import CALCULATORS
from alsys.config.engines import ASELabeling
from alsys.errors import EnvironmentProblem, FailureKind, InputError
from alsys.frames import Frame
from alsys.labeling.checks import check_electrons
from alsys.labeling.engine import Computed, Failed


class ASEEngine:
    """One calculator of the allow-list."""

    settings_model: ClassVar[type[ASELabeling]] = ASELabeling

    def __init__(self, settings: ASELabeling) -> None:
        self._settings = settings

    @classmethod
    def spec(cls, settings: ASELabeling) -> Mapping[str, object]:
        """Calculator and parameters."""
        return {"engine": "ase", "calculator": settings.calculator, "parameters": dict(settings.parameters)}

    @classmethod
    def check(cls, settings: ASELabeling, frame: Frame) -> None:
        """Refuses elements, charges and spins that the calculator has no word for, and a calculator that is missing."""
        allowed = CALCULATORS[settings.calculator]
        for symbol in sorted({chemical_symbols[z] for z in frame.numbers}):
            if allowed.elements and symbol not in allowed.elements:
                raise InputError(
                    f"{settings.calculator} does not know this element",
                    field="element",
                    value=symbol,
                    remedy=f"it covers {', '.join(allowed.elements)}",
                )
        if frame.charge and allowed.charge is None:
            raise InputError(f"{settings.calculator} treats neutral frames only", field="charge", value=frame.charge)
        if allowed.has_spin:
            check_electrons(frame)
            if allowed.multiplicity is None and frame.multiplicity != 1 and frame.n_atoms > 1:
                raise InputError(
                    f"{settings.calculator} is set up for singlets only", field="multiplicity", value=frame.multiplicity
                )
        with tempfile.TemporaryDirectory() as folder:
            problem = calculator_problem(settings.calculator, settings.parameters, folder)
        if problem is not None:
            raise EnvironmentProblem(f"labeling.calculator: {settings.calculator} cannot run here: {problem}")

    def compute(self, frame: Frame) -> Computed | Failed:
        """Energy, forces and, for cells and calculators that have it, stress."""
        from ase.calculators.calculator import (
            CalculationFailed,
            PropertyNotImplementedError,
            SCFError,
        )

        allowed = CALCULATORS[self._settings.calculator]
        parameters = dict(self._settings.parameters)
        if allowed.charge is not None:
            parameters[allowed.charge] = frame.charge
        if allowed.multiplicity is not None:
            parameters[allowed.multiplicity] = frame.multiplicity
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        with tempfile.TemporaryDirectory() as folder:
            try:
                atoms.calc = make_calculator(self._settings.calculator, parameters, folder)
                offered = atoms.calc.implemented_properties
                energy = atoms.get_potential_energy(force_consistent="free_energy" in offered)
                forces = atoms.get_forces()
                stress = atoms.get_stress(voigt=False) if "stress" in offered and frame.pbc.all() else None
            except SCFError as error:
                return Failed(FailureKind.SCF_NOT_CONVERGED, str(error))
            except (PropertyNotImplementedError, NotImplementedError) as error:
                return Failed(FailureKind.UNSUPPORTED, f"{self._settings.calculator}: {error}")
            except CalculationFailed as error:
                return Failed(FailureKind.CRASHED, str(error))
        return Computed(float(energy), np.array(forces), None if stress is None else np.array(stress))


def make_calculator(name: str, parameters: Mapping[str, object], folder: str) -> Any:
    """A calculator that works in a folder; dots in names of parameters go one level down."""
    allowed = CALCULATORS[name]
    module, _, attribute = allowed.path.partition(":")
    nested: dict[str, Any] = {}
    for key, value in {**allowed.fixed, **parameters}.items():
        group, _, inner = key.rpartition(".")
        target = nested.setdefault(group, {}) if group else nested
        target[inner] = value
    if allowed.is_program:
        nested["directory"] = folder
    return getattr(importlib.import_module(module), attribute)(**nested)


def calculator_problem(name: str, parameters: Mapping[str, object], folder: str) -> str | None:
    """Why a calculator cannot be set up here: a missing package, program or configuration. None where it can."""
    import shutil

    try:
        calculator = make_calculator(name, parameters, folder)
    except Exception as error:  # each calculator says it in its own way
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[-1] if lines else ''}"
    command = getattr(getattr(calculator, "profile", None), "command", None) or getattr(calculator, "command", None)
    if not CALCULATORS[name].is_program or name == "psi4":
        return None
    words = str(command).split() if command else []
    if not words:
        return f"no command; see ASE's configuration, or set ASE_{name.upper()}_COMMAND"
    return None if shutil.which(words[0]) else f"no program {words[0]!r}"
