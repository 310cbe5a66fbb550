"""Reading for an import: what a format yields, as labelled frames of one level in eV and Angstrom.

Levels that differ within a file, charges and spins that are missing or impossible, and units that a file states and
that are not those that are read are refused as soon as they are seen. Frames are made one by one, so a file is never
held as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from ase.data import ground_state_magnetic_moments
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.interop.file_units import UnitSet, energy_unit, force_unit, length_unit
from alsys.interop.formats.base import Format
from alsys.interop.proof import Sample
from alsys.interop.raw import RawFrames
from alsys.labels import LevelOfTheory
from alsys.outside.child import stream_from_child
from alsys.outside.limits import DATA_SET

_NO_CELL: Final = np.zeros((3, 3))


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What is to be imported, and what the user says of it.

    Attributes:
        path: File or folder.
        format: How to read it.
        level: Level of theory; None takes what the frames state, else that of the format.
        units: What the user says, by ``energy``, ``force`` and ``length``; others are the format's.
        charge: Total charge of frames that state none; None for unknown.
        multiplicity: 2S + 1 of frames that state none; None for unknown.
        take: Only frames that state this level; empty for all.
        system: What the frames are called.
        is_trusted: Units are not proven.
        temperature: Of the equilibrium that the frames sample by dynamics at the campaign's own level, K; 0 where they
            do not, or nobody says so.
    """

    path: Path
    format: Format
    level: LevelOfTheory | None = None
    units: tuple[tuple[str, str], ...] = ()
    charge: int | None = None
    multiplicity: int | None = None
    take: str = ""
    system: str = "imported"
    is_trusted: bool = False
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class LabelledSample(Sample):
    """A sample with what else is stored of it."""

    group: str
    stress: FloatArray | None
    mask: NDArray[np.bool_] | None


class Reading:
    """Converts what a reader yields into samples of one level, in eV and Angstrom, as a stream.

    Attributes:
        level: Known from the first frame on.
        units: That are read.
        stream: The samples.
    """

    def __init__(self, order: ImportOrder) -> None:
        self._order = order
        self.level: LevelOfTheory | None = None
        units, said = order.format.units, dict(order.units)
        self.units = UnitSet(
            said.get("energy", units.energy), said.get("force", units.force), said.get("length", units.length)
        )
        self.stream = self._convert()
        self._stated: tuple[str, str] | None = None
        self._says_charge: tuple[bool, str] | None = None
        self._checked_units: set[tuple[tuple[str, str], ...]] = set()

    def _convert(self) -> Iterator[LabelledSample]:
        order = self._order
        for raw in stream_from_child(order.format.read, DATA_SET.for_(order.path), order.path):
            if order.take and raw.level != order.take:
                continue
            self._check_level(raw)
            self._check_units(raw)
            yield from self._labelled(raw)

    def _check_level(self, raw: RawFrames) -> None:
        """All frames are of one level, stated in the same words, or nothing is."""
        place = raw.place_of(0)
        if self._stated is None:
            self._stated = (raw.level, place)
            said = self._order.level or (named_level(raw.level) if raw.level else self._order.format.level)
            if said is None:
                raise InputError(
                    "the level of theory is not stated",
                    field="level",
                    remedy="give --level: `campaign` where it is exactly the campaign's, else e.g. pbe/def2-svp",
                )
            self.level = said
        elif raw.level != self._stated[0]:
            first, where = self._stated
            raise InputError(
                f"levels of theory are mixed: {where} states {first or 'none'}, {place} states {raw.level or 'none'}",
                field="level",
                remedy=f"import each by itself with --take '{raw.level or first}'",
            )

    def _check_units(self, raw: RawFrames) -> None:
        if not raw.units or raw.units in self._checked_units:
            return
        read = {"energy": energy_unit, "force": force_unit, "length": length_unit}
        for what, text in raw.units:
            said, used = read[what](text), getattr(self.units, what)
            if said != used:
                raise InputError(
                    f"says that it is in {said}",
                    field=f"{raw.place_of(0)}: {what} unit",
                    value=used,
                    remedy=f"give --{what}-unit={said}",
                )
        self._checked_units.add(raw.units)

    def _labelled(self, raw: RawFrames) -> Iterator[LabelledSample]:
        units = self.units
        charge, multiplicity = self._electrons(raw)
        positions, forces = raw.positions, raw.forces
        if units.length_factor != 1.0:
            positions = positions * units.length_factor
        if units.force_factor != 1.0:
            forces = forces * units.force_factor
        energy = (raw.energy * units.energy_factor).tolist()
        cells = None if raw.cell is None else raw.cell * units.length_factor
        per_volume = units.energy_factor / units.length_factor**3
        pbc = np.array(raw.pbc)
        for i in range(raw.n_frames):
            try:
                frame = Frame(
                    raw.numbers, positions[i], _NO_CELL if cells is None else cells[i], pbc, charge, multiplicity
                )
            except InputError as error:
                raise error.located(field=raw.place_of(i)) from None
            yield LabelledSample(
                frame,
                energy[i],
                forces[i],
                raw.place_of(i),
                raw.group,
                None if raw.stress is None else raw.stress[i] * per_volume,
                raw.mask,
            )

    def _electrons(self, raw: RawFrames) -> tuple[int, int]:
        """Charge and multiplicity, which must be known and possible."""
        order, place = self._order, raw.place_of(0)
        says = (raw.charge is not None, place)
        if self._says_charge is None:
            self._says_charge = says
        elif says[0] != self._says_charge[0]:
            with_charge, without = (self._says_charge[1], place)[:: 1 if self._says_charge[0] else -1]
            raise InputError(
                f"{without} states no charge, {with_charge} does", field="charge", remedy="state it in every frame"
            )
        kind = order.format.electrons
        charge = raw.charge if raw.charge is not None else order.charge
        if charge is None:
            if kind == "required":
                raise InputError("is missing", field=f"{place}: charge", remedy="give --charge, if all frames share it")
            charge = 0
        multiplicity = raw.multiplicity if raw.multiplicity is not None else order.multiplicity
        if multiplicity is None and raw.numbers.size == 1 and charge == 0:
            multiplicity = round(float(ground_state_magnetic_moments[int(raw.numbers[0])])) + 1
        if multiplicity is None and kind == "required":
            raise InputError(
                "is missing", field=f"{place}: multiplicity", remedy="give --multiplicity, if all frames share it"
            )
        multiplicity = 1 if multiplicity is None else multiplicity
        electrons = int(raw.numbers.sum()) - charge
        if electrons < 1 or multiplicity < 1 or multiplicity - 1 > electrons or (electrons - multiplicity + 1) % 2:
            raise InputError(
                f"{electrons} electrons cannot have multiplicity {multiplicity}: the charge or the spin is missing",
                field=f"{place}: charge",
                value=charge,
                remedy="state charge and multiplicity in the file, or give --charge and --multiplicity",
            )
        return charge, multiplicity


def named_level(text: str) -> LevelOfTheory:
    """The level of theory that a name such as ``PBE/def2-SVP``, or JSON, stands for.

    Raises:
        InputError: Empty, or JSON that is no object.
    """
    if text.lstrip().startswith("{"):
        try:
            return LevelOfTheory(json.loads(text))
        except (TypeError, ValueError) as error:
            raise InputError(f"is no JSON object: {error}", field="level", value=text) from error
    method, _, basis = (part.strip().lower() for part in text.partition("/"))
    method = method.replace("-d3(bj)", "-d3bj")
    if not method:
        raise InputError("is empty", field="level", value=text, remedy="a name such as pbe/def2-svp")
    return LevelOfTheory({"method": method, "basis": basis} if basis else {"method": method})
