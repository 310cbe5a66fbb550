"""What a format is, and what readers and writers share: files that appear whole, groups of alike frames, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alsys.errors import EnvironmentProblem, InputError
from alsys.files import replacing
from alsys.frames import IntArray
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.keys import KeyChoice
from alsys.interop.raw_frames import RawFrames, formula
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

CHUNK = 1024
"""Frames that a reader of arrays yields at once."""
SENT_ATOMS = 4096
"""Atoms from which on frames are handed over."""


class Reader(Protocol):
    """Yields the frames of a path."""

    def __call__(self, path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
        """Frames in order; raises `InputError` for what it refuses, or tells the account.

        Args:
            path: File or folder.
            account: That names and refused frames are told; None for one that raises at the first.
        """
        ...


class Writer(Protocol):
    """Writes a snapshot at a level to a path and returns the number of frames."""

    def __call__(self, snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
        """Writes a file or folder, which appears whole; raises `InputError` for frames that the format cannot hold.

        Args:
            snapshot: The frames.
            path: Of what is not there yet.
            level: Of the labels.
            terms: Licence, source and citation in one line (`alsys.interop.terms`); empty for none.
        """
        ...


def read_all(
    read: Reader, path: Path, choice: KeyChoice, charge: int, multiplicity: int | None = None
) -> Iterator[list[RawFrames] | FileAccount]:
    """All frames, several at once, and then the account of the file; runs in a process of its own.

    Args:
        read: Of a format.
        path: File or folder.
        choice: Which of several names is meant.
        charge: Total charge of frames that state none.
        multiplicity: Likewise; None for unknown.
    """
    account = FileAccount(choice, is_tolerant=True, charge=charge, multiplicity=multiplicity)
    held: list[RawFrames] = []
    n_atoms = 0
    for raw in read(path, account):
        held.append(raw)
        n_atoms += raw.numbers.size * raw.n_frames
        if n_atoms >= SENT_ATOMS:
            yield held
            held, n_atoms = [], 0
    yield held
    yield account


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        name: As the command line has it.
        units: What it comes in.
        level: Level of theory of the data set that has this format; None where anything may be in it.
        electrons: What a file that says nothing means: ``neutral`` singlets by the data set's definition; ``assumed``
            neutral singlets as long as the electrons allow it; ``required``, it must be said.
        recognises: Whether a path looks like it.
        read: See `Reader`.
        write: See `Writer`.
        holds_electrons: Whether it has charges and multiplicities; one that has not holds neutral singlets only.
        is_of_one_level: Its names say that labels are of `level`: nobody may say otherwise.
    """

    name: str
    units: UnitSet
    level: LevelOfTheory | None
    electrons: str
    recognises: Callable[[Path], bool]
    read: Reader
    write: Writer
    holds_electrons: bool = True
    is_of_one_level: bool = False


def require(package: str) -> Any:
    """Imports a package of the extra `data`.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise EnvironmentProblem(f"this format needs {package}; install alsys with the extra `data`") from error


def starts_with(path: Path, magic: bytes) -> bool:
    """Whether a file begins with these bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


@dataclass(frozen=True, slots=True)
class Alike:
    """Rows of a snapshot that share atoms in order, charge, multiplicity and periodic directions.

    Attributes:
        name: Formula.
        rows: ``(n_frames,)`` in the order of the snapshot.
        atoms: ``(n_frames, n_atoms)`` their atoms.
        numbers: ``(n_atoms,)``.
    """

    name: str
    rows: IntArray
    atoms: IntArray
    numbers: NDArray[np.int32]
    charge: int
    multiplicity: int
    pbc: tuple[bool, bool, bool]


def alike(snapshot: Snapshot) -> list[Alike]:
    """A snapshot's rows by what they share, in the order of each group's first row."""
    groups: dict[tuple[bytes, int, int, tuple[bool, bool, bool]], list[int]] = {}
    offsets = snapshot.offsets
    for i in range(snapshot.n_frames):
        z = snapshot.numbers[offsets[i] : offsets[i + 1]]
        a, b, c = snapshot.pbc[i].tolist()
        key = (z.astype("<i4").tobytes(), int(snapshot.charge[i]), int(snapshot.multiplicity[i]), (a, b, c))
        groups.setdefault(key, []).append(i)
    found = []
    for (z_bytes, charge, multiplicity, pbc), rows in groups.items():
        numbers = np.frombuffer(z_bytes, dtype="<i4").astype(np.int32)
        index = np.array(rows, dtype=np.int64)
        atoms = offsets[index][:, None] + np.arange(numbers.size)
        found.append(Alike(formula(z_bytes), index, atoms, numbers, charge, multiplicity, pbc))
    return found


def refuse_beyond(snapshot: Snapshot, name: str, *, electrons: bool = False, cells: bool = False) -> None:
    """Refuses frames that a format cannot hold.

    Args:
        snapshot: To be written.
        name: Of the format.
        electrons: Whether it holds charges and multiplicities.
        cells: Whether it holds cells.

    Raises:
        InputError: Names what it cannot hold.
    """
    remedy = "choose extxyz, ase-db or omol25, which do"
    if not snapshot.mask.all():
        raise InputError("holds no masked atoms", field=f"format {name}", remedy="choose extxyz, which does")
    if snapshot.n_charges is not None and snapshot.n_charges.any():
        raise InputError("holds no point charges around frames", field=f"format {name}", remedy="leave such frames out")
    if not electrons and ((snapshot.charge != 0).any() or (snapshot.multiplicity != 1).any()):
        raise InputError("holds neutral singlets only", field=f"format {name}", remedy=remedy)
    if not cells and snapshot.pbc.any():
        raise InputError("holds molecules only", field=f"format {name}", remedy=remedy)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """As `alsys.files.replacing`, durably, for a path that a user has named.

    Raises:
        InputError: It cannot be written.
    """
    try:
        with replacing(path) as unfinished:
            yield unfinished
    except FileExistsError as error:
        raise InputError("exists", source=str(path), remedy="name a new folder") from error
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", source=str(path)) from error
