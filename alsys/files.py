"""The one place that replaces files: whoever looks finds the old content or the new one, never a part.

What is `is_durable`, the default, is on disk on return: content first, then the name, then the folder of the name, so
that after a power cut there is the old file or the new one. Without it a power cut may leave an empty file: right for
what is soon written again or can be made anew. A killed process leaves a file that begins with a dot and ends in
`UNFINISHED`; where one process at a time writes (`has_one_writer`) the next one removes it, elsewhere names are random.
The store's chunks have a writer of their own (`alsys.store.files`), which commits many at once.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

UNFINISHED: Final = ".tmp"
"""Ending of a file or folder that is being written."""


def replace_file(path: Path, content: bytes | str, *, is_durable: bool = True, has_one_writer: bool = False) -> None:
    """Writes a file as a whole, in place of the one that is there. Text is UTF-8.

    Args:
        path: In a folder that is there.
        content: All of it.
        is_durable: As in the module docstring.
        has_one_writer: Likewise.

    Raises:
        OSError: It cannot be written; names `path`.
    """
    with replacing(path, is_durable=is_durable, has_one_writer=has_one_writer) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, *, is_durable: bool = True, has_one_writer: bool = False) -> Iterator[Path]:
    """A new path beside `path` for a file or folder, which takes its place when all went well, and else goes.

    Args:
        path: In a folder that is there. A file is replaced; where a folder is made, nothing may be.
        is_durable: As in the module docstring.
        has_one_writer: Likewise.

    Raises:
        FileExistsError: A folder was made, and something is at `path`; or a device is there.
        OSError: It cannot be written; names `path`.
    """
    if path.is_char_device() or path.is_block_device():
        raise FileExistsError(errno.EEXIST, "is a device", os.fspath(path))
    token = "" if has_one_writer else f".{secrets.token_hex(4)}"
    unfinished = path.with_name(f".{path.name[:40]}{token}{UNFINISHED}")
    try:
        if has_one_writer:
            _remove(unfinished)
        yield unfinished
        if unfinished.is_dir() and path.exists():
            raise FileExistsError(f"{path} exists")
        move(unfinished, path, is_durable=is_durable)
    except OSError as error:
        if error.filename == os.fspath(unfinished):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        with suppress(OSError):
            _remove(unfinished)


def move(source: Path, target: Path, *, is_durable: bool = True) -> None:
    """Gives a finished file or folder its place, of which it replaces a file.

    Args:
        source: On the same file system.
        target: Its new path.
        is_durable: As in the module docstring.
    """
    if is_durable:
        sync_tree(source)
    source.replace(target)
    if is_durable:
        sync_folder(target.parent)
        if source.parent != target.parent:
            sync_folder(source.parent)


def sync_tree(path: Path) -> None:
    """Brings a file, or a folder and everything below it, to disk."""
    if not path.is_dir():
        sync_file(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def sync_file(path: str | Path, *, folder: int | None = None) -> None:
    """Brings the content of a file to disk; with `folder`, a descriptor, `path` is relative to that."""
    _sync(path, os.O_RDONLY, folder)


def sync_folder(path: str | Path, *, folder: int | None = None) -> None:
    """Brings the names in a folder to disk: new ones, moved ones, and that removed ones are gone."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY, folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: str | Path, flags: int, folder: int | None) -> None:
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
