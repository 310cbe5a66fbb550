"""Worker calls: which workers there are, and which calls each of them has.

Calls to one worker come back in the order in which they were sent, so the first is the one that runs. A worker is free
where it has no call and is not being restarted. A place can be reserved for work that is still being put together: the
worker is not free meanwhile. The call that runs has a budget (`alsys.control.budgets`), which begins when the call
before it came back.

Nothing here goes over all workers: who is free, who may get a call ahead, and whose call has run longest is kept as
calls come and go.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alsys.config.prices import cost_an_hour
from alsys.control.budgets import Budgets
from alsys.control.busy import BusyTimes
from alsys.control.commands import Idle
from alsys.control.ports import Completion, Role, Work, WorkerDown, WorkerGone, WorkerLeaving, WorkerPool, WorkerUp
from alsys.events import Heartbeat, WorkerLost
from alsys.labeling.base import LabelingOrder
from alsys.units import HOUR_S

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
        prices: Money for an hour of each kind of machine.
    """

    def __init__(
        self,
        pool: WorkerPool,
        clock: Callable[[], float],
        budgets: Budgets | None = None,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        self.busy = BusyTimes()
        self._prices = prices or {}
        self._budgets = budgets or Budgets()
        self._since: dict[Role, dict[str, float]] = {role: {} for role in Role}  # the call that runs; oldest first
        self._reminded: set[str] = set()
        self._pool = pool
        self._clock = clock
        self._calls: dict[str, deque[Work]] = {}
        self._roles: dict[str, Role] = {}
        self._n_of, self._n_up = dict.fromkeys(Role, 0), dict.fromkeys(Role, 0)
        self._free: dict[Role, dict[str, None]] = {role: {} for role in Role}
        self._ahead: dict[str, None] = {}
        self._leaving: set[str] = set()
        self._parting: set[str] = set()
        self._given_up: set[str] = set()

    def submit(self, worker: str, work: Work) -> None:
        """Sends work to a worker."""
        now, role = self._clock(), self._roles[worker]
        self.busy.start(role, worker, now)
        if not self._calls[worker]:
            self._since[role][worker] = now
        self._calls[worker].append(work)
        self._place(worker)
        self._pool.submit(worker, work)

    def reserve(self, worker: str) -> None:
        """Keeps a place for work that `fill` will bring."""
        self._calls[worker].append(RESERVED)
        self._place(worker)

    def has_place(self, worker: str) -> bool:
        """Whether a reserved place is still there: the worker may have died."""
        return bool(self._calls.get(worker))

    def fill(self, worker: str, work: Work) -> None:
        """Sends the work that a place was reserved for."""
        self._calls[worker].pop()
        self.submit(worker, work)

    def restart(self, worker: str, message: str) -> None:
        """Starts a worker anew, where it is there; until it is up it gets no work."""
        if worker not in self._roles:
            return  # it has left by itself
        self._leaving.add(worker)
        self._place(worker)
        self._pool.restart(worker, message)

    def note(self, event: WorkerUp | WorkerLeaving | WorkerGone) -> None:
        """A worker is ready; gets no more calls, while those that it has come back; or has none and is gone."""
        match event:
            case WorkerUp():
                self._arrive(event)
            case WorkerLeaving(worker):
                self._parting.add(worker)
                self._place(worker)
            case WorkerGone(worker, role):
                self._drop(worker, role)
                self._n_of[role] -= self._roles.pop(worker, None) is not None

    def _arrive(self, event: WorkerUp) -> None:
        worker, role = event.worker, event.role
        self._n_of[role] += worker not in self._roles
        self._n_up[role] += worker not in self._calls
        self._roles[worker] = role
        self._leaving.discard(worker)
        self._parting.discard(worker)
        self._calls[worker] = deque()
        self._since[role].pop(worker, None)
        self._reminded.discard(worker)
        self._place(worker)

    def complete(self, event: Completion) -> Work:
        """A call came back: what was asked."""
        now, worker, since = self._clock(), event.worker, self._since[event.role]
        work = self._calls[worker].popleft()
        self._budgets.observe(event.role, now - since.pop(worker, now))
        self._reminded.discard(worker)
        if self._calls[worker]:
            since[worker] = now
        else:
            self.busy.stop(event.role, worker, now)
        self._place(worker)
        return work

    def lose(self, event: WorkerDown, t: float) -> tuple[Sequence[Work], WorkerLost]:
        """A worker died: the calls that it had, of which the first was running, and what the log says.

        Args:
            event: What is known of it.
            t: Unix time.
        """
        now, worker, role = self._clock(), event.worker, event.role
        begun = self._since[role].get(worker, now)
        calls = self._drop(worker, role)
        self.busy.stop(role, worker, now)
        message = event.message[:500]
        lost = WorkerLost(t=t, worker=worker, role=role, failure=event.failure, message=message, spent_s=now - begun)
        return calls, lost

    def _drop(self, worker: str, role: Role) -> Sequence[Work]:
        """A worker is there no more: the calls that it had."""
        self._n_up[role] -= worker in self._calls
        self._since[role].pop(worker, None)
        self._free[role].pop(worker, None)
        self._ahead.pop(worker, None)
        self._reminded.discard(worker)
        self._leaving.discard(worker)
        self._parting.discard(worker)
        return self._calls.pop(worker, deque())

    def knows(self, worker: str) -> bool:
        """Whether a worker is there, or was and is to come again."""
        return worker in self._roles

    def count(self, role: Role) -> int:
        """Workers of a role that are there."""
        return self._n_up[role]

    def n_expected(self, role: Role) -> int:
        """Workers of a role that are there or on their way: neither given up nor waiting for a place."""
        waiting = self._pool.state().waiting
        names = (name for name, its in self._pool.roles.items() if its is role)
        return sum(name in self._calls or not (name in waiting or name in self._given_up) for name in names)

    def n_longer_than(self, role: Role, seconds: float) -> int:
        """Workers of a role that have been at one call for longer."""
        now, n = self._clock(), 0
        for begun in self._since[role].values():
            if now - begun < seconds:
                break  # those behind it have begun later
            n += 1
        return n

    def overdue(self) -> Overdue:
        """Workers whose call takes suspiciously long, each told once, and those whose budget is used up."""
        now = self._clock()
        slow: dict[str, str] = {}
        late: dict[str, str] = {}
        for role, since in self._since.items():
            least_s = self._budgets.least_s(role)
            for worker, begun in since.items():
                if (spent := now - begun) < least_s:
                    break  # those behind it have begun later
                if worker in self._leaving:
                    continue
                budget = self._budgets.of_call(role, self._calls[worker][0])
                if spent >= budget.timeout_s:
                    late[worker] = f"gave no answer for {spent:.0f} s, and {budget.reason}"
                elif spent >= budget.remind_s and worker not in self._reminded:
                    self._reminded.add(worker)
                    ends = f"it is ended after {budget.timeout_s:.0f} s"
                    slow[worker] = f"is at one call for {spent:.0f} s, longer than usual; {ends}"
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
        self._n_of[event.role] -= self._roles.pop(event.worker, None) is not None
        self._leaving.discard(event.worker)
        self._given_up.add(event.worker)
        return all(name in self._given_up for name, role in self._pool.roles.items() if role is event.role)

    def heartbeat(self, t: float, since: float) -> Heartbeat:
        """Busy seconds, workers of each kind, those that are being restarted included, and machines with their cost.

        Args:
            t: Unix time.
            since: When the last one was, by the clock of this.
        """
        now = self._clock()
        busy, nodes = self.busy.take(now), self._pool.state().nodes
        return Heartbeat(
            t=t,
            wall_s=now - since,
            busy_s={role: busy[role] for role in Role},
            workers={role: self._n_of[role] for role in Role},
            nodes=nodes,
            cost=cost_an_hour(nodes, self._prices) * (now - since) / HOUR_S,
        )

    def idle(self) -> Idle:
        """Workers that can be given something to do."""
        labelers = tuple(self._free[Role.LABELER])
        return Idle(
            explorers=tuple(self._free[Role.EXPLORER]),
            labelers=labelers,
            busy_labelers=self._ahead.keys(),
            trainers=tuple(self._free[Role.TRAINER]),
            n_others=self._n_up[Role.LABELER] - len(labelers) - len(self._ahead),
            has_trainer=self.count(Role.TRAINER) > 0,
        )

    def _place(self, worker: str) -> None:
        """Keeps who is free, and who may get a call ahead, in the order in which they became so."""
        role, calls = self._roles[worker], self._calls.get(worker)
        is_there = calls is not None and worker not in self._leaving and worker not in self._parting
        for group, belongs in (
            (self._free[role], is_there and not calls),
            (self._ahead, role is Role.LABELER and is_there and calls is not None and len(calls) == 1),
        ):
            if not belongs:
                group.pop(worker, None)
            else:
                group.setdefault(worker)
