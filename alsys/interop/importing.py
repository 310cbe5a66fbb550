"""Import: labelled frames of a file into a campaign's store, as a stream and as a whole.

Frames are converted, checked and appended beyond HEAD in batches; the last commit, with one `DataImported` event, makes
all of them data. Whatever is refused before that leaves nothing, and a killed import is cut away when the store is
opened next. Units are checked on the first frames, before anything is written, and again on frames drawn from the rest.
Frames of the campaign's own level are trained on; those of other levels are kept under their own level of theory.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from alsys.errors import InputError
from alsys.events import DataImported
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.import_reader import ImportOrder, ImportReader, LabelledSample
from alsys.interop.near_frames import NearFrames
from alsys.interop.outliers import Outliers
from alsys.interop.unit_check import check_own_level, examine, judge
from alsys.labels import Label, LevelOfTheory
from alsys.states import CompositionStates, ElectronicState
from alsys.store.base import StoreWriter
from alsys.store.digests import ImportDigest, content_of, mask_content_of

HEAD_FRAMES: Final = 2048
"""Frames that are looked at before anything is written."""
BATCH: Final = 8192
"""Frames staged between two writes."""
LATER: Final = 128
"""Frames drawn at random from those after the first ones, for a second unit check."""
BLOCK: Final = 20
"""Consecutive frames of a group that stand on the same side of the split into training and validation."""
MAX_COMPARED: Final = 64
"""Known labels that are compared with those of the file."""
SAME_ENERGY: Final = 1e-3
"""eV; two labels of one frame at one level that differ by more contradict each other."""
SAME_FORCE: Final = 0.02
"""eV/Angstrom; likewise of any component of a force. Convergence and rounding leave less."""
METHOD: Final = "import"
"""Sampling method of imported frames."""


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
        note: What the unit check says.
        account: Of names and refused frames.
        states: Frames in each state of charge and multiplicity, free atoms left out.
        outliers: Frames that stand out of their file, each with why.
    """

    event: DataImported | None
    level: LevelOfTheory
    n_frames: int
    n_new: int
    n_train: int
    n_known: int
    n_own: int
    note: str
    account: FileAccount
    states: Mapping[ElectronicState, int] = field(default_factory=dict)
    outliers: tuple[tuple[str, str], ...] = ()


def import_frames(
    store: StoreWriter,
    order: ImportOrder,
    own: LevelOfTheory,
    now: float,
    *,
    baseline: tuple[LevelOfTheory, Callable[[Frame], Label | None]] | None = None,
    known: CompositionStates | None = None,
) -> ImportReport:
    """Imports a file into a store that nobody else writes.

    Args:
        store: The one writer, with nothing staged; where this raises it must be closed, which drops what was appended.
        order: What to import.
        own: The campaign's level of theory.
        now: Unix time.
        baseline: Level and labeler of a baseline that frames to be trained on need beside their labels.
        known: The state of each composition of the campaign, where its model cannot tell charges and multiplicities
            apart; frames to be trained on must not contradict it. None where it can.

    Raises:
        InputError: One line; nothing was committed.
        OSError: The file system refused.
    """
    source = order.path.name
    try:
        reader = ImportReader(order)
        first = list(islice(reader.stream, HEAD_FRAMES))
        if not first and reader.account.n_refused:
            raise _refusal(reader.account, 0, order.is_skipping)
        if reader.level is None:
            raise InputError(
                "no frame states that level" if order.take else "holds no frames", value=order.take or None
            )
        level = reader.level
        if order.temperature and level.level_id != own.level_id:
            raise InputError(
                "frames of another level than the campaign's are no comparison for its models",
                field="sampled-at",
                value=order.temperature,
                remedy="leave --sampled-at out",
            )
        account = reader.account
        note, confirmed = _check_units(first, reader.units, order.is_trusted)
        if not order.is_trusted:
            check_own_level([sample for sample in first if sample.mask is None], level)
        intake = _Intake(store, order, level, own, digest_of(order.path), baseline, known, account)
        drawn: list[LabelledSample] = []
        rng = random.Random(0)
        intake.take(first)
        n_later = 0
        while batch := list(islice(reader.stream, BATCH)):
            for sample in batch:  # reservoir: each of the later frames with the same probability
                n_later += 1
                if len(drawn) < LATER:
                    drawn.append(sample.alone())
                elif (slot := rng.randrange(n_later)) < LATER:
                    drawn[slot] = sample.alone()
            intake.take(batch)
        if account.n_refused and not (order.is_skipping and intake.n_taken):
            raise _refusal(account, intake.n_taken, order.is_skipping)
        if drawn and not order.is_trusted:
            _check_units(drawn, reader.units, is_trusted=False, before=confirmed)
        reader.check_used()
        event = intake.finish(now, source, reader.units, note)
        return ImportReport(
            event,
            level,
            intake.n_frames + reader.account.n_refused - intake.n_refused,
            intake.n_new,
            intake.n_train,
            intake.n_known,
            intake.n_own,
            note,
            account,
            intake.states,
            intake.outliers.found(),
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
        known: CompositionStates | None,
        account: FileAccount,
    ) -> None:
        self._store = store
        self._account = account
        self._order = order
        self._level = level
        self._digest = digest
        self.is_training = level.level_id == own.level_id
        self._baseline = baseline if self.is_training else None
        self._known = known if self.is_training else None
        self._first_row = store.head.lengths["labels"]
        self._first_frame = store.head.lengths["frames"]
        self._values = ImportDigest()
        self.states: Counter[ElectronicState] = Counter()
        self._last: Frame | None = None
        self._last_state = ElectronicState()
        self.outliers = Outliers()
        self._energies: dict[str, float] = {}
        self._members: dict[str, int] = {}
        self._trajectories: dict[tuple[str, int], int] = {}
        self._n_compared = self._n_twins = 0
        self._near = NearFrames(store.snapshot(known.level_id) for known in store.levels())
        self._levels = [level] if self._baseline is None else [self._baseline[0], level]
        self.n_frames = self.n_new = self.n_train = self.n_known = self.n_own = self.n_refused = 0

    @property
    def n_taken(self) -> int:
        """Frames that were not refused."""
        return self.n_frames - self.n_refused

    def take(self, batch: list[LabelledSample]) -> None:
        """Appends a batch beyond HEAD.

        Raises:
            InputError: A frame has another energy here than elsewhere in the file or in the store.
        """
        candidates: list[Candidate] = []
        labels: list[Label] = []
        known: list[tuple[LabelledSample, str]] = []
        level_id = self._level.level_id
        for sample, near in zip(batch, self._near.find([sample.frame for sample in batch]), strict=True):
            self.n_frames += 1
            frame = sample.frame
            frame_id = near.same or frame.frame_id
            number = self._members.get(sample.group, 0)
            self._members[sample.group] = number + 1
            if frame_id in self._energies:
                if self._is_other(sample, self._energies[frame_id], "another frame of the file"):
                    continue
                self.n_known += 1
                continue
            if near.twin and self._is_twin(sample, near.twin):
                continue
            self._energies[frame_id] = sample.energy
            self._take_state(sample)
            if sample.mask is None:
                self.outliers.add(frame, sample.energy, sample.balance, sample.place)
            arm = self._store.arm_of(frame_id)
            if arm is not None and self._store.is_labelled(frame_id, level_id):
                known.append((sample, frame_id))
                self.n_known += 1
                continue
            if self.is_training and (frame.n_atoms == 1 or arm not in (None, Arm.IMPORTED)):
                self.n_own += 1  # free atoms, and frames that the campaign proposed, are its labelers' business
                continue
            if arm is None:
                candidates.append(self._candidate(sample, number))
                self._values.add_mask(mask_content_of(sample.mask, frame.n_atoms))
            label = Label(frame_id, level_id, sample.energy, sample.forces, stress=sample.stress)
            labels.append(label)
            self.n_new += 1
            self.n_train += self.is_training
            if self._baseline is not None and not self._store.is_labelled(frame_id, self._baseline[0].level_id):
                beside = self._baseline[1](frame)
                labels += [] if beside is None else [replace(beside, frame_id=frame_id)]
        self._compare(known[: MAX_COMPARED - self._n_compared])
        if labels:
            for label in labels:
                self._values.add_label(content_of(label))
            self._store.stage((), candidates, labels, self._levels)
            self._store.append()

    def finish(self, now: float, source: str, units: UnitSet, unit_check: str) -> DataImported | None:
        """Commits everything; None where nothing is new."""
        if not self.n_new:
            return None
        lengths = self._store.append()
        event = DataImported(
            t=now,
            source=source,
            digest=self._digest,
            format=self._order.format.name,
            level_id=self._level.level_id,
            is_training=self.is_training,
            first_row=self._first_row,
            n_rows=lengths["labels"] - self._first_row,
            n_labels=self.n_new,
            n_train=self.n_train,
            n_known=self.n_known,
            units=str(units),
            unit_check=unit_check,
            first_frame=self._first_frame,
            n_frames=lengths["frames"] - self._first_frame,
            n_skipped=self._account.n_refused,
            labels_from=", ".join(f"{what}: {name}" for what, name in self._account.labels.items()),
            values_digest=self._values.hexdigest(),
            licence=self._order.licence,
            origin=self._order.origin,
            citation=self._order.citation,
        )
        self._store.stage([event])
        self._store.commit()
        return event

    def _take_state(self, sample: LabelledSample) -> None:
        frame = sample.frame
        if frame.n_atoms == 1:
            return
        last = self._last
        if (
            last is not None
            and last.numbers is frame.numbers
            and last.charge == frame.charge
            and (last.multiplicity == frame.multiplicity)
        ):  # read together
            self.states[self._last_state] += 1
            return
        self._last, self._last_state = frame, ElectronicState(frame.charge, frame.multiplicity)
        self.states[self._last_state] += 1
        if self._known is None:
            return
        conflict = self._known.add(frame.numbers, frame.charge, frame.multiplicity, sample.place)
        if conflict is not None:
            raise InputError(
                str(conflict), field="charge, multiplicity", value=(frame.charge, frame.multiplicity),
                remedy="import the frames of each state into a campaign of its own",
            )  # fmt: skip

    def _candidate(self, sample: LabelledSample, number: int) -> Candidate:
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
            temperature=self._order.temperature,
        )
        return Candidate(sample.frame, source, sample.mask)

    def _compare(self, known: list[tuple[LabelledSample, str]]) -> None:
        if not known:
            return
        self._n_compared += len(known)
        stored = self._store.labels([frame_id for _, frame_id in known], self._level.level_id)
        for (sample, _), label in zip(known, stored, strict=True):
            if label is not None and (
                self._is_other(sample, label.energy, "the store, at the same level")
                or self._has_other_forces(sample, label.forces)
            ):
                self.n_known -= 1

    def _has_other_forces(self, sample: LabelledSample, forces: FloatArray) -> bool:
        """Whether a frame has other forces in the store; it is refused then."""
        difference = float(np.abs(sample.forces - forces).max()) if sample.mask is None else 0.0
        if not difference > SAME_FORCE:
            return False
        self.n_refused += 1
        error = InputError(
            "has other forces in the store, at the same level", field=f"{sample.place}: forces",
            value=round(difference, 4), remedy="give the level that is right for this file, and only frames of it",
        )  # fmt: skip
        self._account.refuse(sample.place, error)
        return True

    def _is_twin(self, sample: LabelledSample, twin: str) -> bool:
        """Whether another charge or spin has the very same energy in the store; the frame is refused then."""
        if self._n_twins >= MAX_COMPARED:
            return False
        self._n_twins += 1
        (label,) = self._store.labels([twin], self._level.level_id)
        if label is None or sample.frame.n_atoms == 1 or abs(sample.energy - label.energy) > SAME_ENERGY:
            return False
        self.n_refused += 1
        frame = sample.frame
        state = ElectronicState(frame.charge, frame.multiplicity)
        error = InputError(
            "the same atoms in the same places have this energy in another state too: charge or spin of one is wrong",
            field=sample.place, value=str(state), remedy="correct charge and multiplicity, or leave such frames out",
        )  # fmt: skip
        self._account.refuse(sample.place, error)
        return True

    def _is_other(self, sample: LabelledSample, energy: float, where: str) -> bool:
        """Whether a frame has another energy elsewhere; it is refused then."""
        if abs(sample.energy - energy) <= SAME_ENERGY:
            return False
        self.n_refused += 1
        self._account.refuse(
            sample.place,
            InputError(
                f"the same frame has an energy of {energy:.6f} eV in {where}: levels of theory are mixed",
                field=sample.place,
                value=round(sample.energy, 6),
                remedy="give the level that is right for this file, and only frames of it",
            ),
        )
        return True


def _refusal(account: FileAccount, n_taken: int, is_skipping: bool) -> InputError:
    """The error of a file with frames that are refused: the first of them, how many there are, and the remedy."""
    error = account.refused[0].error
    n = n_taken + account.n_refused
    if account.n_refused == n:
        count = f"all {n} frames of the file are refused" if n > 1 else "it is the only frame"
    elif is_skipping:
        count = f"{account.n_refused} of {n} frames are refused, and none is left"
    else:
        count = f"{account.n_refused} of {n} frames are refused: --skip leaves them out and lists them"
    remedy = "; ".join(part for part in (error.remedy, count) if part)
    return InputError(error.message, source=error.source, field=error.field, value=error.value, remedy=remedy)


def _check_units(
    samples: list[LabelledSample], units: UnitSet, is_trusted: bool, before: frozenset[str] | None = None
) -> tuple[str, frozenset[str]]:
    """What speaks for the units, and what is confirmed.

    Args:
        samples: The frames.
        units: As they were read.
        is_trusted: Whether the user vouches for them.
        before: What earlier frames have confirmed: these may say nothing of it; None for the first ones.

    Raises:
        InputError: They do not fit, or are not confirmed.
    """
    whole = [sample for sample in samples if sample.mask is None]
    findings = examine(whole)
    if is_trusted:
        found = findings.text or "nothing could be checked"
        return f"vouched for by the user; {found}", findings.confirmed
    says_nothing = not findings.mixed and all(check.fits is not False for check in findings.checks)
    if before is not None and says_nothing and (not findings.has_stress or "stresses" in before):
        return "", before
    judge(findings, units)
    return findings.text, findings.confirmed
