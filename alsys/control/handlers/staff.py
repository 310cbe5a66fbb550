"""How many workers a campaign wants, and who of them has no place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from alsys.control.handlers.event_sink import EventSink
from alsys.control.ports import Role, WorkerGone, WorkerLeaving, WorkerPool, WorkerUp
from alsys.control.rules.labels import GROW_S, n_wanted
from alsys.control.state.ledger import Ledger
from alsys.control.status import waiting_text
from alsys.control.worker_calls import WorkerCalls
from alsys.events import WorkerLeft, WorkersWaiting

logger = logging.getLogger(__name__)

AGAIN_S: Final = 10.0
"""Between two events that tell of the same wait with other numbers of workers."""


class StaffHandler:
    """Tells the pool how many labelers have something to do, and the log who waits for a place.

    Args:
        ledger: Of the campaign.
        pool: The workers.
        calls: Which of them are there.
        record: Takes events.
        clock: Unix time.
        running: Seconds that this process has run.
    """

    def __init__(
        self,
        ledger: Ledger,
        pool: WorkerPool,
        calls: WorkerCalls,
        record: EventSink,
        clock: Callable[[], float],
        running: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._calls = calls
        self._record = record
        self._clock = clock
        self._running = running
        self._told = 0.0
        self._waits: set[str] = set()

    def note(self, event: WorkerUp | WorkerLeaving | WorkerGone) -> None:
        """A worker has come, is about to leave, or has left."""
        was_there = self._calls.knows(event.worker)  # one that never was says nothing by going
        self._calls.note(event)
        if isinstance(event, WorkerGone) and was_there:
            self._record(WorkerLeft(t=self._clock(), worker=event.worker))

    def tick(self) -> None:
        """To be called now and then."""
        n_labelers, has_trainer = self._calls.count(Role.LABELER), self._calls.count(Role.TRAINER) > 0
        n_slow = self._calls.n_longer_than(Role.LABELER, GROW_S)
        self._pool.want(n_wanted(self._ledger, n_labelers, n_slow=n_slow, has_trainer=has_trainer))
        state, told = self._pool.state(), self._ledger.waiting
        waits = {*state.waiting.values(), *state.avoided} if state.waiting else set()
        is_new = waits != self._waits
        is_other = told is not None and (told.message, told.asked, told.up) != (state.message, state.asked, state.up)
        if not is_new and not (is_other and self._running() - self._told >= AGAIN_S):
            return
        self._told, self._waits = self._running(), waits
        event = WorkersWaiting(t=self._clock(), asked=state.asked, up=state.up, message=state.message)
        self._record(event)
        logger.warning("%s", waiting_text(event) or f"no worker waits for a place any more, {state.up} are up")
