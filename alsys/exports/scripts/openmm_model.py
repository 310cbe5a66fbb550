"""OpenMM runs this model: `create_system(topology)` gives an `openmm.System`. Needs openmm, openmmml and alsys.

    import sys; sys.path.insert(0, "THIS FOLDER")
    from openmm_model import create_system
    system = create_system(pdb.topology)

Forces come from alsys's calculator through ``MLPotential("ase")``, one call a step, in double precision. Of a topology
with box vectors the model is periodic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alsys.interop.calculator import AlsysCalculator, load_calculator

FOLDER = Path(__file__).resolve().parent


def create_system(topology: Any, calculator: AlsysCalculator | None = None, **options: Any) -> Any:
    """A system all of whose forces are the model's.

    Args:
        topology: OpenMM's; its elements are what the model sees.
        calculator: For other options of `alsys.load_calculator`; None for its defaults.
        options: Of OpenMM-ML's ``createSystem``, such as ``info={"charge": 1}``.
    """
    from openmmml import MLPotential

    return MLPotential("ase").createSystem(topology, calculator=calculator or load_calculator(FOLDER), **options)
