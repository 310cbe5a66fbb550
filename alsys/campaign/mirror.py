"""A campaign's folder in object storage: the log of its store, and beside it every other file as it is.

Before a commit, bundles and what the first fit starts from are put, so that the log speaks of nothing that is not
there. The other files follow within seconds, and what is lost of them costs time and no label. A driver whose folder is
gone, or behind, begins with what the mirror has.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from alsys.actors.worker_logs import FOLDER as WORKER_LOGS
from alsys.campaign.asked import Asked
from alsys.campaign.presence import Driver, Presence
from alsys.config.schema import MIRROR_URL
from alsys.errors import AlsysError, EnvironmentProblem, InputError
from alsys.store import copies
from alsys.store.copies import FILES, LOG, STORE, files_in

if TYPE_CHECKING:
    from alsys.store.base import Head
    from alsys.store.objects import Objects
    from alsys.store.zarr import ZarrWriter

logger = logging.getLogger(__name__)

BEFORE_COMMITS: Final = ("models", "start")
"""Folders that the log speaks of."""
ONE_TRY: Final = {"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
RARELY: Final = f"{WORKER_LOGS}/"
"""Files that change all the time, of which there are as many as workers."""
RARELY_S: Final = 60.0
"""Between two times that one of them is put while a driver runs."""
EVERY_S: Final = 5.0
"""How often changed files are looked for."""
LOGS: Final = "logs/"
LOG_BYTES_PER_S: Final = 50_000
"""A log is put as a whole each time that it has grown, so one of 3 MB once a minute at most."""
WHILE_ASKED_S: Final = 0.5
"""The same, while somebody waits for an answer."""


class Mirror:
    """Files of one campaign, here and in object storage.

    Args:
        objects: Where they are put.
        folder: The campaign's.
        first_look: The same objects, for whom somebody waits; default as patient as the others.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        objects: Objects,
        folder: Path,
        first_look: Objects | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._first_log, self._first_files = ((first_look or objects).below(name) for name in (LOG, FILES))
        self._files, self._log = objects.below(FILES), objects.below(LOG)
        self.asked = Asked(objects, folder)
        self.url, self.objects, self._folder = objects.url, objects, folder
        self._known: dict[str, tuple[int, int, int]] = {}
        self._put_at: dict[str, float] = {}
        self._left_out: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_refused = self._is_deaf = False

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
        return cls(Objects.at(url), folder, Objects.at(url, retry_config=copies.QUICK))

    def is_begun(self) -> bool:
        """Whether there is a campaign in it.

        Raises:
            OSError: It cannot be read.
        """
        return self._first_log.holds_any("")

    def check_place(self) -> None:
        """Refuses a prefix inside another campaign's, or one with files of who knows what, for a new campaign.

        Raises:
            InputError: It is one, or its bucket is not there.
            OSError: It cannot be read.
        """
        from alsys.store.objects import NO_BUCKET, Objects

        try:
            if self.is_begun():
                return
        except OSError as error:
            if error.errno != NO_BUCKET:
                raise
            raise InputError(
                f"there is no such bucket ({error.strerror})", field="mirror", value=self.url,
                remedy="make it, or name another",
            ) from error  # fmt: skip
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
            presence = Presence(self.objects)
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

    def is_ahead(self) -> bool:
        """Whether it has commits that the folder lacks.

        Raises:
            OSError: The storage refused.
        """
        from alsys.store.mirror import is_behind

        return is_behind(self._folder / STORE, self._log)

    def bring_home(self) -> bool:
        """Where the folder's store is not there, or behind, gets all files of the mirror; whether it did.

        Raises:
            InputError: The mirror is that of another campaign.
            OSError: The disk or the storage refused.
        """
        if not self.is_ahead():
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        copies.fetch(self.objects, self._folder, has_note=False)
        return True

    def catch_up(self) -> bool:
        """Puts what a folder has that nobody drives, where commits are lacking; whether it did.

        Raises:
            StoreBusy: Somebody drives the campaign.
            InputError: The mirror is that of another campaign.
            EnvironmentProblem: It cannot be reached.
            OSError: The storage refused.
        """
        from alsys.store.mirror import is_ahead

        if not is_ahead(self._folder / STORE, self._log):
            return False
        with self.driven(None, takes_over=False, tell=logger.info), self:
            self.open_writer().close()
        return True

    def fetch(self) -> Head:
        """Makes the folder a copy of the mirror, or brings it up to date.

        Raises:
            InputError: There is no campaign, or another one here, or a folder of other things.
            StoreBusy: A driver writes the folder.
            OSError: The disk or the storage refused.
        """
        return copies.fetch(self.objects, self._folder)

    def open_writer(self, *, has_files: bool = True) -> ZarrWriter:
        """The store's writer here and there.

        Args:
            has_files: Whether bundles and start models are put before commits; not those of a copy.

        Raises:
            InputError: The mirror is that of another campaign.
            StoreBusy: Another process writes the folder.
            OSError: The disk or the storage refused.
        """
        from alsys.store.mirror import open_writer

        put = (lambda: self.push(BEFORE_COMMITS)) if has_files else (lambda: None)
        return open_writer(self._folder / STORE, self._log, put)

    def driver(self) -> Driver | None:
        """Who drives the campaign, or has until a moment ago; None for nobody.

        Raises:
            OSError: The storage refused.
        """
        return Presence(self.objects).driver()

    def push(self, only: Collection[str] = ()) -> None:
        """Puts what has changed since the last time, and removes what is gone.

        Args:
            only: Folders to look at; default all.

        Raises:
            OSError: The storage refused; it is done again the next time.
        """
        problem: OSError | None = None
        with self._lock:
            found = files_in(self._folder, tuple(only))
            for name, state in found.items():
                if state == self._known.get(name) or name in self._left_out or self._is_soon(name, state[1]):
                    continue
                try:
                    content = (self._folder / name).read_bytes()
                except FileNotFoundError:
                    continue
                except OSError as error:  # of one that cannot be read: the others are put all the same
                    problem = error
                    continue
                if self._is_put(name, content):
                    self._known[name], self._put_at[name] = state, self._clock()
            known = [name for name in self._known if not only or name.partition("/")[0] in only]
            for name in [name for name in known if name not in found]:
                self._files.remove([name])
                del self._known[name]
                self._put_at.pop(name, None)
        if problem is not None:
            raise problem

    def _is_put(self, name: str, content: bytes) -> bool:
        """Puts a file, unless no bucket takes its name, which none has that is a campaign's own."""
        try:
            self._files.put(name, content)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            logger.warning("%r has a name that no bucket takes: it is left out of the mirror", name)
            self._left_out.add(name)
            return False
        return True

    def _is_soon(self, name: str, size: int) -> bool:
        """Whether a log was put so short a time ago that it can wait; not at the end."""
        if not name.startswith(LOGS) or name not in self._put_at or self._ended.is_set():
            return False
        wait_s = max(size / LOG_BYTES_PER_S, RARELY_S if name.startswith(RARELY) else 0.0)
        return self._clock() - self._put_at[name] < wait_s

    def __enter__(self) -> Self:
        self.asked.forget()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._try_to_push()
        self._hear()

    def _follow(self) -> None:
        wait_s = EVERY_S
        while not self._ended.wait(wait_s):
            self._try_to_push()
            wait_s = WHILE_ASKED_S if self._hear() else EVERY_S

    def _hear(self) -> bool:
        try:
            is_waited_for = self.asked.hear()
        except OSError as error:
            if not self._is_deaf and not self._is_refused:  # else it is spoken of already
                logger.warning("what is asked for through the mirror cannot be heard: %s; it is tried again", error)
                self._is_deaf = True
            return False
        self._is_deaf = False
        return is_waited_for

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


def catch_up(url: str | None, folder: Path, tell: Callable[[str], None]) -> None:
    """Has the mirror of a campaign that has ended get what it lacks; one that cannot is told of.

    Args:
        url: Of the mirror; None for none.
        folder: The campaign's.
        tell: Takes one line.
    """
    if url is None:
        return
    try:
        if Mirror.at(url, folder, is_patient=False).catch_up():
            tell(f"{url} has all of the campaign now")
    except (OSError, AlsysError) as error:
        tell(f"{url} may lack the end of the campaign: {error}")
