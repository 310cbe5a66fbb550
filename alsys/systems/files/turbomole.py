"""Turbomole's `coord`, with the groups that xtb adds: cell, periodic directions, charge, unpaired electrons."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from ase.units import Bohr

from alsys.said import holds_atoms
from alsys.systems.files.content import (
    FileProblem,
    Statement,
    Structure,
    beyond,
    constraints,
    fixed_atoms,
    isotope_note,
    not_used,
    twice,
)
from alsys.systems.files.elements import element
from alsys.systems.files.remarks import with_texts
from alsys.systems.files.statements import electrons_in, statements_in
from alsys.systems.files.text import number, read_lines

_UNDERSTOOD = frozenset(
    {
        "coord", "periodic", "lattice", "cell", "eht", "charge", "chrg", "unpaired", "uhf", "spin", "set", "alpha",
        "beta", "closed", "open", "end", "user", "title",
    }
)  # fmt: skip
Groups = dict[str, tuple[list[str], list[str]]]


def read_coord(path: Path, index: int) -> Structure:
    """The structure of a `coord` file.

    Args:
        path: The file.
        index: Which structure; there is one only.

    Raises:
        FileProblem: It cannot be read.
    """
    lines = read_lines(path)
    groups = _groups(lines)
    if "coord" not in groups:
        raise FileProblem("cannot be read: it has no $coord")
    if index > 0:
        raise beyond(path.name)
    head, rows = groups["coord"]
    unit = _unit("coord", head)
    found, positions, held = [], [], 0
    for row in rows:
        words = row.split()
        if len(words) < 4:
            raise FileProblem(f"cannot be read: {row.strip()[:40]!r} is not three coordinates and an element")
        found.append(element(words[3]))
        positions.append([number(word) for word in words[:3]])
        held += "f" in row.lower().split()[4:]
    if not found:
        raise FileProblem("holds no atoms")
    atoms = Atoms(numbers=[z for z, _ in found], positions=np.array(positions) * unit)
    _set_cell(atoms, groups, positions if "frac" in head else None)
    concerns = [fixed_atoms(held, "`f` in $coord")] if held else []
    held_groups = [name for name, (_, rows) in groups.items() if holds_atoms(name) or _freezes(name, rows)]
    concerns += [constraints(f"${name}") for name in held_groups]
    unused = groups.keys() - {*_UNDERSTOOD, *held_groups}
    texts = [line.partition("#")[2] for line in lines]
    texts += [text for name in ("title", "user") for text in _all(groups, name)]
    structure = Structure(
        atoms,
        statements=tuple(_statements(groups, int(atoms.numbers.sum()))),
        concerns=tuple(concerns),
        notes=(
            *isotope_note((z, mass) for z, mass in found if mass is not None),
            *not_used(f"${name}" for name in unused),
        ),
    )
    return with_texts(structure, texts, has_units=False)


def _all(groups: Groups, name: str) -> list[str]:
    """Lines of a group, with the one of its name."""
    head, rows = groups.get(name, ([], []))
    return [" ".join(head), *rows]


def _unit(name: str, head: list[str]) -> float:
    """Angstrom of the unit that the words after a group's name say; Bohr is the default."""
    for word in re.sub(r"natoms\s*=\s*\d+", "", " ".join(head)).split():
        if word not in ("angs", "angstrom", "bohr", "frac"):
            raise FileProblem(f"has ${name} {word}, which is not understood", "give lengths in Bohr, or say angs")
    return 1.0 if {"angs", "angstrom"} & set(head) else Bohr


def _freezes(name: str, rows: list[str]) -> bool:
    """Whether a group holds coordinates: internal ones that are marked by an ``f``, or options such as ``freeze=1``."""
    is_internal = name in ("intdef", "redundant")
    return any("f" in row.split()[1:2] if is_internal else name != "coord" and holds_atoms(row) for row in rows)


def _groups(lines: list[str]) -> Groups:
    """Words after the name, and lines, of each data group."""
    groups: Groups = {}
    name = ""
    for line in lines:
        if line.startswith("$"):
            name, *words = line[1:].lower().split() or ["end"]
            if name in groups and name in _UNDERSTOOD - {"end"}:
                raise twice(f"${name}")
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
    unit = _unit("lattice" if "lattice" in groups else "cell", head)
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


def _statements(groups: Groups, protons: int) -> list[Statement]:
    found = _shells(groups, protons)
    for name in ("eht", "charge", "chrg", "unpaired", "uhf", "spin", "set"):
        words, rows = groups.get(name, ([], []))
        for text in (" ".join(words), *rows):
            said = statements_in(text)
            if not said and name not in ("eht", "set"):
                said = statements_in(f"{'unpaired' if name == 'spin' else name}={text.strip()}")
            found += said
    return found


def _shells(groups: Groups, protons: int) -> list[Statement]:
    """What occupied orbitals say: ``$alpha shells`` and ``$beta shells``, or ``$closed shells`` alone."""
    counts = {name: _n_electrons(groups[name][1]) for name in ("alpha", "beta", "closed") if name in groups}
    if {"open", "ecp"} & groups.keys():
        return []
    found = electrons_in(f"nelectrons={sum(counts.values()):.0f}", protons) if counts else []
    if {"alpha", "beta"} <= counts.keys():
        found += statements_in(f"nalpha={counts['alpha']:.0f} nbeta={counts['beta']:.0f}")
    return found


def _n_electrons(rows: list[str]) -> float:
    """Electrons in shells such as ``a 1-4,6 ( 2 )``: orbitals of a kind, and how many are in each."""
    total = 0.0
    for row in rows:
        match = re.fullmatch(r"\s*([a-z]\w*['\"]*)\s+([\d,\s-]+?)\s*\(\s*([\d./]+)\s*\)\s*", row.lower())
        if match is None:
            raise FileProblem(f"cannot be read: {row.strip()[:40]!r} is no line of occupied shells")
        spans = [span.split("-") for span in match[2].replace(",", " ").split()]
        orbitals = sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
        total += orbitals * float(match[3]) * {"e": 2, "t": 3}.get(match[1][0], 1)
    return total
