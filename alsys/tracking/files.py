"""Small files of a campaign, read only where they are files of such a size; broken ones are set aside."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from alsys.files import UNFINISHED, move, replace_file, sync_folder

MAX_BYTES: Final = 8_000_000
"""No item and no request is larger."""


class Unreadable(Exception):
    """Something is there that is no file of ours; the message says what."""


def read_small(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file; a pipe or a device is never opened for good, nor a huge file read.

    Raises:
        FileNotFoundError: It is not there.
        Unreadable: It is something else than a file, too large, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Unreadable("is not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(handle)
    if len(content) > limit:
        raise Unreadable(f"is larger than {limit // 1_000_000} MB")
    return content


def set_aside(path: Path, reason: str, replacement: bytes | None = None) -> Path:
    """Moves a broken file into `failed/` beside it, with a file that says why. Returns its new place.

    Nothing that is there already is overwritten.

    Args:
        path: The file, or whatever is in its place.
        reason: What is wrong with it.
        replacement: Content of a file that takes its place; None for nothing.
    """
    folder = path.parent / "failed"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    while os.path.lexists(target):
        target = folder / f"{path.name}.{secrets.token_hex(3)}"
    replace_file(_reason(target), f"{' '.join(reason.split())}\n".encode())
    is_linked = replacement is not None and path.is_file()  # what is no file is not replaced where it stands
    try:
        if is_linked:
            target.hardlink_to(path)  # a kill leaves one or the other in the file's place
    except OSError:
        is_linked = False
    if not is_linked:
        move(path, target, is_durable=False)
    if replacement is not None:
        replace_file(path, replacement)
    sync_folder(folder)
    sync_folder(path.parent)
    return target


def set_aside_reasons(folder: Path) -> dict[str, str]:
    """Reasons of what was set aside from a folder, by file name."""
    reasons = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(os.listdir(folder / "failed")):
            if not name.endswith((_SUFFIX, UNFINISHED)):
                reasons[name] = _reason_of(folder / "failed" / name)
    return reasons


_SUFFIX: Final = ".reason.txt"


def _reason(path: Path) -> Path:
    return path.with_name(f"{path.name}{_SUFFIX}")


def _reason_of(path: Path) -> str:
    try:
        return read_small(_reason(path), 10_000).decode(errors="replace").strip()
    except (FileNotFoundError, Unreadable):
        return "no reason was kept"
