"""What a store is: one writer, many readers, and a HEAD that says what is committed.

The writer stages records cheaply in memory, then commits everything staged at once (group commit). A record is
durable, and may be acknowledged, when `commit` returns. A dataset version is the sequence number of a commit; the
store is append-only, so every older version is a prefix. A label is retracted by a tombstone in the log: it and all
other labels of its frame are left out of later versions, and stay in earlier ones and in the arrays.
`alsys.testing.stores.StoreContract` checks an implementation. Nothing here imports zarr.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alsys.errors import InputError, StoreCorrupt
from alsys.events import DataImported, Event, LabelRetracted, ModelLost, ModelPromoted, ModelPublished
from alsys.frames import ARMS, Arm, Candidate, FloatArray, Frame, IntArray, PointCharges
from alsys.labels import Label, LevelOfTheory
from alsys.store.encoding import ragged_indices


@dataclass(frozen=True, slots=True)
class Head:
    """What is committed.

    Attributes:
        seq: Number of commits so far; the dataset version.
        epoch: Epoch of the writer that made the last commit; a later writer has a larger one.
        lengths: Committed length of every axis (`alsys.store.schema.AXES`).
        identity: Of the store, random, from its creation on; empty for stores of older versions, and in memory.
    """

    seq: int
    epoch: int
    lengths: Mapping[str, int]
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All labelled frames of one dataset version at one level of theory, flat, in the order they were labelled.

    Attributes:
        seq: The dataset version.
        systems: Names of systems; `system` indexes it.
        frame_ids: ``n_frames`` hexadecimal identities.
        n_atoms: ``(n_frames,)``.
        numbers: ``(n_total,)`` atomic numbers.
        positions: ``(n_total, 3)``, Angstrom.
        cell: ``(n_frames, 3, 3)``, Angstrom.
        pbc: ``(n_frames, 3)``.
        charge: ``(n_frames,)``.
        multiplicity: ``(n_frames,)``.
        energy: ``(n_frames,)``, eV.
        forces: ``(n_total, 3)``, eV/Angstrom.
        stress: ``(n_frames, 3, 3)``, eV/Angstrom^3; NaN where there is none.
        mask: ``(n_total,)`` atoms whose forces may be learned from.
        arm: ``(n_frames,)`` code: index into `alsys.frames.ARMS`.
        system: ``(n_frames,)`` index into `systems`.
        trajectory: ``(n_frames,)`` identity of the trajectory each frame lies on.
        model_version: ``(n_frames,)`` version that drove the walker there.
        deviation: ``(n_frames,)`` force deviation when it was proposed, eV/Angstrom; NaN where unknown.
        baseline_energy: ``(n_frames,)`` of the same frames at the baseline's level, eV; NaN where there is no such
            label; None where no baseline was asked for.
        baseline_forces: ``(n_total, 3)`` likewise, eV/Angstrom.
        n_charges: ``(n_frames,)`` point charges around each frame; None where no frame has any.
        charge_positions: ``(n_charges in all, 3)``, Angstrom; None likewise.
        charge_values: ``(n_charges in all,)``, e; None likewise.
    """

    seq: int
    systems: tuple[str, ...]
    frame_ids: tuple[str, ...]
    n_atoms: IntArray
    numbers: NDArray[np.int32]
    positions: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    charge: NDArray[np.int32]
    multiplicity: NDArray[np.int32]
    energy: FloatArray
    forces: FloatArray
    stress: FloatArray
    mask: NDArray[np.bool_]
    arm: NDArray[np.uint8]
    system: NDArray[np.int32]
    trajectory: IntArray
    model_version: NDArray[np.int32]
    deviation: NDArray[np.float32]
    baseline_energy: FloatArray | None = None
    baseline_forces: FloatArray | None = None
    n_charges: IntArray | None = None
    charge_positions: FloatArray | None = None
    charge_values: FloatArray | None = None

    @property
    def n_frames(self) -> int:
        """Number of labelled frames."""
        return int(self.n_atoms.size)

    @property
    def offsets(self) -> IntArray:
        """``(n_frames + 1,)`` where each frame's atoms start in the flat arrays."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    def is_arm(self, *arms: Arm) -> NDArray[np.bool_]:
        """``(n_frames,)`` mask of frames that belong to one of `arms`."""
        return np.isin(self.arm, [ARMS.index(arm) for arm in arms])

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """``(n_frames,)`` frames without a masked atom: those whose energy may be learned from."""
        return np.logical_and.reduceat(self.mask, self.offsets[:-1]) if self.n_frames else np.zeros(0, dtype=np.bool_)

    @property
    def n_trusted(self) -> IntArray:
        """``(n_frames,)`` atoms of each frame whose forces may be learned from."""
        return np.add.reduceat(self.mask, self.offsets[:-1], dtype=np.int64) if self.n_frames else self.n_atoms

    def select(self, rows: NDArray[np.generic]) -> Snapshot:
        """The frames at `rows` (a boolean mask or indices), in that order."""
        index = np.arange(self.n_frames)[rows]
        atoms = _ragged(self.n_atoms, index)
        charges = _ragged(self.n_charges, index)
        return Snapshot(
            seq=self.seq,
            systems=self.systems,
            frame_ids=tuple(self.frame_ids[i] for i in index),
            n_atoms=self.n_atoms[index],
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cell=self.cell[index],
            pbc=self.pbc[index],
            charge=self.charge[index],
            multiplicity=self.multiplicity[index],
            energy=self.energy[index],
            forces=self.forces[atoms],
            stress=self.stress[index],
            mask=self.mask[atoms],
            arm=self.arm[index],
            system=self.system[index],
            trajectory=self.trajectory[index],
            model_version=self.model_version[index],
            deviation=self.deviation[index],
            baseline_energy=None if self.baseline_energy is None else self.baseline_energy[index],
            baseline_forces=None if self.baseline_forces is None else self.baseline_forces[atoms],
            n_charges=None if self.n_charges is None else self.n_charges[index],
            charge_positions=None if self.charge_positions is None else self.charge_positions[charges],
            charge_values=None if self.charge_values is None else self.charge_values[charges],
        )

    def frame(self, row: int) -> Frame:
        """The frame at `row`. For many of them use `frames`.

        Raises:
            StoreCorrupt: What is stored is no frame.
        """
        start = int(self.n_atoms[:row].sum())
        return self._frame(row, slice(start, start + int(self.n_atoms[row])))

    def frames(self, rows: Iterable[int] | None = None) -> Iterator[Frame]:
        """The frames at `rows` (default: all), in that order.

        Raises:
            StoreCorrupt: What is stored is no frame.
        """
        offsets = self.offsets.tolist()

        def what_is_shared(row: int) -> tuple[object, ...]:
            """What `Frame.several` takes once; frames in point charges share nothing."""
            numbers = self.numbers[offsets[row] : offsets[row + 1]].tobytes()
            alone = row if self.n_charges is not None and self.n_charges[row] else -1
            return numbers, self.pbc[row].tobytes(), self.charge[row], self.multiplicity[row], alone

        for _, alike in groupby(range(self.n_frames) if rows is None else rows, what_is_shared):
            yield from self._alike(list(alike), offsets)

    def _alike(self, rows: list[int], offsets: list[int]) -> list[Frame]:
        """Frames that differ in positions and cells only."""
        first, atoms = rows[0], [slice(offsets[row], offsets[row + 1]) for row in rows]
        if len(rows) == 1:
            return [self._frame(first, atoms[0])]
        positions = np.stack([self.positions[part] for part in atoms])
        charge, multiplicity = int(self.charge[first]), int(self.multiplicity[first])
        try:
            numbers, pbc = self.numbers[atoms[0]], self.pbc[first]
            return Frame.several(numbers, positions, self.cell[rows], pbc, charge, multiplicity)
        except InputError:  # one of them is no frame: it is named
            return [self._frame(row, part) for row, part in zip(rows, atoms, strict=True)]

    def _frame(self, row: int, atoms: slice) -> Frame:
        try:
            return Frame(
                numbers=self.numbers[atoms],
                positions=self.positions[atoms],
                cell=self.cell[row],
                pbc=self.pbc[row],
                charge=int(self.charge[row]),
                multiplicity=int(self.multiplicity[row]),
                environment=self._environment(row),
            )
        except InputError as error:
            raise StoreCorrupt(f"frame {self.frame_ids[row]}: {error}") from error

    def _environment(self, row: int) -> PointCharges | None:
        if self.n_charges is None or self.charge_positions is None or self.charge_values is None:
            return None
        part = _ragged(self.n_charges, np.array([row]))
        return PointCharges(self.charge_positions[part], self.charge_values[part]) if part.size else None


def _ragged(counts: IntArray | None, rows: IntArray) -> IntArray:
    """Where the elements of ragged rows stand."""
    if counts is None or not rows.size:
        return np.zeros(0, dtype=np.int64)
    return ragged_indices(np.cumsum(counts) - counts, counts, rows).astype(np.int64)


@dataclass(slots=True)
class VerifyReport:
    """What `Store.verify` found. Empty `problems` means that the store is sound.

    Frames `n_set_aside` were damaged and are no data. Labels `n_without_digest` are from before digests were kept:
    their values have nothing to be compared with.
    """

    head_seq: int = 0
    n_frames: int = 0
    n_labels: int = 0
    n_events: int = 0
    n_retracted: int = 0
    n_without_digest: int = 0
    n_set_aside: int = 0
    duplicate_labels: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """True where nothing is wrong."""
        return not self.problems


def own_level(levels: Sequence[LevelOfTheory], imports: Sequence[DataImported]) -> LevelOfTheory | None:
    """The campaign's own level of theory; None where it has none yet.

    A campaign names its baseline first and its own level last; levels that only imported data have are neither.

    Args:
        levels: In the order they came.
        imports: Of the log.
    """
    foreign = {event.level_id for event in imports if not event.is_training}
    return next((level for level in reversed(levels) if level.level_id not in foreign), None)


def versions_of(events: Iterable[Event]) -> tuple[int, dict[int, str]]:
    """The version that leads at the end of a log, as the ledger has it, 0 for none; and digests of all bundles."""
    champions: list[int] = []
    digests: dict[int, str] = {}
    for event in events:
        if isinstance(event, ModelPublished):
            digests[event.version] = event.digest
        elif isinstance(event, ModelPromoted):
            champions.append(event.version)
        elif isinstance(event, ModelLost):
            champions = [version for version in champions if version != event.version]
    return champions[-1] if champions else 0, digests


class StoreReader(Protocol):
    """Reads what was committed."""

    @property
    def head(self) -> Head:
        """The HEAD this reader is pinned to."""
        ...

    def events(self, start: int = 0) -> list[Event]:
        """Committed events from index `start` on, in order."""
        ...

    def iter_events(self, start: int = 0) -> Iterator[Event]:
        """As `events`, without all of them in memory at once."""
        ...

    def candidates(self, frame_ids: Sequence[str]) -> list[Candidate]:
        """Frames and their sources.

        Raises:
            KeyError: A frame is not in the store.
        """
        ...

    def labels(self, frame_ids: Sequence[str], level_id: str) -> list[Label | None]:
        """Labels of frames at one level; None where there is none, or it was retracted."""
        ...

    def tombstones(self, seq: int | None = None) -> tuple[LabelRetracted, ...]:
        """What had been retracted in dataset version `seq` (default: the pinned HEAD), in order.

        Raises:
            InputError: No such version.
        """
        ...

    def levels(self) -> tuple[LevelOfTheory, ...]:
        """Levels of theory in the store, in the order they came."""
        ...

    def snapshot(self, level_id: str, seq: int | None = None, baseline_id: str | None = None) -> Snapshot:
        """Labelled frames of dataset version `seq` (default: the pinned HEAD), retracted ones left out.

        Args:
            level_id: Level of the labels.
            seq: Dataset version.
            baseline_id: Level of the baseline whose values are wanted beside them; None for none.

        Raises:
            InputError: No such version.
        """
        ...

    def verify(self) -> VerifyReport:
        """Checks every array against HEAD, identities against contents, the log and its digests against the arrays."""
        ...

    def close(self) -> None:
        """Releases files and locks."""
        ...


class StoreWriter(StoreReader, Protocol):
    """The one writer. `stage` and `commit` may run in different threads, each in one thread at a time."""

    @property
    def epoch(self) -> int:
        """This writer's epoch; larger than that of every writer before it."""
        ...

    @property
    def n_staged(self) -> int:
        """Records staged and not yet taken by a commit."""
        ...

    @property
    def waits_for(self) -> str:
        """What is committed and not yet everywhere where it shall be, in one line; empty for nothing."""
        ...

    def check_owner(self) -> None:
        """Returns where the store is still this writer's.

        Raises:
            Fenced: Another writer has taken over, or the store was removed, moved or replaced.
            OSError: The file system refused.
        """
        ...

    def stage(
        self,
        events: Sequence[Event] = (),
        candidates: Sequence[Candidate] = (),
        labels: Sequence[Label] = (),
        levels: Sequence[LevelOfTheory] = (),
    ) -> None:
        """Takes records for the next commit. A candidate or label whose identity is already there is ignored.

        Raises:
            KeyError: A label's frame or level is neither stored nor staged.
        """
        ...

    def commit(self) -> Head:
        """Writes everything staged, arrays first, HEAD last; returns when it is durable. No-op when nothing is staged.

        On an `OSError` (a full disk) nothing staged is lost: it is written by the next commit that succeeds.

        Raises:
            Fenced: Another writer has taken over, or the store was removed, moved or replaced.
            OSError: The file system refused.
        """
        ...

    def arm_of(self, frame_id: str) -> Arm | None:
        """Arm of a frame that is stored or staged; None for others."""
        ...

    def is_labelled(self, frame_id: str, level_id: str) -> bool:
        """Whether a label is stored or staged, retracted ones included."""
        ...

    def append(self) -> Mapping[str, int]:
        """Writes everything staged beyond HEAD: memory is free again, and the next commit makes it visible as a whole.

        What was appended and is not committed goes with the writer. On an `OSError` nothing staged is lost.

        Returns:
            Length of every axis that a commit would make HEAD's.

        Raises:
            OSError: The file system refused.
        """
        ...
