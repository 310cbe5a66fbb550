"""ASE databases, SQLite (``.db``) and JSON (``.json``): eV and Angstrom.

Charge, multiplicity and level of theory come from a row's key-value pairs or data. SQLite is read row by row; ASE
reads a JSON database as a whole, so large ones are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from alsys.errors import InputError
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.base import Format, appearing, refuse_beyond, starts_with
from alsys.interop.formats.extxyz import CHARGE_KEYS, MULTIPLICITY_KEYS, stated_level
from alsys.interop.raw import RawFrames, checked, integer
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

SQLITE = b"SQLite format 3\0"
MAX_JSON_BYTES = 256 * 2**20


def read(path: Path) -> Iterator[RawFrames]:
    """Rows in the order of their identities."""
    is_sqlite = starts_with(path, SQLITE)
    if not is_sqlite and path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(
            "is a JSON database too large to be read as a whole",
            source=str(path),
            value=f"{path.stat().st_size / 2**20:.0f} MB",
            remedy="convert it: `ase db FILE.json --insert-into FILE.db`",
        )
    found = False
    for row in _rows(path, is_sqlite):
        found = True
        yield _frame(row)
    if not found:
        raise InputError("holds no rows", source=str(path))


def _rows(path: Path, is_sqlite: bool) -> Iterator[Any]:
    from ase.db import connect

    if not path.is_file():
        raise InputError("no such file", source=str(path))
    try:
        with connect(str(path), type="db" if is_sqlite else "json", use_lock_file=False) as database:
            yield from database.select()  # one connection for all rows
    except InputError:
        raise
    except Exception as error:  # sqlite3, json and ASE raise what they like for a damaged file
        raise InputError(f"cannot be read as an ASE database: {error}", source=str(path)) from error


def _frame(row: Any) -> RawFrames:
    facts = {**_mapping(row.data), **row.key_value_pairs}
    place = f"row {row.id}"
    pbc = tuple(bool(p) for p in row.pbc)
    stress = row.get("stress")
    if stress is not None and all(pbc):
        from ase.stress import voigt_6_to_full_3x3_stress

        tensor = np.asarray(stress)
        stress = (voigt_6_to_full_3x3_stress(tensor) if tensor.shape == (6,) else tensor)[None]
    energy = row.get("energy")
    if energy is None:
        energy = facts.get("energy")
    forces = row.get("forces")
    if forces is None:
        forces = facts.get("forces")
    return checked(
        np.asarray(row.numbers),
        np.asarray(row.positions)[None],
        None if energy is None else np.reshape(energy, -1),
        None if forces is None else np.asarray(forces)[None],
        place="row",
        first=int(row.id),
        cell=np.asarray(row.cell)[None] if any(pbc) else None,
        stress=stress if all(pbc) else None,
        pbc=pbc,
        charge=_whole(facts, CHARGE_KEYS, place, row.get("charge")),
        multiplicity=_whole(facts, MULTIPLICITY_KEYS, place, None),
        level=stated_level(facts),
    )


def _mapping(data: Any) -> dict[str, Any]:
    return dict(data) if isinstance(data, dict) else {}


def _whole(facts: dict[str, Any], keys: tuple[str, ...], place: str, default: Any) -> int | None:
    value = next((facts[key] for key in keys if facts.get(key) is not None), default)
    return None if value is None else integer(value, f"{place}: {keys[0]}")


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory) -> int:
    """A new database; charge, multiplicity and level are in each row's data."""
    from ase.db import connect

    refuse_beyond(snapshot, "ase-db", electrons=True, cells=True)
    kind = "json" if path.suffix == ".json" else "db"
    offsets = snapshot.offsets
    with appearing(path) as temporary, connect(str(temporary), type=kind, use_lock_file=False) as database:
        for i in range(snapshot.n_frames):
            part = slice(offsets[i], offsets[i + 1])
            atoms = Atoms(
                numbers=snapshot.numbers[part],
                positions=snapshot.positions[part],
                cell=snapshot.cell[i],
                pbc=snapshot.pbc[i],
            )
            results: dict[str, Any] = {"energy": float(snapshot.energy[i]), "forces": snapshot.forces[part]}
            if np.isfinite(snapshot.stress[i]).all():
                s = snapshot.stress[i]
                results["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
            atoms.calc = SinglePointCalculator(atoms, **results)
            data = {
                "charge": int(snapshot.charge[i]),
                "multiplicity": int(snapshot.multiplicity[i]),
                "level": json.dumps(dict(level.spec), sort_keys=True),
            }
            database.write(atoms, data=data)
    return snapshot.n_frames


def _recognises(path: Path) -> bool:
    if starts_with(path, SQLITE):
        return True
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"numbers"' in file.read(65536)


FORMAT = Format(
    name="ase-db",
    units=UnitSet(),
    level=None,
    electrons="assumed",
    recognises=_recognises,
    read=read,
    write=write,
)
