"""What a command is to write: tried before its work begins, and kept where it cannot be written after all.

A refusal at the end would lose the work. A probe says nothing of space, so what took long to make has a second place,
and in the end waits for one.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alsys.errors import InputError

if TYPE_CHECKING:
    from alsys.potentials.base import CommitteeState

PAUSE_S = 10.0
"""Between two tries to write what can be written nowhere."""


def check_folder(path: Path, field: str) -> None:
    """Refuses a folder that could not be made; the folders above it are made.

    Args:
        path: Must not exist yet.
        field: What the user calls it.

    Raises:
        InputError: It exists, or nothing can be made beside it.
    """
    probe = path.with_name(f".{path.name}.new") if path.name else path
    try:
        if path.exists() or path.is_symlink():
            raise InputError("exists already", field=field, value=str(path), remedy="name another folder")
        with suppress(FileExistsError):  # a file is there: the probe says so
            path.parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        raise unwritable(path, field, error, "name a folder where something can be written") from error


def check_file(path: Path, field: str) -> None:
    """Refuses a file that could not be written; one that is there would be replaced.

    Args:
        path: The file.
        field: What the user calls it.

    Raises:
        InputError: A folder or device is there, or nothing can be written beside it.
    """
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") if path.name else path
    try:
        if path.exists() and not path.is_file():
            raise InputError("is no file", field=field, value=str(path), remedy="name a file")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise unwritable(path, field, error, "name a file in a folder where something can be written") from error


def unwritable(path: Path, field: str, error: OSError, remedy: str) -> InputError:
    """The error of a place that cannot be written."""
    reason = error.strerror or str(error)
    return InputError(f"cannot be written: {reason}", field=field, value=str(path), remedy=remedy)


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a bundle is.

    Attributes:
        place: Its folder.
        problem: Why it is not where it was to be; empty where it is.
    """

    place: Path
    problem: str = ""


def keep_bundle(
    output: Path, state: CommitteeState, card: Mapping[str, object], pause: Callable[[float], object] = time.sleep
) -> Kept:
    """Writes the bundle of a model that took long to make, whatever happens to its place meanwhile.

    Where `output` cannot be written, a folder in the temporary directory is; where neither can be, both are tried
    again until one can, which stderr says.

    Args:
        output: Folder to make.
        state: The model.
        card: Its facts.
        pause: Sleeps for so many seconds.
    """
    from alsys.potentials.bundle import write_bundle

    is_told = False
    while True:
        try:
            return Kept(write_bundle(output, state, card))
        except OSError as error:
            problem = error.strerror or str(error)
        try:
            return Kept(_write_aside(output.name, state, card), problem)
        except OSError as error:
            if not is_told:
                sys.stderr.write(
                    f"alsys: {output} cannot be written: {problem}; nor can the temporary directory: "
                    f"{error.strerror or error}; this process (pid {os.getpid()}) keeps the model and tries again "
                    f"every {PAUSE_S:g} s: make space, or end it to give the model up\n"
                )
                sys.stderr.flush()
                is_told = True
        pause(PAUSE_S)


def _write_aside(name: str, state: CommitteeState, card: Mapping[str, object]) -> Path:
    """Writes a bundle into a new folder of the temporary directory, of which nothing is left where that fails."""
    from alsys.potentials.bundle import write_bundle

    folder = Path(tempfile.mkdtemp(prefix="alsys-"))
    try:
        return write_bundle(folder / name, state, card)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
