"""Apache Parquet, a row for each frame: eV and Angstrom; columns are those of a `Snapshot`.

``numbers`` (n_atoms), ``positions``, ``forces`` (3 n_atoms, atom by atom), ``cell``, ``stress`` (9, row by row; null
where there is none), ``pbc`` (3), ``energy``, ``charge``, ``multiplicity``, ``level``, ``arm``, ``system``,
``trajectory``, ``model_version``, ``deviation``, ``frame_id``. Units are in the metadata of each field.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError
from alsys.frames import ARMS
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.ase_rows import labelled_row
from alsys.interop.formats.base import Format, appearing, refuse_beyond, require, starts_with
from alsys.interop.raw_frames import RawFrames, RawRow, gathered
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

MAGIC = b"PAR1"
AT_ONCE = 1024
"""Rows that are read or written at once."""
UNITS = {
    "positions": "Angstrom", "cell": "Angstrom", "energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3",
    "deviation": "eV/Angstrom", "charge": "e",
}  # fmt: skip
NEEDED = ("numbers", "positions", "energy", "forces")
USED = (*NEEDED, "cell", "pbc", "stress")


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Rows in order."""
    account = FileAccount() if account is None else account
    yield from gathered(_rows(path, account), "row", account)


def _rows(path: Path, account: FileAccount) -> Iterator[RawRow]:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    if not path.is_file():
        raise InputError("no such file", source=str(path))
    i = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if lacking := [name for name in NEEDED if name not in names]:
                raise InputError("is missing", source=str(path), field=f"column {lacking[0]}")
            for batch in file.iter_batches(AT_ONCE):
                for row in batch.to_pylist():
                    try:
                        yield _frame(row, i, account)
                    except InputError as error:
                        account.refuse(f"row {i}", error)
                    i += 1
    except (arrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot be read as Parquet: {reason}", source=str(path)) from error
    if not i:
        raise InputError("holds no rows", source=str(path))


def _frame(row: dict[str, Any], i: int, account: FileAccount) -> RawRow:
    where = f"row {i}"
    numbers = _array(row, "numbers", where, "i", None)
    n = numbers.size
    flags = [False] * 3 if row.get("pbc") is None else row["pbc"]
    if not isinstance(flags, list) or len(flags) != 3 or not all(isinstance(flag, bool) for flag in flags):
        raise InputError("must be three flags", field=f"{where}: pbc", value=flags)
    given = {name: row.get(name) is not None for name in ("cell", "stress")}
    return labelled_row(
        i,
        where,
        numbers,
        _array(row, "positions", where, "f", (n, 3)),
        _array(row, "cell", where, "f", (3, 3)) if given["cell"] else None,
        (flags[0], flags[1], flags[2]),
        {
            "energy": row["energy"],
            "forces": _array(row, "forces", where, "f", (n, 3)),
            "stress": _array(row, "stress", where, "f", (9,)) if given["stress"] else None,
        },
        {name: value for name, value in row.items() if name not in USED and value is not None},
        account,
    )


def _array(row: dict[str, Any], name: str, where: str, kind: str, shape: tuple[int, ...] | None) -> Any:
    """A list of numbers as an array."""
    try:
        values = np.asarray(row[name])
    except ValueError:
        values = np.zeros(0, dtype=object)
    is_number = values.dtype.kind in ("iu" if kind == "i" else "iuf")
    if not is_number or values.ndim != 1 or (shape is not None and values.size != int(np.prod(shape))):
        count = "" if shape is None else f"{int(np.prod(shape))} "
        raise InputError(f"must be a list of {count}numbers", field=f"{where}: {name}")
    return values.astype(np.int32 if kind == "i" else np.float64).reshape(shape or -1)


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """One file."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    refuse_beyond(snapshot, "parquet", electrons=True, cells=True)
    doubles, text = arrow.list_(arrow.float64()), arrow.string()
    types = {
        "frame_id": text, "numbers": arrow.list_(arrow.int32()), "positions": doubles, "cell": doubles,
        "pbc": arrow.list_(arrow.bool_()), "charge": arrow.int32(), "multiplicity": arrow.int32(),
        "energy": arrow.float64(), "forces": doubles, "stress": doubles, "arm": text, "system": text,
        "trajectory": arrow.int64(), "model_version": arrow.int32(), "deviation": arrow.float32(), "level": text,
    }  # fmt: skip
    fields = [arrow.field(n, t, metadata={"unit": UNITS[n]} if n in UNITS else None) for n, t in types.items()]
    about = {"level_of_theory": level.canonical, **({KEY: terms} if terms else {})}
    schema = arrow.schema(fields, metadata=about)
    with appearing(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, snapshot.n_frames, AT_ONCE):
            rows = range(start, min(start + AT_ONCE, snapshot.n_frames))
            writer.write_table(arrow.Table.from_pylist([_row(snapshot, i, level) for i in rows], schema=schema))
    return snapshot.n_frames


def _row(snapshot: Snapshot, i: int, level: LevelOfTheory) -> dict[str, Any]:
    part = slice(int(snapshot.offsets[i]), int(snapshot.offsets[i + 1]))
    stress = snapshot.stress[i].reshape(-1)
    return {
        "frame_id": snapshot.frame_ids[i],
        "numbers": snapshot.numbers[part],
        "positions": snapshot.positions[part].reshape(-1),
        "cell": snapshot.cell[i].reshape(-1) if snapshot.cell[i].any() else None,
        "pbc": snapshot.pbc[i].tolist(),
        "charge": int(snapshot.charge[i]),
        "multiplicity": int(snapshot.multiplicity[i]),
        "energy": float(snapshot.energy[i]),
        "forces": snapshot.forces[part].reshape(-1),
        "stress": stress if np.isfinite(stress).all() else None,
        "arm": str(ARMS[snapshot.arm[i]]),
        "system": snapshot.systems[snapshot.system[i]],
        "trajectory": int(snapshot.trajectory[i]),
        "model_version": int(snapshot.model_version[i]),
        "deviation": float(snapshot.deviation[i]) if np.isfinite(snapshot.deviation[i]) else None,
        "level": level.canonical,
    }


FORMAT = Format(
    name="parquet",
    units=UnitSet(),
    level=None,
    electrons="assumed",
    recognises=lambda path: starts_with(path, MAGIC),
    read=read,
    write=write,
)
