"""What the HDF5 formats share: groups of conformations, read in slices, and datasets that are checked first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.formats.base import require, starts_with
from alsys.interop.keys import needs_value

MAX_CHUNK_BYTES = 2**28
MIN_BOMB_BYTES, MAX_RATIO = 2**24, 200
"""Coordinates, energies and forces compress 10 times at most."""
_REPACK = "repack it with smaller chunks (h5repack)"
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
        raise InputError(
            "cannot be read: it is cut off or damaged", source=str(path), remedy="copy it again"
        ) from error
    with file:
        try:
            yield file
        except OSError as error:  # a damaged chunk is found when it is read
            raise InputError(f"cannot be read: {error}", source=str(path)) from error


def groups(file: Any, marker: str, depth: int = 6, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Groups that hold a dataset named `marker`, to some depth, with their path; once each, wherever links lead.

    Raises:
        InputError: The file points to another one.
    """
    seen = set() if seen is None else seen
    where = require("h5py").h5o.get_info(file.id).addr
    if where in seen:
        return
    seen.add(where)
    names = _own_names(file)
    if marker in names:
        yield file.name.strip("/"), file
        return
    for name in names if depth else ():
        if hasattr(file[name], "keys"):
            yield from groups(file[name], marker, depth - 1, seen)


def molecules(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Name, group and atomic numbers ``(n_atoms,)`` of each molecule of a file.

    Raises:
        InputError: It is no HDF5 file, or holds none.
    """
    with opened(path) as file:
        name = None
        for name, group in groups(file, "atomic_numbers"):
            yield name, group, dataset(group, "atomic_numbers", name)[...].reshape(-1)
        if name is None:
            raise InputError("holds no group with `atomic_numbers`", source=str(path))


def _own_names(group: Any) -> list[str]:
    """Names in a group, none of which leads out of the file: nothing is opened before that is sure."""
    h5py = require("h5py")
    found = []
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                "is a link to another file, and no file but the given one is read",
                field=f"{group.name.strip('/')}/{name}".strip("/"),
                value=link.filename,
                remedy="copy the data into one file (h5repack, h5copy)",
            )
        if isinstance(link, h5py.SoftLink):
            _follow(group, link.path)
            if group.get(name) is None:  # `name in group` is true of a link that leads nowhere
                continue
        found.append(name)
    return found


def _follow(group: Any, path: str, depth: int = 16) -> None:
    """Refuses a soft link whose way leads through another file, or round in a circle, without opening what is there."""
    h5py = require("h5py")
    if depth == 0:
        raise InputError(
            "is a link that leads to others without end, or back to itself",
            field=path,
            remedy="remove it (h5repack, h5copy)",
        )
    here = group.file if path.startswith("/") else group
    for name in path.split("/"):
        if name in ("", "."):
            continue
        link = here.get(name, getlink=True) if hasattr(here, "keys") else None
        if link is None:
            return
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                "is a link to another file, and no file but the given one is read", field=path, value=link.filename
            )
        if isinstance(link, h5py.SoftLink):
            _follow(here, link.path, depth - 1)
        here = here.get(name)


def _check_storage(found: Any, place: str) -> None:
    """Refuses values that lie in other files."""
    where = [entry[0] for entry in found.external or ()]
    if getattr(found, "is_virtual", False):
        where += [source.file_name for source in found.virtual_sources()]
    _check_sizes(found, place)
    if where:
        raise InputError(
            "keeps its values in another file, and no file but the given one is read",
            field=place,
            value=where[0],
            remedy="copy the data into one file (h5repack, h5copy)",
        )


def _check_sizes(found: Any, place: str) -> None:
    """Refuses values that nobody has written, or that are many times what is stored."""
    chunk = math.prod(found.chunks or (1,)) * found.dtype.itemsize
    if chunk > MAX_CHUNK_BYTES:
        raise InputError(
            "is stored in pieces that are too large", field=place, value=f"{chunk // 2**20} MB", remedy=_REPACK
        )
    stored = found.id.get_storage_size()
    if found.nbytes > MIN_BOMB_BYTES and found.nbytes > MAX_RATIO * stored:
        raise InputError(
            "is many times as large as what is stored of it",
            field=place,
            value=f"{found.nbytes / 2**20:.0f} MB, {stored / 2**20:.2f} MB stored",
            remedy="values are missing, or it was made to be large",
        )


def holds(path: Path, *names: str) -> bool:
    """Whether the first group with atomic numbers holds these datasets."""
    if not starts_with(path, MAGIC):
        return False
    with opened(path) as file:
        first = next(groups(file, "atomic_numbers"), None)
        return first is not None and set(names) <= set(_own_names(first[1]))


def dataset(group: Any, name: str, place: str) -> Any:
    """A numeric dataset, not read yet.

    Raises:
        InputError: Missing, or no numbers.
    """
    if name not in _own_names(group):
        raise InputError("is missing", field=f"{place}: {name}", remedy="give frames with energies and forces")
    found = _stored(group, name, place)
    if found is None or found.dtype.kind not in "fiu":
        raise InputError(
            "must be an array of numbers", field=f"{place}: {name}", value=str(getattr(found, "dtype", ""))
        )
    return found


def text_or_number(group: Any, name: str, place: str) -> Any:
    """A dataset of one value; None where it is not there.

    Raises:
        InputError: It lies in another file, or is neither text nor a number.
    """
    if name not in _own_names(group):
        return None
    found = _stored(group, name, place)
    if found is None or (found.dtype.kind not in "fiuS" and require("h5py").check_string_dtype(found.dtype) is None):
        raise InputError("must be text or a number", field=f"{place}: {name}", value=str(getattr(found, "dtype", "")))
    return found[()]


def _stored(group: Any, name: str, place: str) -> Any:
    """A dataset that has values, all of them in this file; None for a group, a type or an empty one."""
    found = group[name]
    if not isinstance(found, require("h5py").Dataset) or found.shape is None:
        return None
    _check_storage(found, f"{place}: {name}")
    return found


def tell(group: Any, account: FileAccount, used: Sequence[str], n: int) -> dict[str, Any]:
    """Tells the account the names of a group that a format uses; the other datasets and attributes, by name.

    Args:
        group: A molecule.
        account: Of the file.
        used: Names that are used.
        n: Its number of conformations.
    """
    place = group.name.strip("/")
    facts: dict[str, Any] = {**group.file.attrs, **group.attrs}
    for name in _own_names(group):
        if name in used:
            account.use(name, n)
        elif (found := _stored(group, name, place)) is not None:
            facts[name] = found
        elif needs_value(name):
            raise InputError("must be text or a number", field=f"{place}: {name}")
        else:
            account.ignore(name, n)
    return facts


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
