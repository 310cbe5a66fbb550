"""Extended XYZ, frame by frame: eV and Angstrom unless the user says otherwise.

Columns and keys are those of `alsys.interop.extxyz_rows`. A file is read as a stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.extxyz_files import SAVE_AS_UTF8, export_extxyz, open_text
from alsys.interop.extxyz_rows import rows
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.base import Format
from alsys.interop.raw_frames import RawFrames, gathered
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Frames in order, one at a time."""
    source = str(path)
    account = FileAccount() if account is None else account
    try:
        with open_text(path) as file:
            yield from gathered(rows(file, account), "frame", account)
    except UnicodeDecodeError as error:
        raise InputError("is no text", source=source, remedy=SAVE_AS_UTF8) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=source) from error


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """All frames, with their level."""
    return export_extxyz(snapshot, path, level=level, terms=terms)


FORMAT = Format(
    name="extxyz",
    units=UnitSet(),
    level=None,
    electrons="assumed",
    recognises=lambda path: path.suffix.lower() in (".xyz", ".extxyz"),
    read=read,
    write=write,
)
