"""Minima of the reference and of a model, and how far they lie apart.

The reference's minimum is where all scans and Hessians of the reference begin: it depends on the level of theory and
the start structure only, so that their labels serve every model version. The model relaxes from there to its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS

from alsys.dynamics.geometry import BONDED, MIN_CONTACT, is_sound, pair_ratios, superpositions
from alsys.exploration.reference import EnergyForces
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.base import Committee, FrameBatch


class NoForces(Exception):
    """A model gave no finite energy or forces."""


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


@dataclass(frozen=True, slots=True)
class MinimumComparison:
    """A model's minimum beside the reference's.

    Attributes:
        rmsd: Root mean square displacement of atoms after the best fit, Angstrom.
        bond_mean: Mean absolute error of bond lengths, Angstrom; NaN without bonds.
        bond_max: The largest one.
        strain: Energy that the model gives away between both minima, eV.
    """

    rmsd: float
    bond_mean: float
    bond_max: float
    strain: float


def relaxed(start: Frame, potential: EnergyForces, f_max: float, max_steps: int) -> Minimum:
    """The nearest minimum, by ASE's BFGS: one gradient a step, no step longer than 0.2 Angstrom, no line search.

    Args:
        start: Where to begin; charge, spin and cell stay.
        potential: Energy and forces; what it raises ends the relaxation.
        f_max: Largest force wanted, eV/Angstrom.
        max_steps: At most.
    """
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


def committee_potential(committee: Committee, frame: Frame) -> EnergyForces:
    """A committee's mean as a potential energy surface of a frame's atoms; raises `NoForces` where it has no value."""

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        if not np.isfinite(positions).all():
            raise NoForces("atoms left for infinity")
        prediction = committee.evaluate(FrameBatch.of([frame.with_positions(positions)]))
        if not (np.isfinite(prediction.energy).all() and np.isfinite(prediction.forces).all()):
            raise NoForces("energy or forces are not finite")
        return float(prediction.energy[0]), prediction.forces

    return evaluate


def compare_minima(reference: Minimum, model: Minimum, model_energy_at_reference: float) -> MinimumComparison:
    """How far two minima of one molecule or crystal lie apart.

    Args:
        reference: Of the reference.
        model: Of the model, relaxed from there.
        model_energy_at_reference: What the model says of the reference's minimum, eV.
    """
    before, after = reference.frame.positions, model.frame.positions
    errors = np.zeros(0)
    if reference.frame.pbc.any():
        moved = after - before
        rmsd = float(np.sqrt(np.square(moved - moved.mean(axis=0)).sum(axis=1).mean()))
    else:
        rmsd = superposed_rmsd(before, after)
        i, j, ratio = pair_ratios(reference.frame.numbers, before)
        is_bond = ratio < BONDED
        errors = np.abs(_lengths(after, i, j) - _lengths(before, i, j))[is_bond]
    return MinimumComparison(
        rmsd,
        float(errors.mean()) if errors.size else float("nan"),
        float(errors.max()) if errors.size else float("nan"),
        model_energy_at_reference - model.energy,
    )


def is_same_molecule(reference: Frame, model: Frame) -> bool:
    """Whether a model's minimum still is the molecule it began as."""
    return is_sound(reference, model, MIN_CONTACT)


def superposition(fixed: FloatArray, moving: FloatArray) -> FloatArray:
    """``(3, 3)`` rotation ``R`` that brings centred `moving` closest to centred `fixed`: ``moving @ R``.

    Args:
        fixed: ``(n_atoms, 3)``, Angstrom.
        moving: ``(n_atoms, 3)``, Angstrom.
    """
    (rotation,) = superpositions((moving - moving.mean(axis=0))[None], fixed - fixed.mean(axis=0))
    return np.asarray(rotation)


def superposed_rmsd(fixed: FloatArray, moving: FloatArray) -> float:
    """Root mean square distance of atoms after the best fit, Angstrom."""
    fitted = (moving - moving.mean(axis=0)) @ superposition(fixed, moving)
    return float(np.sqrt(np.square(fitted - (fixed - fixed.mean(axis=0))).sum(axis=1).mean()))


def _lengths(positions: FloatArray, i: IntArray, j: IntArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(positions[i] - positions[j], axis=1)
    return lengths
