"""Worker calls: which workers there are, and which calls each of them has.

Calls to one worker come back in the order in which they were sent, so the first is the one that runs. A worker is free
where it has no call and is not being restarted. A place can be reserved for work that is still being put together: the
worker is not free meanwhile. The call that runs has a budget (`alsys.control.budgets`), which begins when the call
before it came back.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alsys.control.budgets import Budgets
from alsys.control.busy import BusyTimes
from alsys.control.commands import Idle
from alsys.control.ports import Completion, Role, Work, WorkerDown, WorkerPool, WorkerUp
from alsys.events import Heartbeat, WorkerLost
from alsys.labeling.base import LabelingOrder

logger = logging.getLogger(__name__)

RESERVED = LabelingOrder(())
"""Stands for work that is still being put together."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """Workers that let others wait, and what to say about each.

    Attributes:
        slow: They may still answer.
        late: They are to be ended and started anew.
    """

    slow: Mapping[str, str]
    late: Mapping[str, str]


class WorkerCalls:
    """Workers of one campaign.

    Args:
        pool: Owns them.
        clock: Seconds that this process has run.
        budgets: How long calls may take.
    """

    def __init__(self, pool: WorkerPool, clock: Callable[[], float], budgets: Budgets | None = None) -> None:
        self.busy = BusyTimes()
        self._budgets = budgets or Budgets()
        self._since: dict[str, float] = {}
        self._reminded: set[str] = set()
        self._pool = pool
        self._clock = clock
        self._calls: dict[str, deque[Work]] = {}
        self._roles: dict[str, Role] = {}
        self._leaving: set[str] = set()
        self._given_up: set[str] = set()

    def submit(self, worker: str, work: Work) -> None:
        """Sends work to a worker."""
        now = self._clock()
        self.busy.start(self._roles[worker], worker, now)
        if not self._calls[worker]:
            self._since[worker] = now
        self._calls[worker].append(work)
        self._pool.submit(worker, work)

    def reserve(self, worker: str) -> None:
        """Keeps a place for work that `fill` will bring."""
        self._calls[worker].append(RESERVED)

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
        self._since.pop(event.worker, None)
        self._reminded.discard(event.worker)

    def complete(self, event: Completion) -> Work:
        """A call came back: what was asked."""
        now = self._clock()
        work = self._calls[event.worker].popleft()
        self._budgets.observe(event.role, now - self._since.get(event.worker, now))
        self._since[event.worker] = now
        self._reminded.discard(event.worker)
        if not self._calls[event.worker]:
            self.busy.stop(event.role, event.worker, now)
        return work

    def lose(self, event: WorkerDown, t: float) -> tuple[Sequence[Work], WorkerLost]:
        """A worker died: the calls that it had, of which the first was running, and what the log says.

        Args:
            event: What is known of it.
            t: Unix time.
        """
        now = self._clock()
        calls = self._calls.pop(event.worker, deque())
        self.busy.stop(event.role, event.worker, now)
        spent_s = now - self._since.get(event.worker, now) if calls and calls[0] is not RESERVED else 0.0
        lost = WorkerLost(
            t=t,
            worker=event.worker,
            role=event.role,
            failure=event.failure,
            message=event.message[:500],
            spent_s=spent_s,
        )
        return calls, lost

    def overdue(self) -> Overdue:
        """Workers whose call takes suspiciously long, each told once, and those whose budget is used up."""
        now = self._clock()
        slow: dict[str, str] = {}
        late: dict[str, str] = {}
        for worker, calls in self._calls.items():
            if not calls or worker in self._leaving or calls[0] is RESERVED:
                continue
            role, spent = self._roles[worker], now - self._since[worker]
            budget = self._budgets.of_call(role, calls[0])
            if spent >= budget.timeout_s:
                late[worker] = f"gave no answer for {spent:.0f} s, and {budget.reason}"
            elif spent >= budget.remind_s and worker not in self._reminded:
                self._reminded.add(worker)
                slow[worker] = (
                    f"is at one call for {spent:.0f} s, longer than usual; it is ended after {budget.timeout_s:.0f} s"
                )
        return Overdue(slow, late)

    def end_overdue(self) -> None:
        """Says which workers let others wait, and starts those anew whose budget is used up."""
        overdue = self.overdue()
        for worker, message in overdue.slow.items():
            logger.warning("%s %s", worker, message)
        for worker, message in overdue.late.items():
            self.restart(worker, message)

    def give_up(self, event: WorkerDown) -> bool:
        """A worker will not be back, it may never have been there: whether it was the last of its kind."""
        self._roles.pop(event.worker, None)
        self._given_up.add(event.worker)
        return all(name in self._given_up for name, role in self._pool.roles.items() if role is event.role)

    def heartbeat(self, t: float, since: float) -> Heartbeat:
        """Busy seconds, and workers of each kind, those that are being restarted included.

        Args:
            t: Unix time.
            since: When the last one was, by the clock of this.
        """
        now = self._clock()
        busy, roles = self.busy.take(now), list(self._roles.values())
        return Heartbeat(
            t=t,
            wall_s=now - since,
            busy_s={role: busy.get(role, 0.0) for role in Role},
            workers={role: roles.count(role) for role in Role},
        )

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
