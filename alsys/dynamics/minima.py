"""Minima of any potential energy surface: where a relaxation ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from alsys.frames import FloatArray, Frame

EnergyForces = Callable[[FloatArray], tuple[float, FloatArray]]
"""``(n_atoms, 3)`` positions to energy (eV) and forces (eV/Angstrom)."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where a relaxation ended.

    Attributes:
        frame: The structure.
        energy: eV.
        largest_force: Length of the largest force there, eV/Angstrom.
        is_converged: Whether that is as small as was wanted.
    """

    frame: Frame
    energy: float
    largest_force: float
    is_converged: bool


def relaxed(start: Frame, potential: EnergyForces, f_max: float, max_steps: int) -> Minimum:
    """The nearest minimum, by ASE's BFGS: one gradient a step, no step longer than 0.2 Angstrom, no line search.

    Args:
        start: Where to begin; charge, spin and cell stay.
        potential: Energy and forces; what it raises ends the relaxation.
        f_max: Largest force wanted, eV/Angstrom.
        max_steps: At most.
    """
    from ase.optimize import BFGS  # and with it all of SciPy's optimisers

    atoms = Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
    atoms.calc = _Potential(potential)
    BFGS(atoms, logfile=None).run(fmax=f_max, steps=max_steps)
    forces = atoms.get_forces()
    largest = float(np.linalg.norm(forces, axis=1).max())
    frame = start.with_positions(atoms.positions)
    return Minimum(frame, float(atoms.get_potential_energy()), largest, largest <= f_max)


class _Potential(Calculator):  # type: ignore[misc]
    """A potential energy surface as ASE wants it."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, potential: EnergyForces) -> None:
        super().__init__()
        self._potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = self._potential(np.array(self.atoms.positions))
        self.results = {"energy": energy, "forces": forces}
