"""What a reader of files yields: labelled frames of one composition as arrays, in the units of the file.

`checked` refuses wrong shapes, numbers that are not finite and payloads that are no plain numbers, naming the place;
it is the one way by which arrays of a file become `RawFrames`. `gathered` takes the rows of a file of single frames
through it, many alike ones at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import MAX_ATOMIC_NUMBER, FloatArray
from alsys.interop.account import FileAccount


@dataclass(frozen=True, slots=True)
class RawFrames:
    """Some frames that share atoms, charge, spin and level.

    Attributes:
        numbers: ``(n_atoms,)``.
        positions: ``(n_frames, n_atoms, 3)``, length unit of the file.
        energy: ``(n_frames,)``, energy unit of the file.
        forces: ``(n_frames, n_atoms, 3)``, force unit of the file.
        place: What the frames are called there, for example ``frame`` or ``C2H6O conformation``.
        first: Number of the first one there.
        group: Frames of one group are related: of one molecule or trajectory.
        cell: ``(n_frames, 3, 3)``, length unit of the file; None where there is none.
        pbc: ``(3,)``.
        charge: Total charge; None where the file does not say.
        multiplicity: 2S + 1; None where the file does not say.
        stress: ``(n_frames, 3, 3)``, energy unit over length unit cubed, tension positive; None where there is none.
        mask: ``(n_atoms,)`` atoms whose forces may be learned from; None for all.
        level: Level of theory as the file states it; empty where it does not.
        units: Units that the file states: ``energy``, ``force``, ``length``.
    """

    numbers: NDArray[np.int32]
    positions: FloatArray
    energy: FloatArray
    forces: FloatArray
    place: str
    first: int
    group: str
    cell: FloatArray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int | None = None
    multiplicity: int | None = None
    stress: FloatArray | None = None
    mask: NDArray[np.bool_] | None = None
    level: str = ""
    units: tuple[tuple[str, str], ...] = ()

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.energy.size)

    def place_of(self, i: int) -> str:
        """What one frame is called."""
        return f"{self.place} {self.first + i}"


def checked(
    numbers: Any,
    positions: Any,
    energy: Any,
    forces: Any,
    *,
    place: str,
    first: int = 0,
    group: str = "",
    cell: Any = None,
    stress: Any = None,
    **rest: Any,
) -> RawFrames:
    """Arrays of a file as `RawFrames`.

    Args:
        numbers: ``(n_atoms,)``.
        positions: ``(n_frames, n_atoms, 3)``, or flat for each frame.
        energy: ``(n_frames,)`` or ``(n_frames, 1)``.
        forces: As `positions`.
        place: See `RawFrames`.
        first: See `RawFrames`.
        group: Default is the formula.
        cell: ``(n_frames, 3, 3)`` or ``(n_frames, 9)``.
        stress: As `cell`.
        **rest: Further fields of `RawFrames`.

    Raises:
        InputError: Names frame and field.
    """
    where = f"{place} {first}"
    z = np.asarray(numbers)
    if z.ndim != 1 or z.size == 0 or z.dtype.kind not in "iu":
        raise InputError("must be atomic numbers, one for each atom", field=f"{where}: atomic numbers", value=z.shape)
    if z.min() < 1 or z.max() > MAX_ATOMIC_NUMBER:
        raise InputError("atomic numbers run from 1 to 118", field=f"{where}: atomic numbers", value=int(z.min()))
    e = _numbers(energy, f"{where}: energy").reshape(-1)
    k, n = e.size, int(z.size)

    def shaped(value: Any, shape: tuple[int, ...], name: str) -> FloatArray:
        array = _numbers(value, f"{where}: {name}")
        if array.shape != shape and array.shape != (shape[0], int(np.prod(shape[1:]))):
            raise InputError(f"must be of shape {shape}", field=f"{where}: {name}", value=array.shape)
        return array.reshape(shape)

    x, f = shaped(positions, (k, n, 3), "positions"), shaped(forces, (k, n, 3), "forces")
    h = None if cell is None else shaped(cell, (k, 3, 3), "cell")
    s = None if stress is None else shaped(stress, (k, 3, 3), "stress")
    for name, array in (("energy", e), ("positions", x), ("forces", f), ("cell", h), ("stress", s)):
        if array is not None and array.size and not float(np.abs(array).max()) < MAX_VALUE:
            if np.isfinite(array).all():
                raise InputError(
                    f"holds numbers beyond {MAX_VALUE:g}", field=f"{where}: {name}", value=float(np.abs(array).max())
                )
            row = int(np.argmax(~np.isfinite(array.reshape(k, -1)).all(axis=1)))
            raise InputError(
                "holds NaN or infinity", field=f"{place} {first + row}: {name}", remedy="leave such frames out"
            )
    if all(rest.get("pbc", (False,))):
        volume = np.zeros(k) if h is None else np.abs(np.linalg.det(h))
        if (flat := volume < MIN_VOLUME).any():
            raise InputError(
                "spans no volume",
                field=f"{place} {first + int(np.argmax(flat))}: cell",
                value=None if h is None else h[int(np.argmax(flat))].tolist(),
                remedy="give three vectors, or say that the frame is not periodic",
            )
    symbols = formula(z.astype("<i4").tobytes())
    return RawFrames(z.astype(np.int32), x, e, f, place, first, group or symbols, cell=h, stress=s, **rest)


MIN_VOLUME = 1e-3
"""Of a periodic frame, in any unit of length."""
MAX_VALUE = 1e12
"""Of any number of a frame, in whatever unit; squares of larger ones, summed, are no numbers any more."""
MAX_GATHERED = 256
"""Rows that are checked at a time."""
MAX_GATHERED_ATOMS = 16_384
"""And their atoms; a larger row is alone."""


@dataclass(slots=True)
class RawRow:
    """One frame as a reader found it, not checked; fields as in `RawFrames`, without the first axis.

    Attributes:
        number: In its file.
        numbers: ``(n_atoms,)``.
    """

    number: int
    numbers: Any
    positions: Any
    energy: Any
    forces: Any
    cell: Any = None
    pbc: tuple[bool, ...] = (False, False, False)
    charge: int | None = None
    multiplicity: int | None = None
    stress: Any = None
    mask: Any = None
    level: str = ""
    units: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> tuple[object, ...] | None:
        """What rows share that are checked together; None for one that is checked, and perhaps refused, by itself."""
        z = self.numbers
        if not isinstance(z, np.ndarray) or z.ndim != 1 or self.mask is not None or not isinstance(self.energy, float):
            return None
        n = len(z)
        if not (_is_plain(self.positions, (n, 3)) and _is_plain(self.forces, (n, 3))):
            return None
        if not all(array is None or _is_plain(array, (3, 3)) for array in (self.cell, self.stress)):
            return None
        return (
            z.dtype, z.tobytes(), self.pbc, self.charge, self.multiplicity, self.level, self.units,
            self.cell is None, self.stress is None,
        )  # fmt: skip


def _is_plain(array: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype.kind in "fiu"


def checked_each(
    account: FileAccount,
    numbers: Any,
    positions: Any,
    energy: Any,
    forces: Any,
    *,
    place: str,
    first: int = 0,
    cell: Any = None,
    stress: Any = None,
    **rest: Any,
) -> Iterator[RawFrames]:
    """Arrays of several frames as `checked` has them; where one is refused, each by itself.

    Args:
        account: That refused frames are told.
        numbers: See `checked`, as all the others.
        positions: ``(n_frames, ...)``.
        energy: ``(n_frames, ...)``.
        forces: ``(n_frames, ...)``.
        place: See `RawFrames`.
        first: See `RawFrames`.
        cell: ``(n_frames, ...)``.
        stress: ``(n_frames, ...)``.
        **rest: Further fields of `RawFrames`.

    Raises:
        InputError: See `checked`; where the account does not collect them.
    """
    try:
        raw = checked(numbers, positions, energy, forces, place=place, first=first, cell=cell, stress=stress, **rest)
    except InputError as error:
        n = len(energy)
        if not account.is_tolerant or n == 1:
            account.refuse(f"{place} {first}", error)
            return
    else:
        yield raw
        return
    for i in range(n):
        part = slice(i, i + 1)
        box, virial = (None if values is None else values[part] for values in (cell, stress))
        arrays = numbers, positions[part], energy[part], forces[part]
        yield from checked_each(account, *arrays, place=place, first=first + i, cell=box, stress=virial, **rest)


def gathered(rows: Iterable[RawRow], place: str, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Checked frames in the order of their rows; neighbours that are alike, with numbers in sequence, come together.

    Args:
        rows: As a file has them.
        place: See `RawFrames`.
        account: That refused frames are told; None raises at the first.

    Raises:
        InputError: See `checked`; where the account does not collect them.
    """
    account = FileAccount() if account is None else account
    held: list[RawRow] = []
    shared: tuple[object, ...] | None = None
    for row in rows:
        kind = row.kind
        if held and (
            kind is None
            or kind != shared
            or row.number != held[-1].number + 1
            or len(held) == MAX_GATHERED
            or (len(held) + 1) * len(row.numbers) > MAX_GATHERED_ATOMS
        ):
            yield from _checked_rows(held, place, account)
            held = []
        held.append(row)
        shared = kind
    if held:
        yield from _checked_rows(held, place, account)


def _checked_rows(rows: list[RawRow], place: str, account: FileAccount) -> Iterator[RawFrames]:
    first = rows[0]

    def together(values: list[Any]) -> Any:
        if values[0] is None:
            return None
        return np.stack(values) if len(values) > 1 else np.asarray(values[0])[None]

    try:
        batch = (
            first.numbers,
            together([row.positions for row in rows]),
            None if first.energy is None else np.array([row.energy for row in rows]).reshape(-1),
            together([row.forces for row in rows]),
        )
        cell, stress = together([row.cell for row in rows]), together([row.stress for row in rows])
        raw = checked(
            *batch,
            place=place,
            first=first.number,
            cell=cell,
            stress=stress,
            pbc=first.pbc,
            charge=first.charge,
            multiplicity=first.multiplicity,
            mask=first.mask,
            level=first.level,
            units=first.units,
        )
    except InputError as error:
        if len(rows) == 1 or not account.is_tolerant:
            account.refuse(f"{place} {first.number}", error)
        else:
            for row in rows:
                yield from _checked_rows([row], place, account)
        return
    yield raw


@lru_cache(maxsize=4096)
def formula(numbers: bytes) -> str:
    """Formula of ``<i4`` atomic numbers in the order of Hill."""
    counts = Counter(chemical_symbols[z] for z in np.frombuffer(numbers, dtype="<i4").tolist())
    leading = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    order = leading + sorted(s for s in counts if s not in leading)
    return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in order)


def integer(value: Any, field: str) -> int:
    """A whole number.

    Raises:
        InputError: It is none.
    """
    if type(value) is int:
        return value
    try:
        number = float(np.asarray(value).reshape(()).item())
        if number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError("must be a whole number", field=field, value=value)


def _numbers(value: Any, field: str) -> FloatArray:
    if value is None:
        raise InputError("is missing", field=field, remedy="give frames with energies and forces")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError("must be an array of numbers", field=field) from error
    if array.dtype.kind not in "fiu":
        raise InputError("must be an array of numbers", field=field, value=str(array.dtype))
    return array.astype(np.float64, copy=False)
