"""PDB files, version 3.3 of the format and what programs make of it.

Elements come from columns 77 and 78, else from how the name is aligned in columns 13 to 16 (` CA ` is a carbon, `CA  `
is calcium), which is refused where it leaves two elements. Of alternate places the one with the larger occupancy is
taken, residue by residue. Charges are those of columns 79 and 80.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell

from alsys.frames import FloatArray
from alsys.systems.files.content import (
    Concern,
    FileProblem,
    Statement,
    Structure,
    beyond,
    isotope_note,
    partly_occupied,
)
from alsys.systems.files.elements import HEAVY_HYDROGEN, element
from alsys.systems.files.remarks import with_texts
from alsys.systems.files.statements import statements_in
from alsys.systems.files.text import read_lines

_NAMES = """
ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL HOH WAT TIP TIP3 SOL ACE NME NMA
HID HIE HIP HSD HSE HSP ASH GLH LYN CYX DA DC DG DT A C G U
"""
RESIDUES = frozenset(_NAMES.split())
"""Residues of H, C, N, O, P and S: the first letter of a name in them is its element."""
_FORMULA = re.compile(r"(?:(\d+)\s*\()?[A-Z][A-Za-z\d ]*? (\d)([+-])(?=[\s)]|$)")
"""How many, and the charge of each, as in ``2(CA 2+)``."""
_TEXTS = ("REMARK", "TITLE", "COMPND", "HETNAM", "USER")
MAX_NAMED = 100
"""Atoms up to which words such as "cation" in a title mean all of them; of a protein, they are of a part."""
OFTEN_MISALIGNED = frozenset(["Cl", "Br", "Na", "Li", "Mg", "Al", "Si", "Fe", "Ni", "Cu", "Zn", "Mn", "Se"])
"""Elements of ligands and ions whose names some programs write one column too far to the right."""


@dataclass(frozen=True, slots=True)
class _Atom:
    number: int
    mass: int | None
    position: tuple[float, float, float]
    place: str
    residue: tuple[str, ...]
    name: str
    occupancy: float | None
    charge: int | None


def read_pdb(path: Path, index: int) -> Structure:
    """One model of a PDB file.

    Args:
        path: The file.
        index: Which model; -1 is the last.

    Raises:
        FileProblem: It cannot be read, or an element is in doubt.
    """
    lines = read_lines(path)
    models = _models(lines)
    if not models:
        raise FileProblem("holds no atoms")
    if index >= len(models):
        raise beyond(path.name)
    rows, crystal = models[index]
    atoms = [_atom(row) for row in rows]
    chosen, full, place_notes = _one_place(atoms)
    frame = Atoms(numbers=[atom.number for atom in chosen], positions=[atom.position for atom in chosen])
    concerns: list[Concern] = []
    if crystal is not None and (cell := _cell(crystal)) is not None:
        frame.set_cell(cell)
        frame.pbc = True
        concerns += _symmetry(crystal, lines)
    concerns += _occupancies(chosen, full)
    notes = [*place_notes, *isotope_note((atom.number, atom.mass) for atom in chosen if atom.mass is not None)]
    if any(not row[76:78].strip().isalpha() for row in rows):
        notes.append(f"elements from the names of its atoms: {frame.get_chemical_formula()}")
    if len(models) > 1:
        notes.append(f"model {index % len(models)} of {len(models)} (index)")
    notes += _remarks(lines)
    if any(atom.occupancy is not None for atom in chosen) and not any(atom.occupancy for atom in chosen):
        notes.append("occupancies are all 0: taken as full")
    structure = Structure(frame, tuple(_statements(chosen, lines)), tuple(concerns), tuple(notes))
    if len(chosen) > MAX_NAMED:
        return structure
    return with_texts(structure, (line[6:].strip() for line in lines if line.startswith(_TEXTS) and _is_free(line)))


def _is_free(line: str) -> bool:
    """Whether a record holds text of no format of its own."""
    return not (line.startswith(("REMARK", "HETNAM")) and line[7:10].strip().isdigit())


def _models(lines: list[str]) -> list[tuple[list[str], str | None]]:
    """Atom records of each model, and the cell that holds for it."""
    models: list[tuple[list[str], str | None]] = []
    rows: list[str] = []
    crystal: str | None = None
    for line in lines:
        record = line[:6].upper()
        if record == "CRYST1":
            crystal = line
        elif record in ("ATOM  ", "HETATM") or (record[:4] == "ATOM" and record[4:5].isdigit()):
            rows.append(line)
        elif record.startswith("END") and rows:  # some programs end models with END
            models.append((rows, crystal))
            rows = []
        elif record[:5] in ("ORIGX", "MTRIX") and not _is_identity(line) and line[59:60].strip() != "1":
            raise FileProblem(
                f"has a transformation ({line[:6].strip()}) that is not applied", "give a file with all atoms in place"
            )
    if rows:
        models.append((rows, crystal))
    return models


def _is_identity(line: str) -> bool:
    try:
        row = [float(line[a:b]) for a, b in ((10, 20), (20, 30), (30, 40), (45, 55))]
    except ValueError:
        return True  # nothing that could be applied
    unit = [0.0] * 4
    unit["123".find(line[5:6])] = 1.0
    return bool(np.allclose(row, unit, atol=1e-4))


def _atom(row: str) -> _Atom:
    try:
        x, y, z = (float(row[a : a + 8]) for a in (30, 38, 46))
    except ValueError:
        raise FileProblem(
            f"cannot be read: coordinates are not in columns 31 to 54 of {row.strip()[:40]!r}",
            "keep the format's columns",
        ) from None
    number, mass = _element(row)
    occupancy = row[54:60].strip()
    try:
        occupied = float(occupancy) if occupancy else None
    except ValueError:
        raise FileProblem(f"cannot be read: occupancy {occupancy!r} of atom {row[6:11].strip()}") from None
    residue = (row[17:21].strip(), row[21:22], row[22:26], row[26:27])
    return _Atom(number, mass, (x, y, z), row[16:17].strip(), residue, row[12:16].strip(), occupied, _charge(row))


def _element(row: str) -> tuple[int, int | None]:
    given, name, residue = row[76:78].strip(), row[12:16].ljust(4), row[17:21].strip().upper()
    if re.fullmatch(r"\d[A-Za-z]", given, re.ASCII):  # 2H
        return element(given)
    letters = "".join(c for c in name if c.isalpha())
    candidates = _candidates(name, letters, residue)
    whose = f"atom {name.strip()!r} of {residue or 'a residue without name'}"
    if given and given.isalpha():
        symbol = given.capitalize()
        if symbol in atomic_numbers or symbol in HEAVY_HYDROGEN:
            is_told = residue in RESIDUES or symbol.upper() == letters[:2].upper()  # names of ligands are free
            if is_told and candidates and _ordinary(symbol) not in map(_ordinary, candidates):
                raise FileProblem(
                    f"gives {symbol} in columns 77 and 78 for {whose}, whose name is that of {min(candidates)}",
                    "correct the element, or begin the name of an element of two letters in column 13",
                )
            return element(symbol)
        if symbol != "X":
            raise FileProblem(f"holds an unknown element {given!r}", "use element symbols in columns 77 and 78")
    if not letters:
        raise FileProblem(f"names an atom {name.strip()!r} and gives no element", "fill in columns 77 and 78")
    if len(candidates) != 1:
        which = " or ".join(sorted(candidates)) or "no element"
        raise FileProblem(f"gives no element for {whose}, which is {which}", "fill in columns 77 and 78")
    return element(candidates.pop())


def _candidates(name: str, letters: str, residue: str) -> set[str]:
    """Elements that a name, by its columns and its residue, can be of."""
    first, two = letters[:1].upper(), letters[:2].capitalize()
    found = {symbol for symbol in (first, two) if symbol in atomic_numbers or symbol in HEAVY_HYDROGEN}
    is_aligned_right = name[0] in " 0123456789" and name[1] != " "
    is_in_doubt = len(letters) == 2 and two in OFTEN_MISALIGNED
    if letters.upper() == residue and two in found:
        return {two}  # an ion is a residue of its own name
    if (
        (residue in RESIDUES and first in [*"HCNOPSD"])
        or (first == "H" and " " not in (name[0], name[3]))
        or len(letters) == 1
        or (is_aligned_right and not is_in_doubt)
    ):
        return found & {first}
    return found


def _ordinary(symbol: str) -> str:
    return "H" if symbol in HEAVY_HYDROGEN else symbol


def _charge(row: str) -> int | None:
    text = row[78:80].strip()
    if match := re.fullmatch(r"(\d)([+-])|([+-])(\d)|([+-])", text):
        sign = match[2] or match[3] or match[5]
        value = int(match[1] or match[4] or 1)
        return -value if sign == "-" else value
    is_numbered = bool(row[72:76].strip()) and not row[76:78].strip().isalpha()  # as lines were before version 2
    if text and text != "0" and not is_numbered:
        raise FileProblem(
            f"has {row[78:80]!r} in columns 79 and 80 of atom {row[6:11].strip()}, which is no charge",
            "write charges as 1+ and 2-, or leave the columns blank",
        )
    return 0 if text == "0" else None


def _one_place(atoms: list[_Atom]) -> tuple[list[_Atom], dict[tuple[str, ...], float], list[str]]:
    """Atoms in one place each, how full all places of each residue are together, and a note.

    In every residue, the alternate with the larger occupancy is taken.
    Alternates of one residue may be residues of different names.
    """
    weights: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for atom in atoms:
        if atom.place:
            found = weights[atom.residue[1:]]
            found[atom.place] = max(found.get(atom.place, 0.0), 1.0 if atom.occupancy is None else atom.occupancy)
    chosen_place = {residue: min(found, key=lambda place: (-found[place], place)) for residue, found in weights.items()}
    chosen = [atom for atom in atoms if not atom.place or atom.place == chosen_place[atom.residue[1:]]]
    full = {residue: sum(found.values()) for residue, found in weights.items()}
    if len(chosen) == len(atoms):
        return chosen, full, []
    places = sorted(set(chosen_place.values()))
    left_out = len(atoms) - len(chosen)
    return (
        chosen,
        full,
        [f"alternate places: {', '.join(places)} taken (larger occupancy), {left_out} atoms of others left out"],
    )


def _occupancies(atoms: list[_Atom], full: dict[tuple[str, ...], float]) -> list[Concern]:
    """Sites that are not full, alternates of one together; a column of zeros only is no statement."""
    if all(not atom.occupancy for atom in atoms):
        return []
    shares = [(atom, full[atom.residue[1:]] if atom.place else atom.occupancy) for atom in atoms]
    partial = [atom for atom, share in shares if share is not None and not abs(share - 1.0) <= 0.011]
    if not partial:
        return []
    return [partly_occupied(len(partial), f"{partial[0].name} of {partial[0].residue[0]}, {partial[0].occupancy:g}")]


def _cell(line: str) -> FloatArray | None:
    """``(3, 3)`` row vectors; None for the placeholders that mean no crystal."""
    try:
        values = [float(line[a:b]) for a, b in ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))]
    except ValueError:
        raise FileProblem("cannot be read: CRYST1 holds no cell", "give lengths and angles in their columns") from None
    if max(values[:3]) <= 1.0:
        return None
    if min(values) <= 0.0:
        raise FileProblem("is periodic but its cell has no volume", "correct CRYST1")
    return np.asarray(cellpar_to_cell(values))


def _symmetry(crystal: str, lines: list[str]) -> list[Concern]:
    group = crystal[55:66].strip()
    if group.upper().replace(" ", "") in ("", "P1"):
        return []
    return [
        Concern(
            "symmetry",
            f"is of space group {group} and holds the asymmetric unit only",
            "give a file with the atoms of the whole cell (P 1)",
            "only the atoms of the file are in the cell",
        )
    ]


def _remarks(lines: list[str]) -> list[str]:
    missing = [line[7:10].strip() for line in lines if line.startswith(("REMARK 465", "REMARK 470"))]
    return ["its remarks say that residues or atoms are missing"] if missing else []


def _statements(atoms: list[_Atom], lines: list[str]) -> list[Statement]:
    found: list[Statement] = []
    charges = [atom.charge for atom in atoms if atom.charge is not None]
    if charges:
        total = sum(charges)
        found.append(Statement("charge", frozenset({total}), f"charges of atoms, which add up to {total:+d}"))
    said = [match for line in lines if line.startswith("FORMUL") for match in _FORMULA.finditer(line[18:])]
    total = sum(int(match[1] or 1) * int(match[3] + match[2]) for match in said)
    if said:
        found.append(Statement("charge", frozenset({total}), f"charges in FORMUL, which add up to {total:+d}"))
    for line in lines:
        if line.startswith(_TEXTS) and line[7:10].strip() not in ("465", "470"):
            is_free = line.startswith(("REMARK", "USER")) and not line[7:10].strip().isdigit()
            told = statements_in(line[11 if line.startswith("HETNAM") else 6 :].strip())
            is_free |= len(atoms) <= MAX_NAMED or len({s.quantity for s in told}) == 2
            found += [s for s in told if is_free or "=" in s.text or ":" in s.text]
    return found
