"""A campaign's folder in object storage: the log of its store, and beside it every other file as it is.

Before a commit, bundles and what the first fit starts from are put, so that the log speaks of nothing that is not
there. The other files follow within seconds, and what is lost of them costs time and no label. A driver whose folder is
gone, or behind, begins with what the mirror has.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from alsys.campaign.presence import Driver, Presence
from alsys.config.schema import MIRROR_URL
from alsys.errors import EnvironmentProblem, InputError
from alsys.files import UNFINISHED, replace_file

if TYPE_CHECKING:
    from alsys.store.base import Head
    from alsys.store.objects import Objects
    from alsys.store.zarr import ZarrWriter

logger = logging.getLogger(__name__)

STORE: Final = "store.zarr"
FILES: Final = "files"
LOG: Final = "store"
BEFORE_COMMITS: Final = ("models", "start")
"""Folders that the log speaks of."""
ONE_TRY: Final = {"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
OWN: Final = (
    "campaign.json", "report.html", "models", "start", "fit", "walkers", "densities", "outbox", "requests",
    "validation",
)  # fmt: skip
"""What a campaign makes beside store and logs: of these, what the mirror lacks is removed from a copy."""
EVERY_S: Final = 5.0
"""How often changed files are looked for."""
ASKED: Final = "asked"
"""What others ask of the driver."""
STOP: Final = "stop-request.json"
FIRST_TRY: Final = {"max_retries": 5, "retry_timeout": timedelta(seconds=15)}
"""Of the first look of a driver that begins, which somebody may be waiting for."""
LOCKS: Final = ("lock", "writer.lock")


class Mirror:
    """Files of one campaign, here and in object storage.

    Args:
        objects: Where they are put.
        folder: The campaign's.
        first_look: The same objects, for whom somebody waits; default as patient as the others.
    """

    def __init__(self, objects: Objects, folder: Path, first_look: Objects | None = None) -> None:
        self._first_log, self._first_files = ((first_look or objects).below(name) for name in (LOG, FILES))
        self._files, self._log, self._asked = (objects.below(name) for name in (FILES, LOG, ASKED))
        self.url, self._objects, self._folder = objects.url, objects, folder
        self._known: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_refused = False

    @classmethod
    def at(cls, url: str, folder: Path, *, is_patient: bool = True) -> Mirror:
        """The mirror at a URL.

        Args:
            url: Its place.
            folder: The campaign's.
            is_patient: Whether requests that fail are tried again for a minute.

        Raises:
            InputError: It is none.
            EnvironmentProblem: obstore is not installed.
        """
        from alsys.store.objects import Objects

        if not re.fullmatch(MIRROR_URL, url):
            remedy = "give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            raise InputError("is no folder of a bucket", field="URL", value=url, remedy=remedy)
        if not is_patient:
            return cls(Objects.at(url, retry_config=ONE_TRY), folder)
        return cls(Objects.at(url), folder, Objects.at(url, retry_config=FIRST_TRY))

    def is_begun(self) -> bool:
        """Whether there is a campaign in it.

        Raises:
            OSError: It cannot be read.
        """
        return self._first_log.holds_any("")

    def check_place(self) -> None:
        """Refuses a prefix inside another campaign's, or one with files of who knows what, for a new campaign.

        Raises:
            InputError: It is one.
            OSError: It cannot be read.
        """
        from alsys.store.objects import Objects

        if self.is_begun():
            return
        if self._first_files.holds_any(""):
            raise InputError(
                f"holds files and no campaign: there is something in {self._files.url}, and nothing in {self._log.url}",
                field="mirror", value=self.url, remedy="name another prefix, or remove what is there",
            )  # fmt: skip
        scheme, _, rest = self.url.partition("://")
        *parents, _ = rest.split("/")
        for n in range(1, len(parents) + 1):
            parent = f"{scheme}://{'/'.join(parents[:n])}"
            with contextlib.suppress(OSError):  # not ours to look into
                if Objects.at(parent, retry_config=ONE_TRY).below(LOG).holds_any(""):
                    raise InputError(
                        f"is inside the mirror of another campaign, {parent}", field="mirror", value=self.url,
                        remedy="name a prefix beside it",
                    )  # fmt: skip

    @contextlib.contextmanager
    def driven(self, source: str | None, *, takes_over: bool, tell: Callable[[str], None]) -> Iterator[None]:
        """This process drives the campaign meanwhile, and says so in the mirror.

        Args:
            source: File of the campaign, for messages.
            takes_over: Although another driver may.
            tell: Told what is waited for.

        Raises:
            StoreBusy: Another driver does.
            InputError: The prefix is no place for this campaign.
            EnvironmentProblem: The mirror cannot be reached.
        """
        try:
            self.check_place()
            presence = Presence(self._objects)
            presence.claim(takes_over=takes_over, tell=tell)
        except InputError as error:
            raise error.located(source) from error
        except OSError as error:
            raise self._unreachable(error, source) from error
        with presence:
            yield

    def _unreachable(self, error: OSError, source: str | None) -> EnvironmentProblem:
        where = f"{source}: mirror" if source else "mirror"
        return EnvironmentProblem(
            f"{where}: cannot be reached: {error.strerror} (got {self.url!r}); see to credentials, endpoint "
            "(AWS_ENDPOINT_URL) and network, then the same command goes on, or leave `mirror` out to go on here alone"
        )

    def bring_home(self) -> bool:
        """Where the folder's store is not there, or behind, gets all files of the mirror; whether it did.

        Raises:
            InputError: The mirror is that of another campaign.
            OSError: The disk or the storage refused.
        """
        from alsys.store.mirror import is_behind

        if not is_behind(self._folder / STORE, self._log):
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        self.fetch()
        return True

    def fetch(self) -> Head:
        """Makes the folder what the mirror is, store and files.

        Raises:
            InputError: There is no campaign, or another one here, or a folder of other things.
            StoreBusy: A driver writes the folder.
            OSError: The disk or the storage refused.
        """
        from alsys.store.mirror import fetch

        self._refuse_strangers()
        head = fetch(self._folder / STORE, self._log)
        names = self._files.names("")
        for name, content in zip(names, self._files.get_all(names), strict=True):
            path = self._folder / name
            if content is not None and not (path.is_file() and path.read_bytes() == content):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, content)
        own = [name for name in OWN if (self._folder / name).exists()]
        for name in set(_files_in(self._folder, own)) - set(names) if own else ():
            (self._folder / name).unlink(missing_ok=True)
        return head

    def _refuse_strangers(self) -> None:
        """A folder that is no campaign's is not filled, and nothing in it removed."""
        if (self._folder / STORE).exists() or not self._folder.is_dir():
            return
        strange = sorted(path.name for path in self._folder.iterdir() if path.name not in (*OWN, "logs"))
        if strange:
            raise InputError(
                f"is no campaign's folder and holds {strange[0]!r}", source=str(self._folder),
                remedy="name an empty or new folder",
            )  # fmt: skip

    def open_writer(self) -> ZarrWriter:
        """The store's writer here and there.

        Raises:
            InputError: The mirror is that of another campaign.
            StoreBusy: Another process writes the folder.
            OSError: The disk or the storage refused.
        """
        from alsys.store.mirror import open_writer

        return open_writer(self._folder / STORE, self._log, lambda: self.push(BEFORE_COMMITS))

    def driver(self) -> Driver | None:
        """Who drives the campaign, or has until a moment ago; None for nobody.

        Raises:
            OSError: The storage refused.
        """
        return Presence(self._objects).driver()

    def ask_to_stop(self, *, drain: bool) -> None:
        """Asks the driver to stop, wherever it is; it hears so within seconds.

        Raises:
            OSError: The storage refused.
        """
        self._asked.put(STOP, json.dumps({"drain": drain}).encode())

    def _hear(self) -> None:
        """Gives the driver what others ask of it."""
        for name in self._asked.names(""):
            content = self._asked.get(name)
            if name == STOP and content is not None:
                replace_file(self._folder / STOP, content)
            self._asked.remove([name])

    def push(self, only: Collection[str] = ()) -> None:
        """Puts what has changed since the last time, and removes what is gone.

        Args:
            only: Folders to look at; default all.

        Raises:
            OSError: The storage refused; it is done again the next time.
        """
        with self._lock:
            found = _files_in(self._folder, only)
            for name, state in found.items():
                if state == self._known.get(name):
                    continue
                try:
                    content = (self._folder / name).read_bytes()
                except FileNotFoundError:
                    continue
                self._files.put(name, content)
                self._known[name] = state
            known = [name for name in self._known if not only or name.partition("/")[0] in only]
            for name in [name for name in known if name not in found]:
                self._files.remove([name])
                del self._known[name]

    def __enter__(self) -> Self:
        self._asked.remove(self._asked.names(""))  # of the driver before this one
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._try_to_push()

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._try_to_push()
            with contextlib.suppress(OSError):  # a storage that refuses is spoken of where files are put
                self._hear()

    def _try_to_push(self) -> None:
        try:
            self.push()
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                logger.warning("files cannot be put into the mirror, which is tried again: %s", error)
            self._is_refused = True


@contextlib.contextmanager
def following(mirror: Mirror | None) -> Iterator[Mirror | None]:
    """Keeps a mirror up to date, where there is one."""
    if mirror is None:
        yield None
        return
    with mirror:
        yield mirror


def _files_in(folder: Path, only: Collection[str] = ()) -> dict[str, tuple[int, int, int]]:
    """Finished files below a folder but its store's, by path, with what changes when they do."""
    found: dict[str, tuple[int, int, int]] = {}
    tops = [folder / name for name in only] if only else [path for path in folder.iterdir() if path.name != STORE]
    for top in tops:
        for path in [top, *top.rglob("*")] if top.is_dir() else [top]:
            is_passing = path.name.endswith(UNFINISHED) or path.name in LOCKS or path.name.startswith(".")
            if is_passing or path.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = path.stat()
                if path.is_file():
                    found[path.relative_to(folder).as_posix()] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
