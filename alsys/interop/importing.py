"""Import: labelled frames of a file into a campaign's store, as a stream and as a whole.

Frames are converted, checked and appended beyond HEAD in batches; the last commit, with one `DataImported` event, makes
all of them data. Whatever is refused before that leaves nothing, and a killed import is cut away when the store is
opened next. Units are proven on the first frames, before anything is written, and again on frames drawn from the rest.
Frames of the campaign's own level are trained on; those of other levels are kept under their own level of theory.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from ase.data import ground_state_magnetic_moments
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.events import DataImported
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.interop.file_units import UnitSet, energy_unit, force_unit, length_unit
from alsys.interop.formats.base import Format
from alsys.interop.proof import Sample, examine, judge
from alsys.interop.raw import RawFrames
from alsys.labels import Label, LevelOfTheory
from alsys.store.base import StoreWriter

HEAD_FRAMES: Final = 2048
"""Frames that are looked at before anything is written."""
BATCH: Final = 4096
"""Frames staged between two writes."""
LATER: Final = 128
"""Frames drawn at random from those after the first ones, for a second proof."""
BLOCK: Final = 20
"""Consecutive frames of a group that stand on the same side of the split into training and validation."""
MAX_COMPARED: Final = 64
"""Known labels that are compared with those of the file."""
SAME_ENERGY: Final = 1e-3
"""eV; two labels of one frame at one level that differ by more contradict each other."""
METHOD: Final = "import"
"""Sampling method of imported frames."""


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


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        event: What went into the log; None where nothing was new.
        level: Level of theory of the labels.
        n_frames: Frames that the file holds.
        n_new: Labels that were new.
        n_train: Those of them that are trained on.
        n_known: Labels that the store had already.
        n_own: Frames that the campaign itself has proposed, left to its own labelers.
        note: What the proof of the units says.
    """

    event: DataImported | None
    level: LevelOfTheory
    n_frames: int
    n_new: int
    n_train: int
    n_known: int
    n_own: int
    note: str


def import_frames(
    store: StoreWriter,
    order: ImportOrder,
    own: LevelOfTheory,
    now: float,
    *,
    baseline: tuple[LevelOfTheory, Callable[[Frame], Label | None]] | None = None,
) -> ImportReport:
    """Imports a file into a store that nobody else writes.

    Args:
        store: The one writer, with nothing staged; where this raises it must be closed, which drops what was appended.
        order: What to import.
        own: The campaign's level of theory.
        now: Unix time.
        baseline: Level and labeler of a baseline that frames to be trained on need beside their labels.

    Raises:
        InputError: One line; nothing was committed.
        OSError: The file system refused.
    """
    source = order.path.name
    try:
        reading = _Reading(order)
        first = list(islice(reading.stream, HEAD_FRAMES))
        if reading.level is None:
            raise InputError(
                "no frame states that level" if order.take else "holds no frames", value=order.take or None
            )
        level = reading.level
        note = _prove(first, reading.units, order.is_trusted)
        intake = _Intake(store, order, level, own, digest_of(order.path), baseline)
        drawn: list[_Labelled] = []
        rng = random.Random(0)
        intake.take(first)
        n_later = 0
        while batch := list(islice(reading.stream, BATCH)):
            for sample in batch:  # reservoir: each of the later frames with the same probability
                n_later += 1
                if len(drawn) < LATER:
                    drawn.append(sample)
                elif (slot := rng.randrange(n_later)) < LATER:
                    drawn[slot] = sample
            intake.take(batch)
        if drawn and not order.is_trusted:
            _prove(drawn, reading.units, is_trusted=False, is_first=False)
        event = intake.finish(now, source, reading.units, note)
        return ImportReport(
            event, level, intake.n_frames, intake.n_new, intake.n_train, intake.n_known, intake.n_own, note
        )
    except InputError as error:
        raise error.located(source=str(order.path)) from None


def digest_of(path: Path) -> str:
    """blake2b of a file's content, or of the names and contents of a folder's files: 32 hexadecimal characters."""
    digest = hashlib.blake2b(digest_size=16, person=b"alsys-import-1")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(f"{file.relative_to(path) if path.is_dir() else ''}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class _Reading:
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

    def _convert(self) -> Iterator[_Labelled]:
        order = self._order
        for raw in order.format.read(order.path):
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

    def _labelled(self, raw: RawFrames) -> Iterator[_Labelled]:
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
            yield _Labelled(
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


@dataclass(frozen=True, slots=True)
class _Labelled(Sample):
    """A sample with what else is stored of it."""

    group: str
    stress: FloatArray | None
    mask: NDArray[np.bool_] | None


_NO_CELL: Final = np.zeros((3, 3))


class _Intake:
    """Stages frames and labels, and counts."""

    def __init__(
        self,
        store: StoreWriter,
        order: ImportOrder,
        level: LevelOfTheory,
        own: LevelOfTheory,
        digest: str,
        baseline: tuple[LevelOfTheory, Callable[[Frame], Label | None]] | None,
    ) -> None:
        self._store = store
        self._order = order
        self._level = level
        self._digest = digest
        self.is_training = level.level_id == own.level_id
        self._baseline = baseline if self.is_training else None
        self._first_row = store.head.lengths["labels"]
        self._energies: dict[str, float] = {}
        self._members: dict[str, int] = {}
        self._trajectories: dict[tuple[str, int], int] = {}
        self._n_compared = 0
        self._levels = [level] if self._baseline is None else [self._baseline[0], level]
        self.n_frames = self.n_new = self.n_train = self.n_known = self.n_own = 0

    def take(self, batch: list[_Labelled]) -> None:
        """Appends a batch beyond HEAD.

        Raises:
            InputError: A frame has another energy here than elsewhere in the file or in the store.
        """
        candidates: list[Candidate] = []
        labels: list[Label] = []
        known: list[_Labelled] = []
        level_id = self._level.level_id
        for sample in batch:
            self.n_frames += 1
            frame = sample.frame
            frame_id = frame.frame_id
            number = self._members.get(sample.group, 0)
            self._members[sample.group] = number + 1
            if frame_id in self._energies:
                self._refuse_other(sample, self._energies[frame_id], "another frame of the file")
                self.n_known += 1
                continue
            self._energies[frame_id] = sample.energy
            arm = self._store.arm_of(frame_id)
            if self._store.is_labelled(frame_id, level_id):
                known.append(sample)
                self.n_known += 1
                continue
            if self.is_training and (frame.n_atoms == 1 or arm not in (None, Arm.IMPORTED)):
                self.n_own += 1  # free atoms, and frames that the campaign proposed, are its labelers' business
                continue
            if arm is None:
                candidates.append(self._candidate(sample, number))
            label = Label(frame_id, level_id, sample.energy, sample.forces, stress=sample.stress)
            labels.append(label)
            self.n_new += 1
            self.n_train += self.is_training
            if self._baseline is not None and (beside := self._baseline[1](frame)) is not None:
                labels.append(beside)
        self._compare(known[: MAX_COMPARED - self._n_compared])
        if labels:
            self._store.stage((), candidates, labels, self._levels)
            self._store.append()

    def finish(self, now: float, source: str, units: UnitSet, proof: str) -> DataImported | None:
        """Commits everything; None where nothing is new."""
        if not self.n_new:
            return None
        event = DataImported(
            t=now,
            source=source,
            digest=self._digest,
            format=self._order.format.name,
            level_id=self._level.level_id,
            is_training=self.is_training,
            first_row=self._first_row,
            n_rows=self._store.append()["labels"] - self._first_row,
            n_labels=self.n_new,
            n_train=self.n_train,
            n_known=self.n_known,
            units=str(units),
            proof=proof,
        )
        self._store.stage([event])
        self._store.commit()
        return event

    def _candidate(self, sample: _Labelled, number: int) -> Candidate:
        key = (sample.group, number // BLOCK)
        if key not in self._trajectories:
            text = f"{self._digest}/{sample.group}/{key[1]}".encode()
            digest = hashlib.blake2b(text, digest_size=8, person=b"alsys-import-t").digest()
            self._trajectories[key] = int.from_bytes(digest, "big") >> 1
        source = Source(
            system=self._order.system,
            arm=Arm.ATOM if sample.frame.n_atoms == 1 else Arm.IMPORTED,
            method=METHOD,
            trajectory=self._trajectories[key],
            step=number,
        )
        return Candidate(sample.frame, source, sample.mask)

    def _compare(self, known: list[_Labelled]) -> None:
        if not known:
            return
        self._n_compared += len(known)
        stored = self._store.labels([s.frame.frame_id for s in known], self._level.level_id)
        for sample, label in zip(known, stored, strict=True):
            if label is not None:
                self._refuse_other(sample, label.energy, "the store, at the same level")

    def _refuse_other(self, sample: _Labelled, energy: float, where: str) -> None:
        if abs(sample.energy - energy) > SAME_ENERGY:
            raise InputError(
                f"the same frame has an energy of {energy:.6f} eV in {where}: levels of theory are mixed",
                field=sample.place,
                value=round(sample.energy, 6),
                remedy="give the level that is right for this file, and only frames of it",
            )


def _prove(samples: list[_Labelled], units: UnitSet, is_trusted: bool, is_first: bool = True) -> str:
    """What speaks for the units; later frames may say nothing, where the first ones have said it."""
    whole = [sample for sample in samples if sample.mask is None]
    findings = examine(whole)
    if is_trusted:
        found = findings.text or "nothing could be checked"
        return f"vouched for by the user; {found}"
    says_nothing = not findings.mixed and all(check.fits is not False for check in findings.checks)
    if not is_first and says_nothing:
        return ""
    judge(findings, units)
    return findings.text


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
