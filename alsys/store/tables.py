"""What rows are found by, told again by what else a store holds: for repairs.

Each of these columns is decided by others, whether it is gone or wrong. The content of a frame has an identity, and so
tells its number of atoms; that of a label is of frame and level. The log has the identities of all frames and labels,
and where frames came from. A level's identity is that of its text, which other files hold too. What nothing tells is
left as it is, or said to be unknown where it is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from alsys.errors import StoreCorrupt
from alsys.events import DataImported, EventLost, FrameProposed, LabelAccepted
from alsys.frames import ARMS, FRAME_ID_BYTES, FRAME_PERSON, Arm
from alsys.labels import LevelOfTheory, label_id_of
from alsys.store.base import Head
from alsys.store.columns import ColumnReader
from alsys.store.damage import damaged_frames
from alsys.store.encoding import AXIS_OF, Array, crc_of, decode_texts, from_hex, to_hex
from alsys.store.guards import check_counts, check_ends
from alsys.store.log_repair import blank, is_whole, mended, missing, retell
from alsys.store.schema import AXES, BY_PATH, CHARGES, COMMITS
from alsys.store.zarr_folder import ZarrFolder

FRAME_SOURCES = ("arm", "system", "method", "trajectory", "model_version", "deviation", "step", "temperature")
"""Where frames came from."""
NOT_LOGGED = ("step", "temperature")
NO_BACKUP = "cannot be made anew: restore it from a backup"


@dataclass(slots=True)
class LogFacts:
    """What the log says of frames and labels, in its order."""

    proposed: dict[str, FrameProposed] = field(default_factory=dict)
    frame_of: dict[str, str] = field(default_factory=dict)
    imports: list[DataImported] = field(default_factory=list)

    @classmethod
    def of(cls, reader: ColumnReader) -> LogFacts:
        """Those of a store."""
        facts = cls()
        for event in reader.iter_events():
            if isinstance(event, FrameProposed):
                facts.proposed.setdefault(event.frame_id, event)
            elif isinstance(event, LabelAccepted):
                for label_id in filter(None, (event.label_id, event.baseline_id)):
                    facts.frame_of.setdefault(label_id, event.frame_id)
            elif isinstance(event, DataImported):
                facts.imports.append(event)
        return facts

    def import_of(self, row: int) -> DataImported | None:
        """The import that a frame's row came with."""
        return next((e for e in self.imports if e.first_frame <= row < e.first_frame + e.n_frames), None)


class Tables:
    """Writes again what other columns tell.

    Args:
        folder: A locked store with a HEAD.
        levels: Levels of theory that other files of the campaign name.
        lines: Gets one line for each column that was written again.
    """

    def __init__(self, folder: ZarrFolder, levels: Iterable[LevelOfTheory], lines: list[str]) -> None:
        self._folder = folder
        self._known = {level.level_id: level.canonical.encode() for level in levels}
        self._lines = lines
        self._head: Head = folder.read_head()
        self._reader = ColumnReader(folder, self._head)
        self._gaps: dict[str, list[range]] = {}
        for spec, chunk, there in folder.fill_gaps():
            first, last = chunk * spec.chunk_rows, min((chunk + 1) * spec.chunk_rows, self._length(spec.path))
            self._gaps.setdefault(spec.path, []).append(range(first + there, last))

    def restore(self) -> None:
        """All of them, those first by which others are found.

        Raises:
            StoreCorrupt: Nothing tells what a column was.
        """
        self._commits()
        self._event_ends()
        self._events()
        self._counts()
        self._levels()
        self._names()
        self._frame_ids()
        self._labels()
        self._sources()
        self._retell()

    @cached_property
    def _log(self) -> LogFacts:
        return LogFacts.of(self._reader)

    def _length(self, path: str) -> int:
        return self._head.seq if path == COMMITS.path else self._head.lengths[AXIS_OF[path]]

    def _lost(self, path: str) -> set[int]:
        """Rows that are gone."""
        return {row for rows in self._gaps.get(path, ()) for row in rows}

    def _write(self, path: str, rows: Array, told_by: str) -> None:
        if n := self._folder.restore(path, rows):
            self._lines.append(f"{path}: {n} of {len(rows)} values are written again, {told_by}")

    def _commits(self) -> None:
        """Lengths of older versions; those that are not known are as of the version before, the newest is HEAD's."""
        if not self._head.seq:
            return
        history = self._reader.read(COMMITS.path, 0, self._head.seq)
        history[-1] = [self._head.lengths[axis] for axis in AXES]
        is_known = np.ones(len(history), dtype=np.bool_)
        is_known[list(self._lost(COMMITS.path))] = False
        is_known[-1] = True
        up, down = is_known.copy(), is_known.copy()
        _refuse_shrinking(history, up, range(len(history)), 1)
        _refuse_shrinking(history, down, range(len(history) - 1, -1, -1), -1)
        is_known = up if up[-1] and up.sum() > down.sum() else down
        for row in np.flatnonzero(~is_known).tolist():
            history[row] = history[row - 1] if row else 0
        self._write(COMMITS.path, history, "what older versions held is not known: each holds what the one before did")

    def _event_ends(self) -> None:
        path, total = "events/end", self._head.lengths["event_bytes"]
        is_sound = path not in self._gaps and _is_sound(lambda: check_ends(path, self._reader.column(path), total))
        if is_sound and _is_sound(lambda: deque(self._reader.iter_events(), maxlen=0)):
            return
        ends = [stop for _, stop in _json_objects(self._reader.column("events/bytes").tobytes())]
        if len(ends) != self._length(path) or ends[-1:] != [total]:
            if is_sound:
                return  # it is texts that are damaged, as below
            raise StoreCorrupt(f"{path} and events/bytes do not fit each other", f"the log {NO_BACKUP}")
        found, crcs = np.array(ends, dtype="<i8"), self._reader.column("events/crc").tolist()
        texts = decode_texts(found, 0, self._reader.column("events/bytes"))
        if is_sound and not all(is_whole(text, crc) for text, crc in zip(texts, crcs, strict=True)):
            return
        self._write(path, found, "from the log itself")

    def _events(self) -> None:
        """Damaged events are mended or make room for what the arrays say."""
        texts, crcs = self._reader.texts("events"), self._reader.column("events/crc")
        crcs[list(self._lost("events/crc"))] = 0
        n_mended = n_lost = 0
        for row, text in enumerate(texts):
            if not is_whole(text, int(crcs[row])):
                found = mended(text, int(crcs[row]))
                n_mended, n_lost = n_mended + (found is not None), n_lost + (found is None)
                texts[row] = blank(text) if found is None else found
                crcs[row] = crc_of(texts[row])
        for row in (lost := self._lost("events/crc")):
            crcs[row] = crc_of(texts[row])
        self._write_log(texts, crcs)
        if lost:
            self._lines.append(f"events/crc: {len(lost)} of {len(crcs)} values are written again, from the log itself")
        if n_mended:
            self._lines.append(f"events: one bit of {n_mended} events of the log was wrong and is put back")
        if n_lost:
            self._lines.append(f"events: {n_lost} events of the log cannot be read and are set aside")

    def _write_log(self, texts: Sequence[bytes], crcs: Array) -> None:
        self._folder.restore("events/bytes", np.frombuffer(b"".join(texts), dtype=np.uint8))
        if not self._folder.is_missing(BY_PATH["events/crc"]):
            self._folder.restore("events/crc", crcs)

    def _retell(self) -> None:
        """Frames and labels that stood in lost events."""
        if not any(isinstance(event, EventLost) for event in self._reader.iter_events()):
            return
        texts, crcs = self._reader.texts("events"), self._reader.column("events/crc")
        before, log = list(texts), LogFacts.of(self._reader)
        n_told = retell(texts, *missing(self._reader, log.proposed, log.frame_of, log.imports))
        for row, text in enumerate(texts):
            if text != before[row]:
                crcs[row] = crc_of(text)
        self._write_log(texts, crcs)
        if n_told:
            self._lines.append(f"events: {n_told} of what was set aside are told again by the arrays")

    def _counts(self) -> None:
        """Atoms of frames: as many as give a frame its identity."""
        path, lengths = "frames/n_atoms", self._head.lengths
        if path not in self._gaps and _is_sound(lambda: self._reader.atoms_of_frames(lengths)):
            return
        columns = [self._reader.column(f"frames/{name}") for name in ("charge", "multiplicity", "cell", "pbc")]
        numbers, positions = (self._reader.column(f"atoms/{name}").tobytes() for name in ("numbers", "positions"))
        ids, stored = self._reader.column("frames/frame_id"), self._reader.column(path)
        charge_counts = self._reader.charges_of_frames(lengths)
        around = [self._reader.column(f"charges/{name}").tobytes() for name in ("positions", "values")]
        counts, first, first_charge = stored.copy(), 0, 0
        for row, (charge, multiplicity, cell, pbc) in enumerate(zip(*columns, strict=True)):
            last_charge = first_charge + int(charge_counts[row])
            tail = cell.tobytes() + pbc.tobytes()
            tail += around[0][24 * first_charge : 24 * last_charge] + around[1][8 * first_charge : 8 * last_charge]
            for n in (int(stored[row]), *range(1, lengths["atoms"] - first + 1)):
                head = np.array([n, charge, multiplicity], dtype="<i8").tobytes()
                stop = first + n
                content = head + numbers[4 * first : 4 * stop] + positions[24 * first : 24 * stop] + tail
                digest = hashlib.blake2b(content, digest_size=FRAME_ID_BYTES, person=FRAME_PERSON)
                if digest.digest() == ids[row].tobytes():
                    counts[row] = n
                    break
            first, first_charge = first + int(counts[row]), last_charge
        try:
            check_counts(path, counts.astype(np.int64), 1, lengths["atoms"], is_whole=True)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{path}: a frame without its number of atoms is damaged too", NO_BACKUP) from error
        self._write(path, counts, "as the identities of frames tell")

    def _levels(self) -> None:
        """Levels of theory: texts of the identities, identities of the texts."""
        ids, (slices, ends) = to_hex(self._reader.column("levels/level_id")), self._texts("levels")
        content = self._reader.column("levels/bytes").tobytes()
        found = [text for start, stop in _json_objects(content) for text in [content[start:stop]]]
        pool = {level.level_id: text for text in found if (level := _level(text))} | self._known
        texts: list[bytes | None] = []
        for row, level_id in enumerate(ids):
            level = None if level_id in pool else _level(slices[row] or b"")
            if level is not None and self._has_labels(level.level_id):
                ids[row] = level.level_id
            texts.append(pool.get(ids[row]))
            if texts[-1] is None and slices[row] != b" " * len(slices[row] or b"-"):
                self._lines.append(
                    f"levels: the text of level {level_id} is lost; labels at it stay, under that identity"
                )
        self._write("levels/level_id", from_hex(ids), "as their texts tell")
        self._write_texts("levels", texts, ends, lambda _, size: b" " * size)

    def _has_labels(self, level_id: str) -> bool:
        ids = set(to_hex(self._reader.column("labels/label_id")))
        return any(label_id_of(frame, level_id) in ids for frame in to_hex(self._reader.column("frames/frame_id")))

    def _names(self) -> None:
        """Names of systems and methods: what the log calls the frames that have their codes."""
        slices, ends = self._texts("names")
        votes: dict[int, Counter[str]] = {}
        frame_ids = to_hex(self._reader.column("frames/frame_id"))
        for column in ("system", "method"):
            path = f"frames/{column}"
            codes, lost = self._reader.column(path).tolist(), self._lost(path)
            for row, code in enumerate(codes):
                event = self._log.proposed.get(frame_ids[row])
                if event is not None and row not in lost and (name := getattr(event, column)):
                    votes.setdefault(code, Counter())[name] += 1
        texts: list[bytes | None] = []
        for code, kept in enumerate(slices):
            told = votes[code].most_common(1)[0][0].encode() if code in votes else None
            is_told = told is not None and (kept is None or len(told) == len(kept) or not _is_text(kept))
            texts.append(told if is_told else kept if kept is not None and _is_text(kept) else None)
            if texts[-1] is None:
                self._lines.append(f"names: name {code} is lost; frames that have it have a number instead")
        self._write_texts("names", texts, ends, lambda code, size: str(code).rjust(size, "_")[:size].encode())

    def _texts(self, group: str) -> tuple[list[bytes | None], Array | None]:
        """Texts, None where bytes of one are gone, and their ends, None where they are wrong."""
        total, n = self._head.lengths[AXIS_OF[f"{group}/bytes"]], self._head.lengths[group]
        ends = self._reader.column(f"{group}/end")
        if f"{group}/end" in self._gaps or not _is_sound(lambda: check_ends(f"{group}/end", ends, total)):
            return [None] * n, None
        lost = self._lost(f"{group}/bytes")
        texts = decode_texts(ends, 0, self._reader.column(f"{group}/bytes"))
        spans = zip([0, *ends.tolist()], ends.tolist(), strict=False)
        return [None if not lost.isdisjoint(range(*s)) else t for s, t in zip(spans, texts, strict=True)], ends

    def _write_texts(
        self, group: str, texts: list[bytes | None], ends: Array | None, unknown: Callable[[int, int], bytes]
    ) -> None:
        """Writes texts and their ends; where one is not known, what `unknown` makes of its row and size."""
        total = self._head.lengths[AXIS_OF[f"{group}/bytes"]]
        if ends is not None:
            sizes = np.diff(ends, prepend=0).tolist()
        else:
            sizes = [0 if text is None else len(text) for text in texts]
            if None in texts:
                sizes[texts.index(None)] = total - sum(sizes)
        full = [unknown(row, sizes[row]) if text is None else text for row, text in enumerate(texts)]
        if [len(text) for text in full] != sizes or sum(sizes) != total:
            raise StoreCorrupt(f"{group}: texts do not fit the {total} bytes", f"{group}/end {NO_BACKUP}")
        self._write(f"{group}/end", np.cumsum(sizes, dtype="<i8")[: len(texts)], "as the texts tell")
        self._write(f"{group}/bytes", np.frombuffer(b"".join(full), dtype=np.uint8), "from log, config and models")

    def _frame_ids(self) -> None:
        """Identities of frames: those of contents that log or labels know, else those that the log misses."""
        path = "frames/frame_id"
        actual, lost = damaged_frames(self._reader), self._lost(path)
        ids, log = to_hex(self._reader.column(path)), self._log
        held = {frame_id for row, frame_id in enumerate(ids) if row not in actual}
        label_ids, levels = (to_hex(self._reader.column(f"{g}_id")) for g in ("labels/label", "levels/level"))
        labels, unknown = set(label_ids), []
        for row, own in actual.items():
            is_known = own in log.proposed or any(label_id_of(own, level) in labels for level in levels)
            if row not in lost and (ids[row] in log.proposed or (log.import_of(row) and not is_known)):
                continue  # the content is what is damaged
            if own not in held and is_known:
                ids[row] = own
                held.add(own)
            else:
                unknown.append(row)
        frame_of = self._reader.column("labels/frame").tolist()
        labelled = {frame: log.frame_of.get(label) for frame, label in zip(frame_of, label_ids, strict=True)}
        held.update(filter(None, (labelled.get(row) for row in unknown)))
        missing = iter([frame_id for frame_id in log.proposed if frame_id not in held])
        for row in unknown:
            proposed = None if log.import_of(row) else labelled.get(row) or next(missing, None)
            ids[row] = proposed or actual[row]
        self._write(path, from_hex(ids), "as contents and log tell")

    def _labels(self) -> None:
        """Frame and level of a label's identity; the identity of frame and level, where the log knows it."""
        columns = [self._reader.column(f"labels/{name}").tolist() for name in ("frame", "level")]
        frame_of, level_of = columns
        ids, log = to_hex(self._reader.column("labels/label_id")), self._log
        frame_ids, levels = (
            to_hex(self._reader.column("frames/frame_id")),
            to_hex(self._reader.column("levels/level_id")),
        )

        def told(row: int) -> str:
            frame, level = frame_of[row], level_of[row]
            is_there = 0 <= frame < len(frame_ids) and 0 <= level < len(levels)
            return label_id_of(frame_ids[frame], levels[level]) if is_there else ""

        lost = [self._lost(f"labels/{name}") for name in ("frame", "level")]
        wrong = [row for row in range(len(ids)) if told(row) != ids[row] or row in lost[0] or row in lost[1]]
        if not wrong:
            return
        owner = {label_id_of(f, k): (i, j) for j, k in enumerate(levels) for i, f in enumerate(frame_ids)}
        held = {label_id for label_id in ids if label_id in owner}
        missing = [label_id for label_id in log.frame_of if label_id not in held and label_id in owner]
        for row in wrong:
            if ids[row] not in owner:
                event = next((e for e in log.imports if e.first_row <= row < e.first_row + e.n_rows), None)
                first = [] if event is None else [event.level_id]
                frames = frame_ids[frame_of[row] :][:1] if frame_of[row] >= 0 else []
                same = [label_id_of(frame, level) for frame in frames for level in dict.fromkeys([*first, *levels])]
                known = [x for x in same if x not in held and x in owner and (x in log.frame_of or event is not None)]
                if row in lost[0] and event is None:  # nothing but the order is left
                    known = [x for x in missing if x not in held][:1]
                own = told(row)
                ids[row] = own if own in known and row not in lost[1] else next(iter(known), ids[row])
                held.add(ids[row])
            frame_of[row], level_of[row] = owner.get(ids[row], (frame_of[row], level_of[row]))
            level_of[row] = level_of[row] if 0 <= level_of[row] < len(levels) else 0  # it is set aside
        self._write("labels/label_id", from_hex(ids), "as frame, level and log tell")
        self._write("labels/frame", np.array(frame_of, dtype="<i8"), "as the identities of labels tell")
        self._write("labels/level", np.array(level_of, dtype="<i4"), "as the identities of labels tell")

    def _sources(self) -> None:
        """Where frames came from: what is gone, codes that are none, arms and systems that the log has otherwise."""
        frame_ids, n_atoms = (
            to_hex(self._reader.column("frames/frame_id")),
            self._reader.column("frames/n_atoms").tolist(),
        )
        codes = {name: code for code, name in enumerate(self._reader.names_at(self._head.lengths))}
        sizes = {"arm": len(ARMS), "system": len(codes), "method": len(codes)}
        for name in FRAME_SOURCES:
            path = f"frames/{name}"
            column, lost = self._reader.column(path), self._lost(path)
            for row, value in enumerate(column.tolist()):
                event = None if self._log.import_of(row) else self._log.proposed.get(frame_ids[row])
                is_wrong = row in lost or (name in sizes and not 0 <= value < sizes[name])
                is_told = event is not None or (name == "arm" and self._log.import_of(row) is not None)
                if is_wrong or (name in ("arm", "system") and is_told):
                    column[row] = _source_of(event, name, row, n_atoms[row], codes)
            told_by = "as unknown" if name in NOT_LOGGED else "from the log"
            if name == "system" and any(self._log.import_of(row) is not None for row in lost):
                told_by += ", which does not say it of imported frames: they get the first system"
            self._write(path, column, told_by)
        if not self._head.lengths[CHARGES]:
            self._write("frames/n_charges", np.zeros(len(frame_ids), dtype="<i4"), "there are none")


def _source_of(event: FrameProposed | None, name: str, row: int, n_atoms: int, codes: Mapping[str, int]) -> float:
    """What the log says of a frame. Imported frames have no event: what theirs had is partly a guess."""
    if event is None:
        arm = Arm.ATOM if n_atoms == 1 else Arm.IMPORTED
        return {"arm": ARMS.index(arm), "trajectory": row, "deviation": np.nan, "method": codes.get("import", 0)}.get(
            name, 0
        )
    if name == "arm":
        return ARMS.index(event.arm)
    value: float | str = getattr(event, name, 0)
    return codes.get(value, 0) if isinstance(value, str) else value


def _is_sound(check: Callable[[], object]) -> bool:
    try:
        check()
    except StoreCorrupt:
        return False
    return True


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _level(text: bytes) -> LevelOfTheory | None:
    """The level that a text is the canonical JSON of."""
    try:
        level = LevelOfTheory(json.loads(text))
        return level if level.canonical.encode() == text else None
    except (TypeError, ValueError, RecursionError):
        return None


def _json_objects(content: bytes) -> Iterator[tuple[int, int]]:
    """Where the JSON objects of a text begin and end, one after the other; what is none is skipped."""
    text, place, read = content.decode("latin-1"), 0, json.JSONDecoder().raw_decode
    while (place := text.find("{", place)) >= 0:
        try:
            _, stop = read(text, place)
            yield place, stop
            place = stop
        except (ValueError, RecursionError):
            place += 1


def _refuse_shrinking(history: Array, is_known: Array, rows: Sequence[int], sign: int) -> None:
    """Marks rows as unknown that shrink (sign 1) or grow (-1) against the one before, in the order of `rows`."""
    last: Array | None = None
    for row in rows:
        if is_known[row]:
            is_known[row] = last is None or bool((sign * (history[row] - last) >= 0).all())
            last = history[row] if is_known[row] else last
