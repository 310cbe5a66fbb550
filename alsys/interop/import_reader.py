"""Reading for an import: what a format yields, as labelled frames of one level in eV and Angstrom.

Levels that differ within a file, charges and spins that are missing or impossible, and units that a file states and
that are not those that are read are refused as soon as they are seen. Frames are made one by one, so a file is never
held as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from ase.data import ground_state_magnetic_moments
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet, energy_unit, force_unit, length_unit, stress_unit, units_in
from alsys.interop.formats.base import Format, read_all
from alsys.interop.keys import NO_CHOICE, ChoiceNeeded, KeyChoice
from alsys.interop.outliers import balance_of
from alsys.interop.ratio_check import Sample
from alsys.interop.raw_frames import RawFrames
from alsys.labels import LevelOfTheory
from alsys.outside.child import stream_from_child
from alsys.outside.contents import parse_json
from alsys.outside.limits import DATA_SET
from alsys.said import ANY

MAX_FORCE_ALONE: Final = 0.05
"""eV/Angstrom; what programs leave of a force that is zero by symmetry."""


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What is to be imported, and what the user says of it.

    Attributes:
        path: File or folder.
        format: How to read it.
        level: Level of theory; None takes what the frames state, else that of the format.
        units: What the user says, by ``energy``, ``force``, ``length`` and ``stress``; others are the format's.
        charge: Total charge of frames that state none; None for unknown.
        multiplicity: 2S + 1 of frames that state none; None for unknown.
        take: Only frames that state this level; empty for all.
        system: What the frames are called.
        is_trusted: Units are not checked.
        temperature: Of the equilibrium that the frames sample by dynamics at the campaign's own level, K; 0 where they
            do not, or nobody says so.
        choice: Which of several names is meant.
        is_skipping: Frames that are refused are left out, instead of the whole file.
        known_levels: The campaign's own first, then those of its store: one that is written alike but for letter case
            is that one.
        licence: Of the file; empty for nothing said, as below.
        origin: Where it can be had.
        citation: What to cite for it.
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
    choice: KeyChoice = NO_CHOICE
    is_skipping: bool = False
    known_levels: tuple[LevelOfTheory, ...] = ()
    licence: str = ""
    origin: str = ""
    citation: str = ""


@dataclass(frozen=True, slots=True)
class LabelledSample(Sample):
    """A sample with what else is stored of it."""

    group: str = ""
    mask: NDArray[np.bool_] | None = None
    balance: tuple[float, float] = (math.nan, math.nan)
    """Of its forces, see `alsys.interop.outliers.balance_of`."""

    def alone(self) -> LabelledSample:
        """The same without the arrays of the frames that were read with it."""
        return replace(
            self, frame=replace(self.frame), forces=self.forces.copy(),
            stress=None if self.stress is None else self.stress.copy(),
        )  # fmt: skip


class ImportReader:
    """Converts what a reader yields into samples of one level, in eV and Angstrom, as a stream.

    Attributes:
        level: Known from the first frame on.
        units: That are read.
        account: Of names and refused frames.
        stream: The samples.
    """

    def __init__(self, order: ImportOrder) -> None:
        self._order = order
        self.level: LevelOfTheory | None = None
        units, said = order.format.units, dict(order.units)
        self.units = UnitSet(
            said.get("energy", units.energy),
            said.get("force", units.force),
            said.get("length", units.length),
            said.get("stress", units.stress),
        )
        self.account = FileAccount(order.choice, is_tolerant=True, charge=order.charge or 0)
        self.stream = self._convert()
        self._stated: tuple[str, str] | None = None
        self._unused = {
            name: value
            for name, value in (("charge", order.charge), ("multiplicity", order.multiplicity))
            if value is not None
        }
        self._says: dict[str, tuple[bool, str]] = {}
        self._checked_units: set[tuple[tuple[str, str], ...]] = set()

    def _convert(self) -> Iterator[LabelledSample]:
        order = self._order
        budget = DATA_SET.for_(order.path)
        for found in stream_from_child(
            read_all, budget, order.format.read, order.path, order.choice, order.charge or 0, order.multiplicity
        ):
            if isinstance(found, FileAccount):
                self.account.absorb(found)
                continue
            for raw in found:
                if order.take and not same_level_text(raw.level, order.take):
                    continue
                self._check_level(raw)
                self._check_units(raw)
                yield from self._labelled(raw)

    def _check_level(self, raw: RawFrames) -> None:
        """All frames are of one level, stated in the same words, or nothing is."""
        order, place = self._order, raw.place_of(0)
        if self._stated is None:
            self._stated = (raw.level, place)
            said = order.level or (named_level(raw.level) if raw.level else order.format.level)
            if said is None:
                raise InputError(
                    "the level of theory is not stated",
                    field="level",
                    remedy="give --level: `campaign` where it is exactly the campaign's, else e.g. pbe/def2-svp",
                )
            if order.format.is_of_one_level and order.format.level is not None and not order.take:
                self._check_named_level(raw.level or order.format.level.canonical, said)
            self.level = known_level(said, order.known_levels)
            if order.level is not None and raw.level and not may_be(raw.level, self.level):
                self._overrule(raw.level, place)
        elif not same_level_text(raw.level, self._stated[0]):
            first, where = self._stated
            raise InputError(
                f"levels of theory are mixed: {where} states {first or 'none'}, {place} states {raw.level or 'none'}",
                field="level",
                remedy=f"import each by itself with --take '{raw.level or first}'",
            )

    def _check_named_level(self, stated: str, said: LevelOfTheory) -> None:
        """Refuses another level than that which a file's arrays are named after."""
        if not may_be(stated, said):
            name = self._order.format.name
            raise InputError(
                f"is not {stated}, after which the arrays of {name} are named", field="level", value=said.canonical,
                remedy="leave --level out; --energy-key and --forces-key name arrays of another method",
            )  # fmt: skip

    def _overrule(self, stated: str, place: str) -> None:
        """Another level than the stated one is said; that of the campaign's labels must be meant (`take`)."""
        order = self._order
        if self.level in order.known_levels[:1] and not order.take:  # the campaign's own comes first
            own = self.level.spec
            if stated.lstrip().startswith("{"):
                theirs = named_level(stated).spec
                names = [name for name in sorted({*own, *theirs}) if own.get(name) != theirs.get(name)]
                differences = ", ".join(f"{name} {theirs.get(name)} and not {own.get(name)}" for name in names)
                raise InputError(
                    f"{place} is of another level: {differences}", field="level", value="campaign",
                    remedy="leave --level out: they stay apart from the campaign's labels",
                )  # fmt: skip
            raise InputError(
                f"is not what {place} states: {stated}", field="level", value=self.level.canonical,
                remedy=f"leave --level out, or add --take '{stated}' where both are the same method",
            )  # fmt: skip
        self.account.notes.append(f"the frames state {stated}: --level counts")

    def _check_units(self, raw: RawFrames) -> None:
        if not raw.units or raw.units in self._checked_units:
            return
        read = {"energy": energy_unit, "force": force_unit, "length": length_unit, "stress": stress_unit}
        said: list[tuple[str, str]] = []
        for what, text in raw.units:
            if what != ANY:
                said.append((what, read[what](text)))
            elif not {"energy", "force", "length"} <= {what for what, _ in self._order.units}:
                said += units_in(text).items()
        for what, unit in said:
            used = getattr(self.units, what)
            if what == "stress" and not used and unit == f"{self.units.energy}/{self.units.length}^3":
                continue
            if unit not in (used, used.removeprefix("-")):
                raise InputError(
                    f"says that it is in {unit}",
                    field=f"{raw.place_of(0)}: {what} unit",
                    value=used,
                    remedy=f"give --{what}-unit={unit}",
                )
        self._checked_units.add(raw.units)

    def _labelled(self, raw: RawFrames) -> Iterator[LabelledSample]:
        units = self.units
        try:
            charge, multiplicity = self._electrons(raw)
        except ChoiceNeeded:
            raise
        except InputError as error:
            self.account.refuse(raw.place_of(0), error, raw.n_frames)
            return
        positions, forces = raw.positions, raw.forces
        if units.length_factor != 1.0:
            positions = positions * units.length_factor
        if units.force_factor != 1.0:
            forces = forces * units.force_factor
        energy = (raw.energy * units.energy_factor).tolist()
        cells = None if raw.cell is None else raw.cell * units.length_factor
        stress = None if raw.stress is None else raw.stress * units.stress_factor
        try:
            frames = Frame.several(raw.numbers, positions, cells, raw.pbc, charge, multiplicity)
        except InputError as error:
            self.account.refuse(raw.place_of(0), error.located(field=raw.place_of(0)), raw.n_frames)
            return
        balances: list[list[float]] = balance_of(positions, forces, is_periodic=any(raw.pbc)).tolist()
        held: NDArray[np.bool_] = np.any(are_held(forces, raw.mask), axis=1)
        for i, frame in enumerate(frames):
            place = raw.place_of(i)
            if held[i]:
                self.account.refuse(place, held_forces(forces[i], place))
                continue
            net, torque = balances[i]
            yield LabelledSample(
                frame, energy[i], forces[i], place, None if stress is None else stress[i], raw.group, raw.mask,
                (net, torque),
            )  # fmt: skip

    def _electrons(self, raw: RawFrames) -> tuple[int, int]:
        """Charge and multiplicity, which must be known and possible."""
        order, place = self._order, raw.place_of(0)
        kind = order.format.electrons
        charge = raw.charge if raw.charge is not None else order.charge
        for name, stated in (("charge", raw.charge), ("multiplicity", raw.multiplicity)):
            if stated is None or stated == self._unused.get(name):
                self._unused.pop(name, None)
        if charge is None:
            if kind == "required":
                raise ChoiceNeeded(
                    "is missing", field=f"{place}: charge", remedy="give --charge, if all frames share it"
                )
            charge = 0
        if order.charge is None:
            self._check_silence("charge", raw.charge, place)
        multiplicity = raw.multiplicity if raw.multiplicity is not None else order.multiplicity
        if multiplicity is None and raw.numbers.size == 1 and charge == 0:
            multiplicity = round(float(ground_state_magnetic_moments[int(raw.numbers[0])])) + 1
        if multiplicity is None and kind == "required":
            raise ChoiceNeeded(
                "is missing", field=f"{place}: multiplicity", remedy="give --multiplicity, if all frames share it"
            )
        if order.multiplicity is None and raw.numbers.size > 1:
            self._check_silence("multiplicity", raw.multiplicity, place)
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

    def check_used(self) -> None:
        """Refuses a charge or multiplicity of the user's that is not that of any frame, once all are read.

        Raises:
            InputError: All frames state another one.
        """
        for name, value in self._unused.items():
            raise InputError(
                "is for frames that state none, and all frames state another", field=name, value=value,
                remedy=f"leave --{name} out, or correct the file",
            )  # fmt: skip

    def _check_silence(self, what: str, stated: int | None, place: str) -> None:
        """Refuses frames that state nothing beside others that do, where the user has not said what they mean."""
        states, first = self._says.setdefault(what, (stated is not None, place))
        if states != (stated is not None):
            with_it, without = (first, place) if states else (place, first)
            raise ChoiceNeeded(
                f"{without} states no {what}, {with_it} does",
                field=what,
                remedy=f"give --{what} for the frames that state none, or state it in every frame",
            )


def are_held(forces: FloatArray, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Whether forces are no forces of a method: of one atom alone, or set to zero by a constraint.

    Those of a constraint are exactly zero along a direction in which the others do not add up to zero.

    Args:
        forces: ``(n_frames, n_atoms, 3)``, eV/Angstrom.
        mask: Atoms whose forces count; None for all.

    Returns:
        ``(n_frames, 3)``, for each direction.
    """
    largest: FloatArray = np.abs(forces).max(axis=1)
    held: NDArray[np.bool_] = np.zeros(largest.shape, dtype=np.bool_)
    if forces.shape[1] == 1:
        held |= largest > MAX_FORCE_ALONE
    elif mask is None:
        held |= (forces == 0.0).any(axis=1) & (np.abs(forces.sum(axis=1)) > 0.05 * largest + MAX_FORCE_ALONE)
    return held


def held_forces(forces: FloatArray, place: str) -> InputError:
    """The error of a frame whose forces are none of a method.

    Args:
        forces: ``(n_atoms, 3)``, eV/Angstrom.
        place: What the frame is called.
    """
    if len(forces) == 1:
        return InputError(
            "the force on a single atom is zero, in a cell too",
            field=f"{place}: forces",
            value=float(np.abs(forces).max()),
            remedy="it is another quantity, or a part of a larger frame",
        )
    k = int(np.argmax(are_held(forces[None], None)[0]))
    return InputError(
        f"forces of {int((forces[:, k] == 0.0).sum())} atoms are exactly zero along {'xyz'[k]} and the others do "
        "not add up to zero: those of a constraint, not of the method",
        field=f"{place}: forces",
        value=round(float(forces[:, k].sum()), 3),
        remedy="write them without constraints (ASE: `get_forces(apply_constraint=False)`)",
    )


def same_level_text(one: str, other: str) -> bool:
    """Whether two statements of a level are one but for letter case and spaces."""
    return one == other or _plain_level(one) == _plain_level(other)


@lru_cache(maxsize=256)
def _plain_level(text: str) -> str:
    if not text.strip():
        return ""
    try:
        return named_level(text).canonical.lower()
    except InputError:
        return text.strip().lower()


def may_be(text: str, level: LevelOfTheory) -> bool:
    """Whether a level that is named in short may be another one: all that it says, but for letter case, is said there.

    Args:
        text: A name such as ``PBE/def2-SVP``, or JSON.
        level: With all its settings.
    """
    try:
        return _values_of(named_level(text).spec) <= _values_of(level.spec)
    except InputError:
        return False


def _values_of(spec: object) -> set[str]:
    """All values within a specification, in lower case."""
    if isinstance(spec, Mapping):
        return set().union(*(_values_of(value) for value in spec.values()))
    if isinstance(spec, list | tuple):
        return set().union(*(_values_of(value) for value in spec))
    return {str(spec).lower()}


def known_level(level: LevelOfTheory, known: tuple[LevelOfTheory, ...]) -> LevelOfTheory:
    """The one of some levels that is written as this one but for letter case; itself where there is none."""
    if level.level_id in {other.level_id for other in known}:
        return level
    alike = [other for other in known if other.canonical.lower() == level.canonical.lower()]
    return alike[0] if alike else level


def named_level(text: str) -> LevelOfTheory:
    """The level of theory that a name such as ``PBE/def2-SVP``, or JSON, stands for.

    Raises:
        InputError: Empty, or JSON that is no object.
    """
    if text.lstrip().startswith("{"):
        try:
            return LevelOfTheory(parse_json(text))
        except (TypeError, ValueError, InputError) as error:
            raise InputError(f"is no JSON object: {error}", field="level", value=text) from error
    method, _, basis = (part.strip().lower() for part in text.partition("/"))
    method = method.replace("-d3(bj)", "-d3bj")
    if not any(letter.isalpha() for letter in method):
        raise InputError("is no name of a method", field="level", value=text, remedy="a name such as pbe/def2-svp")
    return LevelOfTheory({"method": method, "basis": basis} if basis else {"method": method})
