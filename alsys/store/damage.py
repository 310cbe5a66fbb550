"""Which rows of a store are not what its log and its identities say.

`ContentCheck` takes the events of a log in their order, so a driver that folds it learns on the way whether what it
would learn from is sound; nothing is held but one block of rows. Frames are held against `frame_id`, labels with their
baseline and mask against the digest in the log. Rows that `alsys data repair` has set aside are not named again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from alsys import events
from alsys.errors import FailureKind, StoreCorrupt
from alsys.frames import ARMS, FRAME_ID_BYTES, FRAME_PERSON
from alsys.store.base import Snapshot
from alsys.store.columns import FRAMES_AT_ONCE, ColumnReader
from alsys.store.digests import ImportDigest, StoredContents, contents_digest
from alsys.store.encoding import Array

REMEDY = "`alsys data repair` sets damaged rows aside and keeps the others"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is damaged and was not set aside.

    Attributes:
        frames: Rows of frames whose content has another identity, which is the value.
        labels: Identities of damaged labels, and the frame of each.
        imports: Imports of which a label or a mask is damaged; which one, the log does not say.
        arms: Rows of frames that the log has another arm of.
        n_without_digest: Labels from before digests were kept.
    """

    frames: dict[int, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    imports: list[events.DataImported] = field(default_factory=list)
    arms: list[int] = field(default_factory=list)
    n_without_digest: int = 0

    @property
    def text(self) -> str:
        """One line; empty where nothing is damaged."""
        parts = [
            f"{len(found)} {what}{'' if len(found) == 1 else 's'}"
            for what, found in (
                ("frame", self.frames), ("label", self.labels), ("import", self.imports), ("arm", self.arms),
            )
            if found
        ]  # fmt: skip
        return f"damaged: {', '.join(parts)}; not what the log says" if parts else ""


class _RowsByIdentity:
    """Finds rows: most are asked for in their order, so that a table of all of them is made for the others only."""

    def __init__(self, ids: Array) -> None:
        self._ids = ids.tobytes()
        self._next = 0
        self._rows: dict[bytes, int] | None = None

    def find(self, identity: str) -> int:
        """Row of an identity; -1 where there is none."""
        if not identity:
            return -1
        wanted = bytes.fromhex(identity)
        if self._at(self._next) != wanted:
            if self._rows is None:
                self._rows = {self._at(row): row for row in range(len(self._ids) // 16)}
            self._next = self._rows.get(wanted, -1)
        self._next += 1
        return self._next - 1

    def _at(self, row: int) -> bytes:
        return self._ids[16 * row : 16 * row + 16]


class ContentCheck:
    """Compares a store with its log. `add` all events in order, then ask for what is damaged.

    Args:
        reader: The store.

    Raises:
        StoreCorrupt: A column that rows are found by cannot be read.
    """

    def __init__(self, reader: ColumnReader) -> None:
        self._reader = reader
        lengths = reader.head.lengths
        self._stored = StoredContents(reader)
        self._label_rows = _RowsByIdentity(reader.column("labels/label_id"))
        self._frame_rows = _RowsByIdentity(reader.column("frames/frame_id"))
        self._arm_of = reader.column("frames/arm").tolist()
        self._arms: list[int] = []
        self._frame_of = reader.column("labels/frame")
        self._is_covered = np.zeros(lengths["labels"], dtype=np.bool_)
        self._import_of: dict[int, int] = {}
        self._imported_frames: set[int] = set()
        self._labels: dict[str, str] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._imports: list[events.DataImported] = []
        self._set_aside: set[str] = set()

    def add(self, event: events.Event) -> None:
        """The next event of the log."""
        if isinstance(event, events.LabelAccepted):
            self._accepted(event)
        elif isinstance(event, events.FrameProposed):
            row = self._frame_rows.find(event.frame_id)
            if row >= 0 and row not in self._imported_frames and self._arm_of[row] != ARMS.index(event.arm):
                self._arms.append(row)
        elif isinstance(event, events.DataImported):
            self._imported(event)
        elif isinstance(event, events.ColumnLost):
            self._lost(range(event.first_row, event.first_row + event.n_rows))
        elif (isinstance(event, events.LabelRetracted) and event.is_damaged) or (
            isinstance(event, events.FrameQuarantined) and event.failure is FailureKind.DAMAGED
        ):
            self._set_aside.add(event.frame_id)
            for label_id, frame_id in list(self._labels.items()) if self._labels else ():
                if frame_id == event.frame_id:
                    del self._labels[label_id]

    def damage(self) -> Damage:
        """What is damaged, now that all events were seen. Reads all frames."""
        found = damaged_frames(self._reader)
        frames = {row: actual for row, actual in found.items() if self._frame_id(row) not in self._set_aside}
        imports = [event for event in self._imports if not self._is_import_set_aside(event)]
        return Damage(frames, self._labels, imports, self._arms, int((~self._is_covered).sum()))

    @property
    def n_set_aside(self) -> int:
        """Frames that were set aside, with their labels."""
        return len(self._set_aside)

    def is_set_aside(self, frame_id: str) -> bool:
        """Whether a frame was set aside."""
        return frame_id in self._set_aside

    def _accepted(self, event: events.LabelAccepted) -> None:
        row, beside = self._label_rows.find(event.label_id), self._label_rows.find(event.baseline_id)
        if row < 0 or (event.baseline_id and beside < 0):
            self._labels[event.label_id] = event.frame_id  # its identity in the arrays is another
            return
        if not event.digest:
            return
        frame = int(self._frame_of[row])
        if self._import_of.get(frame, row) < row:
            return  # the store has kept what the import brought first: the mask, or the label of the baseline
        self._is_covered[row] = True
        baseline = b""
        if event.baseline_id:
            self._is_covered[beside] = True
            baseline = self._stored.label(beside)
        if contents_digest(self._stored.label(row), self._stored.mask(frame), baseline) != event.digest:
            self._labels[event.label_id] = event.frame_id
            self._places[event.label_id] = (row, beside)

    def _lost(self, rows: range) -> None:
        """Digests of these rows were of values that are gone."""
        self._is_covered[rows.start : rows.stop] = False
        for label_id, (row, beside) in self._places.items():
            if row in rows or beside in rows:
                self._labels.pop(label_id, None)
        self._imports = [
            event for event in self._imports
            if event.first_row >= rows.stop or event.first_row + event.n_rows <= rows.start
        ]  # fmt: skip

    def _imported(self, event: events.DataImported) -> None:
        rows = range(event.first_row, event.first_row + event.n_rows)
        frames = range(event.first_frame, event.first_frame + event.n_frames)
        n_frames = self._reader.head.lengths["frames"]
        if min(rows.start, frames.start) < 0 or rows.stop > len(self._frame_of) or frames.stop > n_frames:
            return  # `verify` says so
        self._imported_frames.update(frames)
        for row in rows:
            self._import_of.setdefault(int(self._frame_of[row]), row)
        if event.values_digest:
            self._is_covered[rows.start : rows.stop] = True
            digest = ImportDigest()
            for row in rows:
                digest.add_label(self._stored.label(row))
            digest.add_mask(self._stored.masks(frames.start, frames.stop))
            if digest.hexdigest() != event.values_digest:
                self._imports.append(event)

    def _frame_id(self, row: int) -> str:
        return self._reader.read("frames/frame_id", row, row + 1).tobytes().hex()

    def _is_import_set_aside(self, event: events.DataImported) -> bool:
        rows = self._frame_of[event.first_row : event.first_row + event.n_rows]
        return bool(self._set_aside) and all(self._frame_id(int(row)) in self._set_aside for row in set(rows.tolist()))


def damaged_frames(reader: ColumnReader) -> dict[int, str]:
    """Rows of frames whose content has another identity than `frame_id`, and which: a few microseconds each."""
    lengths = reader.head.lengths
    counts = reader.atoms_of_frames(lengths)
    ends = np.concatenate([[0], np.cumsum(counts)])
    n_charges = reader.charges_of_frames(lengths)
    charge_ends = np.concatenate([[0], np.cumsum(n_charges)])
    found = {}
    for first in range(0, lengths["frames"], FRAMES_AT_ONCE):
        last = min(first + FRAMES_AT_ONCE, lengths["frames"])

        def rows(name: str, first: int = first, last: int = last) -> bytes:
            return reader.read(f"frames/{name}", first, last).tobytes()

        heads = np.stack(
            [counts[first:last], *(reader.read(f"frames/{name}", first, last) for name in ("charge", "multiplicity"))],
            axis=1,
        ).astype("<i8").tobytes()  # fmt: skip
        cells, pbc, ids = rows("cell"), rows("pbc"), rows("frame_id")
        begin, stop = int(ends[first]), int(ends[last])
        numbers = reader.read("atoms/numbers", begin, stop).tobytes()
        positions = reader.read("atoms/positions", begin, stop).tobytes()
        bounds = (ends[first : last + 1] - begin).tolist()
        for i in range(last - first):
            a, b = bounds[i], bounds[i + 1]
            content: tuple[bytes, ...] = (
                heads[24 * i : 24 * i + 24], numbers[4 * a : 4 * b], positions[24 * a : 24 * b],
                cells[72 * i : 72 * i + 72], pbc[3 * i : 3 * i + 3],
            )  # fmt: skip
            if n_charges[first + i]:
                part = int(charge_ends[first + i]), int(charge_ends[first + i + 1])
                content += tuple(reader.read(f"charges/{name}", *part).tobytes() for name in ("positions", "values"))
            digest = hashlib.blake2b(b"".join(content), digest_size=FRAME_ID_BYTES, person=FRAME_PERSON)
            if digest.digest() != ids[16 * i : 16 * i + 16]:
                found[first + i] = digest.hexdigest()
    return found


def refuse_damage(check: ContentCheck, path: object) -> None:
    """Ends a driver before it learns from damaged rows.

    Raises:
        StoreCorrupt: There are some.
    """
    if text := check.damage().text:
        raise StoreCorrupt(f"{path}: {text}", REMEDY)


def sound_snapshot(
    reader: ColumnReader, path: object, level_id: str, seq: int | None = None, baseline_id: str | None = None
) -> Snapshot:
    """Labelled frames as of `StoreReader.snapshot`, to be given away: only of a store that is what its log says.

    Args:
        reader: The store.
        path: Where it is, for the error.
        level_id: Level of the labels.
        seq: Dataset version.
        baseline_id: Level of the baseline whose values are wanted beside them.

    Raises:
        StoreCorrupt: Frames or labels are damaged and were not set aside.
    """
    refuse_unsound(reader, path)
    return reader.snapshot(level_id, seq, baseline_id)


def refuse_unsound(reader: ColumnReader, path: object) -> None:
    """Refuses a store that is not what its log says; holds one block of rows at once.

    Raises:
        StoreCorrupt: Frames or labels are damaged and were not set aside.
    """
    check = ContentCheck(reader)
    for event in reader.iter_events():
        check.add(event)
    refuse_damage(check, path)
