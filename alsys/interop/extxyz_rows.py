"""Frames of extended XYZ, one at a time and not checked yet: the one place that knows its dialects.

Names of the comment line and of columns count in any letter case (GPUMD writes `lattice`, others `LATTICE`), columns
stand in any order, separated by blanks or tabs. Energy, forces, stress or virial, charge and spin are found under the
names that `alsys.interop.keys` knows; where two of them could be meant, the user is asked.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final, TextIO

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.atom_counts import cut_off
from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.interop.account import FileAccount, same_numbers
from alsys.interop.comments import free_text_in, pairs_in
from alsys.interop.keys import KeyChoice, Selection, select
from alsys.interop.raw_frames import RawRow
from alsys.interop.stated_electrons import stated_electrons
from alsys.said import is_of_free_atoms, number_of, unit_of, weight_of

LEVEL_KEYS: Final = ("level", "level_of_theory", "theory")
"""Keys of the comment line that state a level; else a functional and a basis do."""
PARTS_OF_LEVEL: Final = ("functional", "xc", "method", "basis")
DEFAULT_COLUMNS: Final = "species:S:1:pos:R:3"
VOIGT: Final = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
SAME: Final = "the same once more"
SEVERAL: Final = "several numbers, not the energy of the frame"
NO_STRESS: Final = "no stress without three periodic directions"
NO_WEIGHT: Final = "a stress of weight 0"
CONSTRAINT: Final = "a constraint; labels are those of free atoms"
_SPECIES: Final = ("species", "element", "elements", "symbol", "symbols")
_NUMBERS: Final = ("z", "atomic_numbers", "numbers", "atomic_number")
_POSITIONS: Final = ("pos", "positions", "position", "coords", "coordinates")
_STRUCTURE: Final = {
    "lattice": "lattice", "cell": "lattice", "unit_cell": "lattice", "lattice_vectors": "lattice", "box": "lattice",
    "properties": "properties", "pbc": "pbc", "n_charges": "n_charges",
}  # fmt: skip
_TRUE, _FALSE = ("t", "true", "1", "yes", ".true."), ("f", "false", "0", "no", ".false.")


def rows(file: TextIO, account: FileAccount) -> Iterator[RawRow]:
    """Frames in order.

    Args:
        file: Text, without a byte order mark.
        account: That names and refused frames are told.

    Raises:
        InputError: No frames, a file that is cut off, or a frame that the account does not collect.
    """
    i = 0
    while (block := _block(file, i)) is not None:
        try:
            yield _frame(*block, i, account)
        except InputError as error:
            account.refuse(f"frame {i}", error)
        i += 1
    if not i:
        raise InputError("holds no frames")


def _block(file: TextIO, i: int) -> tuple[str, list[str]] | None:
    line = file.readline()
    while line and not line.strip():  # blank lines between frames, and at the end
        line = file.readline()
    if not line:
        return None
    try:
        n = int(line)
    except ValueError:
        raise InputError("must begin with a number of atoms", field=f"frame {i}", value=line.strip()[:40]) from None
    comment = file.readline()
    if n < 1:
        raise InputError("must hold an atom at least", field=f"frame {i}", value=f"{n} atoms")
    lines = list(islice(file, min(n, sys.maxsize)))  # ends with the file, whatever the count is
    if len(lines) < n:
        raise cut_off(i, n, len(lines))
    return comment, lines


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the names of a frame say; frames of a file share it.

    Attributes:
        columns: First column and number of columns of each property.
        element: Column of elements.
        is_number: Whether it holds atomic numbers.
        symbol: Column of symbols beside numbers; empty for none.
        pos: Column of positions.
        selection: Of all other names.
        structure: Names of lattice, columns and periodicity.
        of_atoms: Columns that say something of charge, spin or occupancy.
        levels: Names that may state a level, each with itself in lower case.
        units: What a unit is stated of, and under which name.
    """

    columns: Mapping[str, tuple[int, int]]
    element: str
    is_number: bool
    symbol: str
    pos: str
    selection: Selection
    structure: tuple[str, ...]
    of_atoms: tuple[str, ...]
    levels: tuple[tuple[str, str], ...]
    units: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1024)
def _layout(names: tuple[str, ...], properties: str, choice: KeyChoice) -> _Layout | None:
    """Of names of the comment line and columns; None where elements or positions have none."""
    known = _atom_columns(properties)
    if known is None:
        return None
    element, symbol, pos, others = known
    columns, _ = _columns(properties)
    selection = select(tuple(name for name in names if name.lower() not in _STRUCTURE), others, choice)
    of_atoms = (*selection.atom_charges, *selection.atom_moments, *selection.occupancies, *selection.judged)
    return _Layout(
        columns,
        element,
        element.lower() in _NUMBERS,
        symbol,
        pos,
        selection,
        (*(name for name in names if name.lower() in _STRUCTURE), element, pos),
        tuple(name for name in of_atoms if name in columns),
        tuple((name, name.lower()) for name in names if name.lower() in (*LEVEL_KEYS, *PARTS_OF_LEVEL)),
        tuple((what, name) for name in names if (what := unit_of(name))),
    )


def _frame(comment: str, lines: list[str], i: int, account: FileAccount) -> RawRow:
    place = f"frame {i}"
    info, free_text = pairs_in(comment, place)
    structure = _structure(info, place)
    properties = structure.get("properties", DEFAULT_COLUMNS)
    try:
        columns, width = _columns(properties)
    except ValueError as error:
        raise InputError(f"cannot be understood: {error}", field=f"{place}: Properties", value=properties) from None
    tokens = "".join(lines).split()
    n = len(lines)
    if len(tokens) != n * width:
        remedy = None if "properties" in structure else "the comment line has no Properties=, which names the columns"
        raise InputError(f"has not {width} columns", field=place, value=properties, remedy=remedy)
    if structure.get("n_charges", "0") != "0":
        raise InputError(
            "was labelled in point charges, which the file does not hold",
            field=f"{place}: n_charges",
            value=structure["n_charges"],
            remedy="leave such frames out",
        )

    def block(name: str) -> list[list[str]]:
        start, count = columns[name]
        return [tokens[start + k :: width] for k in range(count)]

    try:
        layout = _layout(tuple(info), properties, account.choice)
        if layout is None:
            raise InputError("lacks a column `species` or `pos`", field=place, value=properties)
        selection = layout.selection
        numbers = _elements(tuple(block(layout.element)[0]), layout.is_number)
        if layout.symbol:
            _check_symbols(tuple(block(layout.symbol)[0]), numbers, f"{place}: {layout.element}")
        cell, pbc = _cell(structure.get("lattice"), structure.get("pbc"))
        energy = account.chosen_among("energy", selection.energy, info, place, same_numbers)
        columns_of_forces = {name: _column(block(name), f"{place}: {name}") for name in selection.forces}
        forces = account.chosen_among("forces", selection.forces, columns_of_forces, place, same_numbers)
        if not energy or not (forces or n == 1):
            missing = "forces" if energy else "energy"
            raise account.missing(missing, place, [*info, *columns])
        tensors: dict[str, FloatArray] = {}
        no_stress = why_no_stress(selection, info, cell, pbc)
        if cell is not None and not no_stress:
            tensors = {key: sign * stress_of(info[key], cell if sign < 0 else None) for key, sign in selection.stress}
        stress = account.chosen_among("stress", tuple(tensors), tensors, place, same_tensors)
        dropped = [(name, SAME) for name in (*selection.forces, *tensors)]
        dropped += [(name, SEVERAL if number_of(info[name]) is None else SAME) for name in selection.energy]
        if not tensors:
            dropped += [(name, no_stress) for name, _ in selection.stress]
        for name in selection.fixed:
            if name in columns:
                check_constraint(_held(name, block(name)), columns_of_forces.get(forces), f"{place}: {name}")
            dropped.append((name, CONSTRAINT))
        said: Mapping[str, Any] = info
        if layout.of_atoms:
            said = {**info, **{name: _of_atoms(block(name)) for name in layout.of_atoms}}
        charge, multiplicity = stated_electrons(selection, said, numbers, account, place, is_periodic=any(pbc))
        units = tuple((what, info[name]) for what, name in layout.units)
        if free_text:
            charge, multiplicity, more = free_text_in(free_text, numbers, charge, multiplicity, account, place)
            units += more
        mask = None
        if "mask" in columns:
            mask = np.array([token.lower() in _TRUE for token in block("mask")[0]])
        level = stated_level({key: info[name] for name, key in layout.levels})
        taken = (energy, forces, stress)
        unused = tuple(pair for pair in dropped if pair[0] not in taken)
        account.meet(selection, taken, unused, place, layout.structure)
        return RawRow(
            i,
            numbers,
            _column(block(layout.pos), f"{place}: {layout.pos}"),
            float(info[energy]),
            columns_of_forces[forces] if forces else np.zeros((1, 3)),  # of an isolated atom
            cell=cell,
            pbc=pbc,
            charge=charge,
            multiplicity=multiplicity,
            stress=tensors.get(stress),
            mask=None if mask is None or mask.all() else mask,
            level=level,
            units=units + account.units,
        )
    except KeyError as error:
        raise InputError("is no element", field=f"{place}: species", value=str(error.args[0])) from None
    except ValueError as error:
        raise InputError("holds something that is no number", field=place, value=_last(error)) from None


def _last(error: ValueError) -> str:
    """What Python could not read as a number."""
    return str(error).rpartition(": ")[2].strip("'\"")[:60]


@lru_cache(maxsize=64)
def _elements(names: tuple[str, ...], is_number: bool) -> NDArray[np.int64]:
    """Atomic numbers of symbols or numbers; frames of a trajectory share them.

    Raises:
        KeyError: No element.
        ValueError: No number.
    """
    numbers = np.array([int(name) for name in names] if is_number else [atomic_numbers[name] for name in names])
    numbers.flags.writeable = False
    return numbers


@lru_cache(maxsize=64)
def _elements_or_none(names: tuple[str, ...]) -> tuple[int | None, ...]:
    return tuple(atomic_numbers.get(name) for name in names)


def _check_symbols(names: tuple[str, ...], numbers: NDArray[np.int64], field: str) -> None:
    """Refuses atomic numbers beside symbols of other elements; names that are no elements say nothing."""
    for k, (said, number) in enumerate(zip(_elements_or_none(names), numbers.tolist(), strict=True)):
        if said is not None and said != number:
            raise InputError(
                f"contradicts its column of elements: atom {k} is {names[k]} there", field=field, value=number,
                remedy="correct or remove one of the columns",
            )  # fmt: skip


def _structure(info: Mapping[str, str], place: str) -> dict[str, str]:
    """Lattice, columns and periodicity, under names in lower case."""
    found: dict[str, str] = {}
    for name, key in _structure_names(tuple(info)):
        if found.setdefault(key, info[name]) != info[name]:
            raise InputError("stands twice, with two values", field=f"{place}: {name}", remedy="keep one")
    return found


@lru_cache(maxsize=1024)
def _structure_names(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _STRUCTURE[name.lower()]) for name in names if name.lower() in _STRUCTURE)


@lru_cache(maxsize=64)
def _columns(properties: str) -> tuple[dict[str, tuple[int, int]], int]:
    """First column and number of columns of each property, and the number of all.

    Raises:
        ValueError: These are no properties.
    """
    fields = properties.split(":")
    columns, start = {}, 0
    for name, count in zip(fields[::3], fields[2::3], strict=True):
        key = "mask" if name.lower() in ("mask", "force_mask", "forces_mask") else name
        if key in columns:
            raise ValueError(f"{name} is there twice")
        columns[key] = (start, int(count))
        start += int(count)
    return columns, start


@lru_cache(maxsize=64)
def _atom_columns(properties: str) -> tuple[str, str, str, tuple[str, ...]] | None:
    """Column of elements, that of symbols beside numbers, that of positions, all others; None for no such columns."""
    columns, _ = _columns(properties)
    lower = {name.lower(): name for name in columns}
    pos = next((lower[name] for name in _POSITIONS if name in lower), None)
    species = next((lower[name] for name in _SPECIES if name in lower), None)
    number = next((lower[name] for name in _NUMBERS if name in lower), None)
    element = species if number is None else number
    if pos is None or element is None:
        return None
    symbol = "" if number is None or species is None else species
    return element, symbol, pos, tuple(name for name in columns if name not in (pos, species, number))


def _floats(columns: list[list[str]]) -> FloatArray:
    return np.array([list(map(float, column)) for column in columns]).T


def _of_atoms(columns: list[list[str]]) -> NDArray[np.str_]:
    """Words as ``(n_atoms,)``, or ``(n_atoms, k)`` of several columns."""
    return np.array(columns[0]) if len(columns) == 1 else np.array(columns).T


def _column(columns: list[list[str]], field: str) -> FloatArray:
    """As `_floats`; names the column that is none of numbers."""
    try:
        return _floats(columns)
    except ValueError:
        bad = next((word for column in columns for word in column if number_of(word) is None), "")
        raise InputError("holds something that is no number", field=field, value=bad) from None


def _numbers(text: str) -> list[float]:
    return [float(x) for x in re.sub(r"_JSON|[\[\]{}(),]", " ", text).split()]


@lru_cache(maxsize=64)
def _cell(lattice: str | None, periodic: str | None) -> tuple[FloatArray | None, tuple[bool, bool, bool]]:
    if periodic is not None:
        words = re.sub(r"_JSON|[\[\]{}(),]", " ", periodic).lower().split()
        words = words * 3 if len(words) == 1 else words
        if len(words) != 3 or not all(word in _TRUE or word in _FALSE for word in words):
            raise ValueError(f"pbc is {periodic!r}")
    else:
        words = ["f" if lattice is None else "t"] * 3
    pbc = (words[0] in _TRUE, words[1] in _TRUE, words[2] in _TRUE)
    if lattice is None:
        if any(pbc):
            raise ValueError("a periodic frame without a Lattice")
        return None, pbc
    values = np.array(_numbers(lattice))
    if values.size not in (3, 9):
        raise ValueError(f"a lattice of {values.size} numbers")
    return ((np.diag(values) if values.size == 3 else values.reshape(3, 3)) if any(pbc) else None), pbc


def why_no_stress(selection: Selection, values: Mapping[str, Any], cell: Any, pbc: tuple[bool, bool, bool]) -> str:
    """Why the stress of a frame is left out; empty where it counts."""
    if cell is None or not all(pbc):
        return NO_STRESS
    weights = [name for name, _ in selection.left_out if selection.stress and weight_of(name) == "stress"]
    return NO_WEIGHT if any(number_of(values.get(name)) == 0 for name in weights) else ""


def stress_of(value: Any, cell: FloatArray | None) -> FloatArray:
    """A stress as ``(3, 3)``.

    Args:
        value: Text or numbers: six in the order of Voigt (xx, yy, zz, yz, xz, xy), or nine.
        cell: By whose volume a virial is divided; None for a stress.

    Raises:
        ValueError: Neither six nor nine numbers.
    """
    values = np.array(_numbers(value)) if isinstance(value, str) else np.asarray(value, dtype=np.float64).reshape(-1)
    if values.size == 6:
        tensor = np.zeros((3, 3))
        for (a, b), x in zip(VOIGT, values.tolist(), strict=True):
            tensor[a, b] = tensor[b, a] = x
    elif values.size == 9:
        tensor = values.reshape(3, 3)
    else:
        raise ValueError(f"a stress of {values.size} numbers")
    if cell is None:
        return tensor
    volume = abs(float(np.linalg.det(cell)))
    return tensor / volume if volume else tensor * np.nan


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two stresses are one, to the digits that files keep."""
    scale = max(float(np.abs(one).max()), float(np.abs(other).max()))
    return bool(np.abs(np.asarray(one) - np.asarray(other)).max() <= 1e-4 * scale + 1e-9)


def _held(name: str, columns: list[list[str]]) -> NDArray[np.bool_]:
    """Atoms that a constraint holds: `move_mask` and its like are true where they are free."""
    flags = np.array([[token.lower() in _TRUE for token in column] for column in columns]).T
    held: NDArray[np.bool_] = np.any(~flags if is_of_free_atoms(name) else flags, axis=1)
    return held


def check_constraint(held: NDArray[np.bool_], forces: Any, field: str) -> None:
    """Refuses forces that a constraint has set to zero.

    Args:
        held: ``(n_atoms,)`` or ``(n_atoms, 3)``, what the constraint holds.
        forces: ``(n_atoms, 3)``; None for none.
        field: What the constraint is called.

    Raises:
        InputError: Those of all atoms that are held are exactly zero, and others are not.
    """
    if forces is None or not held.any() or np.shape(forces)[0] != held.shape[0]:
        return
    if not np.asarray(forces)[held].any() and np.asarray(forces).any():
        raise InputError(
            "the forces of atoms that are held are exactly zero: the constraint's, not the method's",
            field=field,
            value=f"{int(np.count_nonzero(held.any(axis=-1) if held.ndim > 1 else held))} atoms",
            remedy="write them without constraints (ASE: `get_forces(apply_constraint=False)`)",
        )


def stated_level(info: Mapping[str, Any]) -> str:
    """The level of theory that a frame's facts state; empty where they state none."""
    for key in LEVEL_KEYS:
        if isinstance(value := info.get(key), str) and value.strip():
            return value.strip()
        if isinstance(value, dict):
            return json.dumps(value, sort_keys=True)
    parts = [str(info[key]) for key in PARTS_OF_LEVEL if isinstance(info.get(key), str)]
    return "/".join(parts)
