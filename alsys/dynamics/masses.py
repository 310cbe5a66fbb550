"""Masses of atoms in dynamics, with hydrogens that may be heavier than they are.

Repartitioning takes the mass that a hydrogen gains from the atom that it is bonded to (K. A. Feenstra, B. Hess, H. J.
C. Berendsen, J. Comput. Chem. 20, 786 (1999)): a molecule's total mass stays, its fastest vibrations become slower, and
time steps may be longer. Configurations are distributed as before, since masses only enter the kinetic energy;
velocities and times are others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_masses

from alsys.dynamics.geometry import BONDED, close_pairs
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame


def masses_of(frames: Sequence[Frame], hydrogen_mass: float | None = None) -> FloatArray:
    """``(n_total,)`` masses of the atoms of some frames, amu.

    Args:
        frames: They say what is bonded.
        hydrogen_mass: Of each hydrogen that is bonded to another element, amu; None for its own.

    Raises:
        InputError: An atom with hydrogens would be lighter than these.
    """
    return np.concatenate([_masses(frame, hydrogen_mass) for frame in frames])


def _masses(frame: Frame, hydrogen_mass: float | None) -> FloatArray:
    masses: FloatArray = atomic_masses[frame.numbers]
    is_hydrogen = frame.numbers == 1
    if hydrogen_mass is None or not is_hydrogen.any():
        return masses
    i, j, ratio, _ = close_pairs(frame, BONDED)
    i, j, ratio = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([ratio, ratio])
    is_bond = is_hydrogen[i] & ~is_hydrogen[j] & (ratio < BONDED)
    order = np.flatnonzero(is_bond)[np.argsort(ratio[is_bond], kind="stable")]
    hydrogens, first = np.unique(i[order], return_index=True)
    carriers = j[order][first]  # the closest of each
    gain = hydrogen_mass - masses[hydrogens]
    masses[hydrogens] = hydrogen_mass
    np.subtract.at(masses, carriers, gain)
    if (masses[carriers] < hydrogen_mass).any():
        lightest = carriers[np.argmin(masses[carriers])]
        raise InputError(
            f"leaves atom {lightest}, which carries hydrogens, {masses[lightest]:.2f} amu",
            field="hydrogen_mass", value=hydrogen_mass, remedy="use 3 or less",
        )  # fmt: skip
    return masses
