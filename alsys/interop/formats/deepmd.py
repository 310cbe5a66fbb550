"""DeePMD-kit's npy systems: eV, eV/Angstrom, Angstrom; a folder of one system, or of many.

A system has ``type.raw``, ``type_map.raw`` and sets of ``coord.npy``, ``energy.npy``, ``force.npy``, ``box.npy`` and
``virial.npy`` (eV); with a file ``nopbc`` it is a molecule, else periodic in all directions. Arrays are mapped, not
read as a whole. Systems of mixed types and files without sets are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.arrays import load
from alsys.interop.formats.base import Format, alike, appearing, refuse_beyond
from alsys.interop.formats.facts import alike_frames, label_of
from alsys.interop.keys import NONE, needs_value
from alsys.interop.raw_frames import RawFrames, checked_each
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.said import unit_of
from alsys.store.base import Snapshot

FILES = ("coord", "energy", "force", "box", "virial")
"""That a set may hold and an import uses."""
LEVEL = "level_of_theory.json"
"""That an export writes beside its systems."""


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Set after set of system after system, in the order of their names."""
    account = FileAccount() if account is None else account
    systems = sorted(file.parent for file in path.rglob("type.raw"))
    if not systems:
        raise InputError("holds no type.raw", source=str(path), remedy="name a folder of DeePMD systems")
    level = ""
    if (path / LEVEL).is_file():
        level = " ".join(_words(path, LEVEL))
        account.use(LEVEL)
    for system in systems:
        name = "" if system == path else f"{system.relative_to(path)}/"
        numbers = _numbers(system)
        is_periodic = not (system / "nopbc").exists()
        sets = sorted(folder for folder in system.glob("set.*") if folder.is_dir())
        if not sets:
            raise InputError("holds no set.*", source=str(system))
        stated = _units(system)
        for folder in sets:
            yield from _read_set(folder, f"{name}{folder.name}", numbers, is_periodic, account, stated, level)
        in_sets = {file.stem for folder in sets for file in folder.glob("*.npy")}
        for file in sorted(entry for entry in system.iterdir() if entry.is_file()):
            if file.name in ("type.raw", "type_map.raw", "nopbc"):
                account.use(file.name)
            elif file.suffix == ".raw" and file.stem in in_sets:
                account.leave_out(file.name, "its sets are read, which have it too")
            elif needs_value(file.stem):
                raise InputError("is in no set", source=str(file), remedy="convert the system again, or remove it")
            elif file.stem not in stated:
                account.ignore(file.name)


def _numbers(system: Path) -> Any:
    types = _words(system, "type.raw")
    names = _words(system, "type_map.raw")
    if strange := [word for word in types if not word.lstrip("-").isdecimal()]:
        raise InputError("is no whole number", source=str(system), field="type.raw", value=strange[0])
    numbers = [int(word) for word in types]
    if numbers and min(numbers) < 0:
        raise InputError(
            "is negative", source=str(system), field="type.raw", value=min(numbers), remedy="types count from 0"
        )
    if numbers and max(numbers) >= len(names):
        raise InputError(
            f"names {len(names)} elements, and type.raw holds type {max(numbers)}",
            source=str(system), field="type_map.raw", remedy="give an element for each type; types count from 0",
        )  # fmt: skip
    if strange := [names[t] for t in sorted(set(numbers)) if names[t] not in atomic_numbers]:
        raise InputError(
            "is no element", source=str(system), field="type_map.raw", value=strange[0],
            remedy="write symbols such as H and Cl; an isotope has the symbol of its element",
        )  # fmt: skip
    return np.array([atomic_numbers[names[t]] for t in numbers], dtype=np.int32)


def _words(system: Path, name: str) -> list[str]:
    """Of a text file of a system."""
    try:
        return (system / name).read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise InputError("is missing: without it atoms have no elements", source=str(system), field=name) from error
    except (OSError, ValueError) as error:
        raise InputError(
            "cannot be read as text", source=str(system), field=name, remedy="convert the system again"
        ) from error


def _units(system: Path) -> dict[str, Any]:
    """Texts of files that are named after units."""
    files = [file for file in system.iterdir() if file.suffix in (".raw", ".txt", "") and file.is_file()]
    return {
        file.stem: np.array(file.read_bytes()[:1000].decode("utf-8", "replace").strip())
        for file in files
        if unit_of(file.stem) is not None
    }


def _read_set(
    folder: Path, place: str, numbers: Any, is_periodic: bool, account: FileAccount, stated: dict[str, Any], level: str
) -> Iterator[RawFrames]:
    if (folder / "real_atom_types.npy").exists():
        raise InputError("is of mixed types", source=str(folder), remedy="split it by composition with dpdata")
    found = {}
    if account.choice.stress.lower() == NONE:
        files = tuple(name for name in FILES if name != "virial")
    else:
        files = FILES
    for name in files:
        file = folder / f"{name}.npy"
        if file.exists():
            found[name] = load(file, mapped=True)
            if found[name].dtype.kind not in "fiu":
                raise InputError("must be an array of numbers", source=str(file), value=str(found[name].dtype))
        elif name in ("coord", "energy", "force"):
            raise InputError("is missing", source=str(file), remedy="give frames with labels")
        elif name == "box" and is_periodic:
            raise InputError(
                "is missing: a system without a file `nopbc` is periodic", source=str(file),
                remedy="restore it, or make an empty file `nopbc` beside type.raw where these are molecules",
            )  # fmt: skip
    n = int(found["coord"].shape[0]) if found["coord"].ndim else 0
    for name, values in found.items():
        if not values.ndim or values.shape[0] != n:
            raise InputError(f"must hold {n} frames", source=str(folder / f"{name}.npy"), value=values.shape)
    facts = {**stated, **_tell(folder, found, is_periodic, n, account)}
    for what, name in (("energy", "energy"), ("forces", "force")):
        found[name] = label_of(account, what, name, found[name], facts, f"{place} frame 0", n, ".npy")
    for rows, said in alike_frames(account, facts, numbers, n, f"{place} frame", level=level, is_periodic=is_periodic):
        part = {name: np.array(values[rows]) for name, values in found.items()}
        cell = part["box"].reshape(-1, 3, 3) if is_periodic and part["box"][0].size == 9 else part.get("box")
        stress = None
        if is_periodic and "virial" in part and cell is not None and part["virial"][0].size == 9:
            with np.errstate(divide="ignore", invalid="ignore"):  # a cell without a volume is refused below
                stress = -part["virial"].reshape(-1, 3, 3) / np.abs(np.linalg.det(cell))[:, None, None]
        elif is_periodic and "virial" in part:
            raise InputError("must hold nine numbers for each frame", source=str(folder / "virial.npy"))
        yield from checked_each(
            account,
            numbers,
            part["coord"],
            part["energy"],
            part["force"],
            place=f"{place} frame",
            first=rows.start,
            group=place.rpartition("/")[0],
            cell=cell if is_periodic else None,
            stress=stress,
            pbc=(is_periodic,) * 3,
            **said,
        )


def _tell(folder: Path, found: dict[str, Any], is_periodic: bool, n: int, account: FileAccount) -> dict[str, Any]:
    """Tells the account all files of a set that an import knows; the arrays of the others, by name."""
    facts = {}
    if "virial" in found and is_periodic:
        account.label_from("stress", "virial.npy")
    for file in sorted(folder.iterdir()):
        name = file.stem
        if name in ("energy", "force") and file.suffix == ".npy":
            continue  # told with the label
        if name in found and (is_periodic or name not in ("box", "virial")):
            account.use(file.name, n)
        elif name in FILES:
            account.leave_out(file.name, "not the one that was chosen" if is_periodic else "a molecule has none", n)
        elif name in ("fparam", "aparam"):
            values = load(file, mapped=True) if file.suffix == ".npy" else np.zeros((n, 0))
            if values.shape[:1] == (n,) and (values != values[:1]).any():
                raise InputError(
                    "differs from frame to frame: labels of different states, which no model here tells apart",
                    source=str(file), remedy="import the frames of each by themselves, or remove the file",
                )  # fmt: skip
            account.leave_out(file.name, "a state that the model does not see, the same in all frames", n)
        elif file.suffix == ".npy":
            facts[name] = load(file, mapped=True)
        else:
            account.ignore(file.name, n)
    return facts


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """A folder with one system for each sequence of atoms, in double precision."""
    refuse_beyond(snapshot, "deepmd", cells=True)
    with appearing(path) as temporary:
        temporary.mkdir(parents=True)
        (temporary / LEVEL).write_text(level.canonical + "\n", encoding="utf-8")
        if terms:
            (temporary / f"{KEY}.txt").write_text(terms + "\n", encoding="utf-8")
        for i, part in enumerate(alike(snapshot)):
            if any(part.pbc) and not all(part.pbc):
                raise InputError("holds no partly periodic frames", field="format deepmd", value=part.pbc)
            folder = temporary / f"{i:04d}-{part.name}" / "set.000"
            folder.mkdir(parents=True)
            kinds = sorted({int(z) for z in part.numbers})
            lines = {
                "type.raw": [str(kinds.index(int(z))) for z in part.numbers],
                "type_map.raw": [chemical_symbols[z] for z in kinds],
            }
            for name, words in lines.items():
                (folder.parent / name).write_text("\n".join(words) + "\n", encoding="utf-8")
            k = part.rows.size
            np.save(folder / "coord.npy", snapshot.positions[part.atoms].reshape(k, -1))
            np.save(folder / "force.npy", snapshot.forces[part.atoms].reshape(k, -1))
            np.save(folder / "energy.npy", snapshot.energy[part.rows])
            if all(part.pbc):
                cell, stress = snapshot.cell[part.rows], snapshot.stress[part.rows]
                np.save(folder / "box.npy", cell.reshape(k, 9))
                if np.isfinite(stress).all():
                    volume = np.abs(np.linalg.det(cell))[:, None, None]
                    np.save(folder / "virial.npy", (-stress * volume).reshape(k, 9))
            else:
                (folder.parent / "nopbc").touch()
    return snapshot.n_frames


FORMAT = Format(
    name="deepmd",
    units=UnitSet(),
    level=None,
    electrons="assumed",
    recognises=lambda path: path.is_dir() and next(path.rglob("type.raw"), None) is not None,
    read=read,
    write=write,
    holds_electrons=False,
)
