"""Who fits what: a whole committee by one trainer, or its members by several.

Where there are several trainers each member of a committee is an order of its own. It goes to whichever trainer is
free; one whose trainer is lost goes to another, or to the same one when it is up again, and goes on from its last
checkpoint. Once all members are fitted, a free trainer puts the committee together and measures it. A fit fails where a
member gives no weights, or where trainers die of its parts again and again. What still comes back from a fit that has
failed is left.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from alsys.control.commands import Train
from alsys.control.handlers.training import TrainingHandler
from alsys.control.ports import Completion, Role, Work, WorkerDown
from alsys.control.state.ledger import Ledger
from alsys.control.worker_calls import WorkerCalls
from alsys.errors import FailureKind
from alsys.events import TrainingStarted
from alsys.metrics import Metrics
from alsys.training.base import (
    FittedMember,
    MemberOrder,
    MemberShare,
    TrainedCommittee,
    TrainingFailure,
    TrainingOrder,
)

logger = logging.getLogger(__name__)

MAX_LOSSES: Final = 3
"""Trainers that may die of the parts of one fit, for reasons of their own, before it has failed."""


class SharedFit:
    """A fit whose members several trainers share.

    Args:
        order: The fit.
        n_members: Members of its committee.
        n_workers: Trainers that share them when it begins.
        begun: When that is, seconds that this process has run.

    Attributes:
        order: See there; likewise `begun`.
        n_losses: Trainers that died of it.
    """

    def __init__(self, order: TrainingOrder, n_members: int, n_workers: int, begun: float) -> None:
        self.order, self.begun, self.n_losses = order, begun, 0
        self._n_members, self._n_workers = n_members, n_workers
        self._waiting = dict.fromkeys(range(n_members))
        self._fitted: dict[int, FittedMember] = {}
        self._is_whole_sent = False

    def next_order(self) -> MemberOrder | TrainingOrder | None:
        """What a free trainer is to do, which counts as sent; None where there is nothing for it."""
        if self._waiting:
            number = next(iter(self._waiting))
            del self._waiting[number]
            spec = self._first.spec if self._fitted else None
            return MemberOrder(self.order, MemberShare(number, self._n_workers, spec))
        if len(self._fitted) < self._n_members or self._is_whole_sent:
            return None
        self._is_whole_sent = True
        return replace(self.order, fitted=tuple(self._fitted[number] for number in range(self._n_members)))

    def take(self, fitted: FittedMember) -> None:
        """A member is fitted. One of another specification than those before it is asked for once more, with theirs."""
        if self._fitted and _text(fitted.spec) != _text(self._first.spec):
            logger.info("member %d of v%04d begins anew, as part of this committee", fitted.number, fitted.version)
            self._waiting[fitted.number] = None
            return
        self._fitted[fitted.number] = fitted

    def lose(self, work: MemberOrder | TrainingOrder) -> None:
        """A part of it was lost with its trainer, and is to be done again."""
        if isinstance(work, MemberOrder):
            self._waiting = {work.share.number: None, **self._waiting}  # it has been at work longest
        else:
            self._is_whole_sent = False

    @property
    def _first(self) -> FittedMember:
        return next(iter(self._fitted.values()))


def _text(spec: Mapping[str, object]) -> str:
    return json.dumps(spec, sort_keys=True)


class FitHandler:
    """Sends fits to trainers and takes what comes back.

    Args:
        ledger: For reading.
        models: Prepares fits, and publishes committees.
        calls: Workers and their calls.
        running: Seconds that this process has run.

    Attributes:
        problem: What ends the campaign: a fit could not be prepared.
    """

    def __init__(
        self, ledger: Ledger, models: TrainingHandler, calls: WorkerCalls, running: Callable[[], float]
    ) -> None:
        self.problem: Exception | None = None
        self._ledger, self._models, self._calls, self._running = ledger, models, calls, running
        self._task: asyncio.Task[None] | None = None
        self._shared: SharedFit | None = None

    def begin(self, command: Train, now: float) -> None:
        """A fit was decided on."""
        self._shared = None
        self._models.start(command, now, self._n_workers(has_parent=command.parent > 0))
        self._calls.reserve(command.worker)
        self._task = asyncio.create_task(self._prepare(command, self._ledger.training))

    @property
    def is_preparing(self) -> bool:
        """Whether a fit is still being put together, in a thread."""
        return self._task is not None and not self._task.done()

    def close(self) -> None:
        """Nothing is prepared any more."""
        if self._task is not None:
            self._task.cancel()

    async def _prepare(self, command: Train, started: TrainingStarted | None) -> None:
        try:
            fit = await self._models.prepare(command)
        except Exception as error:
            self.problem = error
            return
        if self._ledger.training is not started:
            return  # the trainer died meanwhile, which failed this fit; another of this version may be under way
        if not self._calls.has_place(command.worker):
            self._models.fail(command.version, FailureKind.WORKER_PREEMPTED, "the trainer has left its node")
            return
        order: TrainingOrder | MemberOrder | None = self._models.begin(fit)
        if self._may_share(has_parent=fit.parent > 0):
            n_workers = self._n_workers(has_parent=fit.parent > 0)
            self._shared = SharedFit(fit.order, self._ledger.settings.n_members, n_workers, self._running())
            order = self._shared.next_order()
        assert order is not None
        self._calls.fill(command.worker, order)
        self.hand_out()

    def hand_out(self) -> None:
        """Gives free trainers their part of a shared fit."""
        if self._shared is None:
            return
        for worker in self._calls.idle().trainers:
            order = self._shared.next_order()
            if order is None:
                return
            self._calls.submit(worker, order)

    def take(self, event: Completion, work: Work) -> None:
        """What a trainer gave for what it was sent."""
        if isinstance(work, MemberOrder) and not self._is_current(work):
            return
        match event.result:
            case FittedMember():
                assert self._shared is not None
                self._shared.take(event.result)
            case TrainedCommittee():
                trained, whole = event.result, event
                if self._shared is not None:
                    trained, whole = self._as_a_whole(trained, event, self._shared)
                    self._shared = None
                self._models.publish(trained, whole)
            case TrainingFailure(version, kind, message):
                logger.warning("fit of v%04d failed: %s: %s", version, kind, message)
                self._shared = None
                self._models.fail(version, kind, message)

    def lose(self, event: WorkerDown, calls: Sequence[Work]) -> None:
        """A trainer died, with the calls that it had: its part of a shared fit is done again, any other fit is lost."""
        shared, training = self._shared, self._ledger.training
        if training is None:
            return
        for work in calls:
            is_part = isinstance(work, MemberOrder) or (isinstance(work, TrainingOrder) and bool(work.fitted))
            if not is_part:
                self._models.fail(training.version, event.failure, event.message)
                return
            if shared is None or (isinstance(work, MemberOrder) and not self._is_current(work)):
                continue
            shared.n_losses += not event.failure.is_nobodys_fault
            if shared.n_losses >= MAX_LOSSES:
                self._shared = None
                self._models.fail(training.version, event.failure, event.message)
                return
            assert isinstance(work, MemberOrder | TrainingOrder)
            shared.lose(work)

    def _is_current(self, work: MemberOrder) -> bool:
        return self._shared is not None and work.fit is self._shared.order

    def _may_share(self, *, has_parent: bool) -> bool:
        """Whether members are fitted apart: not where a first fit is given a parent, which is one trainer's."""
        settings = self._ledger.settings
        return settings.n_members > 0 and (has_parent or not settings.has_start)

    def _n_workers(self, *, has_parent: bool) -> int:
        """Trainers that share a fit that begins now."""
        if not self._may_share(has_parent=has_parent):
            return 1
        return max(min(self._calls.n_expected(Role.TRAINER), self._ledger.settings.n_members), 1)

    def _as_a_whole(
        self, trained: TrainedCommittee, event: Completion, shared: SharedFit
    ) -> tuple[TrainedCommittee, Completion]:
        """With the time of all parts, by the clock of this process: those of several machines differ."""
        seconds = self._running() - shared.begun
        begun = event.finished - seconds
        metrics = trained.metrics | Metrics({"wall_s": seconds})
        return replace(trained, metrics=metrics), replace(event, sent=begun, started=begun)
