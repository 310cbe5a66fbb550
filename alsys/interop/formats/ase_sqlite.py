"""The SQLite layout of ASE databases (versions 5 to 9 of `ase.db.sqlite`), read as a stream and written in batches.

ASE itself fetches all rows before it yields the first, asks for external tables at every row, opens files for writing,
and compares calculators when it writes. Here a file is opened read-only, one row is in memory at a time, no larger than
`MAX_ROW_BYTES`, and only columns that an import needs are looked at. ``data`` is decoded by ASE: JSON and arrays.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.formats.ase_rows import merged, pairs_of, settings_of
from alsys.interop.terms import KEY
from alsys.store.base import Snapshot

VERSIONS: Final = range(5, 10)
MAX_ROW_BYTES: Final = 64 * 2**20
WRITTEN_AT_ONCE: Final = 1024
OF_ELECTRONS: Final = ("initial_charges", "initial_magmoms", "charges", "magmoms", "magmom")
"""Columns that state charge or spin by a sum over atoms, or by that sum."""
READ: Final = (
    "id", "numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "constraints", "key_value_pairs", "data",
    "calculator_parameters", *OF_ELECTRONS,
)  # fmt: skip
NOT_USED: Final = (
    "free_energy",
    "masses",
    "tags",
    "momenta",
    "dipole",
    "calculator",
)
"""Columns that say something of a frame and that an import leaves out."""
PER_ATOM: Final = ("masses", "tags", "momenta")
WRITTEN: Final = (
    "id", "unique_id", "ctime", "mtime", "username", "numbers", "positions", "cell", "pbc", "calculator",
    "calculator_parameters", "energy", "forces", "stress", "key_value_pairs", "data", "natoms", "fmax", "smax",
    "volume", "mass", "charge",
)  # fmt: skip


class DatabaseRow(NamedTuple):
    """One row, in eV and Angstrom.

    Attributes:
        id: Of the row.
        numbers: ``(n_atoms,)``.
        positions: ``(n_atoms, 3)``.
        cell: ``(3, 3)``; None where there is none.
        pbc: ``(3,)``.
        energy: None where there is none.
        forces: ``(n_atoms, 3)``; None where there are none.
        stress: ``(6,)`` or ``(9,)``; None where there is none.
        facts: Data, key-value pairs and `OF_ELECTRONS`; shared by rows in which they are alike, so not to be changed.
        constraints: As ASE writes them.
    """

    id: int
    numbers: Any
    positions: Any
    cell: Any
    pbc: tuple[bool, bool, bool]
    energy: Any
    forces: Any
    stress: Any
    facts: Mapping[str, Any]
    constraints: Any = ()


def rows(path: Path, account: FileAccount) -> Iterator[DatabaseRow]:
    """Rows in the order of their identities.

    Args:
        path: The database.
        account: That columns that are not used are told.

    Raises:
        InputError: A version that is not known.
        sqlite3.Error: The file is damaged, or holds no such tables; so do `ValueError`, `TypeError` and `KeyError`.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    # rows that nobody reads to the end are closed by whichever thread forgets them
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        _check_tables(connection, path)
        _check_version(connection, path)
        _tell(connection, account)
        found = connection.execute("SELECT value FROM information WHERE name = 'metadata'").fetchone()
        metadata = _decoded(found[0]) if found else {}
        last: list[Any] = []
        facts: Mapping[str, Any] = {}
        for row in connection.execute(f"SELECT {', '.join(READ)} FROM systems ORDER BY id"):
            number, numbers, positions, cell, pbc, energy, forces, stress, constraints, *told = row
            if told != last:
                last, (pairs, data, parameters, *sums) = told, told
                stated = merged(_decoded(data), _decoded(pairs))
                general = merged(settings_of(_decoded(parameters)), metadata)
                facts = {**with_electrons(sums), **merged(stated, general)}
            pbc = 0 if pbc is None else int(pbc)
            yield DatabaseRow(
                number,
                np.frombuffer(numbers, "<i4"),
                np.frombuffer(positions, "<f8").reshape(-1, 3),
                None if cell is None else np.frombuffer(cell, "<f8").reshape(3, 3),
                (bool(pbc & 1), bool(pbc & 2), bool(pbc & 4)),
                energy,
                None if forces is None else np.frombuffer(forces, "<f8").reshape(-1, 3),
                None if stress is None else np.frombuffer(stress, "<f8"),
                facts,
                () if constraints is None else _json(constraints),
            )


def with_electrons(sums: Sequence[Any]) -> dict[str, Any]:
    """Those of `OF_ELECTRONS` that a row has: arrays, or their bytes, and one number."""
    found = {name: value for name, value in zip(OF_ELECTRONS, sums, strict=True) if value is not None}
    return {name: np.frombuffer(v, "<f8") if isinstance(v, bytes) else v for name, v in found.items()}


def _tell(connection: sqlite3.Connection, account: FileAccount) -> None:
    """Columns that are not used, and in how many rows they hold something."""
    there = {row[1] for row in connection.execute("PRAGMA table_info(systems)")}
    names = [name for name in NOT_USED if name in there]
    counts = connection.execute(f"SELECT {', '.join(f'COUNT({name})' for name in names)} FROM systems").fetchone()
    for name, count in zip(names, counts, strict=True):
        if count:
            account.ignore(name, count, is_per_atom=name in PER_ATOM)


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Views in the place of ASE's tables may compute without end."""
    views = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'view' AND lower(name) IN ('systems', 'information')"
    ).fetchall()
    if views:
        raise InputError(
            "is a view, and ASE's databases have tables", source=str(path), field=views[0][0], value="view",
            remedy="write its rows into a database that ASE makes",
        )  # fmt: skip


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    try:
        found = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        found = None
    version = 0 if found is None else int(found[0])
    if version not in VERSIONS:
        raise InputError(
            "is not of a version of ASE databases that can be read",
            source=str(path),
            value=version or "none",
            remedy="convert it with ASE: `ase db OLD.db --insert-into NEW.db`, or `python -m ase.db.convert OLD.db`",
        )


def _decoded(value: Any) -> Mapping[str, Any]:
    """Key-value pairs or data: JSON as text, or ASE's bytes, which are JSON with arrays before it."""
    if value is None or value in ("{}", "null"):
        return {}
    found = _json(value)
    return found if isinstance(found, dict) else {}


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        from ase.db.core import bytes_to_object

        return bytes_to_object(value)
    from ase.io.jsonio import decode

    return decode(value)


def write(snapshot: Snapshot, path: Path, level: str, terms: str = "") -> None:
    """Writes a new database in one transaction.

    Charge, multiplicity and level are in each row's data; its key-value pairs are those of `pairs_of`.

    Args:
        snapshot: To be written.
        path: Of a file that is not there.
        level: Level of theory, as JSON.
        terms: Licence, source and citation, for the metadata.
    """
    from ase.db import connect
    from ase.db.core import now

    database = connect(str(path), type="db", use_lock_file=False)
    _ = database.metadata  # asking for it makes ASE's tables and indices
    if terms:
        database.metadata = {KEY: terms}
    insert = f"INSERT INTO systems ({', '.join(WRITTEN)}) VALUES ({', '.join('?' * len(WRITTEN))})"
    written_at, offsets = now(), snapshot.offsets.tolist()
    parts = [slice(start, stop) for start, stop in pairwise(offsets)]
    with closing(sqlite3.connect(path)) as connection, connection:
        for start in range(0, snapshot.n_frames, WRITTEN_AT_ONCE):
            rows = range(start, min(start + WRITTEN_AT_ONCE, snapshot.n_frames))
            connection.executemany(insert, [_values(snapshot, i, parts[i], level, written_at) for i in rows])
            counts = [(z, n, i + 1) for i in rows for z, n in _composition(_bytes(snapshot.numbers[parts[i]]))]
            connection.executemany("INSERT INTO species (Z, n, id) VALUES (?, ?, ?)", counts)
            pairs = [(key, value, i + 1) for i in rows for key, value in pairs_of(snapshot, i).items()]
            texts = [pair for pair in pairs if isinstance(pair[1], str)]
            reals = [(key, float(value), i) for key, value, i in pairs if not isinstance(value, str)]
            connection.executemany("INSERT INTO keys (key, id) VALUES (?, ?)", [(key, i) for key, _, i in pairs])
            connection.executemany("INSERT INTO text_key_values (key, value, id) VALUES (?, ?, ?)", texts)
            connection.executemany("INSERT INTO number_key_values (key, value, id) VALUES (?, ?, ?)", reals)


def _values(snapshot: Snapshot, i: int, atoms: slice, level: str, written_at: float) -> tuple[Any, ...]:
    """What stands in the columns `WRITTEN`, as ASE would compute it."""
    numbers, forces, s = snapshot.numbers[atoms], snapshot.forces[atoms], snapshot.stress[i]
    stress = None
    if np.isfinite(s).all():
        stress = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
    cell, pbc = snapshot.cell[i], snapshot.pbc[i].tolist()
    return (
        i + 1,
        snapshot.frame_ids[i],
        written_at,
        written_at,
        "",
        _bytes(numbers),
        _bytes(snapshot.positions[atoms]),
        _bytes(cell),
        pbc[0] + 2 * pbc[1] + 4 * pbc[2],
        "unknown",
        "{}",
        float(snapshot.energy[i]),
        _bytes(forces),
        None if stress is None else _bytes(stress),
        json.dumps(pairs_of(snapshot, i)),
        _data(int(snapshot.charge[i]), int(snapshot.multiplicity[i]), level),
        len(numbers),
        float(np.sqrt(np.square(forces).sum(axis=1).max())),
        None if stress is None else float(np.abs(stress).max()),
        abs(float(np.linalg.det(cell))) or None if cell.any() else None,
        float(atomic_masses[numbers].sum()),
        0.0,
    )


def _bytes(array: NDArray[Any]) -> bytes:
    return array.astype("<i4" if array.dtype.kind == "i" else "<f8", copy=False).tobytes()


@lru_cache(maxsize=64)
def _data(charge: int, multiplicity: int, level: str) -> bytes:
    from ase.db.core import object_to_bytes

    found: bytes = object_to_bytes({"charge": charge, "multiplicity": multiplicity, "level": level})
    return found


@lru_cache(maxsize=4096)
def _composition(numbers: bytes) -> tuple[tuple[int, int], ...]:
    return tuple(Counter(np.frombuffer(numbers, "<i4").tolist()).items())
