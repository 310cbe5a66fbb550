"""The folder of a launch: files of an engine, the campaign's own, and a list of what was written.

What somebody has changed there by hand is not overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from alsys.errors import InputError
from alsys.launch.request import CAMPAIGN, LaunchRequest

WRITTEN: Final = ".launch.json"
"""The overrides, and digests of the files that were written, by place."""


def write_folder(folder: Path, rendered: Mapping[str, str], request: LaunchRequest) -> list[str]:
    """Writes what was rendered, and copies the files that travel; what a launch before has written beside them goes.

    Returns:
        Places of what was written, sorted.

    Raises:
        InputError: The folder has something else in it, or a file that was changed by hand.
    """
    files = {place: text.encode() for place, text in rendered.items()}
    files |= {str(PurePosixPath(CAMPAIGN) / place): here.read_bytes() for place, here in request.files.items()}
    before = _written(folder)
    for place in sorted({*before, *files}):
        _check(folder, place, before.get(place), files.get(place))
    for place in sorted(before.keys() - files.keys()):
        (folder / place).unlink(missing_ok=True)
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    digests = {place: _digest(content) for place, content in sorted(files.items())}
    written = {"set": list(request.overrides), "files": digests}
    (folder / WRITTEN).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return sorted(files)


def _written(folder: Path) -> dict[str, str]:
    """Digests of files that a launch before has written."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", field="--render", value=str(folder), remedy="name a folder")
    if (folder / WRITTEN).is_file():
        return dict(_record(folder)["files"])
    if folder.is_dir() and any(folder.iterdir()):
        message = "has files of something else in it"
        raise InputError(message, field="--render", value=str(folder), remedy="name a new or an empty folder")
    return {}


def overrides_of(folder: Path) -> tuple[str, ...]:
    """The ``--set`` with which a launch has written a folder; none where it was written by something else.

    Raises:
        InputError: Its list of files is not what was written.
    """
    return tuple(_record(folder)["set"]) if (folder / WRITTEN).is_file() else ()


def _record(folder: Path) -> Any:
    record = folder / WRITTEN
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if all(isinstance(value, str) for value in (*content["set"], *content["files"].values())):
            return content
    except (ValueError, KeyError, TypeError, AttributeError):
        content = None
    raise InputError("is not what was written", source=str(record), remedy="remove the folder, or name another")


def _check(folder: Path, place: str, before: str | None, content: bytes | None) -> None:
    path = folder / place
    if not path.is_file():
        return
    here = _digest(path.read_bytes())
    if here != before and (content is None or here != _digest(content)):
        raise InputError(
            "was changed by hand, and would be overwritten", source=str(path),
            remedy="put the change into the campaign's file or keep the file elsewhere, and remove it; or --render "
            "another folder",
        )  # fmt: skip


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
