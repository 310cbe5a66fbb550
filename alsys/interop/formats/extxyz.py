"""Extended XYZ, frame by frame: eV and Angstrom unless the user says otherwise.

Reads the columns ``species`` (or ``Z``), ``pos``, forces and ``mask``, and from the comment line energy, lattice,
charge, multiplicity, stress or virial, and the level of theory where it is stated. A file is read as a stream.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase.data import atomic_numbers

from alsys.atom_counts import cut_off
from alsys.errors import InputError
from alsys.interop.extxyz import ENERGY_KEYS, FORCES_KEYS, export_extxyz
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.base import Format
from alsys.interop.raw import RawFrames, RawRow, gathered, integer
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

LEVEL_KEYS = ("level", "level_of_theory", "theory")
"""Keys of the comment line that state a level; else a functional and a basis do."""
PARTS_OF_LEVEL = ("functional", "xc", "method", "basis")
CHARGE_KEYS = ("charge", "total_charge")
MULTIPLICITY_KEYS = ("multiplicity", "spin_multiplicity")
STATED_UNITS = {
    "energy_unit": "energy", "energy_units": "energy", "length_unit": "length", "length_units": "length",
    "force_unit": "force", "force_units": "force", "forces_unit": "force", "forces_units": "force",
}  # fmt: skip
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_PAIR = re.compile(r"""([\w\-.:]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+)""")
_ESCAPED = re.compile(r"\\(.)")


def read(path: Path) -> Iterator[RawFrames]:
    """Frames in order, one at a time."""
    source = str(path)
    try:
        with path.open(encoding="utf-8") as file:
            yield from gathered(_rows(file), "frame")
    except UnicodeDecodeError as error:
        raise InputError("is no text", source=source) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=source) from error


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory) -> int:
    """All frames, with their level."""
    return export_extxyz(snapshot, path, level=level)


def _rows(file: TextIO) -> Iterator[RawRow]:
    i = 0
    while (block := _block(file, i)) is not None:
        yield _frame(*block, i)
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


def _frame(comment: str, lines: list[str], i: int) -> RawRow:
    info = {key: _text(value) for key, value in _PAIR.findall(comment)}
    try:
        columns, width = _columns(info.get("Properties", "species:S:1:pos:R:3"))
    except ValueError:
        raise InputError("cannot be understood", field=f"frame {i}: Properties", value=info.get("Properties")) from None
    tokens = "".join(lines).split()
    n = len(lines)
    if len(tokens) != n * width:
        raise InputError(f"has not {width} columns", field=f"frame {i}", value=info.get("Properties"))

    if info.get("n_charges", "0") != "0":
        raise InputError(
            "was labelled in point charges, which the file does not hold",
            field=f"frame {i}: n_charges",
            value=info["n_charges"],
            remedy="leave such frames out",
        )

    def block(name: str) -> list[list[str]]:
        start, count = columns[name]
        return [tokens[start + k :: width] for k in range(count)]

    species = "Z" if "Z" in columns else "species"
    if species not in columns or "pos" not in columns:
        raise InputError("lacks a column `species` or `pos`", field=f"frame {i}", value=info.get("Properties"))
    try:
        names = block(species)[0]
        numbers = [int(z) for z in names] if species == "Z" else [atomic_numbers[name] for name in names]
        cell, pbc = _cell(info)
        stress = _stress(info, cell, pbc)
        energy = _one(info, ENERGY_KEYS, i)
        forces_name = next((name for name in FORCES_KEYS if name in columns), None)
        mask = None
        if "mask" in columns:
            mask = np.array([token in ("T", "True", "1") for token in block("mask")[0]])
        return RawRow(
            i,
            np.array(numbers),
            _floats(block("pos")),
            None if energy is None else float(energy),
            None if forces_name is None else _floats(block(forces_name)),
            cell=cell,
            pbc=pbc,
            charge=_whole(info, CHARGE_KEYS, i),
            multiplicity=_whole(info, MULTIPLICITY_KEYS, i),
            stress=stress,
            mask=None if mask is None or mask.all() else mask,
            level=stated_level(info),
            units=tuple((what, info[key]) for key, what in STATED_UNITS.items() if key in info),
        )
    except KeyError as error:
        raise InputError("is no element", field=f"frame {i}: species", value=str(error.args[0])) from None
    except ValueError as error:
        raise InputError(f"holds something that is no number: {error}", field=f"frame {i}") from None


@lru_cache(maxsize=64)
def _columns(properties: str) -> tuple[dict[str, tuple[int, int]], int]:
    """First column and number of columns of each property, and the number of all.

    Raises:
        ValueError: These are no properties.
    """
    fields = properties.split(":")
    columns, start = {}, 0
    for name, count in zip(fields[::3], fields[2::3], strict=True):
        columns[name] = (start, int(count))
        start += int(count)
    return columns, start


def _floats(columns: list[list[str]]) -> Any:
    return np.array([list(map(float, column)) for column in columns]).T


def _text(value: str) -> str:
    if value[0] == '"':
        return _unescaped(value[1:-1]) if "\\" in value else value[1:-1]
    return value[1:-1] if value[0] in "'{[" else value


@lru_cache(maxsize=64)
def _unescaped(text: str) -> str:
    """A text that frames of a file share, such as their level."""
    return _ESCAPED.sub(r"\1", text)


def _cell(info: Mapping[str, str]) -> tuple[Any, tuple[bool, bool, bool]]:
    text = info.get("Lattice")
    words = info["pbc"].replace(",", " ").split() if "pbc" in info else ["TF"[text is None]] * 3
    flags = [word in ("T", "True", "true", "1") for word in words]
    if len(flags) != 3:
        raise ValueError(f"pbc is {info['pbc']!r}")
    pbc = (flags[0], flags[1], flags[2])
    if text is None:
        if any(pbc):
            raise ValueError("a periodic frame without a Lattice")
        return None, pbc
    return (np.array([float(x) for x in text.split()]).reshape(3, 3) if any(pbc) else None), pbc


def _stress(info: Mapping[str, str], cell: Any, pbc: tuple[bool, bool, bool]) -> Any:
    if cell is None or not all(pbc):
        return None
    for key, factor in (("stress", 1.0), ("virial", -1.0), ("REF_stress", 1.0), ("REF_virial", -1.0)):
        if key in info:
            values = [float(x) for x in info[key].replace(",", " ").replace("[", " ").replace("]", " ").split()]
            tensor = np.zeros((3, 3))
            if len(values) == 6:
                for (a, b), value in zip(VOIGT, values, strict=True):
                    tensor[a, b] = tensor[b, a] = value
            else:
                tensor = np.array(values).reshape(3, 3)
            return tensor if factor > 0 else -tensor / abs(np.linalg.det(cell))
    return None


def _one(info: Mapping[str, str], keys: tuple[str, ...], i: int) -> str | None:
    """The one value that stands under some of these keys."""
    found = {key: info[key] for key in keys if key in info}
    if len(set(found.values())) > 1 and len({float(value) for value in found.values()}) > 1:
        raise InputError(
            f"{' and '.join(found)} differ",
            field=f"frame {i}",
            remedy=f"keep the one that counts and name it {keys[0]}",
        )
    return next(iter(found.values()), None)


def _whole(info: Mapping[str, str], keys: tuple[str, ...], i: int) -> int | None:
    value = _one(info, keys, i)
    if value is None:
        return None
    return int(value) if value.isdecimal() else integer(float(value), f"frame {i}: {keys[0]}")


def stated_level(info: Mapping[str, Any]) -> str:
    """The level of theory that a frame's facts state; empty where they state none."""
    for key in LEVEL_KEYS:
        if isinstance(value := info.get(key), str) and value.strip():
            return value.strip()
        if isinstance(value, dict):
            return json.dumps(value, sort_keys=True)
    parts = [str(info[key]) for key in PARTS_OF_LEVEL if isinstance(info.get(key), str)]
    return "/".join(parts)


FORMAT = Format(
    name="extxyz",
    units=UnitSet(),
    level=None,
    electrons="assumed",
    recognises=lambda path: path.suffix in (".xyz", ".extxyz"),
    read=read,
    write=write,
)
