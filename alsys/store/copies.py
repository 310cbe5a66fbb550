"""Copies of campaigns that are in object storage: made once, and brought up to date with what is new.

A copy holds the store and the files beside it, as the campaign's own folder does. What it was made of is noted in it:
the last segment, and which version of each file. So the next time costs two listings and what has changed. A copy for
reading leaves out what only a driver needs. Those that a URL is read through are in the user's cache folder
(``$XDG_CACHE_HOME/alsys/campaigns``, or ``~/.cache/...``), one for each URL, and may be removed at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from alsys.config.schema import MIRROR_URL
from alsys.errors import EnvironmentProblem, InputError
from alsys.files import UNFINISHED, replace_file
from alsys.outside.packages import needed
from alsys.store.base import Head
from alsys.store.objects import AT_ONCE, Objects

STORE: Final = "store.zarr"
FILES: Final = "files"
LOG: Final = "store"
NOTE: Final = ".copy.json"
"""In a copy: what it was made of."""
OWN: Final = (
    "campaign.json", "report.html", "models", "start", "fit", "walkers", "densities", "outbox", "requests",
    "validation",
)  # fmt: skip
"""What a campaign makes beside store and logs: of these, what the mirror lacks is removed from a copy."""
OF_DRIVERS: Final = ("fit/", "walkers/", "densities/", "requests/")
"""What nobody reads but who goes on with the campaign."""
LOCKS: Final = ("lock", "writer.lock")
QUICK: Final = {"max_retries": 5, "retry_timeout": timedelta(seconds=15)}
"""Tries of a request that somebody waits for."""


def fetch(objects: Objects, folder: Path, *, is_for_reading: bool = False, has_note: bool = True) -> Head:
    """Makes a folder what is in object storage, store and files.

    Args:
        objects: Below the campaign's prefix.
        folder: The copy, or the campaign's own.
        is_for_reading: What only a driver needs is left out.
        has_note: Whether the folder is a copy, in which is noted what it was made of.

    Raises:
        InputError: There is no campaign, or another one in the folder, or a folder of other things.
        StoreBusy: A driver writes the folder.
        OSError: The disk or the storage refused; what is there stays sound.
    """
    with needed("zarr", objects.url):
        from alsys.store import mirror

    _refuse_strangers(folder, is_copy=has_note)
    note = _note(folder) if has_note else {}
    before = _head(note)
    head, n = mirror.fetch(folder / STORE, objects.below(LOG), since=None if before is None else (before, note["n"]))
    files = objects.below(FILES)
    found = {name: tag for name, tag in files.listed().items() if _is_mirrored(name)}
    if is_for_reading:
        found = {name: tag for name, tag in found.items() if not name.startswith(OF_DRIVERS)}
    known: dict[str, Any] = note.get("files", {})
    new = [name for name, tag in found.items() if known.get(name) != [tag, *_state(folder / name)]]
    for first in range(0, len(new), AT_ONCE):
        part = new[first : first + AT_ONCE]
        for name, content in zip(part, files.get_all(part), strict=True):
            if content is not None:
                _put(folder / name, content)
    own = [name for name in OWN if (folder / name).exists()]
    for name in set(files_in(folder, own)) - set(found) if own else ():
        (folder / name).unlink(missing_ok=True)
    if has_note:
        states = {name: [tag, *_state(folder / name)] for name, tag in found.items()}
        replace_file(folder / NOTE, json.dumps({"n": n, "head": asdict(head), "files": states}), is_durable=False)
    return head


@contextlib.contextmanager
def cached(url: str) -> Iterator[Path]:
    """The copy of a URL in the cache folder, as of now; nobody else changes it meanwhile.

    Raises:
        InputError: It is no URL, or there is no campaign.
        EnvironmentProblem: obstore is not installed, or there is no cache folder.
        OSError: The disk or the storage refused.
    """
    if not re.fullmatch(MIRROR_URL, url):
        raise InputError("is no folder of a bucket", field="URL", value=url, remedy="give a campaign's `mirror`")
    objects, folder = Objects.at(url.rstrip("/"), retry_config=QUICK), _cache() / _name(url)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            fetch(objects, folder, is_for_reading=True)
        except InputError as error:
            if error.field != "mirror":
                raise
            shutil.rmtree(folder)  # another campaign is at this URL now
            fetch(objects, folder, is_for_reading=True)
        yield folder
    finally:
        os.close(lock)


def files_in(folder: Path, only: tuple[str, ...] | list[str] = ()) -> dict[str, tuple[int, int, int]]:
    """Finished files below a folder but its store's, by path, with what changes when they do.

    Args:
        folder: A campaign's.
        only: Names in it to look at; default all.
    """
    found: dict[str, tuple[int, int, int]] = {}
    tops = [folder / name for name in only] if only else [path for path in folder.iterdir() if path.name != STORE]
    for top in tops:
        for path in [top, *top.rglob("*")] if top.is_dir() else [top]:
            if _is_passing(path.name) or path.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = path.stat()
                if path.is_file():
                    found[path.relative_to(folder).as_posix()] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _is_passing(name: str) -> bool:
    return name.endswith(UNFINISHED) or name in LOCKS or name.startswith(".")


def _is_mirrored(name: str) -> bool:
    """Whether a driver would have put it: the store, locks and notes of a folder are never files of a mirror."""
    return bool(name) and not name.startswith(f"{STORE}/") and not _is_passing(name.rpartition("/")[2])


def _put(path: Path, content: bytes) -> None:
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


def _refuse_strangers(folder: Path, *, is_copy: bool) -> None:
    """A folder that is no campaign's is not filled, and nothing in it removed.

    Folders that have names such as those of a campaign are anybody's too, where no campaign has been copied to before.
    """
    if (folder / STORE).exists() or not folder.is_dir():
        return
    mine = (*OWN, NOTE, "logs") if not is_copy or (folder / NOTE).is_file() else ()
    strange = sorted(path.name for path in folder.iterdir() if path.name not in mine)
    if strange:
        raise InputError(
            f"is no campaign's folder and holds {strange[0]!r}", source=str(folder),
            remedy="name an empty or new folder",
        )  # fmt: skip


def _note(folder: Path) -> dict[str, Any]:
    """What a copy was made of; empty for nothing that can be read."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / NOTE).read_bytes())
        if isinstance(content, dict) and {"n", "head", "files"} <= content.keys():
            return content
    return {}


def _head(note: dict[str, Any]) -> Head | None:
    with contextlib.suppress(KeyError, TypeError):
        return Head(**note["head"])
    return None


def _state(path: Path) -> tuple[int, int]:
    """Of a file that is as it was put, while this is the same."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return 0, -1


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(base):
        home = os.environ.get("HOME") or ""
        if not os.path.isabs(home):
            raise EnvironmentProblem("there is no cache folder for what a URL holds: set XDG_CACHE_HOME or HOME")
        base = os.path.join(home, ".cache")
    return Path(base) / "alsys" / "campaigns"


def _name(url: str) -> str:
    """Of the folder for a URL, which means another place at another server."""
    servers = [os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")]
    digest = hashlib.blake2b("\n".join([url.rstrip("/"), *servers]).encode(), digest_size=6).hexdigest()
    return f"{url.rstrip('/').rpartition('/')[2][:40]}-{digest}"
