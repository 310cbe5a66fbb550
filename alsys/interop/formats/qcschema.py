"""QCSchema, a record of a gradient (``qcschema_output``, version 1) a line: Hartree, Hartree/Bohr, Bohr.

The records are those of MolSSI (D. G. A. Smith et al., J. Chem. Phys. 152, 184108 (2020) for its use by Psi4) as
QCElemental's ``AtomicResult`` reads them: ``molecule``, ``driver: gradient``, ``model``, ``return_result``,
``properties.return_energy``, ``success``. Molecules only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from alsys.errors import InputError
from alsys.frames import ARMS
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.ase_rows import labelled_row
from alsys.interop.formats.base import Format, appearing, refuse_beyond
from alsys.interop.raw_frames import RawFrames, RawRow, gathered
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot
from alsys.version import __version__

UNITS = UnitSet("hartree", "-hartree/bohr", "bohr")
SCHEMA = "qcschema_output"
MAX_LINE_BYTES = 64 * 2**20


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Records in order, one a line."""
    account = FileAccount() if account is None else account
    yield from gathered(_rows(path, account), "line", account)


def _rows(path: Path, account: FileAccount) -> Iterator[RawRow]:
    number = 0
    is_empty = True
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise InputError("is too large", source=str(path), field=f"line {number}")
                if not line.strip():
                    continue
                is_empty = False
                try:
                    yield _frame(line, number, account)
                except InputError as error:
                    account.refuse(f"line {number}", error)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=str(path)) from error
    if is_empty:
        raise InputError("holds no records", source=str(path))


def _frame(line: bytes, number: int, account: FileAccount) -> RawRow:
    where = f"line {number}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON: {error}", field=where) from error
    if not isinstance(record, dict) or record.get("schema_name") != SCHEMA:
        raise InputError(f"is no record of schema_name {SCHEMA}", field=where, remedy="one record a line")
    if record.get("success") is not True:
        raise InputError("is of a calculation that failed", field=f"{where}: success", value=record.get("success"))
    if record.get("driver") != "gradient":
        raise InputError("must be gradient", field=f"{where}: driver", value=record.get("driver"))
    molecule, model, values = (_section(record, name, where) for name in ("molecule", "model", "properties"))
    symbols = molecule.get("symbols")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(s, str) for s in symbols):
        raise InputError("must be a list of symbols", field=f"{where}: molecule.symbols")
    if strange := [symbol for symbol in symbols if symbol.capitalize() not in atomic_numbers]:
        raise InputError("is no element", field=f"{where}: molecule.symbols", value=strange[0])
    if molecule.get("real") is not None and not all(molecule["real"]):
        raise InputError("holds ghost atoms", field=f"{where}: molecule.real")
    n = len(symbols)
    state = {"charge": molecule.get("molecular_charge", 0), "multiplicity": molecule.get("molecular_multiplicity", 1)}
    return labelled_row(
        number,
        where,
        np.array([atomic_numbers[symbol.capitalize()] for symbol in symbols], dtype=np.int32),
        _numbers(molecule.get("geometry"), n, f"{where}: molecule.geometry"),
        None,
        (False, False, False),
        {
            "energy": values.get("return_energy"),
            "forces": _numbers(record.get("return_result"), n, f"{where}: return_result"),
            "stress": None,
        },
        {**state, "level": _level(record, model)},
        account,
    )


def _section(record: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    found = record.get(name)
    if not isinstance(found, dict):
        raise InputError("is missing", field=f"{where}: {name}")
    return found


def _numbers(values: Any, n: int, field: str) -> Any:
    try:
        array = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError("must be numbers", field=field) from error
    if array.size != 3 * n:
        raise InputError(f"must be {3 * n} numbers", field=field, value=array.size)
    return array.reshape(n, 3)


def _level(record: dict[str, Any], model: dict[str, Any]) -> str:
    extras = record.get("extras")
    if isinstance(extras, dict) and isinstance(extras.get("level_of_theory"), str):
        return str(extras["level_of_theory"])
    return "/".join(str(model[name]) for name in ("method", "basis") if model.get(name))


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """A record a line."""
    refuse_beyond(snapshot, "qcschema", electrons=True)
    spec = dict(level.spec)
    model = {
        "method": str(spec.get("xc") or spec.get("method") or spec.get("model") or spec.get("kind") or "unknown"),
        "basis": str(spec["basis"]) if spec.get("basis") else None,
    }
    with appearing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for i in range(snapshot.n_frames):
            file.write(json.dumps(_record(snapshot, i, level, model, terms)) + "\n")
    return snapshot.n_frames


def _record(snapshot: Snapshot, i: int, level: LevelOfTheory, model: dict[str, Any], terms: str) -> dict[str, Any]:
    part = slice(int(snapshot.offsets[i]), int(snapshot.offsets[i + 1]))
    energy = float(snapshot.energy[i] / UNITS.energy_factor)
    return {
        "schema_name": SCHEMA,
        "schema_version": 1,
        "id": snapshot.frame_ids[i],
        "molecule": {
            "schema_name": "qcschema_molecule",
            "schema_version": 2,
            "symbols": [chemical_symbols[z] for z in snapshot.numbers[part].tolist()],
            "geometry": (snapshot.positions[part] / UNITS.length_factor).reshape(-1).tolist(),
            "molecular_charge": float(snapshot.charge[i]),
            "molecular_multiplicity": int(snapshot.multiplicity[i]),
            "fix_com": True,
            "fix_orientation": True,
        },
        "driver": "gradient",
        "model": model,
        "keywords": {},
        "properties": {"return_energy": energy},
        "return_result": (snapshot.forces[part] / UNITS.force_factor).reshape(-1).tolist(),
        "success": True,
        "provenance": {"creator": "alsys", "version": __version__},
        "extras": {
            "level_of_theory": level.canonical,
            "arm": str(ARMS[snapshot.arm[i]]),
            "system": snapshot.systems[snapshot.system[i]],
            **({KEY: terms} if terms else {}),
        },
    }


def _recognises(path: Path) -> bool:
    if not path.is_file() or path.suffix not in (".jsonl", ".json", ".ndjson"):
        return False
    with path.open("rb") as file:
        return SCHEMA.encode() in file.read(65536)


FORMAT = Format(
    name="qcschema",
    units=UNITS,
    level=None,
    electrons="assumed",
    recognises=_recognises,
    read=read,
    write=write,
)
