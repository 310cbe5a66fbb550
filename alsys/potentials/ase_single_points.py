"""Energies and forces with calculators of ASE by name, for labels and for teachers.

Which ones, and which of their parameters, is data: `alsys.config.ase_calculators`. Each frame is computed in a folder
of its own by a new calculator, so values depend on the frame only; learned potentials, whose weights take long to load
and which remember nothing, are kept. Labelers and teachers compute in a process that does nothing else: packages set
types, threads and devices for the whole of it.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alsys.config.ase_calculators import CALCULATORS
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import FrameBatch, has_volume

MAX_KEPT = 16
"""Learned potentials that are kept: of one charge, one multiplicity, or one composition, where they ask for that."""


@dataclass(frozen=True, slots=True)
class SinglePoint:
    """What a calculator says of a frame.

    Attributes:
        energy: eV; the force-consistent one where it tells them apart.
        forces: ``(n_atoms, 3)``, eV/Angstrom.
        stress: ``(3, 3)``, eV/Angstrom^3; None for molecules and where it has none.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray | None


@dataclass(frozen=True, slots=True)
class BatchPoints:
    """What a calculator says of a batch.

    Attributes:
        energy: ``(n_frames,)``, eV; NaN where it failed.
        forces: ``(n_total, 3)``, eV/Angstrom; NaN where it failed.
        stress: ``(n_frames, 3, 3)``, eV/Angstrom^3; NaN where there is none; None where no frame has a volume.
        problems: Why frames failed, by their index.
    """

    energy: FloatArray
    forces: FloatArray
    stress: FloatArray | None
    problems: Mapping[int, str]


class SinglePoints:
    """One calculator of the allow-list.

    Args:
        calculator: Its name.
        parameters: Those that a campaign file gives.
    """

    def __init__(self, calculator: str, parameters: Mapping[str, object]) -> None:
        self._name, self._parameters = calculator, dict(parameters)
        self._allowed = CALCULATORS[calculator]
        self._kept = lru_cache(maxsize=MAX_KEPT)(self._made)

    def problem(self, _: object = None) -> str | None:
        """See `calculator_problem`."""
        with tempfile.TemporaryDirectory() as folder:
            return calculator_problem(self._name, self._parameters, folder)

    def of_frame(self, frame: Frame) -> SinglePoint:
        """Energy, forces and, for cells and calculators that have it, stress; raises what the calculator raises."""
        from ase.calculators.calculator import PropertyNotImplementedError

        allowed = self._allowed
        values = ((allowed.charge, int(frame.charge)), (allowed.multiplicity, int(frame.multiplicity)))
        state = {name: value for name, value in values if name is not None}
        has_stress = bool(frame.pbc.all())
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        parameters: dict[str, object] = {} if allowed.stress is None else {allowed.stress: has_stress}
        if allowed.is_in_info:
            atoms.info.update(state)
        else:
            parameters |= state
        given = tuple(parameters.items())
        with tempfile.TemporaryDirectory() as folder:
            if allowed.package:
                atoms.calc = self._kept(given, frame.numbers.tobytes() if allowed.is_of_one_composition else b"")
                atoms.calc.reset()  # charge and spin in `info` are not what ASE looks at to see whether atoms changed
            else:
                atoms.calc = self._made(given, b"", folder)
            forces = atoms.get_forces()  # first: some compute no forces for an energy
            energy = atoms.get_potential_energy()
            energy = atoms.calc.results.get("free_energy", energy)
            stress = None
            if has_stress and "stress" in atoms.calc.implemented_properties:
                try:
                    stress = np.array(atoms.get_stress(voigt=False), dtype=np.float64)
                except PropertyNotImplementedError:
                    stress = None
        return SinglePoint(float(energy), np.array(forces, dtype=np.float64), stress)

    def of_batch(self, batch: FrameBatch) -> BatchPoints:
        """Energies, forces and stresses, frame by frame; whatever a frame's computation raises costs no other."""
        energy, forces = np.full(batch.n_frames, np.nan), np.full((batch.numbers.size, 3), np.nan)
        stress = np.full((batch.n_frames, 3, 3), np.nan) if has_volume(batch).any() else None
        problems: dict[int, str] = {}
        first = 0
        for i, frame in enumerate(batch.frames()):
            atoms = slice(first, first := first + frame.n_atoms)
            try:
                point = self.of_frame(frame)
                if not (np.isfinite(point.energy) and np.isfinite(point.forces).all()):
                    raise ValueError("energy or forces are not finite")
            except Exception as error:  # each calculator says it in its own way
                problems[i] = _line(error)
                continue
            energy[i], forces[atoms] = point.energy, point.forces
            if stress is not None and point.stress is not None:
                stress[i] = point.stress
        return BatchPoints(energy, forces, stress, problems)

    def _made(self, given: tuple[tuple[str, object], ...], _composition: bytes, folder: str = ".") -> Any:
        """A calculator; one that is kept may be so for one composition."""
        return make_calculator(self._name, {**self._parameters, **dict(given)}, folder)


def check_treated(calculator: str, frame: Frame) -> None:
    """Refuses elements, charges, spins and cells that a calculator has no word for.

    Raises:
        InputError: Names the field of the frame.
    """
    allowed = CALCULATORS[calculator]
    for number in sorted({int(z) for z in frame.numbers}):
        symbol, last = chemical_symbols[number], allowed.max_number
        if (allowed.elements and symbol not in allowed.elements) or (last is not None and number > last):
            covered = ", ".join(allowed.elements) or f"elements up to {chemical_symbols[last or 0]}"
            raise InputError(
                f"{calculator} does not know this element", field="element", value=symbol, remedy=f"it covers {covered}"
            )
    if frame.charge and allowed.charge is None:
        raise InputError(f"{calculator} treats neutral frames only", field="charge", value=frame.charge)
    if allowed.has_spin and allowed.multiplicity is None and frame.multiplicity != 1 and frame.n_atoms > 1:
        raise InputError(f"{calculator} is set up for singlets only", field="multiplicity", value=frame.multiplicity)
    if allowed.is_molecular and frame.pbc.any():
        raise InputError(f"{calculator} was made for molecules only", field="pbc", value=frame.pbc.tolist())


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
    return _callable(module, attribute)(**nested)


def _callable(module: str, attribute: str) -> Any:
    found: Any = importlib.import_module(module)
    return reduce(getattr, attribute.split("."), found)


def calculator_problem(name: str, parameters: Mapping[str, object], folder: str) -> str | None:
    """Why a calculator cannot be set up here: a missing package, program or configuration. None where it can.

    Of a learned potential only the package is looked at: its weights may be many, and may have to be fetched first.
    """
    allowed = CALCULATORS[name]
    try:
        if allowed.package:
            module, _, attribute = allowed.path.partition(":")
            importlib.import_module(allowed.module or module)
            _callable(module, attribute)
            return None
        calculator = make_calculator(name, parameters, folder)
    except Exception as error:  # each package and calculator says it in its own way
        return f"{_line(error)}; {allowed.package}" if allowed.package else _line(error)
    command = getattr(getattr(calculator, "profile", None), "command", None) or getattr(calculator, "command", None)
    if not allowed.is_program or name == "psi4":
        return None
    words = str(command).split() if command else []
    if not words:
        return f"no command; see ASE's configuration, or set ASE_{name.upper()}_COMMAND"
    return None if shutil.which(words[0]) else f"no program {words[0]!r}"


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
