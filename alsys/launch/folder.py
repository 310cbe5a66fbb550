"""The folder of a launch: files of an engine, the campaign's own, and a list of what was written.

What somebody has changed there by hand is not overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from alsys.errors import InputError
from alsys.files import UNFINISHED, replace_file
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
    for place, here in request.files.items():
        if (travels := str(PurePosixPath(CAMPAIGN) / place)) in files:
            raise InputError(
                "has the name of a file that is written beside it", source=str(request.path), field="systems",
                value=place, remedy="rename it",
            )  # fmt: skip
        files[travels] = here.read_bytes()
    before = _written(folder)
    for place in sorted({*before, *files}):
        _check(folder, place, before.get(place, ()), files.get(place))
    digests = {place: _digest(content) for place, content in sorted(files.items())}
    folder.mkdir(parents=True, exist_ok=True)
    # Before the files, so that those of a launch that ends in between are known as written by it.
    _note(folder, request, digests, {place: list(known) for place, known in before.items()})
    for place in sorted(before.keys() - files.keys()):
        (folder / place).unlink(missing_ok=True)
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        replace_file(folder / place, content)
    _note(folder, request, digests, {})
    return sorted(files)


def _note(folder: Path, request: LaunchRequest, files: Mapping[str, str], before: Mapping[str, Sequence[str]]) -> None:
    written = {"set": list(request.overrides), "files": files, **({"before": before} if before else {})}
    replace_file(folder / WRITTEN, json.dumps(written, indent=1) + "\n")


def _written(folder: Path) -> dict[str, tuple[str, ...]]:
    """Digests of files that a launch before has written: of one that ended in between, of what was there too."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", field="--render", value=str(folder), remedy="name a folder")
    if (folder / WRITTEN).is_file():
        record = _record(folder)
        files, before = record["files"], record.get("before", {})
        return {
            place: tuple(dict.fromkeys((*([files[place]] if place in files else []), *before.get(place, ()))))
            for place in sorted({*files, *before})
        }
    if folder.is_dir() and any(not path.name.endswith(UNFINISHED) for path in folder.iterdir()):
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
        before = content.get("before", {})
        known = (digest for digests in before.values() for digest in digests)
        if all(isinstance(value, str) for value in (*content["set"], *content["files"].values(), *known)) and not any(
            PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts
            for place in (*content["files"], *before)
        ):
            return content
    except (ValueError, KeyError, TypeError, AttributeError):
        content = None
    raise InputError("is not what was written", source=str(record), remedy="remove the folder, or name another")


def _check(folder: Path, place: str, before: Sequence[str], content: bytes | None) -> None:
    path = folder / place
    if not path.is_file():
        return
    here = _digest(path.read_bytes())
    if here not in before and (content is None or here != _digest(content)):
        raise InputError(
            "was changed by hand, and would be overwritten", source=str(path),
            remedy="put the change into the campaign's file or keep the file elsewhere, and remove it; or --render "
            "another folder",
        )  # fmt: skip


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
