"""What travels between the campaign's folder and workers on Ray: files, as objects that the driver owns.

A trainer is sent its folders when it starts, each as one object, put once for each content. What it writes while it
fits comes back in a stream and is put into the campaign's folder, so that the next trainer, on whatever node, goes on
from there. Converged densities come back with labels and are sent on in groups, with the next order of each labeler.
The state of an explorer's walkers comes back with its reports (`alsys.exploration.walker_states`), and is sent when the
explorer starts anew. So are compiled packages (`alsys.actors.compiled_packages`), to all that start. What cannot be
written costs a warning, and time later.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from alsys.actors.compiled_packages import COMPILED
from alsys.actors.placement import WorkerSpec
from alsys.actors.worker_files import DENSITIES, FIT, WALKERS, Files, Place, read_files, remove_unused, write_files
from alsys.control.ports import Role
from alsys.exploration.walker_states import WalkerStates
from alsys.labeling.solutions import MAX_BYTES, MAX_FILES, prune
from alsys.threads import WorkerThread
from alsys.training.base import APART

logger = logging.getLogger(__name__)

GROWTH: Final = 0.1
"""A group of densities is closed once it is so much of all that there have been."""
MAX_PACKAGES: Final = 40
"""Files of compiled packages that are kept: two of each."""
CLOSE_S: Final = 10.0
"""Longest wait for files to be written when a run ends."""


class CampaignFiles:
    """Files of one campaign, for one run of its driver.

    Args:
        folder: The campaign's.
        put: Puts a value into the object store.
        walkers: Where those of explorers are; default is in memory only.

    Attributes:
        walkers: Likewise.
    """

    def __init__(self, folder: Path, put: Callable[[object], Any], walkers: WalkerStates | None = None) -> None:
        self.walkers = walkers or WalkerStates()
        self._run = secrets.token_hex(6)
        self._folder, self._put = folder, put
        self._thread: WorkerThread | None = None
        self._is_refused = False
        self._packages: dict[str, bytes] = {}
        self.forget()

    def forget(self) -> None:
        """All objects are gone; they are put anew when they are needed."""
        self._folders: dict[str, tuple[str, Any]] = {}
        self._densities: DensityGroups | None = None
        self._heard: dict[str, int] = {}
        self._packages_ref: Any = None

    def at_start(self, worker: str, spec: WorkerSpec) -> list[Any]:
        """What a worker is sent before it is built: where its files go, None for nowhere, and objects with `Files`.

        Args:
            worker: Its name.
            spec: Says which files it has. Densities come with its orders, and labelers on a node share them.
        """
        place, sent = None, []
        if spec.files:
            self._heard[worker] = 0
            own = "" if DENSITIES in spec.files else f"-{worker}-{secrets.token_hex(4)}"
            place = Place(f"{self._run}{own}", spec.files)
            sent = [self._object(name) for name in spec.files if name != DENSITIES]
        if spec.role is not Role.LABELER and self._packages:
            self._packages_ref = self._packages_ref or self._put(dict(self._packages))
            sent.append(self._packages_ref)
        if spec.role is Role.EXPLORER and (state := self.walkers.take(worker)) is not None:
            sent.append({WALKERS: state})
        return [place, *(one for one in sent if one is not None)]

    def of_member(self, number: int) -> Files:
        """How far a member is that is fitted apart, as far as that has come from whoever fitted it before."""
        return read_files(self._folder, f"{FIT}/{APART.format(number)}")

    def news(self, worker: str, names: Sequence[str]) -> list[Any]:
        """Densities that a worker has not been sent, likewise; none where it has no folder for them."""
        if DENSITIES not in names:
            return []
        found, self._heard[worker] = self._groups().since(self._heard.get(worker, 0))
        return found

    def take(self, worker: str, files: Files) -> Future[None]:
        """What a worker has left. What is for the campaign's folder is put there in order, by a thread."""
        parts: dict[str, dict[str, bytes]] = {}
        for name, content in files.items():
            if content is not None:
                parts.setdefault(name.partition("/")[0], {})[name] = content
        if found := parts.get(WALKERS):
            self.walkers.hold(worker, found[WALKERS])
        if found := parts.get(COMPILED.rstrip("/")):
            self._packages |= found
            self._packages_ref = None
            while len(self._packages) > MAX_PACKAGES:
                del self._packages[next(iter(self._packages))]
        if found := parts.get(DENSITIES):
            self._groups().add(found)
        kept = {name: content for name, content in files.items() if not name.startswith((WALKERS, COMPILED))}
        if not kept:
            return _done()
        self._thread = self._thread or WorkerThread("campaign-files")
        return self._thread.submit(lambda: self._write(kept, has_densities=DENSITIES in parts))

    def last_of(self, worker: str, items: AsyncIterator[Any]) -> LastItem:
        """The result of a call of a worker that gives `Files` before it, which are taken."""
        return LastItem(items, partial(self.take, worker))

    def close(self) -> None:
        """Waits until what has arrived is written; removes what dead workers have left on this machine."""
        if self._thread is not None:
            try:
                self._thread.submit(lambda: None).result(CLOSE_S)
            except TimeoutError:
                logger.warning("files of workers are not written after %.0f s, and left", CLOSE_S)
            self._thread.close()
            self._thread = None
        if self._heard:
            remove_unused()

    def _object(self, name: str) -> Any:
        """A folder's files as an object, the same one for as long as they are the same; None for none."""
        files = read_files(self._folder, name)
        digest = hashlib.blake2b(digest_size=16)
        for path, content in files.items():
            digest.update(f"{path}\0{len(content)}\0".encode())
            digest.update(content)
        known = self._folders.get(name)
        if known is None or known[0] != digest.hexdigest():
            known = self._folders[name] = (digest.hexdigest(), self._put(files) if files else None)
        return known[1]

    def _groups(self) -> DensityGroups:
        if self._densities is None:
            self._densities = DensityGroups(self._put)
            try:
                self._densities.add(read_files(self._folder, DENSITIES))
            except OSError as error:  # SCFs of before take longer; no call is lost for it
                logger.warning("densities of before are not used: %s", error)
        return self._densities

    def _write(self, files: Files, *, has_densities: bool) -> None:
        try:
            write_files(self._folder, files)
            if has_densities:
                prune(self._folder / DENSITIES)
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                logger.warning(
                    "%s cannot be written to, and a fit that is cut off begins anew: %s", self._folder, error
                )
            self._is_refused = True


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


@dataclass(slots=True)
class _Group:
    n_files: int
    n_bytes: int
    files: dict[str, bytes] | None
    ref: Any = None


class DensityGroups:
    """Converged densities on their way to labelers.

    A group is closed when there are a tenth more than before, so that each labeler is sent a few dozen groups in a
    campaign, and no more of them are kept than a labeler remembers.

    Args:
        put: Puts a value into the object store; is called where somebody is sent a group.
    """

    def __init__(self, put: Callable[[object], Any]) -> None:
        self._put = put
        self._open: dict[str, bytes] = {}
        self._names: deque[str] = deque(maxlen=2 * MAX_FILES)
        self._closed: deque[_Group] = deque()
        self._n_dropped = self._n_all = self._n_new = 0

    def add(self, densities: Mapping[str, bytes]) -> None:
        """More of them, by path; those that have come lately are known already."""
        fresh = {name: content for name, content in densities.items() if name not in self._names}
        self._names.extend(fresh)
        self._open |= fresh
        self._n_all, self._n_new = self._n_all + len(fresh), self._n_new + len(fresh)
        while len(self._open) > MAX_FILES or sum(map(len, self._open.values())) > MAX_BYTES:
            del self._open[next(iter(self._open))]
        if self._open and self._n_new >= GROWTH * self._n_all:
            self._closed.append(_Group(len(self._open), sum(map(len, self._open.values())), self._open))
            self._open, self._n_new = {}, 0
        later = list(self._closed)[1:]
        while sum(g.n_files for g in later) >= MAX_FILES or sum(g.n_bytes for g in later) >= MAX_BYTES:
            self._closed.popleft()
            self._n_dropped += 1
            del later[0]

    def since(self, heard: int) -> tuple[list[Any], int]:
        """Groups that were closed after so many of them, as far as they are kept, and how many there have been."""
        wanted = list(self._closed)[max(heard - self._n_dropped, 0) :]
        for group in wanted:
            if group.files is not None:
                group.ref, group.files = self._put(group.files), None
        return [group.ref for group in wanted], self._n_dropped + len(self._closed)


class LastItem:
    """The last item of a stream.

    Args:
        items: The stream, of object references.
        take: Is given what the items before are, one after another; the next one is waited for when it is done.
    """

    def __init__(self, items: AsyncIterator[Any], take: Callable[[Files], Future[None]]) -> None:
        self._last: Future[Any] = Future()
        self._task = asyncio.ensure_future(self._follow(items, take))

    def future(self) -> Future[Any]:
        """It, or what went wrong."""
        return self._last

    async def _follow(self, items: AsyncIterator[Any], take: Callable[[Files], Future[None]]) -> None:
        try:
            async for item in items:
                value = await item
                if not isinstance(value, Mapping):
                    self._last.set_result(value)
                    return
                await asyncio.wrap_future(take(value))
            raise RuntimeError("a call ended without a result")
        except Exception as error:
            self._last.set_exception(error)
