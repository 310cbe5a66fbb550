"""Calls to actors, and their answers in the order in which they came, whichever of Ray's threads brought them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from enum import Enum, auto
from time import time
from typing import Any

from alsys.actors.campaign_files import CampaignFiles
from alsys.actors.cluster import Cluster
from alsys.actors.places import WorkerEntry
from alsys.control.ports import Work
from alsys.exploration.base import ExplorationOrder
from alsys.potentials.base import CommitteeState
from alsys.training.base import MemberOrder, TrainingOrder


class Call(Enum):
    """What an answer is to."""

    START = auto()
    WORK = auto()
    PING = auto()


class Answers:
    """Sends calls to actors and keeps what came back until it is asked for.

    Args:
        cluster: Where the actors are.
        files: Of the campaign, which workers read and write.
    """

    def __init__(self, cluster: Cluster, files: CampaignFiles) -> None:
        self._cluster = cluster
        self._files = files
        self._inbox: deque[tuple[str, WorkerEntry, int, Call, Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._weights: tuple[int, Any] | None = None
        self._fit: tuple[TrainingOrder, Any] | None = None

    def open(self) -> None:
        """Answers wake the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def forget_weights(self) -> None:
        """Ray is gone, and what was put into it."""
        self._weights = self._fit = None
        self._files.forget()

    def work(self, name: str, entry: WorkerEntry, work: Work) -> None:
        """Sends a call."""
        entry.sent.append(time())
        self._call(name, entry, Call.WORK, lambda: self._send(name, entry, work))

    def start(self, name: str, entry: WorkerEntry) -> None:
        """Has a worker built in its actor."""
        self._call(name, entry, Call.START, lambda: entry.actor.ready.remote(*self._files.at_start(name, entry.spec)))

    def ping(self, name: str, entry: WorkerEntry) -> None:
        """Asks an actor whether it is there."""
        self._call(name, entry, Call.PING, lambda: entry.actor.ping.remote())

    def fail(self, name: str, entry: WorkerEntry, call: Call, error: Exception) -> None:
        """An answer that is made here."""
        failed: Future[Any] = Future()
        failed.set_exception(error)
        self._arrived(name, entry, entry.generation, call, failed)

    def wake(self) -> None:
        """Ends a `wait`."""
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Waits for the first answer."""
        if self._inbox:
            return
        self._wake.clear()
        if not self._inbox:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout_s)

    def take(self) -> Iterator[tuple[str, Call, Future[Any]]]:
        """Answers of actors that are still those of their workers."""
        while self._inbox:
            name, entry, generation, call, future = self._inbox.popleft()
            if generation == entry.generation:
                yield name, call, future

    def _call(self, name: str, entry: WorkerEntry, call: Call, send: Any) -> None:
        generation = entry.generation
        try:
            ref = send()
        except Exception as error:  # Ray is dead
            self.fail(name, entry, call, error)
            return
        ref.future().add_done_callback(lambda done: self._arrived(name, entry, generation, call, done))

    def _send(self, name: str, entry: WorkerEntry, work: Work) -> Any:
        if isinstance(work, ExplorationOrder) and work.state is not None:
            return entry.actor.run.remote(replace(work, state=None), self._weights_ref(work.state))
        if isinstance(work, TrainingOrder) and entry.spec.files:
            self._fit = None
            return self._files.last_of(name, entry.actor.fit.remote(work))
        if isinstance(work, MemberOrder):
            kept = self._files.of_member(work.share.number)
            return self._files.last_of(name, entry.actor.fit.remote(self._fit_ref(work.fit), work.share, kept))
        news = self._files.news(name, entry.spec.files)
        return entry.actor.run.remote(work, None, *news) if news else entry.actor.run.remote(work)

    def _weights_ref(self, state: CommitteeState) -> Any:
        """One copy of the weights in the object store, owned by the driver."""
        if self._weights is None or self._weights[0] != state.version:
            self._weights = (state.version, self._cluster.put(state))
        return self._weights[1]

    def _fit_ref(self, fit: TrainingOrder) -> Any:
        """One copy of a fit whose members several trainers share, likewise."""
        if self._fit is None or self._fit[0] is not fit:
            self._fit = (fit, self._cluster.put(fit))
        return self._fit[1]

    def _arrived(self, name: str, entry: WorkerEntry, generation: int, call: Call, done: Future[Any]) -> None:
        """Runs in one of Ray's threads."""
        self._inbox.append((name, entry, generation, call, done))
        if self._loop is not None and not self._loop.is_closed() and not self._wake.is_set():
            with contextlib.suppress(RuntimeError):  # the loop closed between the test and the call
                self._loop.call_soon_threadsafe(self._wake.set)
