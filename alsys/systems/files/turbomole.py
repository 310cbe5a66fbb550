"""Turbomole's `coord`, with the groups that xtb adds: cell, periodic directions, charge, unpaired electrons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from ase.units import Bohr

from alsys.systems.files.content import Concern, FileProblem, Statement, Structure, beyond, fixed_atoms, isotope_note
from alsys.systems.files.elements import element
from alsys.systems.files.statements import statements_in
from alsys.systems.files.text import number, read_lines

Groups = dict[str, tuple[list[str], list[str]]]


def read_coord(path: Path, index: int) -> Structure:
    """The structure of a `coord` file.

    Args:
        path: The file.
        index: Which structure; there is one only.

    Raises:
        FileProblem: It cannot be read.
    """
    groups = _groups(read_lines(path))
    if "coord" not in groups:
        raise FileProblem("cannot be read: it has no $coord")
    if index > 0:
        raise beyond(path.name)
    head, rows = groups["coord"]
    unit = 1.0 if {"angs", "angstrom"} & set(head) else Bohr
    found, positions, held = [], [], 0
    for row in rows:
        words = row.split()
        if len(words) < 4:
            raise FileProblem(f"cannot be read: {row.strip()[:40]!r} is not three coordinates and an element")
        found.append(element(words[3]))
        positions.append([number(word) for word in words[:3]])
        held += "f" in words[4:]
    if not found:
        raise FileProblem("holds no atoms")
    atoms = Atoms(numbers=[z for z, _ in found], positions=np.array(positions) * unit)
    _set_cell(atoms, groups, positions if "frac" in head else None)
    concerns = [fixed_atoms(held, "`f` in $coord")] if held else []
    concerns += [
        Concern(
            "fixed-atoms",
            f"holds constraints (${name}) that no dynamics here keeps",
            "remove them",
            "they are left out",
        )
        for name in ("fix", "constrain")
        if name in groups
    ]
    return Structure(
        atoms,
        statements=tuple(_statements(groups)),
        concerns=tuple(concerns),
        notes=tuple(isotope_note((z, mass) for z, mass in found if mass is not None)),
    )


def _groups(lines: list[str]) -> Groups:
    """Words after the name, and lines, of each data group."""
    groups: Groups = {}
    name = ""
    for line in lines:
        if line.startswith("$"):
            name, *words = line[1:].lower().split() or ["end"]
            groups.setdefault(name, (words, []))
        elif name and line.strip() and not line.lstrip().startswith("#"):
            groups[name][1].append(line)
    return groups


def _set_cell(atoms: Atoms, groups: Groups, fractions: list[list[float]] | None) -> None:
    directions = int(groups["periodic"][0][0]) if groups.get("periodic", ([], []))[0] else 0
    if "lattice" in groups:
        head, rows = groups["lattice"]
        values = [[number(word) for word in row.split()] for row in rows]
    elif "cell" in groups:
        head, rows = groups["cell"]
        values = [[number(word) for word in row.split()] for row in rows[:1]]
    elif directions or fractions is not None:
        raise FileProblem("is periodic but has no $cell and no $lattice")
    else:
        return
    unit = 1.0 if {"angs", "angstrom"} & set(head) else Bohr
    directions = directions or 3
    cell = np.zeros((3, 3))
    if "lattice" in groups:
        if len(values) != directions or any(len(row) != directions for row in values):
            raise FileProblem(f"has a $lattice that is not {directions} by {directions} numbers")
        cell[:directions, :directions] = np.array(values) * unit
    elif directions == 3 and values and len(values[0]) == 6:
        lengths, angles = np.array(values[0][:3]) * unit, values[0][3:]
        cell = np.asarray(cellpar_to_cell([*lengths, *angles]))
    else:
        raise FileProblem(f"has a $cell of {directions} periodic directions", "give $lattice")
    atoms.set_cell(cell)
    if fractions is not None:
        if directions != 3:
            raise FileProblem("has fractional coordinates of other than three periodic directions")
        atoms.set_scaled_positions(fractions)
    for k in range(directions, 3):  # a length for ASE where there is no period
        cell[k, k] = 1.0
    atoms.set_cell(cell)
    atoms.pbc = [k < directions for k in range(3)]


def _statements(groups: Groups) -> list[Statement]:
    found: list[Statement] = []
    for name in ("eht", "charge", "chrg", "unpaired", "uhf", "spin", "set"):
        words, rows = groups.get(name, ([], []))
        for text in (" ".join(words), *rows):
            said = statements_in(text)
            if not said and name not in ("eht", "set"):
                said = statements_in(f"{'unpaired' if name == 'spin' else name}={text.strip()}")
            found += said
    return found
