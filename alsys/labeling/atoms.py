"""Free atoms: their energies at the campaign's level of theory are the zero of a model's energy scale."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase.data import ground_state_magnetic_moments

from alsys.frames import Frame


def ground_multiplicity(number: int) -> int:
    """2S + 1 of a neutral atom's ground state (Hund's rules, as tabulated in ASE)."""
    return round(float(ground_state_magnetic_moments[number])) + 1


def free_atom_frames(numbers: Iterable[int]) -> list[Frame]:
    """One frame for each atomic number, at the origin."""
    return [Frame.molecule([z], np.zeros((1, 3)), multiplicity=ground_multiplicity(z)) for z in numbers]
