"""What rows of ASE come to, be they in SQLite, JSON or LMDB: labels found by name, constraints, stresses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import ARMS
from alsys.interop.account import FileAccount, selected
from alsys.interop.extxyz_rows import (
    CONSTRAINT,
    LEVEL_KEYS,
    PARTS_OF_LEVEL,
    SAME,
    SEVERAL,
    check_constraint,
    same_tensors,
    stated_level,
    stress_of,
    why_no_stress,
)  # fmt: skip
from alsys.interop.keys import decides_label
from alsys.interop.raw_frames import RawRow
from alsys.interop.stated_electrons import stated_electrons
from alsys.said import number_of, unit_of, words_of
from alsys.states import electron_word
from alsys.store.base import Snapshot


def merged(data: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Data and key-value pairs of a row; where both have a name and differ, that of the data is ``data.NAME``.

    What dictionaries among them say of a label, and of units, is a fact under its own name too.
    """
    found = dict(pairs)
    for name, value in data.items():
        found[name if name not in found or _is_same(found[name], value) else f"data.{name}"] = value
    for name, value in [*found.items()]:
        if not isinstance(value, Mapping) or name.lower() in LEVEL_KEYS:
            continue
        is_of_units = bool({"unit", "units"} & set(words_of(name)))
        inner = {f"{key}_unit": one for key, one in value.items()} if is_of_units else settings_of(value)
        for key, one in inner.items():
            if is_of_units or decides_label(key):
                found[key if key not in found or _is_same(found[key], one) else f"{name}.{key}"] = one
    return found


def settings_of(parameters: Any) -> dict[str, Any]:
    """Parameters of a calculator as facts: those that decide a label under their own names, however deep they stand."""
    found: dict[str, Any] = {}
    for name, value in parameters.items() if isinstance(parameters, Mapping) else ():
        inner = settings_of(value) if isinstance(value, Mapping) else {name: value}
        for key, one in inner.items():
            plain = str(key).removeprefix("calculator_parameters.")
            last = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain.rpartition("_")[2])
            plain = last if electron_word(last.lower()) else plain  # DFTB+: Hamiltonian_Charge
            found[plain if decides_label(plain) else f"calculator_parameters.{plain}"] = one
    return found


def labelled_row(
    number: int,
    place: str,
    numbers: Any,
    positions: Any,
    cell: Any,
    pbc: tuple[bool, bool, bool],
    columns: Mapping[str, Any],
    facts: Mapping[str, Any],
    account: FileAccount,
    *,
    constraints: Any = None,
    fixed_names: Mapping[str, str] | None = None,
) -> RawRow:
    """One row, not checked yet.

    Args:
        number: Of the row.
        place: What it is called.
        numbers: ``(n_atoms,)``.
        positions: ``(n_atoms, 3)``.
        cell: ``(3, 3)``; None for none.
        pbc: Periodic directions.
        columns: ``energy``, ``forces`` and ``stress`` of the layout, None where they are not there.
        facts: Data and key-value pairs.
        account: That names are told.
        constraints: As ASE writes them: a list of names and arguments.
        fixed_names: Facts that have one meaning in this format, whatever their name says elsewhere: ``multiplicity``.

    Raises:
        InputError: The frame is refused, or a choice is needed.
    """
    n = len(numbers) if isinstance(numbers, np.ndarray) and numbers.ndim == 1 else 0
    values: dict[str, Any] = {name: value for name, value in columns.items() if value is not None}
    atom_names = [name for name in values if name == "forces"]
    for name, value in facts.items():
        key = name
        if name in columns and values.get(name) is not None:
            if _is_same(values[name], value):
                continue
            key = f"data.{name}"
        values[key] = value = _plain(value)
        if n > 1 and not isinstance(value, str | int | float) and value is not None:
            shape = np.shape(value)
            if 1 <= len(shape) <= 2 and shape[0] == n:
                atom_names.append(key)
    renamed = {} if fixed_names is None else {name: as_ for name, as_ in fixed_names.items() if name in values}
    for name, as_ in renamed.items():
        value = values.pop(name)
        values[as_ if as_ not in values or _is_same(values[as_], value) else f"data.{as_}"] = value
    frame_names = [name for name in values if name not in atom_names and values[name] is not None]
    if n == 1:  # whether a value is the atom's or the frame's cannot be seen
        atom_names += [name for name in frame_names if "force" in name.lower()]
        frame_names = [name for name in frame_names if name not in atom_names]
    selection = selected(frame_names, atom_names, account)
    energy = account.chosen_among("energy", selection.energy, values, place, _is_same)
    forces = account.chosen_among("forces", selection.forces, values, place, _is_same)
    if not energy or not (forces or n == 1):
        raise account.missing("forces" if energy else "energy", place, list(values))
    tensors: dict[str, Any] = {}
    no_stress = why_no_stress(selection, values, cell, pbc)
    if not no_stress:
        try:
            for name, sign in selection.stress:
                tensors[name] = sign * stress_of(values[name], np.asarray(cell) if sign < 0 else None)
        except (ValueError, TypeError, np.linalg.LinAlgError):
            raise InputError("is no tensor", field=f"{place}: stress", value=np.shape(values[name])) from None
    stress = account.chosen_among("stress", tuple(tensors), tensors, place, same_tensors)
    taken = (energy, forces, stress)
    dropped = [(name, SAME) for name in (*selection.forces, *tensors)]
    dropped += [(name, SEVERAL if number_of(values[name]) is None else SAME) for name in selection.energy]
    dropped += [(name, no_stress) for name, _ in selection.stress if not tensors]
    dropped += [(name, CONSTRAINT) for name in selection.fixed]
    if constraints:
        check_constraint(_held(constraints, n), values.get(forces), f"{place}: constraints")
        dropped.append(("constraints", CONSTRAINT))
    z = numbers if n else np.zeros(0, dtype=np.int64)
    charge, multiplicity = stated_electrons(selection, values, z, account, place, is_periodic=any(pbc))
    units = tuple((what, str(values[name])) for name in values if (what := unit_of(name)))
    names = tuple(pair for pair in dropped if pair[0] not in taken)
    account.meet(selection, taken, names, place, ("numbers", "positions", "cell", "pbc"))
    value = values[energy]
    return RawRow(
        number,
        numbers,
        positions,
        float(value) if np.ndim(value) == 0 and isinstance(value, int | float | np.number) else value,
        np.asarray(values[forces]) if forces else np.zeros((1, 3)),  # of an isolated atom
        cell=cell if any(pbc) else None,
        pbc=pbc,
        charge=charge,
        multiplicity=multiplicity,
        stress=tensors.get(stress),
        level=stated_level({key: facts[name] for name, key in _level_names(tuple(facts))}),
        units=units + account.units,
    )


@lru_cache(maxsize=1024)
def _level_names(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Of some names, those that may state a level, and each in lower case."""
    return tuple((name, name.lower()) for name in names if name.lower() in (*LEVEL_KEYS, *PARTS_OF_LEVEL))


def _plain(value: Any) -> Any:
    """Lists of numbers as arrays."""
    if isinstance(value, list):
        try:
            array = np.asarray(value)
        except ValueError:
            return value
        return array if array.dtype.kind in "fiub" else value
    return value


def _is_same(one: Any, other: Any) -> bool:
    try:
        a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    except (TypeError, ValueError):
        return bool(np.array_equal(one, other))
    return a.size == b.size and bool(np.allclose(a.ravel(), b.ravel(), rtol=1e-9, atol=1e-9, equal_nan=True))


def _held(constraints: Any, n: int) -> NDArray[np.bool_]:
    """``(n_atoms, 3)`` coordinates that ASE's `FixAtoms` and `FixCartesian` hold."""
    held = np.zeros((n, 3), dtype=np.bool_)
    for constraint in constraints if isinstance(constraints, Sequence) else ():
        if not isinstance(constraint, Mapping):
            continue
        told = constraint.get("kwargs", constraint)
        if not isinstance(told, Mapping):
            continue
        atoms = np.asarray(told.get("indices", told.get("a", ()))).reshape(-1)
        if atoms.dtype.kind not in "iu" or (atoms.size and (atoms.min() < -n or atoms.max() >= n)):
            continue
        if constraint.get("name") == "FixAtoms":
            held[atoms] = True
        elif constraint.get("name") == "FixCartesian":
            held[atoms] = np.asarray(told.get("mask", (True,) * 3), dtype=np.bool_)
    return held


def pairs_of(snapshot: Snapshot, i: int) -> dict[str, Any]:
    """Key-value pairs of a frame, by which ASE selects rows: ``arm=random``, ``model_version>3``, ``multiplicity=1``.

    ASE takes no text that reads as a number: the name of such a system is left out.
    """
    pairs: dict[str, Any] = {
        "arm": str(ARMS[snapshot.arm[i]]),
        "system": snapshot.systems[snapshot.system[i]],
        "frame_id": f"id-{snapshot.frame_ids[i]}",
        "model_version": int(snapshot.model_version[i]),
        "total_charge": int(snapshot.charge[i]),
        "multiplicity": int(snapshot.multiplicity[i]),
    }
    if np.isfinite(snapshot.deviation[i]):
        pairs["deviation"] = float(snapshot.deviation[i])
    if number_of(pairs["system"]) is not None or pairs["system"] in ("", "True", "False"):
        del pairs["system"]
    return pairs
