"""Damaged events of the log: mended by their checksums, or set aside and told again by the arrays, for repairs.

The checksum of an event (`events/crc`) finds the one bit that was flipped. Without one, a flipped bit is put back where
only one way of doing so gives an event. What cannot be mended makes room for `EventLost` of the same length, so that
nothing else of the log moves; the bytes that were there are kept beside it. In that room the arrays say again which
frames were proposed and which labels accepted.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain

from alsys.errors import StoreCorrupt
from alsys.events import (
    DataImported,
    Event,
    EventLost,
    FrameProposed,
    LabelAccepted,
    ModelLost,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    decode,
    encode,
)
from alsys.events.base import log_name
from alsys.frames import ARMS
from alsys.store.base import own_level
from alsys.store.columns import ColumnReader
from alsys.store.encoding import crc_of, to_hex

NEWER = "use the alsys that wrote the store"
MAX_ZEROS = 2
"""An event with more bytes of zeros has lost more than one bit."""


def is_whole(text: bytes, crc: int) -> bool:
    """Whether an event is as it was written.

    Raises:
        StoreCorrupt: It is, and this alsys does not know it.
    """
    if crc not in (0, crc_of(text)):
        return False
    if _decodes(text):
        return True
    if crc:
        raise StoreCorrupt("the log has events of a newer alsys", NEWER)
    return False


def mended(text: bytes, crc: int) -> bytes | None:
    """An event with the one bit put back that was flipped; None where that is not what happened.

    No flipped bit of a text changes one bit only of its checksum: then it is the checksum that was damaged.
    """
    if crc and (crc ^ crc_of(text)).bit_count() == 1 and _decodes(text):
        return text
    found = [other for other in _flipped(text) if (crc_of(other) == crc if crc else _decodes(other))]
    return found[0] if len(found) == 1 and _decodes(found[0]) else None


def blank(text: bytes) -> bytes:
    """`EventLost` in the room of an event."""
    return in_room(EventLost(t=0.0), len(text)) or text


def in_room(event: Event, size: int) -> bytes | None:
    """An event in so many bytes, without what its defaults say; None where it does not fit."""
    defaults = {log_name(field): field.default for field in fields(event)}
    record = {name: value for name, value in json.loads(encode(event)).items() if defaults.get(name, event) != value}
    line = json.dumps(record, separators=(",", ":")).encode()
    return line[:-1].ljust(size - 1) + line[-1:] if len(line) <= size else None


def retell(texts: list[bytes], frames: Mapping[int, FrameProposed], labels: Mapping[int, LabelAccepted]) -> int:
    """Writes frames and labels that the log misses, by their rows, into the room of lost events, in their order.

    Events of models that were published in a lost event bring that event back. What names a frame or a model that the
    log does not know then makes room too. Returns how many were told again.
    """
    events = [decode(text) for text in texts]
    room = [i for i, event in enumerate(events) if isinstance(event, EventLost)]
    n_told = 0

    def tell(event: Event, after: int, before: int) -> int:
        """Takes the first room between two events; returns where, or -1."""
        nonlocal n_told
        for place in room[bisect_right(room, after) :]:
            if place >= before:
                break
            times = (e.t for e in chain(reversed(events[:place]), events[place:]) if e.t)
            event = replace(event, t=float(int(next(times, 0.0))))
            if (line := in_room(event, len(texts[place]))) is not None:
                texts[place], events[place] = line, event
                room.remove(place)
                n_told += 1
                return place
        return -1

    last, stop = -1, len(events)
    at = {event.frame_id: i for i, event in enumerate(events) if isinstance(event, FrameProposed)}
    accepted = {event.frame_id: i for i, event in enumerate(events) if isinstance(event, LabelAccepted)}
    for frame in (frames[row] for row in sorted(frames)):
        before = min(accepted.get(frame.frame_id, stop), stop)
        last = max(last, tell(frame, last, before))
        at = {**at, frame.frame_id: last} if last >= 0 else at
    last = -1
    for label in (labels[row] for row in sorted(labels)):
        last = max(last, tell(label, max(last, at.get(label.frame_id, -1)), stop))
    for i, event in enumerate(events):
        if isinstance(event, ModelPromoted | ModelRejected | ModelLost):
            published = {e.version for e in events[:i] if isinstance(e, ModelPublished)}
            if event.version not in published:
                n_labels = sum(isinstance(e, LabelAccepted) for e in events[:i])
                tell(
                    ModelPublished(t=0.0, version=event.version, parent=0, seq=0, n_labels=n_labels, wall_s=0.0), -1, i
                )
    for i in _dangling(events):
        texts[i] = blank(texts[i])
    return n_told


def _dangling(events: Iterable[Event]) -> Iterator[int]:
    """Events of frames and models that no event before them has brought."""
    frames: set[str] = set()
    versions: set[int] = set()
    has_imports = False
    for i, event in enumerate(events):
        if isinstance(event, FrameProposed):
            frames.add(event.frame_id)
        elif isinstance(event, DataImported):
            has_imports = True
        elif isinstance(event, ModelPublished):
            versions.add(event.version)
        elif isinstance(event, ModelPromoted | ModelRejected | ModelLost):
            if event.version not in versions:
                yield i
        elif getattr(event, "frame_id", "") not in {"", *frames} and not has_imports:
            yield i


def _decodes(text: bytes) -> bool:
    try:
        decode(text)
    except StoreCorrupt:
        return False
    return True


def _flipped(text: bytes) -> Iterator[bytes]:
    """All texts that differ in one bit."""
    if text.count(0) > MAX_ZEROS:
        return
    for place in range(len(text)):
        for bit in range(8):
            yield text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :]


def missing(
    reader: ColumnReader, known: Collection[str], accepted: Collection[str], imports: Sequence[DataImported]
) -> tuple[dict[int, FrameProposed], dict[int, LabelAccepted]]:
    """Frames and labels that arrays hold and no event names, by their rows. Their times are not known.

    Args:
        reader: The store.
        known: Frames that the log has proposed.
        accepted: Labels that it has accepted, those of the baseline included.
        imports: Of the log.
    """
    lengths, names = reader.head.lengths, reader.names_at(reader.head.lengths)
    frame_ids, label_ids, levels = (
        to_hex(reader.column(path)) for path in ("frames/frame_id", "labels/label_id", "levels/level_id")
    )
    with_imports = {row for e in imports for row in range(e.first_frame, e.first_frame + e.n_frames)}
    imported = {row for e in imports for row in range(e.first_row, e.first_row + e.n_rows)}
    frames = {}
    for row in range(lengths["frames"]):
        if row not in with_imports and frame_ids[row] not in known:
            arm, system, method, trajectory, version, deviation = (
                reader.read(f"frames/{name}", row, row + 1)[0]
                for name in ("arm", "system", "method", "trajectory", "model_version", "deviation")
            )
            frames[row] = FrameProposed(
                t=0.0, frame_id=frame_ids[row], arm=ARMS[arm], system=names[system], deviation=float(str(deviation)),
                model_version=int(version), trajectory=int(trajectory), method=names[method],
            )  # fmt: skip
    own = own_level(reader.levels(), imports)
    rows = [row for row in range(lengths["labels"]) if row not in imported and label_ids[row] not in accepted]
    frame_of, level_of = reader.column("labels/frame").tolist(), reader.column("labels/level").tolist()
    beside = {frame_of[row]: label_ids[row] for row in rows if own is None or levels[level_of[row]] != own.level_id}
    labels = {
        row: LabelAccepted(
            t=0.0, frame_id=frame_ids[frame_of[row]], label_id=label_ids[row], worker="",
            wall_s=float(str(reader.read("labels/wall_s", row, row + 1)[0])), baseline_id=beside.get(frame_of[row], ""),
        )
        for row in rows
        if own is not None and levels[level_of[row]] == own.level_id
    }  # fmt: skip
    return frames, labels
