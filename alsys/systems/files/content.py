"""What a structure file says: atoms, and all that a frame has no place for.

Nothing of it is decided here. `alsys.systems.agreement` holds it against the config: a statement must agree with it, a
concern is refused unless the user has said that it may be ignored, a note is shown in the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alsys.config.systems import Ignorable
from alsys.said import is_surrounding

Quantity = Literal["charge", "multiplicity"]


@dataclass(frozen=True, slots=True)
class Statement:
    """What a file says about charge or spin.

    Attributes:
        quantity: Which.
        values: All that it can mean; `spin=1` is a multiplicity in one program and 2S or S in others.
        text: How the file says it.
    """

    quantity: Quantity
    values: frozenset[int]
    text: str


@dataclass(frozen=True, slots=True)
class Concern:
    """What a file says and a campaign cannot keep.

    Attributes:
        kind: Its word in `systems[].ignore`.
        message: What it says.
        remedy: What to do about it, besides ignoring it.
        consequence: What happens where it is ignored.
    """

    kind: Ignorable
    message: str
    remedy: str
    consequence: str


@dataclass(frozen=True, slots=True)
class Structure:
    """Atoms, and what else was said about them.

    Attributes:
        atoms: Numbers, positions, cell and periodic directions; nothing else of it is used.
        statements: About charge and spin.
        concerns: What cannot be kept.
        notes: What was taken or left out, for the plan.
    """

    atoms: Atoms
    statements: tuple[Statement, ...] = ()
    concerns: tuple[Concern, ...] = ()
    notes: tuple[str, ...] = ()

    def adding(
        self, *, statements: Iterable[Statement] = (), concerns: Iterable[Concern] = (), notes: Iterable[str] = ()
    ) -> Structure:
        """The same atoms with more said about them."""
        return replace(
            self,
            statements=(*self.statements, *statements),
            concerns=(*self.concerns, *concerns),
            notes=(*self.notes, *notes),
        )


class FileProblem(ValueError):
    """A file cannot be read, or must not be.

    Args:
        message: Reads on after the name of the file.
        remedy: What to do about it.
        field: ``index`` where the frame is at fault and not the file.
    """

    def __init__(self, message: str, remedy: str | None = None, field: str = "file") -> None:
        self.remedy, self.field = remedy, field
        super().__init__(message)


def beyond(name: str) -> FileProblem:
    """The problem of an index behind the last frame of a file."""
    return FileProblem(f"is beyond the last frame of {name}", "frames count from 0", "index")


def fixed_atoms(count: int, how: str) -> Concern:
    """The concern of a file that holds atoms where they are.

    Args:
        count: Atoms.
        how: The file's word for it.
    """
    return Concern(
        "fixed-atoms",
        f"fixes {count} atoms ({how}); no dynamics here keeps atoms fixed",
        "remove the constraint",
        "they move like the others",
    )


def constraints(how: str) -> Concern:
    """The concern of a file that holds atoms or coordinates in some other way.

    Args:
        how: The file's words for it.
    """
    return Concern(
        "fixed-atoms", f"holds constraints ({how}) that no dynamics here keeps", "remove them", "they are left out"
    )


def twice(name: str) -> FileProblem:
    """The problem of a fact that a file states in two ways."""
    return FileProblem(f"says {name} twice, in two ways", "keep one of them")


def in_unit(unit: str, text: str) -> Concern:
    """The concern of lengths that are not in Angstrom.

    Args:
        unit: That the file names.
        text: How it says so.
    """
    return Concern(
        "units", f"says that it is in {unit} ({text!r})", "convert it to Angstrom", "lengths are read as Angstrom"
    )


def not_used(names: Iterable[str]) -> list[str]:
    """The notes on names of a file that say nothing of a structure; empty where there are none."""
    listed = sorted(names)
    if outside := [name for name in listed if is_surrounding(name)]:
        rest = not_used(name for name in listed if name not in outside)
        return [f"what surrounds its atoms is left out: {', '.join(outside)}", *rest]
    return (
        [f"not used: {', '.join(listed[:10])}{f' and {len(listed) - 10} more' * (len(listed) > 10)}"] if listed else []
    )


def partly_occupied(count: int, first: str) -> Concern:
    """The concern of sites that are not full.

    Args:
        count: Sites.
        first: The first of them.
    """
    return Concern(
        "occupancy",
        f"holds {count} partly occupied sites (first: {first}); a frame has whole atoms only",
        "give a file with one place for each atom",
        "all of them are taken as full",
    )


def occupied_in_part(occupancy: object) -> list[Concern]:
    """The concern of occupancies as ASE keeps them; none where all sites are full.

    Args:
        occupancy: Of each site, the share of each element; or of each atom a number.
    """
    partial = []
    if isinstance(occupancy, Mapping):
        for site, shares in occupancy.items():
            if isinstance(shares, Mapping) and not _is_full(list(shares.values())):
                said = ", ".join(f"{symbol} {share}" for symbol, share in shares.items())
                partial.append(f"site {site}, {said}")
    elif isinstance(occupancy, np.ndarray | list) and all(isinstance(v, int | float) for v in occupancy):
        partial = [f"atom {k}, {value:g}" for k, value in enumerate(occupancy) if not abs(value - 1.0) <= 1e-3]
    return [partly_occupied(len(partial), partial[0])] if partial else []


def _is_full(shares: Sequence[object]) -> bool:
    return len(shares) == 1 and isinstance(shares[0], int | float) and abs(shares[0] - 1.0) <= 1e-3


def isotope_note(isotopes: Iterable[tuple[int, int]]) -> list[str]:
    """The note on isotopes; empty where there are none.

    Args:
        isotopes: Atomic number and mass number of each.
    """
    names = sorted({f"{mass}{chemical_symbols[number]}" for number, mass in isotopes})
    if not names:
        return []
    return [f"isotopes ({', '.join(names)}): labels do not depend on them; dynamics uses the mass of the ordinary atom"]
