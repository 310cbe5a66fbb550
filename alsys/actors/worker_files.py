"""Files of a worker on its own node: they come with what it is sent, and what it writes goes back to the driver.

A worker on Ray sees no folder of the driver. Its files lie in a folder of its node's temporary files, with the paths
that they have below the campaign's folder. A folder belongs to one run of a driver and is locked by the processes that
use it; one that no process uses any more is removed by the next worker that starts on the node.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alsys.files import UNFINISHED, replace_file

Files = Mapping[str, bytes | None]
"""Contents by path below a folder, with slashes; None where a file is gone."""

START: Final = "start"
FIT: Final = "fit"
DENSITIES: Final = "densities"
WALKERS: Final = "walkers"
"""Among the files of an explorer: its state (`alsys.exploration.walker_states`)."""
LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker finds its files on its node.

    Attributes:
        folder: Name of a `WorkerFolder`.
        names: Folders in it that are the worker's, as they are named in the campaign's folder.
    """

    folder: str
    names: tuple[str, ...]


class WorkerFolder:
    """A folder of this node for the files of one worker, or of all workers that name the same one.

    Args:
        name: Of one run of a driver.
        parent: Where such folders are; default is in the node's folder of temporary files.

    Attributes:
        path: It.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, name: str, parent: Path | None = None) -> None:
        parent = parent or _own_parent()
        remove_unused(parent)
        self.path = parent / name
        self._lock = _locked(self.path)

    def close(self) -> None:
        """Another worker may remove it now."""
        os.close(self._lock)


class Changes:
    """What changes in a folder.

    Args:
        folder: It.
        names: Paths below it, of folders whose files are looked at.
    """

    def __init__(self, folder: Path, names: Collection[str]) -> None:
        self._folder, self._names = folder, names
        self._known = self._look()

    def take(self) -> dict[str, bytes | None]:
        """Files that are new, others or gone since the last look; all of one that is being replaced or none."""
        found, changed = self._look(), dict[str, bytes | None]()
        for name, state in found.items():
            if state != self._known.get(name):
                with contextlib.suppress(FileNotFoundError):
                    changed[name] = (self._folder / name).read_bytes()
        changed |= dict.fromkeys(self._known.keys() - found.keys())
        self._known = found
        return changed

    def _look(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for name in _files_of(self._folder, self._names):
            with contextlib.suppress(FileNotFoundError):
                status = (self._folder / name).stat()
                found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return found


def read_files(folder: Path, name: str) -> dict[str, bytes]:
    """Files below one of the folders in a folder, by path; none where there is no such folder."""
    found: dict[str, bytes] = {}
    for path in _files_of(folder, [name]):
        with contextlib.suppress(FileNotFoundError):  # it is being removed
            found[path] = (folder / path).read_bytes()
    return found


def write_files(folder: Path, files: Files, *, is_kept: bool = False) -> None:
    """Writes files below a folder, each as a whole, and removes those that are gone.

    Args:
        folder: It.
        files: They.
        is_kept: A file that is there already stays as it is.

    Raises:
        OSError: One cannot be written.
    """
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        elif not (is_kept and path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content, is_durable=False)


def _files_of(folder: Path, names: Iterable[str]) -> list[str]:
    """Paths of finished files below some folders in a folder, in order."""
    found = [path for name in names for path in (folder / name).rglob("*")]
    relative = sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())
    return [name for name in relative if not (name.endswith(UNFINISHED) or "/." in name)]


def _own_parent() -> Path:
    """A folder for this user; another one each time where somebody else has its place."""
    parent = Path(tempfile.gettempdir()) / f"alsys-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    return parent if parent.stat().st_uid == os.getuid() else Path(tempfile.mkdtemp(prefix="alsys-"))


def _locked(folder: Path) -> int:
    """Makes a folder where it is missing, and shares its lock: a descriptor."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it meanwhile
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(folder / LOCK).st_ino == os.fstat(lock).st_ino:
                    return lock
            os.close(lock)


def remove_unused(parent: Path | None = None) -> None:
    """Removes folders that no process uses; of this user where no `parent` is given."""
    for folder in (parent or _own_parent()).iterdir():
        with contextlib.suppress(OSError):  # in use, or being removed by another worker
            lock = os.open(folder / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
