"""What files of arrays say beside their labels, by the rules that hold for extended XYZ and rows of ASE.

Arrays are looked at by name (`alsys.interop.keys`); only those that may say something of a frame are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.interop.account import FileAccount, same_numbers, selected
from alsys.interop.extxyz_rows import CONSTRAINT, LEVEL_KEYS, PARTS_OF_LEVEL, stated_level
from alsys.interop.formats.base import CHUNK
from alsys.interop.keys import ChoiceNeeded, Selection
from alsys.interop.stated_electrons import SUM_TOLERANCE, stated_electrons
from alsys.said import is_there, unit_of, words_of

NOT_DEFINED: Final = "not the one that this format is defined by"
_CELLS: Final = frozenset(
    {
        "lattice", "lattices", "lattice_vectors", "cell", "cells", "cellpar", "unit_cell", "unit_cells", "unitcell",
        "box", "boxes", "pbc",
    }
)  # fmt: skip
_ELEMENTS: Final = frozenset(["z", "numbers", "atomic_numbers", "nuclear_charges", "species", "elements", "symbols"])


def label_of(
    account: FileAccount, what: str, own: str, values: Any, arrays: dict[str, Any], place: str, n: int, suffix: str = ""
) -> Any:
    """The array that holds a label: the format's own, or that of the user's choice, which is taken out of the others.

    Args:
        account: That names are told.
        what: ``energy`` or ``forces``.
        own: Name that the format has for it.
        values: The array of that name.
        arrays: All others of the file, by name.
        place: What the frames are called.
        n: Number of frames.
        suffix: Of names in the account.

    Raises:
        ChoiceNeeded: Another array of that size could be it and differs, and the user has not said which counts.
        InputError: There is none of the name that the user gave.
    """
    there = {own: values, **arrays}
    sized = tuple(
        name
        for name, v in there.items()
        if name == own or (v.size == values.size and {v.dtype.kind, values.dtype.kind} <= set("fiu"))
    )
    selection = selected(sized, (), account) if what == "energy" else selected((), sized, account)
    found = sorted(selection.energy if what == "energy" else selection.forces, key=lambda name: name != own)
    flat = {name: np.reshape(there[name], -1) for name in found}
    if not found:
        raise account.missing(what, place, list(there))
    name = account.chosen_among(what, found, flat, place, same_numbers)
    account.label_from(what, name + suffix, place)
    account.use(name + suffix, n)
    if name == own:
        return values
    account.leave_out(own + suffix, "not the one that was chosen", n)
    return arrays.pop(name)


def alike_frames(
    account: FileAccount,
    arrays: Mapping[str, Any],
    numbers: Any,
    n: int,
    place: str,
    *,
    level: str = "",
    is_periodic: bool = False,
) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Neighbouring frames that say the same, with ``charge``, ``multiplicity``, ``level`` and ``units`` of them.

    Args:
        account: That names and refused frames are told.
        arrays: By name: arrays or datasets that a format does not use itself, whose first axis may be that of frames.
        numbers: ``(n_atoms,)`` atomic numbers.
        n: Number of frames.
        place: What they are called.
        level: Of all frames; empty for what they state.
        is_periodic: Whether they are.

    Raises:
        ChoiceNeeded: A name may mean two things.
        InputError: A frame cannot be taken, and the account does not collect them.
    """
    z = np.asarray(numbers)
    n_atoms = z.size if z.ndim == 1 else 0
    shapes = {name: _inner(array, n, n_atoms) for name, array in arrays.items()}
    atom_names = [name for name, (_, inner) in shapes.items() if inner[:1] == (n_atoms,) and n_atoms > 1]
    selection = selected([name for name in arrays if name not in atom_names], atom_names, account)
    labels = (*selection.energy, *selection.forces, *(name for name, _ in selection.stress))
    dropped = [(name, NOT_DEFINED) for name in labels] + [(name, CONSTRAINT) for name in selection.fixed]
    account.meet(selection, dropped=tuple(dropped), place=place, n=n)
    levels = [name for name in arrays if name.lower() in (*LEVEL_KEYS, *PARTS_OF_LEVEL)]
    units = [name for name in arrays if unit_of(name)]
    cells = [name for name in arrays if "_".join(words_of(name)) in _CELLS]
    texts = [name for name, array in arrays.items() if getattr(array, "dtype", np.dtype("O")).kind in "SUO"]
    for name in arrays:
        if "_".join(words_of(name)) in _ELEMENTS:
            values = np.asarray(arrays[name][()] if hasattr(arrays[name], "id") else arrays[name])
            _check_elements(values, z, f"{place}s: {name}")
    read = {}
    for name in dict.fromkeys((*_telling(selection), *levels, *units, *cells, *texts)):
        is_of_frames, inner = shapes[name]
        values = np.asarray(arrays[name][()] if hasattr(arrays[name], "id") else arrays[name])
        values = values.reshape(n, *inner) if is_of_frames else values.reshape(inner)
        if not (name in (*selection.atom_charges, *selection.atom_moments) and _add_up_to_none(values, is_of_frames)):
            read[name] = values, is_of_frames
    changes = np.zeros(max(n - 1, 0), dtype=np.bool_)
    for values, is_of_frames in read.values():
        if is_of_frames:
            flat = values.reshape(n, -1)
            changes |= (flat[1:] != flat[:-1]).any(axis=1)
    starts = [0, *(np.flatnonzero(changes) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        said = {name: _plain(values[start] if of_frames else values) for name, (values, of_frames) in read.items()}
        where = f"{place} {start}"
        try:
            for name in (*cells, *(name for name in arrays if name.lower() == "mask")):
                if is_there(said[name]) if name in cells else not np.all(said[name]):
                    raise InputError(
                        "says more of the frames than this format has a place for", field=f"{where}: {name}",
                        remedy="give them as extxyz",
                    )  # fmt: skip
            charge, multiplicity = stated_electrons(selection, said, z, account, where, is_periodic=is_periodic)
        except ChoiceNeeded:
            raise
        except InputError as error:
            account.refuse(where, error, stop - start)
            continue
        facts = {
            "charge": charge,
            "multiplicity": multiplicity,
            "level": level or stated_level({name.lower(): said[name] for name in levels}),
            "units": (*((unit_of(name), str(said[name])) for name in units), *account.units),
        }
        for first in range(start, stop, CHUNK):
            yield slice(first, min(first + CHUNK, stop)), facts


def _check_elements(values: NDArray[Any], z: NDArray[Any], field: str) -> None:
    """Refuses atomic numbers or symbols that are those of other atoms than the frames'."""
    if values.dtype.kind in "SUO":
        words = [value.decode() if isinstance(value, bytes) else str(value) for value in values.reshape(-1).tolist()]
        if not all(word in atomic_numbers for word in words):
            return  # names of another kind
        values = np.array([atomic_numbers[word] for word in words])
    if values.dtype.kind not in "iu" or not z.size or values.size % z.size:
        return
    for row in values.reshape(-1, z.size):
        if (row != z).any():
            k = int(np.flatnonzero(row != z)[0])
            raise InputError(
                f"says that atom {k} is {row[k]}, and the format's own numbers {z[k]}",
                field=field, remedy="remove the wrong one",
            )  # fmt: skip


def _inner(array: Any, n: int, n_atoms: int) -> tuple[bool, tuple[int, ...]]:
    """Whether an array has a value for each frame, and the shape of one; atoms come first in it where it is of them."""
    shape = tuple(np.shape(array))
    is_of_frames = shape[:1] == (n,)
    inner = shape[1:] if is_of_frames else shape
    if inner == (3 * n_atoms,) and n_atoms > 1:
        return is_of_frames, (n_atoms, 3)
    return is_of_frames, () if int(np.prod(inner)) == 1 else inner


def _telling(selection: Selection) -> tuple[str, ...]:
    """Names whose values say something of a frame."""
    return (
        *selection.charge, *selection.multiplicity, *selection.unpaired, *selection.electrons, *selection.channels,
        *selection.spin, *selection.atom_charges, *selection.atom_moments, *selection.occupancies, *selection.judged,
        *(name for name in selection.other if name.lower() == "mask"),
    )  # fmt: skip


def _add_up_to_none(values: NDArray[Any], is_of_frames: bool) -> bool:
    """Whether numbers of atoms add up to zero in every frame, and so state nothing; vectors state more than a sum."""
    flat = values if is_of_frames else values[None]
    if flat.dtype.kind not in "fiu" or flat.ndim < 2 or (flat.ndim == 3 and flat.shape[-1] != 1):
        return False
    return bool((np.abs(flat.reshape(len(flat), -1).sum(axis=1)) <= SUM_TOLERANCE).all())


def _plain(value: Any) -> Any:
    """Arrays of one value as that value; bytes as text."""
    value = value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
