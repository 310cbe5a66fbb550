"""What the HDF5 formats share: groups of conformations, read in slices, and datasets that are checked first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alsys.errors import InputError
from alsys.interop.formats.base import CHUNK, require, starts_with

MAGIC = b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading.

    Raises:
        InputError: It is none.
    """
    h5py = require("h5py")
    if not starts_with(path, MAGIC):
        raise InputError("is no HDF5 file", source=str(path))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"cannot be read: {error}", source=str(path)) from error
    with file:
        try:
            yield file
        except OSError as error:  # a damaged chunk is found when it is read
            raise InputError(f"cannot be read: {error}", source=str(path)) from error


def groups(file: Any, marker: str, depth: int = 6) -> Iterator[tuple[str, Any]]:
    """Groups that hold a dataset named `marker`, to some depth (links may make circles), with their path."""
    if marker in file:
        yield file.name.strip("/"), file
        return
    for name in file if depth else ():
        if hasattr(file[name], "keys"):
            yield from groups(file[name], marker, depth - 1)


def holds(path: Path, *names: str) -> bool:
    """Whether the first group with atomic numbers holds these datasets."""
    if not starts_with(path, MAGIC):
        return False
    with opened(path) as file:
        first = next(groups(file, "atomic_numbers"), None)
        return first is not None and all(name in first[1] for name in names)


def dataset(group: Any, name: str, place: str) -> Any:
    """A numeric dataset, not read yet.

    Raises:
        InputError: Missing, or no numbers.
    """
    if name not in group:
        raise InputError("is missing", field=f"{place}: {name}", remedy="give frames with energies and forces")
    found = group[name]
    if not hasattr(found, "dtype") or found.dtype.kind not in "fiu":
        raise InputError(
            "must be an array of numbers", field=f"{place}: {name}", value=str(getattr(found, "dtype", ""))
        )
    return found


def slices(n: int) -> Iterator[slice]:
    """Conformations to be read at once."""
    for start in range(0, n, CHUNK):
        yield slice(start, min(start + CHUNK, n))


def n_conformations(positions: Any, others: dict[str, Any], place: str) -> int:
    """Length of the first axis, which all must share.

    Raises:
        InputError: They do not.
    """
    n = int(positions.shape[0]) if positions.shape else 0
    for name, values in others.items():
        if not values.shape or values.shape[0] != n:
            raise InputError(f"must hold {n} conformations", field=f"{place}: {name}", value=values.shape)
    return n
