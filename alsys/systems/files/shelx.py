"""SHELX `.res` files, of structure searches (AIRSS) and of refinements that hold a whole cell."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from alsys.systems.files.content import (
    Concern,
    FileProblem,
    Structure,
    beyond,
    isotope_note,
    partly_occupied,
)
from alsys.systems.files.elements import element
from alsys.systems.files.remarks import with_texts
from alsys.systems.files.text import number, read_lines

_NAMES = """
ABIN ACTA AFIX ANIS ANSC ANSR BASF BEDE BIND BLOC BOND BUMP CELL CGLS CHIV CONF CONN DAMP DANG DEFS DELU DFIX DISP EADP
EGEN EQIV ESEL EXTI EXYZ FEND FLAT FMAP FRAG FREE FRES FVAR GRID HFIX HOPE HTAB INIT ISOR L.S. LATT LAUE LIST LONE MERG
MOLE MORE MOVE MPLA NCSY NEUT OMIT PART PATT PHAN PLAN PRIG REM RESI RIGU RTAB SADI SAME SFAC SHEL SIMU SIZE SPEC STIR
SUMP SWAT SYMM TEMP TEXP TIME TITL TREF TWIN TWST UNIT WGHT WIGL WPDB XNPD ZERR
"""
_INSTRUCTIONS = frozenset(_NAMES.split())
"""Of SHELXS-97 and SHELXL-2019, but END and HKLF, which end a structure; other first words are names of atoms."""


def read_res(path: Path, index: int) -> Structure:
    """The structure of a `.res` file.

    Args:
        path: The file.
        index: Which structure; there is one only.

    Raises:
        FileProblem: It cannot be read.
    """
    lines = _joined(read_lines(path))
    cell: list[float] = []
    names: list[str] = []
    found, scaled, partial = [], [], []
    texts: list[str] = []
    symmetry, part, has_spins, is_refined, is_fragment = "", 0, False, False, False
    if not any(line.upper().startswith("LATT") for line in lines):
        symmetry = "no LATT, which is LATT 1: centrosymmetric"
    for line in lines:
        words = line.split()
        key = words[0].upper() if words else ""
        if key in ("END", "HKLF"):
            break
        if key in ("FRAG", "FEND") or is_fragment:  # the model of a group, and no atoms
            is_fragment = key != "FEND"
        elif key == "CELL":
            cell = [number(word) for word in words[-6:]]
        elif key == "SFAC":
            names += [word.lstrip("$") for word in words[1:] if not re.match(r"[-+.\d]", word)]
        elif (key == "LATT" and words[1:2] != ["-1"]) or key == "SYMM":
            symmetry = symmetry or line.strip()
        elif key in ("ZERR", "UNIT", "FVAR"):
            is_refined = True
        elif key in ("TITL", "REM"):
            texts.append(line[4:])
        elif key == "PART":
            part = int(words[1]) if len(words) > 1 else 0
        elif words and key.partition("_")[0] not in _INSTRUCTIONS:
            which, place = _atom(words, line)
            if not 1 <= which <= len(names):
                raise FileProblem(f"has an atom {words[0]!r} of element {which}, of {len(names)} in SFAC")
            found.append(element(names[which - 1]))
            scaled.append(place)
            occupancy = _free(number(words[5])) if len(words) > 5 else 1.0
            if abs(occupancy - 1.0) > 1e-3 or part:
                partial.append(f"{words[0]}, {occupancy:g}" + (f" in part {part}" if part else ""))
            has_spins = has_spins or (len(words) == 7 and number(words[6]) != 0.0)
    if index > 0:
        raise beyond(path.name)
    if len(cell) != 6 or not found:
        raise FileProblem("cannot be read: it has no " + ("atoms" if len(cell) == 6 else "CELL"))
    atoms = Atoms(numbers=[z for z, _ in found], scaled_positions=scaled, cell=cellpar_to_cell(cell), pbc=True)
    concerns = [partly_occupied(len(partial), partial[0])] if partial else []
    if symmetry:
        concerns.append(
            Concern(
                "symmetry", f"has symmetry ({symmetry}) that is not applied",
                "give a file with the atoms of the whole cell (LATT -1 and no SYMM)",
                "only the atoms of the file are in the cell",
            )
        )  # fmt: skip
    notes = isotope_note((z, mass) for z, mass in found if mass is not None)
    if has_spins and not is_refined:  # of a refinement, the last number is a displacement
        notes.append("spins of its atoms are not kept")
    return with_texts(Structure(atoms, concerns=tuple(concerns), notes=tuple(notes)), texts)


def _atom(words: list[str], line: str) -> tuple[int, list[float]]:
    """Place in SFAC and coordinates of an atom; refuses a line that is no whole one."""
    if re.match(r"Q\d", words[0].upper()):
        raise FileProblem(f"holds a peak of electron density that is no atom ({words[0]})", "remove it")
    try:
        place = [_free(number(word)) for word in words[2:5]]
        if len(place) == 3 and np.isfinite(place).all():
            return int(words[1]), place
    except ValueError:
        pass
    raise FileProblem(
        f"has a line that is no instruction of SHELX and no whole atom ({line.strip()[:40]!r})",
        "give name, place in SFAC and x y z of the atom, or remove the line",
    )


def _joined(lines: list[str]) -> list[str]:
    """Lines with their continuations."""
    joined: list[str] = []
    is_open = False
    for line in lines:
        text = (line if line.upper().startswith("TITL") else line.partition("!")[0]).rstrip()
        if is_open and joined:
            joined[-1] += " " + text.rstrip("=")
        else:
            joined.append(text.rstrip("="))
        is_open = text.endswith("=") and text.upper()[:4] != "TITL"
    return joined


def _free(value: float) -> float:
    """A parameter without the 10 that says that a refinement does not change it."""
    return value - 10.0 if 5.0 < value < 15.0 else value
