"""What `verify` checks: columns against HEAD, identities against contents, the log and its digests against the columns.

Every check states what is wrong in one line and lets the next one run where it can. Reads everything.
"""

from __future__ import annotations

import numpy as np

from alsys.errors import AlsysError, StoreCorrupt
from alsys.events import DataImported, LabelAccepted, LabelRetracted
from alsys.frames import ARMS
from alsys.labels import label_id_of
from alsys.store.base import VerifyReport
from alsys.store.columns import ColumnReader
from alsys.store.damage import ContentCheck
from alsys.store.encoding import to_hex
from alsys.store.schema import ALL_ARRAYS, AXES, COMMITS

MAX_PROBLEMS = 20
READ_CHUNKS = 256
"""Chunks of a column that are read at once."""


def verify_columns(reader: ColumnReader) -> VerifyReport:
    """Checks everything up to the reader's HEAD; a problem of one part does not hide those of another."""
    lengths = reader.head.lengths
    report = VerifyReport(
        head_seq=reader.head.seq,
        n_frames=lengths["frames"],
        n_labels=lengths["labels"],
        n_events=lengths["events"],
    )
    for check in (
        _check_columns,
        _check_commits,
        _check_texts,
        _check_frames,
        _check_labels,
        _check_log,
        _check_contents,
    ):
        try:
            check(reader, report)
        except StoreCorrupt as error:
            if error.message not in report.problems:
                report.problems.append(error.message)
        except (AlsysError, OSError, ValueError, KeyError, IndexError) as error:
            report.problems.append(f"{check.__name__.removeprefix('_check_')}: {type(error).__name__}: {error}")
    return report


def shorten(report: VerifyReport) -> VerifyReport:
    """Keeps the first problems and counts the others."""
    n_more = len(report.problems) - MAX_PROBLEMS
    if n_more > 0:
        report.problems[MAX_PROBLEMS:] = [f"and {n_more} more"]
    return report


def check_tables(reader: ColumnReader) -> None:
    """Returns where the tables that rows are found by are whole: commits, texts, and the codes that name their entries.

    Cheap beside a reading of all rows: what a driver does before it goes on.

    Raises:
        StoreCorrupt: The first problem.
    """
    lengths = reader.head.lengths
    report = VerifyReport(reader.head.seq, lengths["frames"], lengths["labels"], lengths["events"])
    for check in (_check_commits, _check_texts, _check_codes):
        try:
            check(reader, report)
        except (AlsysError, ValueError) as error:
            raise StoreCorrupt(f"tables of the store are damaged: {error}") from error
    if report.problems:
        raise StoreCorrupt(f"tables of the store are damaged: {report.problems[0]}")


def _check_codes(reader: ColumnReader, report: VerifyReport) -> None:
    """Codes name entries that there are."""
    n_levels, n_names = (reader.head.lengths[axis] for axis in ("levels", "names"))
    for path, count in (
        ("labels/level", n_levels), ("frames/arm", len(ARMS)), ("frames/system", n_names), ("frames/method", n_names),
    ):  # fmt: skip
        codes = reader.column(path)
        if codes.size and not (int(codes.min()) >= 0 and int(codes.max()) < count):
            report.problems.append(f"{path}: names one of {count} entries, and holds {int(codes.max())}")


def _check_columns(reader: ColumnReader, report: VerifyReport) -> None:
    """Every row that HEAD counts is there, whether anything else here looks at it or not."""
    for spec in ALL_ARRAYS:
        length = reader.head.seq if spec is COMMITS else reader.head.lengths[spec.axis]
        rows = READ_CHUNKS * spec.chunk_rows
        try:
            for start in range(0, length, rows):
                reader.read(spec.path, start, min(length, start + rows))
        except StoreCorrupt as error:
            report.problems.append(error.message)


def _check_commits(reader: ColumnReader, report: VerifyReport) -> None:
    if not reader.head.seq:
        return
    history = reader.read(COMMITS.path, 0, reader.head.seq)
    if (np.diff(history, axis=0, prepend=0) < 0).any():
        report.problems.append("commits: a length shrinks")
    if history[-1].tolist() != [reader.head.lengths[axis] for axis in AXES]:
        report.problems.append("commits: the last row is not HEAD")


def _check_texts(reader: ColumnReader, report: VerifyReport) -> None:
    lengths = reader.head.lengths
    for group, axis in (("events", "event_bytes"), ("levels", "level_bytes"), ("names", "name_bytes")):
        ends = reader.column(f"{group}/end")
        if (np.diff(ends, prepend=0) < 0).any() or (int(ends[-1]) if ends.size else 0) != lengths[axis]:
            report.problems.append(f"{group}: ends do not fit the {lengths[axis]} bytes")
    reader.levels()


def _check_frames(reader: ColumnReader, report: VerifyReport) -> None:
    lengths = reader.head.lengths
    n_atoms = reader.column("frames/n_atoms").astype(np.int64)
    if (n_atoms < 1).any() or int(n_atoms.sum()) != lengths["atoms"]:
        report.problems.append(f"atoms: {lengths['atoms']} rows, frames say {int(n_atoms.sum())}")
        return
    reader.names_at(lengths)
    for name, size in (("system", lengths["names"]), ("method", lengths["names"]), ("arm", len(ARMS))):
        codes = reader.column(f"frames/{name}")
        if ((codes < 0) | (codes >= size)).any():
            report.problems.append(f"frames: {name} is out of range")
            return
    n_charges = reader.column("frames/n_charges").astype(np.int64)
    if (n_charges < 0).any() or int(n_charges.sum()) != lengths["charges"]:
        report.problems.append(f"charges: {lengths['charges']} rows, frames say {int(n_charges.sum())}")
        return
    frame_ids = to_hex(reader.column("frames/frame_id"))
    if len(set(frame_ids)) != len(frame_ids):
        report.problems.append("frames: an identity stands twice")
        return


def _check_labels(reader: ColumnReader, report: VerifyReport) -> None:
    lengths = reader.head.lengths
    label_ids = to_hex(reader.column("labels/label_id"))
    report.duplicate_labels = len(label_ids) - len(set(label_ids))
    if report.duplicate_labels:
        report.problems.append(f"labels: {report.duplicate_labels} duplicates")
    frame_of, level_of = reader.column("labels/frame"), reader.column("labels/level")
    if ((frame_of < 0) | (frame_of >= lengths["frames"])).any():
        report.problems.append("labels: a label has no frame")
        return
    if ((level_of < 0) | (level_of >= lengths["levels"])).any():
        report.problems.append("labels: a label has no level of theory")
        return
    n_forces = int(reader.column("frames/n_atoms").astype(np.int64)[frame_of].sum())
    if n_forces != lengths["label_atoms"]:
        report.problems.append(f"labels: {lengths['label_atoms']} rows of forces, frames say {n_forces}")
    frame_ids, level_ids = to_hex(reader.column("frames/frame_id")), to_hex(reader.column("levels/level_id"))
    set_aside = {tombstone.frame_id for tombstone in reader.tombstones() if tombstone.is_damaged}
    is_data = np.array([frame_ids[frame] not in set_aside for frame in frame_of.tolist()], dtype=np.bool_)
    if not np.isfinite(reader.column("labels/energy")[is_data]).all():
        report.problems.append("labels: an energy is not finite")
    are_data = np.repeat(is_data, reader.atoms_of_labels(lengths))
    if not np.isfinite(reader.column("labels/forces")[are_data]).all():
        report.problems.append("labels: a force is not finite")
    for label_id, frame, level in zip(label_ids, frame_of.tolist(), level_of.tolist(), strict=True):
        if frame_ids[frame] not in set_aside and label_id != label_id_of(frame_ids[frame], level_ids[level]):
            report.problems.append(f"label {label_id}: identity does not fit frame and level")


def _check_log(reader: ColumnReader, report: VerifyReport) -> None:
    accepted: list[str] = []
    label_of: dict[str, str] = {}
    retracted: set[str] = set()
    set_aside: dict[str, str] = {}
    imports: list[DataImported] = []
    levels = {level_id: row for row, level_id in enumerate(to_hex(reader.column("levels/level_id")))}
    for event in reader.iter_events():
        if isinstance(event, LabelAccepted):
            accepted += [label_id for label_id in (event.label_id, event.baseline_id) if label_id]
            label_of[event.frame_id] = event.label_id
        elif isinstance(event, DataImported):
            imports.append(event)
        elif isinstance(event, LabelRetracted):
            if event.is_damaged:
                set_aside[event.frame_id] = event.label_id
            elif label_of.get(event.frame_id) != event.label_id:
                report.problems.append(f"events: label {event.label_id} is retracted and was never accepted")
            if event.frame_id in retracted:
                report.problems.append(f"events: label {event.label_id} is retracted twice")
            retracted.add(event.frame_id)
    report.n_retracted = len(retracted)
    if retracted != {tombstone.frame_id for tombstone in reader.tombstones()}:
        report.problems.append("events: tombstones are not found where the log has them")
    if len(set(accepted)) != len(accepted):
        report.problems.append("events: a label is accepted twice")
    label_ids, level_of = to_hex(reader.column("labels/label_id")), reader.column("labels/level").tolist()
    imported: set[str] = set()
    for event in imports:
        rows = slice(event.first_row, event.first_row + event.n_rows)
        has_frames = 0 <= event.first_frame <= event.first_frame + event.n_frames <= reader.head.lengths["frames"]
        has_rows = event.first_row >= 0 and len(label_ids[rows]) == event.n_rows
        if not (has_frames and has_rows and imported.isdisjoint(label_ids[rows])):
            report.problems.append(f"events: the import of {event.source!r} names rows that are not its own")
        if level_of[rows].count(levels.get(event.level_id, -1)) != event.n_labels:
            report.problems.append(f"events: the import of {event.source!r} and its labels differ in level")
        imported.update(label_ids[rows])
    odd = (set(accepted) - set(label_ids) - set(set_aside.values())) | (set(label_ids) - imported - set(accepted))
    if odd and set_aside:  # of a label that was set aside the identity may be what is damaged
        frame_ids, frame_of = to_hex(reader.column("frames/frame_id")), reader.column("labels/frame").tolist()
        odd -= {x for x, row in zip(label_ids, frame_of, strict=True) if frame_ids[row] in set_aside}
    if odd:
        report.problems.append(f"events: {len(odd)} labels differ between log and arrays")


def _check_contents(reader: ColumnReader, report: VerifyReport) -> None:
    """Frames have their identities, and the values of labels are those that the log has a digest of."""
    check = ContentCheck(reader)
    for event in reader.iter_events():
        check.add(event)
    damage = check.damage()
    report.n_without_digest = damage.n_without_digest
    report.n_set_aside = check.n_set_aside
    for row in damage.frames:
        frame_id = reader.read("frames/frame_id", row, row + 1).tobytes().hex()
        report.problems.append(f"frame {frame_id}: the content has another identity")
    for event in damage.imports:
        report.problems.append(f"import of {event.source!r}: a label or a mask is not what was imported")
    if damage.arms:
        report.problems.append(f"frames: arms of {len(damage.arms)} frames are not those of the log")
    for label_id in damage.labels:
        report.problems.append(f"label {label_id}: it, its baseline or the frame's mask is not what was accepted")


CHECKS = (_check_columns, _check_commits, _check_texts, _check_frames, _check_labels, _check_log, _check_contents)
"""In the order in which they run."""
