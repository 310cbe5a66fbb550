"""HEAD of a store: a small file that says which rows are committed, with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from alsys.errors import InputError, StoreCorrupt
from alsys.outside.contents import parse_json
from alsys.store.base import Head
from alsys.store.files import Files
from alsys.store.schema import AXES, CHARGES, FORMAT

MAX_HEAD_BYTES = 2**16
REBUILD = "`alsys data repair` rebuilds it from the commits"
"""What can be done about a HEAD that cannot be read."""


def read_head(file: Path, files: Files) -> Head:
    """HEAD as it is in a file.

    Raises:
        FileNotFoundError: There is none.
        StoreCorrupt: It cannot be read.
    """
    try:
        is_file = stat.S_ISREG(os.stat(file).st_mode)
    except OSError:
        if not file.is_symlink():
            raise
        is_file = False
    if not is_file:
        raise StoreCorrupt(f"{file} is no regular file", REBUILD)
    content = files.read(file, 0, MAX_HEAD_BYTES + 1)
    if len(content) > MAX_HEAD_BYTES:
        raise StoreCorrupt(f"{file} is damaged: it is larger than {MAX_HEAD_BYTES} bytes", REBUILD)
    if not content.strip(b"\0 \n"):
        raise StoreCorrupt(f"{file} is empty", REBUILD)
    try:
        record = parse_json(content)
        if not isinstance(record, dict) or record.pop("checksum", None) != checksum(record):
            raise StoreCorrupt(f"{file} is damaged: its checksum does not fit", REBUILD)
        if record["format"] != FORMAT:
            raise StoreCorrupt(
                f"{file} has format {record['format']}, this alsys reads {FORMAT}",
                "use the alsys that wrote the store",
            )
        lengths = {axis: int(record["lengths"][axis]) for axis in AXES}
        lengths[CHARGES] = int(record["lengths"].get(CHARGES, 0))
        return Head(int(record["seq"]), int(record["epoch"]), lengths, str(record.get("store", "")))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, InputError) as error:
        raise StoreCorrupt(f"{file} is damaged: {error}", REBUILD) from error


def head_content(head: Head) -> bytes:
    """What `read_head` reads."""
    record = {
        "format": FORMAT,
        "store": head.identity,
        "seq": head.seq,
        "epoch": head.epoch,
        "lengths": dict(head.lengths),
    }
    return json.dumps({**record, "checksum": checksum(record)}, indent=1).encode()


def checksum(record: dict[str, Any]) -> str:
    """What HEAD says of its other entries: a digest of them."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
