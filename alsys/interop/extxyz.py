"""Extended XYZ: labelled frames out for other codes, published frames in for certification.

Numbers are written in full, so that a frame read back is the frame that was written, identity included. A file appears
under its name only when it is complete.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alsys.atom_counts import check_counts
from alsys.errors import InputError
from alsys.frames import ARMS, Arm, FloatArray, Frame
from alsys.labels import LevelOfTheory
from alsys.outside.child import read_in_child
from alsys.outside.contents import check_regular
from alsys.outside.limits import DATA_SET
from alsys.store.base import Snapshot

ENERGY_KEYS = ("energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy", "TotEnergy")
"""Names under which published files keep total energies."""
FORCES_KEYS = ("forces", "REF_forces", "ref_forces", "dft_forces", "DFT_forces", "force")
"""And forces."""
UNITS = {
    "energy_unit": "eV", "energy_units": "eV", "length_unit": "Angstrom", "forces_unit": "eV/Angstrom",
    "forces_units": "eV/Angstrom",
}  # fmt: skip
"""Keys of the comment line that name a unit, and the one that is read."""


def export_extxyz(
    snapshot: Snapshot,
    path: str | Path,
    *,
    arms: Sequence[Arm] | None = None,
    level: LevelOfTheory | None = None,
) -> int:
    """Writes labelled frames, one after another, and returns how many.

    Energies (eV) and forces (eV/Angstrom) are where ASE looks for them; charge, multiplicity (2S + 1), arm, system,
    trajectory, model_version, deviation (eV/Angstrom, where known) and frame_id are in the comment line. The identity
    is written as ``id-<hexadecimal>``: readers take bare digits for a number. A frame without a cell has no lattice.
    A frame that was carved out of a larger one has a column ``mask``: F where the force is not to be learned from; nor
    is its energy. One that was labelled in point charges says how many with ``n_charges``; they are in the store.

    Args:
        snapshot: The labelled frames.
        path: The file; replaced where it exists.
        arms: Only frames of these arms; None for all.
        level: Level of theory of the labels, for the comment line; None leaves it out.

    Raises:
        InputError: The file cannot be written.
    """
    keep = np.ones(snapshot.n_frames, dtype=np.bool_) if arms is None else snapshot.is_arm(*arms)
    rows = np.flatnonzero(keep).tolist()
    _write(_blocks(snapshot, rows, "" if level is None else f" level={_quoted(level.canonical)}"), Path(path))
    return len(rows)


def export_frames(frames: Sequence[tuple[Frame, Mapping[str, object]]], path: str | Path) -> int:
    """Writes frames without labels, one after another, and returns how many.

    Args:
        frames: Each with what its comment line says besides charge, multiplicity and identity.
        path: The file; replaced where it exists.

    Raises:
        InputError: The file cannot be written.
    """
    _write((_unlabelled(frame, facts) for frame, facts in frames), Path(path))
    return len(frames)


def _write(blocks: Iterable[list[str]], path: Path) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                for lines in blocks:
                    file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", source=str(path), remedy="name a file in a folder with space"
        ) from error


def _images(source: str) -> list[Atoms]:
    """All frames, as ASE reads them; runs in a process of its own."""
    try:
        check_counts(Path(source))
        found: list[Atoms] = ase.io.read(source, index=":", format="extxyz", do_not_split_by_at_sign=True)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AssertionError) as error:
        raise InputError(f"cannot be read as extxyz: {error}") from error
    return found


def read_labelled(path: str | Path) -> list[tuple[Frame, float, FloatArray]]:
    """Reads frames with energies (eV) and forces ``(n_atoms, 3)`` (eV/Angstrom).

    Energies and forces may also stand under the names in `ENERGY_KEYS` and `FORCES_KEYS`. A frame that is not
    periodic loses its lattice, which is a mere box there. Charge and multiplicity are 0 and 1 where the comment line
    has none.

    Raises:
        InputError: The file cannot be read, or a frame lacks energy or forces or holds something impossible; names
            file, frame (the first is 0) and what is missing.
    """
    source = str(path)
    try:
        check_regular(Path(path))
        images = read_in_child(_images, DATA_SET.for_(Path(path)), source)
    except InputError as error:
        raise error.located(source=source) from error
    if not images:
        raise InputError("holds no frames", source=source)
    labelled = []
    for i, atoms in enumerate(images):
        results = {} if atoms.calc is None else atoms.calc.results
        _check_units(atoms.info, source, i)
        energy = results.get("energy", _named(atoms.info, ENERGY_KEYS, source, i))
        forces = results.get("forces", _named(atoms.arrays, FORCES_KEYS, source, i))
        for name, value in (("energy", energy), ("forces", forces)):
            place = f"frame {i}: {name}"
            if value is None:
                raise InputError("is missing", source=source, field=place, remedy="give frames with labels")
            if not _is_finite(value):
                raise InputError("must be finite numbers", source=source, field=place)
        if atoms.info.get("n_charges"):
            raise InputError(
                "was labelled in point charges, which the file does not hold",
                source=source,
                field=f"frame {i}: n_charges",
                value=atoms.info["n_charges"],
                remedy="leave such frames out",
            )
        pbc = np.asarray(atoms.pbc)
        try:
            frame = Frame(
                numbers=atoms.numbers,
                positions=atoms.positions,
                cell=np.asarray(atoms.cell) if pbc.any() else np.zeros((3, 3)),
                pbc=pbc,
                charge=_integer(atoms.info, "charge", 0),
                multiplicity=_integer(atoms.info, "multiplicity", 1),
            )
        except InputError as error:
            place = ": ".join(part for part in (f"frame {i}", error.field) if part)
            raise InputError(
                error.message, source=source, field=place, value=error.value, remedy=error.remedy
            ) from None
        labelled.append((frame, float(energy), np.asarray(forces, dtype=np.float64)))
    return labelled


def _named(found: Mapping[str, Any], names: tuple[str, ...], source: str, i: int) -> Any:
    """The one value that has one of these names; None where none has.

    Raises:
        InputError: Several have, with different values.
    """
    values = {name: found[name] for name in names if name in found}
    if not values:
        return None
    first, *others = values.values()
    if any(not np.array_equal(first, other) for other in others):
        raise InputError(
            f"{' and '.join(values)} differ",
            source=source,
            field=f"frame {i}: {names[0]}",
            remedy=f"keep the one that counts and name it {names[0]}",
        )
    return first


def _check_units(info: Mapping[str, Any], source: str, i: int) -> None:
    """Refuses a frame that says that it is in other units; one that says nothing is in eV and Angstrom."""
    for key, unit in UNITS.items():
        said = info.get(key)
        if said is not None and str(said).lower() not in (unit.lower(), unit.lower().replace("angstrom", "ang")):
            raise InputError(
                f"must be {unit}", source=source, field=f"frame {i}: {key}", value=said, remedy="convert the file"
            )


def _blocks(snapshot: Snapshot, rows: Sequence[int], level: str) -> Iterator[list[str]]:
    offsets = snapshot.offsets.tolist()
    for i in rows:
        part = slice(offsets[i], offsets[i + 1])
        symbols = [chemical_symbols[number] for number in snapshot.numbers[part].tolist()]
        coordinates = np.concatenate([snapshot.positions[part], snapshot.forces[part]], axis=1).tolist()
        atoms = [f"{symbol:<2} {' '.join(map(repr, row))}\n" for symbol, row in zip(symbols, coordinates, strict=True)]
        if not snapshot.mask[part].all():
            atoms = [f"{line[:-1]} {'FT'[int(m)]}\n" for line, m in zip(atoms, snapshot.mask[part], strict=True)]
        comment = _comment(snapshot, i, bool(snapshot.mask[part].all()))
        yield [f"{len(symbols)}\n", f"{comment}{level}\n", *atoms]


def _unlabelled(frame: Frame, facts: Mapping[str, object]) -> list[str]:
    symbols = [chemical_symbols[number] for number in frame.numbers.tolist()]
    fields: dict[str, object] = {
        "Properties": "species:S:1:pos:R:3",
        "charge": frame.charge,
        "multiplicity": frame.multiplicity,
        **({} if frame.environment is None else {"n_charges": frame.environment.n_charges}),
        **{name: _quoted(value) if isinstance(value, str) else value for name, value in facts.items()},
        "frame_id": f"id-{frame.frame_id}",
        "pbc": _quoted(" ".join("FT"[int(is_periodic)] for is_periodic in frame.pbc)),
    }
    if frame.cell.any():
        fields = {"Lattice": _quoted(" ".join(map(repr, frame.cell.reshape(9).tolist()))), **fields}
    atoms = [
        f"{symbol:<2} {' '.join(map(repr, row))}\n"
        for symbol, row in zip(symbols, frame.positions.tolist(), strict=True)
    ]
    return [f"{len(symbols)}\n", " ".join(f"{name}={value}" for name, value in fields.items()) + "\n", *atoms]


def _comment(snapshot: Snapshot, i: int, is_whole: bool) -> str:
    fields = {
        "Properties": "species:S:1:pos:R:3:forces:R:3" + ("" if is_whole else ":mask:L:1"),
        "energy": repr(float(snapshot.energy[i])),
        "charge": int(snapshot.charge[i]),
        "multiplicity": int(snapshot.multiplicity[i]),
        "arm": str(ARMS[snapshot.arm[i]]),
        "system": _quoted(snapshot.systems[snapshot.system[i]]),
        "trajectory": int(snapshot.trajectory[i]),
        "model_version": int(snapshot.model_version[i]),
        "frame_id": f"id-{snapshot.frame_ids[i]}",
        "pbc": _quoted(" ".join("FT"[int(is_periodic)] for is_periodic in snapshot.pbc[i])),
    }
    if np.isfinite(snapshot.stress[i]).all():
        fields["stress"] = _quoted(" ".join(map(repr, snapshot.stress[i].reshape(9).tolist())))
    if snapshot.n_charges is not None and snapshot.n_charges[i]:
        fields["n_charges"] = int(snapshot.n_charges[i])
    if np.isfinite(snapshot.deviation[i]):
        fields["deviation"] = repr(float(snapshot.deviation[i]))
    if snapshot.cell[i].any():
        fields = {"Lattice": _quoted(" ".join(map(repr, snapshot.cell[i].reshape(9).tolist()))), **fields}
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _quoted(text: str) -> str:
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_finite(value: object) -> bool:
    try:
        return bool(np.isfinite(np.asarray(value, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return False


def _integer(info: dict[str, object], name: str, default: int) -> int:
    value = info.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or int(value) != value:
        raise InputError("must be an integer", field=name, value=value)
    return int(value)
