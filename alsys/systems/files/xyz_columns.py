"""Atoms of an XYZ file from its columns."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alsys.frames import FloatArray
from alsys.said import holds_atoms, is_of_free_atoms, words_of
from alsys.systems.files.content import (
    Concern,
    FileProblem,
    Statement,
    Structure,
    fixed_atoms,
    isotope_note,
    occupied_in_part,
)
from alsys.systems.files.elements import element
from alsys.systems.files.statements import (
    charge_of_atoms,
    spin_of_moments,
)
from alsys.systems.files.text import number

SPECIES = frozenset({"species", "symbol", "symbols", "element", "elements", "type", "label", "atom", "name"})
NAMES = frozenset({"type", "label", "atom", "name"})
"""Of these, those that are names beside a column of elements."""
POSITIONS = frozenset({"pos", "position", "positions", "coord", "coords", "coordinates", "r", "xyz"})
NUMBERS = frozenset({"z", "numbers", "atomic_numbers", "atomic_number"})
MASSES = frozenset({"mass", "masses"})
OCCUPANCIES = frozenset({"occupancy", "occupancies", "occ", "sof", "site_occupancy", "site_occupancies"})
GHOSTS = frozenset({"ghost", "ghosts", "is_ghost", "dummy", "is_dummy", "bq"})
FREE = frozenset({"move", "moves", "moving", "is_moving", "relax", "is_relaxed", "free", "optimize", "optimise"})
"""Columns of flags that are true for atoms that move, beside those of `alsys.said`."""
CHARGES = frozenset({"initial_charges", "initial_charge", "formal_charges", "formal_charge"})
MOMENTS = frozenset({"initial_magmoms", "magmoms", "magmom", "initial_magmom", "spins"})
FLAGS = dict.fromkeys(("t", "true", "1", "yes", ".true."), True) | dict.fromkeys(
    ("f", "false", "0", "no", ".false."), False
)
"""What words of a flag mean."""


def table(lines: list[str], header: dict[str, str]) -> tuple[Atoms, Structure]:
    """Atoms from the rows, and what the other columns say."""
    columns = _columns(header)
    width = sum(count for _, _, count in columns)
    rows = [line.split() for line in lines]
    for k, row in enumerate(rows):
        if len(row) < width:
            raise FileProblem(f"cannot be read: atom {k} has {len(row)} columns of {width}: {' '.join(row)[:60]!r}")
    if not rows:
        raise FileProblem("holds no atoms")
    if not header and (what := _column_before(rows)):
        raise FileProblem(
            f"has {what} between elements and coordinates, or a column after the coordinates",
            "remove the column, or name all in Properties=",
        )
    numbers: list[int] = []
    isotopes: list[tuple[int, int]] = []
    positions: FloatArray | None = None
    statements: list[Statement] = []
    concerns: list[Concern] = []
    unused: list[str] = []
    at = 0
    for name, kind, count in columns:
        cells = [row[at : at + count] for row in rows]
        at += count
        key = name.lower()
        if count == 1 and (key in NUMBERS or (key in SPECIES and kind == "S")):
            if numbers and key in NUMBERS:
                if kind == "I":
                    _check_agree(numbers, [element(cell[0])[0] for cell in cells], name)
                continue
            if numbers and key in NAMES:
                unused.append(name)
                continue
            found = [element(cell[0]) for cell in cells]
            if numbers:
                _check_agree(numbers, [z for z, _ in found], name)
            numbers = [z for z, _ in found]
            isotopes = [(z, mass) for z, mass in found if mass is not None]
        elif key in POSITIONS and positions is None:
            if count != 3:
                raise FileProblem(f"has {count} coordinates an atom")
            positions = _numbers(cells, "coordinates")
        elif key in GHOSTS:
            if ghosts := [k for k, cell in enumerate(cells) if any(_flag(word, name) for word in cell)]:
                raise FileProblem(f"marks {len(ghosts)} atoms as none ({name}; first: atom {ghosts[0]})", "remove them")
        elif holds_atoms(key) or (key in FREE and kind in "LI"):
            flags = np.array([[_flag(word, name) for word in cell] for cell in cells])
            held = int((~flags if key in FREE or is_of_free_atoms(key) else flags).any(axis=1).sum())
            concerns += [fixed_atoms(held, name)] if held else []
        elif key in OCCUPANCIES:
            concerns += occupied_in_part(_numbers(cells, name)[:, 0])
        elif count == 1 and (of := _of_electrons(key)) and (key in CHARGES or kind in "RI"):
            values = _numbers(cells, name)
            total = float(values.sum())
            is_charge = of == "charge" and (key in CHARGES or abs(total - round(total)) <= 0.05)
            said = charge_of_atoms(total, name) if is_charge else spin_of_moments(total, name) if of == "spin" else []
            statements += said
            unused += [name] if values.any() and not said else []
        elif key not in MASSES:
            unused.append(name)
    if positions is None or not numbers:
        raise FileProblem("has no column of elements or positions", "give Properties=species:S:1:pos:R:3")
    if at_masses := _masses(columns, rows, numbers):
        isotopes += at_masses
    beyond_columns = max(len(row) for row in rows) > width
    notes = isotope_note(isotopes)
    if "properties" not in header and (held := _flagged(rows)):
        concerns.append(fixed_atoms(held, "T and F after the coordinates"))
    if unused:
        notes.append(f"columns not used: {', '.join(unused)}")
    elif beyond_columns:
        notes.append("columns after the coordinates are not read")
    atoms = Atoms(numbers=numbers, positions=positions)
    return atoms, Structure(atoms, tuple(statements), tuple(concerns), tuple(notes))


def _of_electrons(key: str) -> str:
    """``charge`` or ``spin`` for a column of either, in lower case; empty for others."""
    words = set(words_of(key))
    if key in CHARGES or words & {"charge", "charges", "q"} or key in ("mulliken", "hirshfeld", "bader", "loewdin"):
        return "charge"
    return "spin" if key in MOMENTS or words & {"spin", "spins", "magmom", "magmoms"} else ""


def _check_agree(numbers: list[int], others: list[int], name: str) -> None:
    """Refuses two columns of elements that say different things."""
    for k, (one, other) in enumerate(zip(numbers, others, strict=True)):
        if one != other:
            raise FileProblem(
                f"says that atom {k} is {chemical_symbols[one]}, and {chemical_symbols[other]} in its column {name}",
                "correct or remove one of the columns",
            )


def _flagged(rows: list[list[str]]) -> int:
    """Atoms with an F among three flags after the coordinates: directions in which they do not move."""
    return sum("F" in flags for row in rows if set(flags := [w.upper() for w in row[4:7]]) <= {"T", "F"} and flags[2:])


def _column_before(rows: list[list[str]]) -> str:
    """What may stand before the coordinates: Gaussian's codes of atoms to move or freeze, GAMESS' nuclear charges."""
    if not all(len(row) >= 5 and _is_number(row[4]) for row in rows):
        return ""
    codes = {row[1] for row in rows}
    if codes <= {"0", "-1"} and all("." in word for row in rows for word in row[2:5]):
        return "a column of 0 or -1 (atoms to move and to freeze)"
    is_charge = all(_is_number(row[1]) and number(row[1]) == element(row[0])[0] for row in rows)
    return "a column of nuclear charges" if is_charge else ""


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(number(word)))
    except ValueError:
        return False


def _columns(header: dict[str, str]) -> list[tuple[str, str, int]]:
    if "properties" not in header:
        return [("species", "S", 1), ("pos", "R", 3)]
    words = header["properties"].split(":")
    return [(name, kind.upper(), int(n)) for name, kind, n in zip(words[::3], words[1::3], words[2::3], strict=True)]


def _numbers(cells: list[list[str]], name: str) -> FloatArray:
    values = []
    for k, cell in enumerate(cells):
        try:
            values.append([number(word) for word in cell])
        except ValueError:
            raise FileProblem(
                f"cannot be read: {name} of atom {k} {'are' if len(cell) > 1 else 'is'} {' '.join(cell)[:60]!r}",
                "give numbers, with decimal points",
            ) from None
    return np.array(values)


def _flag(word: str, name: str) -> bool:
    value = FLAGS.get(word.lower())
    if value is None:
        raise FileProblem(f"cannot be read: {name} is {word!r} and not T or F", "correct the column")
    return value


def _masses(columns: list[tuple[str, str, int]], rows: list[list[str]], numbers: list[int]) -> list[tuple[int, int]]:
    """Isotopes by masses that are not those of the ordinary atoms."""
    from ase.data import atomic_masses

    at = 0
    for name, _, count in columns:
        if name.lower() in MASSES and count == 1:
            masses = _numbers([row[at : at + 1] for row in rows], name)[:, 0]
            return [
                (z, round(mass))
                for z, mass in zip(numbers, masses, strict=True)
                if mass > 0 and abs(mass - atomic_masses[z]) > 0.4
            ]
        at += count
    return []
