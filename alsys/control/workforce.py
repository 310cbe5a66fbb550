"""The workforce: which workers there are, and which calls each of them has.

Calls to one worker come back in the order in which they were sent, so the first is the one that runs. A worker is free
where it has no call and is not being restarted. A place can be reserved for work that is still being put together: the
worker is not free meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from alsys.control.busy import BusyTimes
from alsys.control.commands import Idle
from alsys.control.ports import Completion, Role, Work, WorkerDown, WorkerPool, WorkerUp
from alsys.labeling.base import LabelingOrder


class Workforce:
    """Workers of one campaign.

    Args:
        pool: Owns them.
        clock: Unix time.
    """

    def __init__(self, pool: WorkerPool, clock: Callable[[], float]) -> None:
        self.busy = BusyTimes()
        self._pool = pool
        self._clock = clock
        self._calls: dict[str, deque[Work]] = {}
        self._roles: dict[str, Role] = {}
        self._leaving: set[str] = set()
        self._given_up: set[str] = set()

    def submit(self, worker: str, work: Work) -> None:
        """Sends work to a worker."""
        self.busy.start(self._roles[worker], worker, self._clock())
        self._calls[worker].append(work)
        self._pool.submit(worker, work)

    def reserve(self, worker: str) -> None:
        """Keeps a place for work that `fill` will bring."""
        self._calls[worker].append(LabelingOrder(()))

    def has_place(self, worker: str) -> bool:
        """Whether a reserved place is still there: the worker may have died."""
        return bool(self._calls.get(worker))

    def fill(self, worker: str, work: Work) -> None:
        """Sends the work that a place was reserved for."""
        self._calls[worker].pop()
        self.submit(worker, work)

    def restart(self, worker: str, message: str) -> None:
        """Starts a worker anew; until it is up it gets no work."""
        self._leaving.add(worker)
        self._pool.restart(worker, message)

    def arrive(self, event: WorkerUp) -> None:
        """A worker is ready."""
        self._roles[event.worker] = event.role
        self._leaving.discard(event.worker)
        self._calls[event.worker] = deque()

    def complete(self, event: Completion) -> Work:
        """A call came back: what was asked."""
        work = self._calls[event.worker].popleft()
        if not self._calls[event.worker]:
            self.busy.stop(event.role, event.worker, self._clock())
        return work

    def lose(self, event: WorkerDown, now: float) -> Sequence[Work]:
        """A worker died: the calls that it had, of which the first was running."""
        calls = self._calls.pop(event.worker, deque())
        self.busy.stop(event.role, event.worker, now)
        return calls

    def give_up(self, event: WorkerDown) -> bool:
        """A worker will not be back, it may never have been there: whether it was the last of its kind."""
        self._roles.pop(event.worker, None)
        self._given_up.add(event.worker)
        return all(name in self._given_up for name, role in self._pool.roles.items() if role is event.role)

    def headcount(self) -> dict[Role, int]:
        """Workers of each kind, those that are being restarted included."""
        return {role: sum(r is role for r in self._roles.values()) for role in Role}

    def idle(self) -> Idle:
        """Workers that can be given something to do."""
        free: dict[Role, list[str]] = {role: [] for role in Role}
        ahead: list[str] = []
        for worker, calls in self._calls.items():
            if worker in self._leaving:
                continue
            role = self._roles[worker]
            if not calls:
                free[role].append(worker)
            elif len(calls) == 1 and role is Role.LABELER:
                ahead.append(worker)
        return Idle(
            explorers=tuple(free[Role.EXPLORER]),
            labelers=tuple(free[Role.LABELER]),
            busy_labelers=tuple(ahead),
            trainers=tuple(free[Role.TRAINER]),
        )
