"""GEN, POSCAR, XSF and ASE's own trajectories: read by ASE, which keeps more than it shows.

What ASE drops is read from the file beside it, as comments. Warnings of ASE become notes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols

from alsys.states import charges_of_count, electron_word
from alsys.systems.files.content import (
    FileProblem,
    Statement,
    Structure,
    beyond,
    constraints,
    fixed_atoms,
    isotope_note,
    occupied_in_part,
)
from alsys.systems.files.elements import element
from alsys.systems.files.remarks import with_pairs, with_texts
from alsys.systems.files.statements import charge_of_atoms, electrons_in, spin_of_moments
from alsys.systems.files.text import read_lines

MAX_VALUES = 20
"""Of an array that may say something of the whole structure."""
_VASP_FLAGS = frozenset({"T", "F", ".T.", ".F.", "TRUE", "FALSE", ".TRUE.", ".FALSE."})


def read_gen(path: Path, index: int) -> Structure:
    """DFTB+'s format; comments begin with ``#``."""
    given = read_lines(path)
    lines = [text for line in given if (text := line.split("#")[0].strip())]
    if index > 0:
        raise beyond(path.name)
    isotopes: list[tuple[int, int]] = []
    if len(lines) > 1:
        found = [element(name) for name in lines[1].split()]
        lines[1] = " ".join(chemical_symbols[z] for z, _ in found)
        isotopes = [(z, mass) for z, mass in found if mass is not None]
    if lines and lines[0].split()[-1:] == ["H"]:
        raise FileProblem("is periodic along a helix (H)", "give it as C, S or F")
    _check_gen(lines)
    structure = _read("gen", io.StringIO("\n".join(lines) + "\n"), 0)
    return with_texts(structure, (line.partition("#")[2] for line in given)).adding(notes=isotope_note(isotopes))


def _check_gen(lines: list[str]) -> None:
    """Refuses atoms and vectors other than those that the first line counts; more columns; an element that is none."""
    words = lines[0].split() if lines else []
    if len(words) < 2 or not (words[0].isascii() and words[0].isdigit()):
        raise FileProblem("cannot be read: its first line is not the number of atoms and C, S or F")
    count, n_vectors = int(words[0]), 0 if words[1] == "C" else 4  # an origin comes first
    rows, rest = lines[2 : 2 + count], lines[2 + count :]
    if n_vectors and len(rest) < n_vectors:
        raise FileProblem(
            f"counts {count} atoms, and has {max(len(rest) - 1, 0)} of the 3 vectors after the origin of its cell",
            "correct the number of atoms, or give the whole file",
        )
    if len(rows) < count:
        raise FileProblem(f"counts {count} atoms and holds {len(rows)}", "give the whole file, or correct the number")
    if len(rest) > n_vectors:
        raise FileProblem(f"counts {count} atoms and goes on with {rest[n_vectors][:40]!r}", "correct the number")
    n_elements = len(lines[1].split())
    for row in rows:
        if len(cells := row.split()) != 5:
            raise FileProblem(
                f"has an atom {row[:40]!r}, which is not five columns", "give number, element, x, y and z"
            )
        if not (cells[1].isdigit() and 1 <= int(cells[1]) <= n_elements):
            raise FileProblem(f"has an atom {row[:40]!r} of element {cells[1]} of {n_elements}", "correct the element")


def read_xsf(path: Path, index: int) -> Structure:
    """XCrySDen's format."""
    lines = read_lines(path)
    notes = _check_xsf(lines, index)
    structure = _read("xsf", io.StringIO("\n".join(lines) + "\n"), index, path.name)
    return with_texts(structure, (line.partition("#")[2] for line in lines)).adding(notes=notes)


def _check_xsf(lines: list[str], index: int) -> list[str]:
    """Refuses other numbers of atoms than are counted; a note where there are several structures."""
    rows = [line.split("#")[0].split() for line in lines]
    starts = [k for k, row in enumerate(rows) if row[:1] and row[0].upper() == "PRIMCOORD"]
    for k in starts:
        head = rows[k + 1] if k + 1 < len(rows) else []
        n = next((j for j, row in enumerate(rows[k + 2 :]) if not _is_place([" ".join(row[1:])])), len(rows) - k - 2)
        if head and head[0].isdigit() and int(head[0]) != n:
            raise FileProblem(f"counts {head[0]} atoms and holds {n}", "give the whole file, or correct the number")
    if len(starts) < 2:
        return []
    return [f"frame {index % len(starts)} of {len(starts)} (index)"]


def read_poscar(path: Path, index: int) -> Structure:
    """VASP's POSCAR and CONTCAR."""
    lines = read_lines(path)
    if index > 0:
        raise beyond(path.name)
    has_elements = len(lines) > 6 and not (lines[5].split() or ["0"])[0].isdigit()
    if len(lines) > 6 and not has_elements and not _are_elements(lines[0], len(lines[5].split())):
        raise FileProblem("names no elements (VASP 4)", "put a line of element symbols before the line of their counts")
    counts = lines[6 if has_elements else 5].split() if len(lines) > 6 else []
    first = len(lines) - len(lines[(8 if has_elements else 7) :])
    is_selective = lines[first - 1].strip()[:1].lower() == "s"
    first += is_selective
    n_atoms = sum(int(word) for word in counts if word.isascii() and word.isdigit())
    for what, n, rows in (("cell vectors", 3, lines[2:5]), ("coordinates", n_atoms, lines[first : first + n_atoms])):
        if (k := sum(_is_place([row]) for row in rows)) < n:
            raise FileProblem(f"counts {n} {what} and holds {k} of three numbers", "give the whole file")
    if is_selective:
        for row in lines[first : first + n_atoms]:
            if len(flags := row.upper().split()[3:6]) < 3 or not set(flags) <= _VASP_FLAGS:
                raise FileProblem(
                    f"is of selective dynamics, and {row.strip()[:40]!r} has no three flags",
                    "give T or F for each direction, or remove the line `Selective dynamics`",
                )
    structure = _read("vasp", io.StringIO("\n".join(lines) + "\n"), 0)
    if _is_place(lines[first + len(structure.atoms) :][:1]):
        raise FileProblem(
            f"has more coordinates than the {len(structure.atoms)} atoms that it counts",
            "correct the counts of elements",
        )
    if structure.concerns:
        held = sum(len(constraint.get_indices()) for constraint in structure.atoms.constraints)
        structure = replace(structure, concerns=(fixed_atoms(held, "selective dynamics"),))
    moving = [row for row in lines[first + n_atoms :] if _is_place([row]) and any(map(float, row.split()[:3]))]
    if moving and not structure.notes:
        structure = structure.adding(notes=["velocities are not kept"])
    _check_labels(lines[first : first + n_atoms], structure.atoms)
    structure = with_texts(structure, lines[:1], has_all_electrons=False)
    notes = [] if has_elements else ["elements from its first line"]
    return structure.adding(statements=_of_valence(lines[0], structure.atoms), notes=notes)


def _check_labels(rows: list[str], atoms: Atoms) -> None:
    """Refuses an atom whose label, behind its coordinates, is another element than that of its place."""
    for k, row in enumerate(rows):
        words = row.split()[3:]
        label = words[3:4] if {word.upper() for word in words[:3]} <= _VASP_FLAGS and words[2:] else words[:1]
        try:
            number = element(label[0].strip("!#"))[0] if label and not label[0].isdigit() else atoms.numbers[k]
        except FileProblem:
            continue  # a remark
        if number != atoms.numbers[k]:
            raise FileProblem(
                f"counts its atom {k + 1} as {atoms.symbols[k]}, and calls it {label[0]!r} in its row {k + 1}",
                "correct the elements, their counts or the row",
            )


def _of_valence(text: str, atoms: Atoms) -> list[Statement]:
    """The charge that a number of electrons leaves, which VASP counts without those of cores (``NELECT``)."""
    stated = electrons_in(text, 0, most=10**6)
    charges = [(charges_of_count(atoms.numbers, -n)[-1], s.text.split(",")[0]) for s in stated for n in s.values]
    return [Statement("charge", frozenset({charge}), how) for charge, how in charges if abs(charge) < 10]


def _is_place(lines: list[str]) -> bool:
    """Whether the first of some lines, where there is one, holds a position."""
    words = lines[0].split()[:3] if lines else []
    try:
        return len([float(word) for word in words]) == 3
    except ValueError:
        return False


def _are_elements(text: str, count: int) -> bool:
    words = text.split()
    try:
        for word in words[:count]:
            element(word)
    except FileProblem:
        return False
    return len(words) >= count


def read_traj(path: Path, index: int) -> Structure:
    """ASE's trajectory; arrays and JSON only, no code."""
    from ase.io.trajectory import TrajectoryReader

    structure = _read("traj", path, index, path.name)
    with TrajectoryReader(path) as frames:
        count = len(frames)
    notes = [f"frame {index % count} of {count} (index)"] if count > 1 else []
    atoms = structure.atoms
    moment = 0.0 if atoms.calc is None else np.asarray(getattr(atoms.calc, "results", {}).get("magmom", 0.0))
    if np.any(np.abs(moment) > 0.1):
        notes.append(f"its calculator found a magnetic moment of {moment}, which is not held against the multiplicity")
    occupancy = atoms.info.pop("occupancy", None)
    said, settings = _pairs_of(atoms.info), _pairs_of(getattr(atoms.calc, "parameters", {}))
    counts = [f"{key}={value}" for key, value in settings.items() if electron_word(key.lower()) == "electrons"]
    of_electrons = {
        key: value for key, value in settings.items() if electron_word(key.lower()) not in ("", "electrons")
    }
    if moment_of_all := settings.get("tot_magnetization"):  # of Quantum ESPRESSO
        of_electrons["nupdown"] = moment_of_all
    structure = with_texts(with_pairs(structure, of_electrons | said), said.values(), has_units=False)
    return structure.adding(
        statements=_of_valence(" ".join(counts), atoms), concerns=occupied_in_part(occupancy), notes=notes
    )


def _pairs_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Values as text, those of dictionaries under their own names; large arrays say nothing of the whole."""
    found: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            found |= _pairs_of(value)
        elif np.size(value) <= MAX_VALUES and value is not None:
            plain = value.tolist() if hasattr(value, "tolist") else value
            found[str(key)] = str(plain[0] if isinstance(plain, list) and len(plain) == 1 else plain)
    return found


def _read(form: str, source: Any, index: int, name: str = "") -> Structure:
    def take() -> Atoms:
        return ase.io.read(source, index=index, format=form)

    try:
        return taken(take)
    except (StopIteration, IndexError, AssertionError):
        if index > 0:
            raise beyond(name) from None
        raise


def taken(take: Callable[[], Any]) -> Structure:
    """Atoms that ASE reads, and what it says or keeps about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atoms = take()
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise FileProblem("holds no atoms")
    return _examined(atoms).adding(notes=[f"ASE: {text}" for text in warned(caught)])


def warned(caught: list[warnings.WarningMessage]) -> list[str]:
    """First line of each warning for users."""
    texts = {str(w.message).strip() for w in caught if issubclass(w.category, UserWarning)}
    return sorted(text.splitlines()[0][:160] for text in texts if text)


def _examined(atoms: Atoms) -> Structure:
    """Constraints, isotopes, charges, moments and velocities of ASE's atoms."""
    concerns, notes = [], []
    statements: list[Statement] = []
    held: set[int] = set()
    others: list[str] = []
    for constraint in atoms.constraints:
        stored = vars(constraint)
        indices = stored.get("index", stored.get("a"))
        if indices is None:
            others.append(type(constraint).__name__)
        else:
            held |= {int(k) for k in np.atleast_1d(indices)}
    if held:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        concerns.append(fixed_atoms(len(held), kinds))
    if others:
        concerns.append(constraints(", ".join(sorted(set(others)))))
    numbers = np.asarray(atoms.numbers)
    if atoms.has("masses"):
        masses = atoms.get_masses()
        is_other = np.abs(masses - atomic_masses[numbers]) > 0.4
        notes += isotope_note(
            (int(z), round(float(m))) for z, m in zip(numbers[is_other], masses[is_other], strict=True)
        )
    if atoms.has("initial_charges"):
        charges = atoms.get_initial_charges()
        statements += charge_of_atoms(float(charges.sum()), "charges of its atoms")
        if charges.any():
            notes.append("charges of its atoms are not kept")
    if atoms.has("initial_magmoms"):
        moments = np.asarray(atoms.get_initial_magnetic_moments())
        if moments.ndim == 1 and not atoms.pbc.any():
            statements += spin_of_moments(float(moments.sum()), "magnetic moments of its atoms")
        if moments.any():
            notes.append("magnetic moments are not kept")
    if atoms.has("momenta") and atoms.get_momenta().any():
        notes.append("velocities are not kept")
    return Structure(atoms, tuple(statements), tuple(concerns), tuple(notes))
