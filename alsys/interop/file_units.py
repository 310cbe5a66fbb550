"""Units that files come in, by name, and what they are in eV and Angstrom.

A force unit is an energy over a length, ``kcal/mol/angstrom``; a minus sign before it says that a file holds gradients.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from alsys.errors import InputError
from alsys.units import BAR, BOHR, GIGAPASCAL, HARTREE, KILOCALORIE_PER_MOLE, KILOJOULE_PER_MOLE, MEV

ENERGIES: Final[Mapping[str, float]] = {
    "ev": 1.0, "hartree": HARTREE, "rydberg": 0.5 * HARTREE, "kcal/mol": KILOCALORIE_PER_MOLE,
    "kj/mol": KILOJOULE_PER_MOLE, "mev": MEV,
}  # fmt: skip
"""eV per unit."""
LENGTHS: Final[Mapping[str, float]] = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0}
"""Angstrom per unit."""
FORCES: Final[Mapping[str, float]] = {
    f"{energy}/{length}": e / x for energy, e in ENERGIES.items() for length, x in LENGTHS.items()
}
"""eV/Angstrom per unit."""
STRESSES: Final[Mapping[str, float]] = {
    "ev/angstrom^3": 1.0, "gpa": GIGAPASCAL, "kbar": 1e3 * BAR, "bar": BAR, "mpa": 10.0 * BAR, "pa": 1e-5 * BAR,
    "atm": 1.01325 * BAR, "hartree/bohr^3": HARTREE / BOHR**3, "rydberg/bohr^3": 0.5 * HARTREE / BOHR**3,
}  # fmt: skip
"""eV/Angstrom^3 per unit."""
COMMON_FORCES: Final = (
    "ev/angstrom", "hartree/bohr", "hartree/angstrom", "kcal/mol/angstrom", "kj/mol/nm", "ev/bohr",
)  # fmt: skip
"""Some units of force differ by a few percent; these are the ones that files come in."""
_ALIASES: Final[Mapping[str, str]] = {
    "ha": "hartree", "eh": "hartree", "au": "hartree", "a.u.": "hartree", "ry": "rydberg", "kcal": "kcal/mol",
    "kj": "kj/mol", "electronvolt": "ev", "a": "angstrom", "ang": "angstrom", "angstroms": "angstrom", "å": "angstrom",
    "a0": "bohr", "nanometer": "nm", "nanometre": "nm", "elementary_charge": "e",
}  # fmt: skip

_STRESS_ALIASES: Final[Mapping[str, str]] = {
    "ev/angstrom3": "ev/angstrom^3", "ev/ang^3": "ev/angstrom^3", "ev/ang3": "ev/angstrom^3", "ev/a^3": "ev/angstrom^3",
    "ev/a3": "ev/angstrom^3", "kb": "kbar", "hartree/bohr3": "hartree/bohr^3", "au": "hartree/bohr^3",
    "ha/bohr^3": "hartree/bohr^3", "ry/bohr^3": "rydberg/bohr^3", "ry/bohr3": "rydberg/bohr^3",
}  # fmt: skip
_SYSTEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "metal": ("ev", "angstrom"), "ase": ("ev", "angstrom"), "real": ("kcal/mol", "angstrom"),
    **dict.fromkeys(("atomic", "au", "a.u.", "atomic units", "hartree atomic units"), ("hartree", "bohr")),
}  # fmt: skip
"""Energy and length of systems of units."""


@dataclass(frozen=True, slots=True)
class UnitSet:
    """Units of one file.

    Attributes:
        energy: Key of `ENERGIES`.
        force: Key of `FORCES`, with ``-`` before it where the file holds gradients.
        length: Key of `LENGTHS`.
        stress: Key of `STRESSES`, with ``-`` before it where compression is positive, as VASP has it; empty for energy
            over length cubed, tension positive.
        energy_factor: eV per energy unit.
        force_factor: eV/Angstrom per force unit; negative for gradients.
        length_factor: Angstrom per length unit.
        stress_factor: eV/Angstrom^3 per stress unit.
    """

    energy: str = "ev"
    force: str = "ev/angstrom"
    length: str = "angstrom"
    stress: str = ""
    energy_factor: float = field(init=False)
    force_factor: float = field(init=False)
    length_factor: float = field(init=False)
    stress_factor: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "energy_factor", ENERGIES[self.energy])
        sign = -1.0 if self.force.startswith("-") else 1.0
        object.__setattr__(self, "force_factor", sign * FORCES[self.force.removeprefix("-")])
        object.__setattr__(self, "length_factor", LENGTHS[self.length])
        if self.stress:
            sign = -1.0 if self.stress.startswith("-") else 1.0
            object.__setattr__(self, "stress_factor", sign * STRESSES[self.stress.removeprefix("-")])
        else:
            object.__setattr__(self, "stress_factor", self.energy_factor / self.length_factor**3)

    def __str__(self) -> str:
        return ", ".join(part for part in (self.energy, self.force, self.length, self.stress) if part)


def energy_unit(name: str) -> str:
    """The key of `ENERGIES` that a user or a file means.

    Raises:
        InputError: Unknown.
    """
    return _known(_plain(name), ENERGIES, "energy unit", name)


def length_unit(name: str) -> str:
    """The key of `LENGTHS` that a user or a file means.

    Raises:
        InputError: Unknown.
    """
    return _known(_plain(name), LENGTHS, "length unit", name)


def force_unit(name: str) -> str:
    """The key of `FORCES` that a user or a file means, with ``-`` before it for gradients.

    Raises:
        InputError: Unknown.
    """
    text = name.strip()
    sign = "-" if text.startswith("-") else ""
    if (system := _SYSTEMS.get(text.removeprefix("-").lower())) is not None:
        text = "/".join(system)
    energy, _, length = text.removeprefix("-").replace("*angstrom^-1", "/angstrom").rpartition("/")
    return sign + _known(f"{_plain(energy)}/{_plain(length)}", FORCES, "force unit", name)


def stress_unit(name: str) -> str:
    """The key of `STRESSES` that a user or a file means, with ``-`` before it where compression is positive.

    Raises:
        InputError: Unknown.
    """
    text = name.strip().lower().replace(" ", "").replace("**", "^")
    sign = "-" if text.startswith("-") else ""
    text = text.removeprefix("-")
    return sign + _known(_STRESS_ALIASES.get(text, text), STRESSES, "stress unit", name)


def units_in(text: str) -> dict[str, str]:
    """What a text that is said to be the units of a file means: ``energy``, ``length`` or both.

    Raises:
        InputError: Unknown.
    """
    plain = text.strip().lower()
    words = re.split(r"[\s,;/()\[\]]+", plain.replace("/mol", ""))
    names = _SYSTEMS.get(plain, tuple(word for word in words if word))
    found = {}
    for name in map(_plain, names):
        if name not in ENERGIES and name not in LENGTHS:
            raise InputError(
                "is not known", field="units", value=text, remedy="give --energy-unit, --force-unit and --length-unit"
            )
        found["energy" if name in ENERGIES else "length"] = name
    return found


def fitting(factor: float, units: Mapping[str, float], tolerance: float) -> list[str]:
    """Units within a ratio of `tolerance` of `factor`: those in common use first, the nearest of them first."""
    distance = {name: abs(math.log(value / abs(factor))) for name, value in units.items()}
    near = [name for name in units if distance[name] <= math.log(tolerance)]
    return sorted(near, key=lambda name: (units is FORCES and name not in COMMON_FORCES, distance[name]))


def _plain(name: str) -> str:
    text = name.strip().lower().replace(" ", "")
    return _ALIASES.get(text, text)


def _known(key: str, units: Mapping[str, float], field_name: str, said: str) -> str:
    if key not in units:
        raise InputError("is not known", field=field_name, value=said, remedy=f"one of {', '.join(units)}")
    return key
