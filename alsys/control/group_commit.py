"""Group commit: stages records for the store and commits them in a thread, everything staged at once.

What leaves the process waits for the disk: acknowledgements are given out, and actions queued with `after` are run,
only once everything staged before them is durable. What `alsys.control.disk_waits` waits for is waited for, by commits
and by actions; nothing staged is lost. Any other error is kept in `problem` and ends the campaign.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from alsys.control.disk_waits import DiskWait
from alsys.control.state.records import Durations
from alsys.errors import Fenced
from alsys.events import Event
from alsys.frames import Candidate
from alsys.labels import Label, LevelOfTheory
from alsys.store.base import StoreWriter


class GroupCommit:
    """Commits in the background of the running loop.

    Args:
        store: The one writer.
        on_acknowledged: Called with the identities of labels once they are on disk.
        on_event: Called with each event once it is on disk.
        wait: Makes what decides how a refusal of the disk is waited for.

    Attributes:
        problem: What ends the campaign; None for nothing.
        durations: Of the commits of this process.
    """

    def __init__(
        self,
        store: StoreWriter,
        on_acknowledged: Callable[[Sequence[str]], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        wait: Callable[[], DiskWait] = DiskWait,
    ) -> None:
        self.problem: Exception | None = None
        self.durations = Durations(COMMIT_TIMES)
        self._commits, self._writes = wait(), wait()
        self._store = store
        self._on_acknowledged = on_acknowledged
        self._on_event = on_event
        self._unacknowledged: list[str] = []
        self._untold: list[Event] = []
        self._held: list[str] = []  # committed, and not yet everywhere where they shall be
        self._committing: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._actions: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._n_staged = 0
        self._n_durable = 0
        self._tried = asyncio.Event()

    def stage(
        self,
        events: Sequence[Event] = (),
        candidates: Sequence[Candidate] = (),
        labels: Sequence[Label] = (),
        levels: Sequence[LevelOfTheory] = (),
    ) -> None:
        """Takes records for the next commit and makes sure that there will be one."""
        self._store.stage(events, candidates, labels, levels)
        self._unacknowledged += [label.label_id for label in labels]
        if self._on_event is not None:
            self._untold += events
        self._n_staged += 1
        self._kick()

    def stage_levels(self, levels: Sequence[LevelOfTheory]) -> None:
        """Takes those levels of theory that the store does not hold yet, in order."""
        known = {level.level_id for level in self._store.levels()}
        if missing := [level for level in levels if level.level_id not in known]:
            self.stage(levels=missing)

    def check_owner(self) -> None:
        """A driver whose folder is gone must not make files in the one that takes its place.

        Raises:
            Fenced: The store is another's now.
        """
        try:
            self._store.check_owner()
        except OSError:
            return  # the next commit says what is wrong with the disk
        except Fenced as error:
            self.problem = error
            raise
        self._acknowledge([])

    @property
    def disk_problem(self) -> str | None:
        """What the disk refuses, in one line; None where it does not."""
        return self._commits.problem or self._writes.problem

    def leave(self) -> None:
        """The driver is to end: no refusal of the disk is waited for from now on."""
        self._commits.leave()
        self._writes.leave()

    @property
    def is_busy(self) -> bool:
        """Whether a commit, or an action that waits for one, is under way."""
        return self._committing is not None or self._following is not None

    @property
    def is_behind(self) -> bool:
        """True where the disk cannot keep up or refuses: hand out no new work."""
        return self.disk_problem is not None or self._store.n_staged > MAX_STAGED

    async def flush(self) -> None:
        """Waits until everything staged so far is on disk; what is staged meanwhile is not waited for.

        Raises:
            Exception: The store's problem, where it is not waited for.
        """
        if self._store.n_staged and self._n_durable == self._n_staged:
            self._n_staged += 1  # somebody else staged it
        wanted = self._n_staged
        while self._n_durable < wanted or self.problem is not None:
            if self.problem is not None:
                raise self.problem
            self._kick()
            await self._tried.wait()

    def after(self, action: Callable[[], Awaitable[None]]) -> None:
        """Runs `action` once everything staged so far is on disk; actions run one at a time, in order.

        One that the disk refuses is run again until it does not.
        """
        self._actions.put_nowait(action)
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def drain(self) -> None:
        """Waits until all actions have run and everything is on disk."""
        while self._following is not None:
            await asyncio.shield(self._following)
        if self.problem is not None:
            raise self.problem
        await self.flush()
        deadline = time.monotonic() + HELD_S
        while self._held and self._store.waits_for and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
        self._acknowledge([])

    def _kick(self) -> None:
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())

    async def _commit(self) -> None:
        try:
            while self._store.n_staged and self.problem is None:
                acknowledged, self._unacknowledged = self._unacknowledged, []
                told, self._untold = self._untold, []
                n_staged = self._n_staged
                try:
                    begun = time.monotonic()
                    await asyncio.to_thread(self._store.commit)
                    self.durations.add(time.monotonic() - begun)
                except OSError as error:
                    self._unacknowledged = acknowledged + self._unacknowledged
                    self._untold = told + self._untold
                    await self._commits.refused(error)
                    continue
                self._n_durable = n_staged
                self._commits.recovered("the store")
                self._give_out(acknowledged, told)
                self._report()
            if self.problem is None:
                self._n_durable = self._n_staged
                # what was staged after the lists were taken and before the commit began was in it too
                acknowledged, self._unacknowledged = self._unacknowledged, []
                told, self._untold = self._untold, []
                self._give_out(acknowledged, told)
        except Exception as error:
            self.problem = error
        finally:
            self._committing = None
            self._report()

    def _give_out(self, acknowledged: Sequence[str], told: Sequence[Event]) -> None:
        """Tells others of what is on disk."""
        self._acknowledge(acknowledged)
        if self._on_event is not None:
            for event in told:
                self._on_event(event)

    def _acknowledge(self, label_ids: Sequence[str]) -> None:
        """Gives out labels, and those of before, unless the store still waits for a mirror that does not answer."""
        self._held += label_ids
        if self._held and not self._store.waits_for:
            held, self._held = self._held, []
            if self._on_acknowledged is not None:
                self._on_acknowledged(held)

    def _report(self) -> None:
        """Has everybody look who waits for the disk."""
        self._tried.set()
        self._tried = asyncio.Event()

    async def _act(self, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await action()
            except FileExistsError:
                raise  # no matter of space
            except OSError as error:
                await self._writes.refused(error)
                continue
            self._writes.recovered("files")
            return

    async def _follow(self) -> None:
        try:
            while not self._actions.empty():
                action = self._actions.get_nowait()
                await self.flush()
                await self._act(action)
        except Exception as error:
            self.problem = error
        finally:
            self._following = None


COMMIT_TIMES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds between which commits are counted by the time that they took."""
HELD_S = 15.0
"""Seconds at the end in which a mirror that does not answer may come back, so that labels are acknowledged."""
LOOK_S = 0.1
MAX_STAGED = 20_000
"""Records that may wait for the disk before no new work is handed out."""
