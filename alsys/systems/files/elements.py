"""Labels of atoms, as the programs of the field write them, to elements and isotopes."""

from __future__ import annotations

import re

from ase.data import atomic_numbers

from alsys.systems.files.content import FileProblem

HEAVY_HYDROGEN = {"D": 2, "T": 3}
AMBIGUOUS = frozenset({"CA", "CD", "CE", "HE", "HF", "HG", "HO", "NB", "ND", "NE", "SG"})
"""Capitals that are an element in one file and the name of an atom in a residue (alpha carbon) in the next."""

_GHOST = re.compile(r"[_.:@(-](?:bq|gh|gho|ghost|gst|x|du|dum|dummy)\d*\)?$", re.IGNORECASE)
"""How programs mark basis functions without an atom behind its symbol."""
_CHARGED = re.compile(r"\d{0,3}[A-Za-z]{1,2}[_.-]?\d{0,6}(?:[+-]|[+]{2,4}|-{2,4}|\+\d)")


MAX_CHARGE = 8
"""Largest number behind a hyphen that is a charge where it is no mass; larger ones number atoms."""


def element(label: str) -> tuple[int, int | None]:
    """Atomic number and mass number (None for the ordinary isotope) of a label: ``C``, ``6``, ``D``, ``13C``, ``Fe2``.

    Raises:
        FileProblem: It is no element, or could be two.
    """
    if label.isascii() and label.isdigit():
        number = int(label) if len(label) < 4 else 0
        if 1 <= number <= 118:
            return number, None
        raise unknown(label)
    if _GHOST.search(label):
        raise unknown(label)
    if _CHARGED.fullmatch(label):
        raise _charged(label)
    match = re.fullmatch(r"(\d{1,3})?([A-Za-z]{1,2})(?:-(\d{1,3})|[_.-]?\d{1,6}|[_-]\w{0,8})?", label, re.ASCII)
    if match is None:
        raise unknown(label)
    mass, letters, behind = match.groups()
    if letters in AMBIGUOUS:
        raise FileProblem(
            f"holds an atom {label!r}, which is {letters.capitalize()} or the name of an atom of {letters[0]}",
            f"write {letters.capitalize()} or {letters[0]}",
        )
    symbol = letters.capitalize()
    if symbol in HEAVY_HYDROGEN:
        return 1, HEAVY_HYDROGEN[symbol]
    if symbol not in atomic_numbers or symbol == "X":
        raise unknown(label)
    number, n = atomic_numbers[symbol], int(behind or 0)
    if number <= n <= 3 * number:  # C-13
        mass = mass or behind
    elif 1 <= n <= MAX_CHARGE:  # O-2
        raise _charged(label)
    return number, None if mass is None else int(mass)


def _charged(label: str) -> FileProblem:
    return FileProblem(
        f"holds an atom {label!r} with a charge",
        "write the element only, and the charge of all atoms as `charge` of the system",
    )


def unknown(label: str) -> FileProblem:
    """The problem of a label that is no element: a dummy or ghost atom, a name of a force field, a mistake."""
    return FileProblem(
        f"holds an unknown element {label[:20]!r}", "use element symbols; leave dummy and ghost atoms out"
    )
