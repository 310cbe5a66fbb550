"""Units and constants: eV, Angstrom, fs, K, amu, unless a name says otherwise (CODATA 2018)."""

from __future__ import annotations

from typing import Final

HARTREE: Final = 27.211386245988
"""eV per Hartree."""
BOHR: Final = 0.529177210903
"""Angstrom per Bohr."""
BOLTZMANN: Final = 8.617333262e-5
"""eV per K."""
ACCELERATION: Final = 9.648533212e-3
"""Angstrom/fs^2 per (eV/Angstrom/amu): force over mass to acceleration."""
HARTREE_PER_BOHR: Final = HARTREE / BOHR
"""eV/Angstrom per Hartree/Bohr."""
KILOCALORIE_PER_MOLE: Final = 4184.0 / (1.602176634e-19 * 6.02214076e23)
"""eV per kcal/mol."""
KILOJOULE_PER_MOLE: Final = 1000.0 / (1.602176634e-19 * 6.02214076e23)
"""eV per kJ/mol."""
MEV: Final = 1e-3
"""eV per meV."""
BAR: Final = 1e5 / 1.602176634e11
"""eV/Angstrom^3 per bar."""
GIGAPASCAL: Final = 1e4 * BAR
"""eV/Angstrom^3 per GPa."""
AMU_PER_CUBIC_ANGSTROM: Final = 0.602214076
"""amu/Angstrom^3 in 1 g/cm3."""
PER_CUBIC_ANGSTROM: Final = 6.02214076e-4
"""Molecules per Angstrom^3 in 1 mol/L."""
SPEED_OF_LIGHT: Final = 2.99792458e-5
"""cm/fs."""
PLANCK_LIGHT: Final = 1.239841984332e-4
"""eV per 1/cm: the energy of a photon of that wavenumber."""
HOUR_S: Final = 3600.0
"""s per hour."""
