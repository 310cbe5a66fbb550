"""ASE-LMDB as fairchem writes it, the form of OMol25 (D. S. Levine et al., arXiv:2505.08762): eV and Angstrom.

Each value is zlib-compressed JSON of one ASE row under its number in decimal digits; ``charge`` and ``spin`` (2S + 1)
are in its ``data``. A folder of ``.aselmdb`` files is read file by file. Values are parsed as JSON only: the
older flavour, which holds pickles, is refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.ase_rows import labelled_row, merged, pairs_of
from alsys.interop.formats.ase_sqlite import NOT_USED, PER_ATOM
from alsys.interop.formats.base import Format, appearing, refuse_beyond, require
from alsys.interop.raw_frames import RawFrames, RawRow, gathered
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

SUFFIX = ".aselmdb"
MAX_ROW_BYTES = 64 * 2**20
KNOWN = frozenset(
    {"numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "data", "key_value_pairs", "constraints",
     "calculator", "calculator_parameters", "unique_id", "ctime", "mtime", "user", *NOT_USED}
)  # fmt: skip
RESERVED = (b"nextid", b"deleted_ids", b"metadata")
LEVEL = LevelOfTheory({"method": "wb97m-v", "basis": "def2-tzvpd"})


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Rows in the order of their numbers."""
    account = FileAccount() if account is None else account
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"holds no {SUFFIX} file", source=str(path))
    for file in files:
        place = f"{file.name} row" if len(files) > 1 else "row"
        yield from gathered(_read_file(file, place, account), place, account)


def _read_file(path: Path, place: str, account: FileAccount) -> Iterator[RawRow]:
    lmdb = require("lmdb")
    if not path.is_file():
        raise InputError("no such file", source=str(path))
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise InputError(f"is no LMDB file: {error}", source=str(path)) from error
    with environment, environment.begin() as transaction:
        keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
        numbers = sorted(int(key) for key in keys if key.isdigit())
        strange = [key for key in keys if not key.isdigit() and key not in RESERVED]
        if strange or not numbers:
            raise InputError(
                "is not laid out as an ASE-LMDB", source=str(path), value=strange[0] if strange else "no rows"
            )
        for number in numbers:
            try:
                yield _frame(transaction.get(b"%d" % number), place, number, account)
            except InputError as error:
                account.refuse(f"{place} {number}", error)


def _frame(value: bytes, place: str, number: int, account: FileAccount) -> RawRow:
    where = f"{place} {number}"
    row = _decoded(value, where)
    data, pairs = row.get("data"), row.get("key_value_pairs")
    facts = merged(data if isinstance(data, dict) else {}, pairs if isinstance(pairs, dict) else {})
    flags = row.get("pbc", (False, False, False))
    if not isinstance(flags, list | tuple) or len(flags) != 3:
        raise InputError("must be three flags", field=f"{where}: pbc", value=flags)
    pbc = (bool(flags[0]), bool(flags[1]), bool(flags[2]))
    for name in NOT_USED:
        if row.get(name) is not None and row[name] != "unknown":
            account.ignore(name, is_per_atom=name in PER_ATOM)
    facts = merged(facts, {name: row[name] for name in sorted(row.keys() - KNOWN)})
    return labelled_row(
        number,
        where,
        _array(row.get("numbers")),
        _array(row.get("positions")),
        _array(row.get("cell")),
        pbc,
        {"energy": row.get("energy"), "forces": _array(row.get("forces")), "stress": _array(row.get("stress"))},
        {name: _array(value) if isinstance(value, dict | list) else value for name, value in facts.items()},
        account,
        constraints=row.get("constraints"),
        fixed_names={"spin": "multiplicity"},
    )


def _decoded(value: bytes, where: str) -> dict[str, Any]:
    content = value
    if value[:1] == b"\x78":
        decompressor = zlib.decompressobj()
        try:
            content = decompressor.decompress(value, MAX_ROW_BYTES)
        except zlib.error as error:
            raise InputError(f"cannot be decompressed: {error}", field=where) from error
        if decompressor.unconsumed_tail:
            raise InputError("is too large", field=where, value=f"over {MAX_ROW_BYTES // 2**20} MB")
    if content[:1] == b"\x80":
        raise InputError(
            "is a pickle, which runs code when it is read",
            field=where,
            value="pickled LMDB",
            remedy="convert it to ASE-LMDB where it is trusted",
        )
    try:
        row = json.loads(content)
    except ValueError:  # UnicodeDecodeError is one
        row = None
    if not isinstance(row, dict):
        raise InputError("is no compressed JSON of an ASE row", field=where, value=content[:16])
    return row


def _array(value: Any) -> Any:
    """Nested lists, or ASE's ``{"__ndarray__": [shape, dtype, values]}``, as an array."""
    if value is None:
        return None
    if isinstance(value, dict):
        inner = value.get("__ndarray__", value.get("array"))
        if isinstance(inner, dict):
            return _array(inner)
        if not isinstance(inner, list) or len(inner) != 3:
            raise InputError("is an array in a form that is not known", value=sorted(value)[:3])
        return np.asarray(inner[2]).reshape(inner[0])
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError("is no array: its rows differ in length") from error


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """One file."""
    lmdb = require("lmdb")
    refuse_beyond(snapshot, "omol25", electrons=True, cells=True)
    offsets = snapshot.offsets
    size = 2**26 + 1024 * snapshot.n_frames + 512 * int(offsets[-1])
    with (
        appearing(path) as temporary,
        lmdb.open(str(temporary), subdir=False, lock=False, map_size=2 * size) as environment,
        environment.begin(write=True) as transaction,
    ):
        for i in range(snapshot.n_frames):
            part = slice(offsets[i], offsets[i + 1])
            row: dict[str, Any] = {
                "numbers": snapshot.numbers[part].tolist(),
                "positions": snapshot.positions[part].tolist(),
                "cell": snapshot.cell[i].tolist(),
                "pbc": snapshot.pbc[i].tolist(),
                "unique_id": snapshot.frame_ids[i],
                "ctime": 0.0,
                "mtime": 0.0,
                "user": "",
                "calculator": "unknown",
                "calculator_parameters": {},
                "energy": float(snapshot.energy[i]),
                "forces": snapshot.forces[part].tolist(),
                "key_value_pairs": pairs_of(snapshot, i),
                "data": {
                    "charge": int(snapshot.charge[i]),
                    "spin": int(snapshot.multiplicity[i]),
                    "level": level.canonical,
                },
            }
            if np.isfinite(snapshot.stress[i]).all():
                s = snapshot.stress[i]
                row["stress"] = [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]]
            transaction.put(b"%d" % (i + 1), zlib.compress(json.dumps(row).encode()))
        if terms:
            transaction.put(b"metadata", zlib.compress(json.dumps({KEY: terms}).encode()))
        transaction.put(b"nextid", zlib.compress(b"%d" % (snapshot.n_frames + 1)))
    return snapshot.n_frames


FORMAT = Format(
    name="omol25",
    units=UnitSet(),
    level=LEVEL,
    electrons="required",
    recognises=lambda path: path.suffix == SUFFIX or (path.is_dir() and any(path.glob(f"*{SUFFIX}"))),
    read=read,
    write=write,
)
