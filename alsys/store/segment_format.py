"""Objects of a store in object storage: segments, and what is behind the log; each with a digest at its beginning."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alsys.errors import StoreCorrupt
from alsys.store.base import Head
from alsys.store.schema import ALL_AXES, BY_PATH, COMMITS, FORMAT, ArraySpec

LOG: Final = "log"
"""Folder of the segments."""
PLAIN: Final = "zarr"
"""Folder of full chunks, as plain Zarr."""
NO_HEAD: Final = Head(0, 0, dict.fromkeys(ALL_AXES, 0))
"""Of a log without a commit."""
_NAME: Final = re.compile(rf"{LOG}/([0-9]{{12}})")
MAGIC: Final = b"alsys-segment-1 "
RESTORE: Final = "restore it from a version of the bucket"
"""What can be done about an object that is gone."""

Rows = tuple[str, int, NDArray[Any]]
"""Path of a column, first row, and rows."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows, and the HEAD that holds once they are there; without one for rows that a later commit makes visible."""

    rows: tuple[Rows, ...]
    head: Head | None

    def encode(self) -> bytes:
        """One object: a digest, a line of JSON, and the rows behind each other."""
        about = {
            "format": FORMAT,
            "rows": [[path, start, len(rows)] for path, start, rows in self.rows],
            "head": None if self.head is None else _record(self.head),
        }
        body = json.dumps(about, separators=(",", ":")).encode() + b"\n"
        body += b"".join(np.ascontiguousarray(rows, BY_PATH[path].dtype).tobytes() for path, _, rows in self.rows)
        return MAGIC + _digest(body) + b"\n" + body

    @classmethod
    def decode(cls, content: bytes | None, name: str) -> Segment:
        """What an object holds.

        Raises:
            StoreCorrupt: It is gone, damaged, or of a later format.
        """
        if content is None:
            raise StoreCorrupt(f"{name} is gone", RESTORE)
        first, _, body = content.partition(b"\n")
        if first != MAGIC + _digest(body):
            raise StoreCorrupt(f"{name} is damaged", RESTORE)
        line, _, values = body.partition(b"\n")
        about = json.loads(line)
        if about["format"] != FORMAT:
            raise StoreCorrupt(f"{name} has format {about['format']}, this alsys reads {FORMAT}", "update alsys")
        found, place = [], 0
        for path, start, count in about["rows"]:
            spec = BY_PATH[path]
            part = np.frombuffer(values, np.uint8, count * spec.row_bytes, place)
            found.append((path, start, part.view(spec.dtype).reshape(count, *spec.row_shape)))
            place += part.size
        return cls(tuple(found), None if about["head"] is None else _head(about["head"]))


@dataclass(frozen=True, slots=True)
class Compacted:
    """What is behind the log: segments up to a number, the HEAD that they made, and full chunks of each column."""

    n: int
    head: Head
    chunks: dict[str, int]

    def encode(self) -> bytes:
        """A line of JSON behind its digest."""
        body = json.dumps({"n": self.n, "head": _record(self.head), "chunks": self.chunks}, sort_keys=True).encode()
        return MAGIC + _digest(body) + b"\n" + body

    @classmethod
    def decode(cls, content: bytes, name: str) -> Compacted:
        """What an object says.

        Raises:
            StoreCorrupt: It is damaged.
        """
        first, _, body = content.partition(b"\n")
        if first != MAGIC + _digest(body):
            raise StoreCorrupt(f"{name} is damaged", RESTORE)
        about = json.loads(body)
        return cls(about["n"], _head(about["head"]), about["chunks"])


def segment_name(number: int) -> str:
    """Object of a segment."""
    return f"{LOG}/{number:012d}"


def chunk_name(spec: ArraySpec, chunk: int) -> str:
    """Object of a chunk of a column."""
    return "/".join((PLAIN, spec.path, "c", str(chunk), *("0" for _ in spec.row_shape)))


def numbers_in(names: Iterable[str]) -> list[int]:
    """Numbers of the segments among some objects; what others have put beside them is none."""
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


def plain_metadata(head: Head) -> dict[str, bytes]:
    """What plain Zarr says of groups and arrays at a HEAD, by file."""
    from alsys.store.zarr_arrays import blank_hierarchy

    found = {}
    for name, content in blank_hierarchy().items():
        metadata = json.loads(content)
        if (path := name.rpartition("/")[0]) in BY_PATH:
            metadata["shape"][0] = head.seq if path == COMMITS.path else head.lengths[BY_PATH[path].axis]
        found[name] = json.dumps(metadata, indent=2).encode()
    return found


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode()


def _record(head: Head) -> dict[str, Any]:
    return {"seq": head.seq, "epoch": head.epoch, "lengths": dict(head.lengths), "store": head.identity}


def _head(record: dict[str, Any]) -> Head:
    return Head(record["seq"], record["epoch"], {axis: record["lengths"][axis] for axis in ALL_AXES}, record["store"])
