"""XYZ and extended XYZ, in the dialects that are met in the field.

A comment is a header where it has `Properties=` or a cell of nine numbers, in any case of letters; everything else is
free text, of which charge and spin are understood (`alsys.systems.files.statements`). Lines after the atoms (QM9) and
columns after the coordinates are left out, and named. Cells come also from `VEC` lines and from i-PI's comment.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from alsys.atom_counts import check_counts, cut_off
from alsys.frames import FloatArray
from alsys.outside.contents import encoding_of
from alsys.systems.files.content import (
    FileProblem,
    Structure,
    beyond,
    occupied_in_part,
    twice,
)
from alsys.systems.files.remarks import with_pairs, with_texts
from alsys.systems.files.statements import pair_in
from alsys.systems.files.text import number
from alsys.systems.files.xyz_columns import FLAGS, table
from alsys.units import BOHR

_OWN = frozenset({"properties", "lattice", "cell", "pbc", "occupancy"})
"""Keys of a comment that make the structure."""
_LAMMPS = "Atoms. Timestep:"
"""Comment of LAMMPS, which writes types where it knows no elements."""
MAX_COMMENT = 20_000
"""Characters of a comment."""
LAYOUT = "give the number of atoms, a comment, and a line for each atom"

_PAIRS = re.compile(
    r"""(?<![\w.\-/])(?P<key>[A-Za-z_][\w.\-/]*)\s*=\s*
        (?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|\{[^{}]*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]|[^\s"',;]+)""",
    re.VERBOSE,
)
_PROPERTIES = re.compile(r"(?:[^:\s]+:[RISLrisl]:\d+)(?::[^:\s]+:[RISLrisl]:\d+)*")
_IPI = re.compile(
    r"#?\s*CELL\s*[\[({]?\s*(?P<kind>abcABC|H|GENH)\s*[\])}]?\s*:?\s*(?P<numbers>(?:[-+.\deEdD]+\s+){5,8}[-+.\deEdD]+)",
    re.IGNORECASE,
)
_CELL = re.compile(
    r"\b(?:lattice|(?:unit)?cell|pbc|cellvecs?|cryst1|box)\b|^\s*(?:\d+\.\d+\s+){3}(?:\d{2,3}\.\d+\s*){3}$"
    r"|\ba\s*=\s*[\d.]+[\s,;]+b\s*=\s*[\d.]+[\s,;]+c\s*=",
    re.IGNORECASE,
)
"""Words and numbers of a cell, Tinker's six numbers and CP2K's ``a =, b =, c =`` among them."""
_UNIT = re.compile(r"(?P<what>positions|cell)\s*\{\s*(?P<unit>\w+)\s*\}", re.IGNORECASE)


@dataclass(slots=True)
class _Block:
    """Lines of one frame."""

    comment: str
    rows: list[str]
    vectors: list[str] = field(default_factory=list)
    trailing: list[str] = field(default_factory=list)
    surplus: str = ""
    index: int = 0
    is_last: bool = True


def read_xyz(path: Path, index: int) -> Structure:
    """One frame of an XYZ file.

    Args:
        path: The file.
        index: Which frame; -1 is the last.

    Raises:
        FileProblem: It cannot be read, or its atoms are no elements.
        InputError: It ends within a frame.
    """
    check_counts(path)
    with path.open(encoding=_encoding(path), errors="replace") as file:
        block = _block(file, path.name, index)
    if block.surplus:
        raise FileProblem(
            f"counts {len(block.rows)} atoms and goes on with another ({block.surplus[:40]!r})",
            "correct the number of atoms in its first line",
        )
    if len(block.comment) > MAX_COMMENT:
        raise FileProblem(f"has a comment of {len(block.comment)} characters", "shorten it")
    pairs = _facts(block.comment)
    header = pairs if _is_header(pairs) else {}
    if block.comment.startswith(_LAMMPS) and all(row.split()[:1] and row.split()[0].isdigit() for row in block.rows):
        raise FileProblem("has LAMMPS' types for elements", "write it with `dump_modify ... element`")
    atoms, structure = table(block.rows, header)
    if header:
        _set_cell(atoms, header)
        structure = structure.adding(concerns=occupied_in_part(_said(header.get("occupancy", ""))))
    else:
        structure = structure.adding(notes=_free_text_notes(block.comment))
    structure = _told(structure, block, pairs)
    if block.vectors:
        _set_vectors(atoms, block.vectors)
    if block.index or not block.is_last:
        structure = structure.adding(notes=[f"frame {block.index} of several (index)"])
    if block.trailing:
        structure = structure.adding(notes=[f"{len(block.trailing)} lines after its atoms are not read"])
    return structure


def _told(structure: Structure, block: _Block, pairs: dict[str, str]) -> Structure:
    """With what comment and trailing lines say."""
    free = _PAIRS.sub(" ", block.comment) if _is_header(pairs) else block.comment
    others = {key: value for key, value in _pairs(block.comment).items() if key.lower() not in _OWN}
    trailing = ["=".join(line.split()) if len(line.split()) == 2 else line for line in block.trailing]
    is_ipi = _IPI.search(block.comment) is not None
    if is_ipi:
        _convert_ipi(structure.atoms, block.comment)
    found = structure.adding(statements=pair_in(block.comment, int(structure.atoms.numbers.sum())))
    found = with_texts(with_pairs(found, others), [free], has_units=not is_ipi)
    has_more = len(found.statements) + len(found.concerns) > len(structure.statements) + len(structure.concerns)
    if not (has_more or others or is_ipi) and any(letter.isdigit() for letter in free) and not structure.notes:
        found = found.adding(notes=[f"its comment is not used: {free.strip()[:60]!r}"])
    return with_texts(found, trailing, has_units=False)


def _encoding(path: Path) -> str:
    if not (encoding := encoding_of(path)):
        raise FileProblem("is no text file", "check its ending: it says how the file is read")
    return encoding


def _block(lines: Iterator[str], name: str, index: int) -> _Block:
    """The lines of one frame; the last one where `index` is -1."""
    last: _Block | None = None
    for k, block in enumerate(_blocks(lines)):
        last = block
        if k == index:
            return block
    if last is None:
        raise FileProblem(
            "cannot be read: it is empty", "give the number of atoms, a comment, and a line for each atom"
        )
    if index >= 0:
        raise beyond(name)
    return last


def _blocks(lines: Iterator[str]) -> Iterator[_Block]:
    waiting = _next(lines)
    k = 0
    while waiting is not None:
        try:
            count = int(waiting)
        except ValueError:
            raise FileProblem(
                f"cannot be read: {waiting.strip()[:40]!r} stands where the number of atoms is expected",
                LAYOUT,
            ) from None
        comment = " ".join(next(lines, "").split())
        rows = list(islice(lines, max(0, min(count, sys.maxsize))))
        if len(rows) < count:
            raise cut_off(k, count, len(rows))
        block = _Block(comment, rows)
        waiting = _next(lines)
        while waiting is not None and waiting.lstrip().upper().startswith("VEC"):
            block.vectors.append(waiting)
            waiting = _next(lines)
        while waiting is not None and re.fullmatch(r"\s*\d+\s*", waiting) is None:
            if waiting.strip() != ">":  # between the frames that ORCA writes
                if not block.trailing and rows and _are_alike(rows[-1].split(), waiting.split()):
                    block.surplus = waiting.strip()
                block.trailing.append(waiting[:MAX_COMMENT])
            waiting = _next(lines)
        block.index, block.is_last = k, waiting is None
        yield block
        k += 1


def _are_alike(atom: list[str], words: list[str]) -> bool:
    """Whether a line is one more atom: a symbol (or a number where the others have one) and as many coordinates."""
    if not 4 <= len(words) == len(atom) or words[0][:1].isdigit() != atom[0][:1].isdigit():
        return False
    if not words[0][:1].isalnum() or len(words[0]) > 8:
        return False
    if words[0][:1].isdigit() and not any("." in word for word in words[1:4]):
        return False
    try:
        return all(np.isfinite(number(word)) for word in words[1:4])
    except ValueError:
        return False


def _next(lines: Iterator[str]) -> str | None:
    """The next line that is not blank."""
    return next((line for line in lines if line.strip()), None)


def _pairs(comment: str) -> dict[str, str]:
    """Keys and values of a comment."""
    return {m["key"]: m["value"].strip().strip("\"'") for m in _PAIRS.finditer(comment)}


def _facts(comment: str) -> dict[str, str]:
    """Values of a comment by lower case keys; refuses two values of one key where they are a header's."""
    pairs = {key.lower(): value for key, value in _pairs(comment).items()}
    is_header, seen = _is_header(pairs), dict[str, str]()
    for match in _PAIRS.finditer(comment):
        key, value = match["key"].lower(), " ".join(match["value"].strip("\"'").split())
        name = "lattice" if key == "cell" and is_header else key
        if seen.setdefault(name, value) != value and (is_header or key in _OWN):
            raise twice(name)
    return pairs


def _is_header(pairs: dict[str, str]) -> bool:
    """Whether a comment is a header and no free text."""
    has_cell = any(_nine(pairs.get(key, "")) is not None for key in ("lattice", "cell"))
    return has_cell or _PROPERTIES.fullmatch(pairs.get("properties", "")) is not None


def _said(text: str) -> object:
    """A dictionary as ASE writes it, or numbers; None for anything else."""
    try:
        return json.loads(text.removeprefix("_JSON").replace('\\"', '"'))
    except (ValueError, RecursionError):
        pass
    try:
        return [number(word) for word in re.split(r"[\s,\[\](){}]+", text) if word]
    except ValueError:
        return None


def _free_text_notes(comment: str) -> list[str]:
    said = _CELL.search(comment)
    if said is None or _IPI.search(comment):
        return []
    return [f"its comment ({comment.strip()[:60]!r}) is no header with a cell: taken as a molecule"]


def _nine(text: str) -> FloatArray | None:
    """``(3, 3)`` row vectors from nine numbers; None where the text is something else."""
    try:
        values = [number(word) for word in re.split(r"[\s,\[\](){}]+", text) if word]
    except ValueError:
        return None
    return np.array(values).reshape(3, 3) if len(values) == 9 else None


def _set_cell(atoms: Atoms, header: dict[str, str]) -> None:
    for key in ("lattice", "cell"):
        if key in header:
            cell = _nine(header[key])
            if cell is None:
                raise FileProblem(f"has {key}={header[key]!r}, which is not nine numbers", "give all three vectors")
            atoms.set_cell(cell)
            atoms.pbc = True
            break
    if "pbc" in header:
        words = [word.lower() for word in re.split(r"[\s,\[\](){}]+", header["pbc"]) if word]
        flags = [FLAGS.get(word) for word in words]
        if None in flags or len(flags) not in (1, 3):
            raise FileProblem(f"has pbc={header['pbc']!r}, which is not three of T and F", "correct it")
        atoms.pbc = [bool(flag) for flag in flags] if len(flags) == 3 else bool(flags[0])


def _set_vectors(atoms: Atoms, lines: list[str]) -> None:
    cell, pbc = np.zeros((3, 3)), [False] * 3
    for k, line in enumerate(lines):
        name, *words = line.split()
        if name.upper() != f"VEC{k + 1}" or k > 2 or len(words) < 3:
            raise FileProblem(f"cannot be read: {line.strip()[:40]!r} is not the vector VEC{k + 1}")
        cell[k], pbc[k] = [number(word) for word in words[:3]], True
    atoms.set_cell(cell)
    atoms.pbc = pbc


def _convert_ipi(atoms: Atoms, comment: str) -> None:
    """Cell and units of i-PI: atomic units unless the comment says otherwise."""
    match = _IPI.search(comment)
    assert match is not None
    units = {m["what"].lower(): m["unit"].lower() for m in _UNIT.finditer(comment)}
    factors = {}
    for what in ("positions", "cell"):
        unit = units.get(what, "atomic_unit")
        if unit not in ("angstrom", "atomic_unit", "bohr"):
            raise FileProblem(f"gives its {what} in {unit}", "convert it to Angstrom")
        factors[what] = 1.0 if unit == "angstrom" else BOHR
    values = [number(word) for word in match["numbers"].split()]
    if match["kind"].lower() == "abcabc":
        cell = cellpar_to_cell(values[:6])
    elif len(values) == 9:
        cell = np.array(values).reshape(3, 3).T  # vectors are columns
    else:
        raise FileProblem("has a cell in its comment that is not nine numbers")
    atoms.set_cell(cell * factors["cell"])
    atoms.positions *= factors["positions"]
    atoms.pbc = True
