"""ASE databases, SQLite (``.db``) and JSON (``.json``): eV and Angstrom.

Charge, multiplicity and level of theory come from a row's key-value pairs or data, in which labels may stand too.
SQLite is read as a stream (`ase_sqlite`); ASE reads a JSON database as a whole, so large ones are refused.
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
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats import ase_sqlite
from alsys.interop.formats.ase_rows import labelled_row, merged, pairs_of, settings_of
from alsys.interop.formats.ase_sqlite import DatabaseRow
from alsys.interop.formats.base import Format, appearing, refuse_beyond, starts_with
from alsys.interop.raw_frames import RawFrames, RawRow, gathered
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

SQLITE = b"SQLite format 3\0"
MAX_JSON_BYTES = 256 * 2**20


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Rows in the order of their identities."""
    account = FileAccount() if account is None else account
    is_sqlite = starts_with(path, SQLITE)
    if not is_sqlite and path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(
            "is a JSON database too large to be read as a whole",
            source=str(path),
            value=f"{path.stat().st_size / 2**20:.0f} MB",
            remedy="convert it: `ase db FILE.json --insert-into FILE.db`",
        )
    yield from gathered(_frames(path, is_sqlite, account), "row", account)


def _frames(path: Path, is_sqlite: bool, account: FileAccount) -> Iterator[RawRow]:
    found = False
    for row in _rows(path, is_sqlite, account):
        found = True
        try:
            yield _frame(row, account)
        except InputError as error:
            account.refuse(f"row {row.id}", error)
    if not found:
        raise InputError("holds no rows", source=str(path))


def _rows(path: Path, is_sqlite: bool, account: FileAccount) -> Iterator[DatabaseRow]:
    if not path.is_file():
        raise InputError("no such file", source=str(path))
    try:
        yield from ase_sqlite.rows(path, account) if is_sqlite else _json_rows(path, account)
    except InputError:
        raise
    except Exception as error:  # sqlite3, json and ASE raise what they like for a damaged file
        raise InputError(f"cannot be read as an ASE database: {error}", source=str(path)) from error


def _json_rows(path: Path, account: FileAccount) -> Iterator[DatabaseRow]:
    from ase.db import connect

    database = connect(str(path), type="json", use_lock_file=False)
    metadata = _mapping(database.metadata)
    for row in database.select():
        stated = merged(_mapping(row.data), {key: vars(row)[key] for key in row.key_value_pairs})
        general = merged(settings_of(row.get("calculator_parameters")), metadata)
        # values of keys such as `charge` are hidden behind properties of the row, but for `vars`
        for name in ase_sqlite.NOT_USED:
            if row.get(name) is not None:
                account.ignore(name, is_per_atom=name in ase_sqlite.PER_ATOM)
        yield DatabaseRow(
            int(row.id),
            np.asarray(row.numbers),
            np.asarray(row.positions),
            np.asarray(row.cell),
            (bool(row.pbc[0]), bool(row.pbc[1]), bool(row.pbc[2])),
            row.get("energy"),
            row.get("forces"),
            row.get("stress"),
            {
                **ase_sqlite.with_electrons([row.get(name) for name in ase_sqlite.OF_ELECTRONS]),
                **merged(stated, general),
            },
            [constraint.todict() for constraint in row.constraints],
        )


def _frame(row: DatabaseRow, account: FileAccount) -> RawRow:
    return labelled_row(
        row.id,
        f"row {row.id}",
        row.numbers,
        row.positions,
        row.cell,
        row.pbc,
        {"energy": row.energy, "forces": row.forces, "stress": row.stress},
        row.facts,
        account,
        constraints=row.constraints,
    )


def _mapping(data: Any) -> dict[str, Any]:
    return dict(data) if isinstance(data, dict) else {}


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """A new database; charge, multiplicity and level are in each row's data, what ASE may select by in its pairs."""
    refuse_beyond(snapshot, "ase-db", electrons=True, cells=True)
    text = json.dumps(dict(level.spec), sort_keys=True)
    with appearing(path) as temporary:
        if path.suffix == ".json":
            _write_json(snapshot, temporary, text, terms)
        else:
            ase_sqlite.write(snapshot, temporary, text, terms)
    return snapshot.n_frames


def _write_json(snapshot: Snapshot, path: Path, level: str, terms: str) -> None:
    from ase.db import connect

    offsets = snapshot.offsets
    with connect(str(path), type="json", use_lock_file=False) as database:
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
                "level": level,
            }
            database.write(atoms, data=data, key_value_pairs=pairs_of(snapshot, i))
        if terms:
            database.metadata = {KEY: terms}


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
