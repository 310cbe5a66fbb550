"""What can be mended of a damaged store: HEAD from the commits, metadata from the schema, damaged rows set aside.

Nothing is deleted. A lost HEAD becomes that of the newest commit whose log and counts can be read. Lost metadata are
written again. Frames and labels that are not what the log says are set aside by events: they are no data from there on,
their bytes stay in the arrays. Where a chunk of values is gone, its rows are set aside first and the chunk is filled
with zeros after that. Where one is gone that says what labels took, they stay data, and what is filled in is unknown.
What rows are found by is told by what else is there (`alsys.store.tables`), and so is the log
(`alsys.store.log_repair`). Files that are written over are kept beside themselves.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alsys.errors import FailureKind, InputError, StoreCorrupt
from alsys.events import (
    CampaignOpened,
    ColumnLost,
    DataImported,
    Event,
    FrameProposed,
    FrameQuarantined,
    LabelAccepted,
    LabelRetracted,
    ModelPublished,
    decode_all,
)
from alsys.labels import LevelOfTheory, label_id_of
from alsys.store.base import Head
from alsys.store.columns import ColumnReader
from alsys.store.damage import ContentCheck
from alsys.store.encoding import decode_texts, to_hex
from alsys.store.files import Files
from alsys.store.guards import check_codes
from alsys.store.head import head_content
from alsys.store.history import head_problem
from alsys.store.schema import ALL_ARRAYS, AXES, CHARGES, COMMITS, ArraySpec
from alsys.store.tables import NO_BACKUP, Tables
from alsys.store.zarr import locked, new_identity, open_writer
from alsys.store.zarr_arrays import blank_hierarchy
from alsys.store.zarr_folder import ZarrFolder

EPOCH = re.compile(rb'^\{"kind":"campaign-opened",.*"epoch":(\d{1,12})')
REASON = "the arrays no longer hold what was accepted"
FRAME_VALUES = ("numbers", "positions", "mask", "charge", "multiplicity", "cell", "pbc", "values")
LABEL_VALUES = ("energy", "stress", "forces")
LABEL_COSTS = {
    "wall_s": np.nan,
    "cpu_s": 0,
    "scf_cycles": 0,
    "rescue_rung": 0,
    "gap": np.nan,
    "spin_excess": np.nan,
    "host": 0,
}
"""What labels took, and what stands for unknown."""
Gap = tuple[ArraySpec, int, int]
"""A chunk that is gone or cut off: its array, its number, and its rows that are there."""
WRITTEN = {
    "events": "events/end",
    "frames": "frames/frame_id",
    "labels": "labels/label_id",
    "levels": "levels/level_id",
    "names": "names/end",
}
"""Arrays of which no row that was written is zeros, by axis."""


@dataclass(slots=True)
class RepairReport:
    """What was done, one line each; `set_aside` are frames that are no data any more, with the reason."""

    lines: list[str] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)


def repair(
    path: str | Path, seq: int | None = None, levels: Iterable[LevelOfTheory] = (), *, files: Files | None = None
) -> RepairReport:
    """Mends a store that nobody writes.

    Args:
        path: Its folder.
        seq: Dataset version to go back to where HEAD is lost and later commits cannot be read.
        levels: Levels of theory that other files of the campaign name: where texts of levels come from.
        files: File operations; tests pass some that fail.

    Raises:
        StoreBusy: A process writes it.
        InputError: It is no store, or has no such version.
        StoreCorrupt: Something is damaged that cannot be made anew. What could be mended before is mended.
        OSError: The file system refused.
    """
    path, files, report = Path(path), files or Files(), RepairReport()
    if not any((path / spec.path / "c").is_dir() for spec in ALL_ARRAYS):
        raise InputError("holds no rows of a store", source=str(path))
    with locked(path, files) as folder:
        report.lines += [
            f"{aside.relative_to(path)}: is no file and was set aside" for aside in folder.set_strangers_aside()
        ]
        report.lines += [
            f"{spec.path}: is missing and is made anew, without values"
            for spec in ALL_ARRAYS
            if folder.is_missing(spec) and spec.path != "events/crc"  # older stores have none
        ]
        _restore_metadata(folder, report)
        _restore_head(folder, report, seq)
        Tables(folder, levels, report.lines).restore()
    writer = open_writer(path, files=files)
    try:
        gaps = writer.folder.fill_gaps()
        _refuse_gaps(gaps)
        writer.stage(_events(writer, gaps, report))
        writer.commit()
        for spec, chunk, there in gaps:
            unknown = None
            if _is_cost(spec):
                shape = (spec.chunk_rows - there, *spec.row_shape)
                rest = min(writer.head.lengths["labels"] - chunk * spec.chunk_rows, spec.chunk_rows) - there
                unknown = np.full(shape, LABEL_COSTS[spec.path.removeprefix("labels/")], dtype=spec.dtype)[:rest]
            writer.folder.make_chunk(spec, chunk, there, unknown)
            what = "its rows are set aside" if unknown is None else f"{len(unknown)} of its values are unknown"
            report.lines.append(f"{spec.path}: chunk {chunk} is made anew, {what}")
    finally:
        writer.close()
    return report


def _restore_metadata(folder: ZarrFolder, report: RepairReport) -> None:
    """Writes metadata again that cannot be read; the next writer sets the shape."""
    damaged: dict[str, str] = {name: f"{name} is written again" for name in folder.damaged_groups()}
    for spec in ALL_ARRAYS:
        if folder.is_missing(spec):
            continue
        try:
            folder.shape(spec)
        except StoreCorrupt:
            damaged[f"{spec.path}/zarr.json"] = f"{spec.path}: its zarr.json is written again"
    for name, line in damaged.items():
        folder.replace(name, blank_hierarchy()[name])
        report.lines.append(line)


def _restore_head(folder: ZarrFolder, report: RepairReport, seq: int | None) -> None:
    commits = _commits(folder)
    with contextlib.suppress(StoreCorrupt, FileNotFoundError):
        problem = _misplaced(folder, commits)
        if not problem:
            return
        report.lines.append(problem)
    if not commits:
        head, epoch = _head_of_rows(folder)
        _write_head(folder, head, epoch)
        report.lines.append(
            f"HEAD is rebuilt from the log, as no commit can be read: dataset version {head.seq}, "
            f"{head.lengths['labels']} labels; older versions are not known"
        )
        return
    if seq is not None and not 1 <= seq <= len(commits):
        raise InputError("no such dataset version", field="--seq", value=seq, remedy=f"there are 1 to {len(commits)}")
    problem = ""
    for number in range(seq or len(commits), 0, -1):
        try:
            before = commits[number - 2][AXES.index("events")] if number > 1 else 0
            head, epoch = _read_commit(folder, number, commits[number - 1], before)
            break
        except (StoreCorrupt, ValueError, IndexError) as error:
            problem = problem or str(getattr(error, "message", error))
    else:
        raise StoreCorrupt(f"no version of the store can be read: {problem}", "restore it from a backup")
    n_lost = (seq or len(commits)) - head.seq
    if n_lost > 1:  # one may have been in progress when the power failed
        raise StoreCorrupt(
            f"the newest {n_lost} of {len(commits)} commits cannot be read: {problem}",
            f"restore the array from a backup, or give them up with `--seq {head.seq}`",
        )
    _write_head(folder, head, epoch)
    report.lines.append(
        f"HEAD is rebuilt from the commits: dataset version {head.seq}, {head.lengths['labels']} labels"
    )


def _write_head(folder: ZarrFolder, head: Head, epoch: int) -> None:
    """Writes HEAD, with an identity of its own: no writer of before may go on."""
    identity = new_identity()
    folder.forget_commits(head.seq)
    folder.write_identity(identity)
    folder.replace("HEAD", head_content(Head(head.seq, epoch + 1, head.lengths, identity)))


def _misplaced(folder: ZarrFolder, commits: list[list[int]]) -> str:
    """What is wrong with a HEAD that can be read. Of older stores, whose root names no identity, the rows tell it.

    Raises:
        StoreCorrupt: HEAD cannot be read.
    """
    head = folder.read_head()
    if problem := head_problem(folder):
        return problem
    row = [head.lengths[axis] for axis in AXES]
    told = [*commits, row][min(head.seq, len(commits) + 1) - 1] if commits and head.seq else []
    if folder.identity() or not any(told) or (told == row and head.seq <= len(commits)):
        return ""
    try:
        _read_commit(folder, head.seq, row)
    except (StoreCorrupt, ValueError, IndexError):
        return "HEAD does not fit the rows: it is that of another store"
    return ""


def _commits(folder: ZarrFolder) -> list[list[int]]:
    """Lengths of every commit, as far as they can be read; zeros for those that are gone or were never written."""
    rows: list[list[int]] = []
    for chunk in range(1 + max(folder.chunks(COMMITS), default=-1)):
        first = chunk * COMMITS.chunk_rows
        try:
            rows += folder.read(COMMITS.path, first, first + COMMITS.chunk_rows).tolist()
        except StoreCorrupt:
            rows += [[0] * len(AXES)] * COMMITS.chunk_rows
    last = [0] * len(AXES)
    for number, row in enumerate(rows):
        if any(row) and any(a < b for a, b in zip(row, last, strict=True)):
            del rows[number:]
            break
        last = row if any(row) else last
    while rows and not any(rows[-1]):
        rows.pop()
    return rows


def _read_commit(folder: ZarrFolder, seq: int, row: list[int], n_before: int = 0) -> tuple[Head, int]:
    """HEAD of a commit, and the newest epoch in its log, of which the first `n_before` events may be damaged.

    Raises:
        StoreCorrupt: Its log or its counts cannot be read.
    """
    if not any(row):
        raise StoreCorrupt(f"{COMMITS.path}: the lengths of version {seq} are gone")
    lengths = dict(zip(AXES, row, strict=True))
    n_charges = folder.read("frames/n_charges", 0, lengths["frames"]).astype(np.int64)
    head = Head(seq, 0, lengths | {CHARGES: int(n_charges.sum())})
    reader = ColumnReader(folder, head)
    reader.atoms_of_labels(head.lengths)
    reader.charges_of_frames(head.lengths)
    texts = reader.texts("events")
    decode_all(texts[n_before:])
    return head, max((int(epoch) for text in texts for epoch in EPOCH.findall(text)), default=0)


def _head_of_rows(folder: ZarrFolder) -> tuple[Head, int]:
    """HEAD where no commit can be read: up to the last event whose frames and labels are there.

    Rows of frames and labels are never zeros, and each group of records begins with its events. The number of commits
    is not known; the log has the newest version that a model was fitted to.

    Raises:
        StoreCorrupt: The rows do not fit each other.
    """
    n = {axis: folder.written(path) for axis, path in WRITTEN.items()}
    ends = folder.read("events/end", 0, n["events"])
    log = decode_all(decode_texts(ends, 0, folder.read("events/bytes", 0, int(ends[-1]) if len(ends) else 0)))
    frame_ids, label_ids = (to_hex(folder.read(path, 0, n[axis])) for axis, path in list(WRITTEN.items())[1:3])
    rows, labels = ({x: row for row, x in enumerate(ids)} for ids in (frame_ids, label_ids))
    n_frames = n_labels = seq = epoch = n_events = 0
    for event in log:
        if isinstance(event, FrameProposed):
            stop, until = rows.get(event.frame_id, len(rows)) + 1, 0
        elif isinstance(event, LabelAccepted):
            names = filter(None, (event.label_id, event.baseline_id))
            stop, until = 0, max(labels.get(name, len(labels)) for name in names) + 1
        elif isinstance(event, DataImported):
            stop, until = event.first_frame + event.n_frames, event.first_row + event.n_rows
        else:
            stop = until = 0
        if stop > len(rows) or until > len(labels):
            break
        n_frames, n_labels, n_events = max(n_frames, stop), max(n_labels, until), n_events + 1
        seq = max(seq, event.seq) if isinstance(event, ModelPublished) else seq
        epoch = max(epoch, event.epoch) if isinstance(event, CampaignOpened) else epoch
    if not n_events:
        raise StoreCorrupt(f"{COMMITS.path}: no commit can be read, so HEAD {NO_BACKUP}", "")
    counts = folder.read("frames/n_atoms", 0, n_frames).astype(np.int64)
    frame_of = folder.read("labels/frame", 0, n_labels)
    check_codes("labels/frame", frame_of, n_frames)
    lengths = {axis: n[axis] for axis in ("levels", "names")} | {
        "events": n_events, "event_bytes": int(ends[n_events - 1]), "frames": n_frames, "atoms": int(counts.sum()),
        "labels": n_labels, "label_atoms": int(counts[frame_of].sum()),
        CHARGES: int(folder.read("frames/n_charges", 0, n_frames).astype(np.int64).sum()),
    }  # fmt: skip
    for group, axis in (("levels", "level_bytes"), ("names", "name_bytes")):
        lengths[axis] = int(folder.read(f"{group}/end", 0, n[group])[-1]) if n[group] else 0
    return Head(seq + 1, 0, lengths), epoch


def _refuse_gaps(gaps: list[Gap]) -> None:
    """Lost chunks whose rows cannot be set aside."""
    lost = [f"{spec.path}: chunk {chunk}" for spec, chunk, _ in gaps if not _is_value(spec)]
    if lost:
        raise StoreCorrupt(f"{'; '.join(lost)} is missing or cut off", NO_BACKUP)


def _is_value(spec: ArraySpec) -> bool:
    group, _, name = spec.path.partition("/")
    if group == "labels":
        return name in LABEL_VALUES or _is_cost(spec)
    return name in FRAME_VALUES and group in ("frames", "atoms", "charges")


def _is_cost(spec: ArraySpec) -> bool:
    group, _, name = spec.path.partition("/")
    return group == "labels" and name in LABEL_COSTS


@dataclass(slots=True)
class _Log:
    """What the log says of frames."""

    proposed: set[str] = field(default_factory=set)
    label_of: dict[str, str] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        if isinstance(event, FrameProposed):
            self.proposed.add(event.frame_id)
        elif isinstance(event, LabelAccepted):
            self.label_of.setdefault(event.frame_id, event.label_id)
        elif isinstance(event, LabelRetracted):
            self.label_of.pop(event.frame_id, None)


def _events(reader: ColumnReader, gaps: list[Gap], report: RepairReport) -> list[Event]:
    """What sets damaged rows aside."""
    log, check = _Log(), ContentCheck(reader)
    for event in reader.iter_events():
        log.add(event)
        check.add(event)
    events: list[Event] = []
    for spec, chunk, there in gaps:
        if _is_cost(spec):
            first, n_labels = chunk * spec.chunk_rows, reader.head.lengths["labels"]
            n_rows = min(n_labels - first, spec.chunk_rows) - there
            events.append(ColumnLost(t=time.time(), column=spec.path, first_row=first + there, n_rows=n_rows))
            check.add(events[-1])
    damage = check.damage()
    frame_ids = to_hex(reader.column("frames/frame_id"))
    first_label = _first_labels(reader)

    def set_aside(frame_id: str, row: int, reason: str) -> None:
        if frame_id in report.set_aside or check.is_set_aside(frame_id):
            return
        label_id = log.label_of.get(frame_id, "") if frame_id in log.proposed else first_label(row)
        now = time.time()
        if label_id:
            events.append(
                LabelRetracted(t=now, frame_id=frame_id, label_id=label_id, reason=reason, is_damaged=True)
            )  # fmt: skip
        elif frame_id in log.proposed:
            events.append(FrameQuarantined(t=now, frame_id=frame_id, failure=FailureKind.DAMAGED, message=reason))
        else:
            return
        report.set_aside[frame_id] = reason

    for row in damage.frames:
        set_aside(frame_ids[row], row, "damaged: the frame has another identity")
    row_of = {frame_id: row for row, frame_id in enumerate(frame_ids)} if damage.labels else {}
    for frame_id in damage.labels.values():
        set_aside(frame_id, row_of.get(frame_id, -1), f"damaged: {REASON}")
    frame_of = reader.column("labels/frame")
    for event in damage.imports:
        for row in frame_of[event.first_row : event.first_row + event.n_rows].tolist():
            set_aside(frame_ids[row], row, f"damaged: a label of the import of {event.source!r} is")
    for row in _rows_in(reader, [gap for gap in gaps if not _is_cost(gap[0])]):
        set_aside(frame_ids[row], row, "damaged: a chunk with values of it is gone")
    levels, label_ids = to_hex(reader.column("levels/level_id")), to_hex(reader.column("labels/label_id"))
    for label_id, row, level in zip(label_ids, frame_of.tolist(), reader.column("labels/level").tolist(), strict=True):
        if label_id != label_id_of(frame_ids[row], levels[level]):
            set_aside(frame_ids[row], row, "damaged: the identity of a label of it is another")
    return events


def _first_labels(reader: ColumnReader) -> Callable[[int], str]:
    """Identity of the first label of a frame's row; empty where it has none."""
    frame_of, label_ids = reader.column("labels/frame").tolist(), reader.column("labels/label_id")
    first: Mapping[int, int] = {frame: row for row, frame in reversed(list(enumerate(frame_of)))}
    return lambda row: label_ids[first[row]].tobytes().hex() if row in first else ""


def _rows_in(reader: ColumnReader, gaps: list[Gap]) -> Iterator[int]:
    """Rows of frames of which lost chunks held values."""
    lengths = reader.head.lengths
    frame_of = reader.column("labels/frame")
    ends = {
        "atoms": np.cumsum(reader.atoms_of_frames(lengths)),
        "label_atoms": np.cumsum(reader.atoms_of_labels(lengths)),
        CHARGES: np.cumsum(reader.charges_of_frames(lengths)),
    }
    for spec, chunk, there in gaps:
        first, last = chunk * spec.chunk_rows + there, (chunk + 1) * spec.chunk_rows
        if spec.axis in ends:
            last = min(last, int(ends[spec.axis][-1]))
            first = int(np.searchsorted(ends[spec.axis], first, side="right"))
            last = int(np.searchsorted(ends[spec.axis], last, side="left")) + 1
        rows = range(first, last)
        if spec.path.startswith("labels/"):
            yield from frame_of[rows.start : rows.stop].tolist()
        else:
            yield from range(rows.start, min(rows.stop, lengths["frames"]))
