"""Extended XYZ: labelled frames out for other codes, published frames in for certification.

Numbers are written in full, so that a frame read back is the frame that was written, identity included. A file appears
under its name only when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from ase.data import chemical_symbols

from alsys.errors import InputError
from alsys.files import replacing
from alsys.frames import ARMS, Arm, FloatArray, Frame
from alsys.interop.account import FileAccount
from alsys.interop.extxyz_rows import rows
from alsys.interop.file_units import UnitSet, energy_unit, force_unit, length_unit, stress_unit
from alsys.interop.keys import KeyChoice
from alsys.interop.raw_frames import RawFrames, gathered
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.outside.child import read_in_child
from alsys.outside.contents import check_regular, encoding_of
from alsys.outside.limits import DATA_SET
from alsys.store.base import Snapshot

_READ: Final = UnitSet()
SAVE_AS_UTF8: Final = "save it as UTF-8, or say what it is with --format"


@dataclass(frozen=True, slots=True)
class ExtxyzKeys:
    """Names of labels in a file.

    Attributes:
        energy: In the comment line, eV.
        forces: Of three columns, eV/Angstrom.
        stress: In the comment line, eV/Angstrom^3.
        free_atom: What ``config_type`` is of free atoms; empty for none.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    free_atom: str = ""


ASE_KEYS: Final = ExtxyzKeys()
"""Where ASE looks for them, and NequIP."""
MACE_KEYS: Final = ExtxyzKeys("REF_energy", "REF_forces", "REF_stress", "IsolatedAtom")
"""Defaults of ``mace_run_train``, which ASE does not take for results of a calculator."""


def export_extxyz(
    snapshot: Snapshot,
    path: str | Path,
    *,
    arms: Sequence[Arm] | None = None,
    level: LevelOfTheory | None = None,
    keys: ExtxyzKeys = ASE_KEYS,
    terms: str = "",
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
        keys: Under which names labels stand.
        terms: Licence, source and citation, for each comment line; empty for none.

    Raises:
        InputError: The file cannot be written.
    """
    keep = np.ones(snapshot.n_frames, dtype=np.bool_) if arms is None else snapshot.is_arm(*arms)
    rows = np.flatnonzero(keep).tolist()
    about = "" if level is None else f" level={_quoted(level.canonical)}"
    about += f" {KEY}={_quoted(terms)}" if terms else ""
    _write(_blocks(snapshot, rows, about, keys), Path(path))
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
    try:
        with replacing(path) as unfinished, unfinished.open("x", encoding="utf-8", newline="\n") as file:
            for lines in blocks:
                file.writelines(lines)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", source=str(path), remedy="name a file in a folder with space"
        ) from error


def open_text(path: Path) -> TextIO:
    """A file of text, in UTF-8, or in UTF-16 where a byte order mark says so.

    Raises:
        InputError: It is no text.
        OSError: It cannot be read.
    """
    if not (encoding := encoding_of(path)):
        raise InputError("is no text", remedy=SAVE_AS_UTF8)
    return path.open(encoding=encoding)


def _frames_of(path: Path, choice: KeyChoice | None) -> list[RawFrames]:
    """All frames; runs in a process of its own."""
    account = FileAccount(choice)
    try:
        with open_text(path) as file:
            return list(gathered(rows(file, account), "frame", account))
    except UnicodeDecodeError as error:
        raise InputError("is no text", remedy=SAVE_AS_UTF8) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


def read_labelled(path: str | Path, choice: KeyChoice | None = None) -> list[tuple[Frame, float, FloatArray]]:
    """Reads frames with energies (eV) and forces ``(n_atoms, 3)`` (eV/Angstrom).

    Names are found as an import finds them (`alsys.interop.keys`). A frame that is not periodic loses its lattice,
    which is a mere box there. Charge and multiplicity are 0 and 1 where the comment line has none.

    Args:
        path: The file.
        choice: Which of several names is meant.

    Raises:
        InputError: The file cannot be read, a frame lacks energy or forces or holds something impossible, or two of its
            columns could be meant; names file, frame (the first is 0) and what is wrong.
    """
    try:
        check_regular(Path(path))
        frames = read_in_child(_frames_of, DATA_SET.for_(Path(path)), Path(path), choice)
        return [one for raw in frames for one in _labelled(raw)]
    except InputError as error:
        raise error.located(source=str(path)) from error


def _labelled(raw: RawFrames) -> Iterator[tuple[Frame, float, FloatArray]]:
    read = {"energy": energy_unit, "force": force_unit, "length": length_unit, "stress": stress_unit}
    for what, said in raw.units:
        if what != "stress" and read[what](said) != getattr(_READ, what):
            raise InputError(
                f"must be {getattr(_READ, what)}",
                field=f"{raw.place_of(0)}: {what} unit",
                value=said,
                remedy="convert the file",
            )
    for i in range(raw.n_frames):
        try:
            frame = Frame(
                numbers=raw.numbers,
                positions=raw.positions[i],
                cell=np.zeros((3, 3)) if raw.cell is None else raw.cell[i],
                pbc=np.array(raw.pbc),
                charge=0 if raw.charge is None else raw.charge,
                multiplicity=1 if raw.multiplicity is None else raw.multiplicity,
            )
        except InputError as error:
            place = ": ".join(part for part in (raw.place_of(i), error.field) if part)
            raise InputError(error.message, field=place, value=error.value, remedy=error.remedy) from None
        yield frame, float(raw.energy[i]), raw.forces[i]


def _blocks(snapshot: Snapshot, rows: Sequence[int], about: str, keys: ExtxyzKeys) -> Iterator[list[str]]:
    offsets = snapshot.offsets.tolist()
    for i in rows:
        part = slice(offsets[i], offsets[i + 1])
        symbols = [chemical_symbols[number] for number in snapshot.numbers[part].tolist()]
        coordinates = np.concatenate([snapshot.positions[part], snapshot.forces[part]], axis=1).tolist()
        atoms = [f"{symbol:<2} {' '.join(map(repr, row))}\n" for symbol, row in zip(symbols, coordinates, strict=True)]
        if not snapshot.mask[part].all():
            atoms = [f"{line[:-1]} {'FT'[int(m)]}\n" for line, m in zip(atoms, snapshot.mask[part], strict=True)]
        comment = _comment(snapshot, i, bool(snapshot.mask[part].all()), keys)
        yield [f"{len(symbols)}\n", f"{comment}{about}\n", *atoms]


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


def _comment(snapshot: Snapshot, i: int, is_whole: bool, keys: ExtxyzKeys) -> str:
    fields: dict[str, object] = {
        "Properties": f"species:S:1:pos:R:3:{keys.forces}:R:3" + ("" if is_whole else ":mask:L:1"),
        keys.energy: repr(float(snapshot.energy[i])),
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
        fields[keys.stress] = _quoted(" ".join(map(repr, snapshot.stress[i].reshape(9).tolist())))
    if snapshot.n_charges is not None and snapshot.n_charges[i]:
        fields["n_charges"] = int(snapshot.n_charges[i])
    if np.isfinite(snapshot.deviation[i]):
        fields["deviation"] = repr(float(snapshot.deviation[i]))
    if snapshot.cell[i].any():
        fields = {"Lattice": _quoted(" ".join(map(repr, snapshot.cell[i].reshape(9).tolist()))), **fields}
    if keys.free_atom and snapshot.arm[i] == ARMS.index(Arm.ATOM):
        fields["config_type"] = keys.free_atom
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _quoted(text: str) -> str:
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
