"""The Ray pool: starts workers as actors, hands them calls, restarts the dead ones.

A worker that dies, or raises, is reported once (`WorkerDown`) with all its calls, and replaced after a pause that grows
while it keeps dying; a worker that fails to start three times in a row is given up. A preempted node is not held
against the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from time import time
from typing import Any

import ray
import ray.exceptions as exceptions

from alsys.actors.placement import WorkerSpec, connect, start_actor
from alsys.config.schema import RuntimeConfig
from alsys.control.ports import Completion, PoolEvent, Role, Work, WorkerDown, WorkerUp
from alsys.errors import FailureKind
from alsys.exploration.base import ExplorationOrder
from alsys.potentials.base import CommitteeState
from alsys.training.base import TrainingOrder

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
MAX_PAUSE_S = 30.0


@dataclass(slots=True)
class _Worker:
    spec: WorkerSpec
    actor: Any = None
    generation: int = 0
    restarts: int = 0
    failed_starts: int = 0
    sent: deque[float] = field(default_factory=deque)


class RayPool:
    """Workers as Ray actors.

    Args:
        specs: Workers by name.
        runtime: Where Ray is, and how often a worker may be restarted.
    """

    def __init__(self, specs: Mapping[str, WorkerSpec], runtime: RuntimeConfig) -> None:
        self._workers = {name: _Worker(spec) for name, spec in specs.items()}
        self._specs = specs
        self._runtime = runtime
        self._owns_ray = False
        self._inbox: deque[tuple[str, int, bool, Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._weights: tuple[int, Any] | None = None

    @property
    def roles(self) -> Mapping[str, Role]:
        """As `WorkerPool.roles`."""
        return {name: spec.role for name, spec in self._specs.items()}

    async def start(self) -> None:
        """Brings Ray up and starts all actors at the same time.

        Raises:
            EnvironmentProblem: Ray does not come up.
        """
        self._loop = asyncio.get_running_loop()
        self._owns_ray = await asyncio.to_thread(connect, self._runtime, self._specs)
        for name in self._workers:
            self._start(name)

    def submit(self, worker: str, work: Work) -> None:
        """Sends a call to an actor."""
        entry = self._workers[worker]
        entry.sent.append(time())
        if isinstance(work, ExplorationOrder):
            ref = entry.actor.advance.remote(replace(work, state=None), self._weights_ref(work.state))
        elif isinstance(work, TrainingOrder):
            ref = entry.actor.fit.remote(work)
        else:
            ref = entry.actor.label.remote(work)
        self._follow(worker, ref, is_start=False)

    def restart(self, worker: str, message: str) -> None:
        """Ends an actor and starts it anew; its calls are reported as lost."""
        failed: Future[Any] = Future()
        failed.set_exception(RuntimeError(message))
        self._arrived(worker, self._workers[worker].generation, False, failed)

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Waits for calls to return, workers to come up or to die."""
        if not self._inbox:
            self._wake.clear()
            if not self._inbox:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), timeout_s)
        events: list[PoolEvent] = []
        while self._inbox:
            name, generation, is_start, future = self._inbox.popleft()
            if generation == self._workers[name].generation:
                events.append(self._settle(name, is_start, future))
        return events

    def wake(self) -> None:
        """Ends a `wait`."""
        self._wake.set()

    async def close(self) -> None:
        """Ends the actors, and Ray where this pool started it."""
        for entry in self._workers.values():
            entry.generation += 1
            _kill(entry.actor)
        self._weights = None
        if self._owns_ray:
            await asyncio.to_thread(ray.shutdown)

    def _weights_ref(self, state: CommitteeState | None) -> Any:
        """One copy of the weights in the object store, owned by the driver; None where there are no new ones."""
        if state is None:
            return None
        if self._weights is None or self._weights[0] != state.version:
            self._weights = (state.version, ray.put(state))
        return self._weights[1]

    def _start(self, name: str) -> None:
        entry = self._workers[name]
        entry.actor = start_actor(name, entry.spec)
        entry.sent.clear()
        self._follow(name, entry.actor.ready.remote(), is_start=True)

    def _follow(self, name: str, ref: Any, *, is_start: bool) -> None:
        generation = self._workers[name].generation
        ref.future().add_done_callback(lambda done: self._arrived(name, generation, is_start, done))

    def _arrived(self, name: str, generation: int, is_start: bool, done: Future[Any]) -> None:
        """Runs in one of Ray's threads."""
        self._inbox.append((name, generation, is_start, done))
        if self._loop is not None and not self._loop.is_closed() and not self._wake.is_set():
            with contextlib.suppress(RuntimeError):  # the loop closed between the test and the call
                self._loop.call_soon_threadsafe(self._wake.set)

    def _settle(self, name: str, is_start: bool, done: Future[Any]) -> PoolEvent:
        entry = self._workers[name]
        try:
            value = done.result()
        except Exception as error:
            return self._lost(name, error, is_start)
        if is_start:
            entry.failed_starts = 0
            return WorkerUp(name, entry.spec.role)
        started, finished, result = value
        return Completion(name, entry.spec.role, result, entry.sent.popleft(), started, finished)

    def _lost(self, name: str, error: Exception, is_start: bool) -> WorkerDown:
        entry = self._workers[name]
        entry.generation += 1
        _kill(entry.actor)
        failure = _kind_of(error)
        entry.failed_starts += is_start
        entry.restarts += failure is not FailureKind.WORKER_PREEMPTED
        is_final = entry.restarts > self._runtime.worker_retries or entry.failed_starts >= MAX_FAILED_STARTS
        if not is_final and self._loop is not None:
            pause = min(MAX_PAUSE_S, 0.25 * 2 ** min(entry.restarts - 1, 10)) if is_start else 0.0
            self._loop.call_later(pause, self._start, name)
        return WorkerDown(name, entry.spec.role, failure, _one_line(error), is_final=is_final)


def _kill(actor: Any) -> None:
    if actor is not None and ray.is_initialized():
        with contextlib.suppress(Exception):  # it is dead already, or Ray is
            ray.kill(actor, no_restart=True)


def _kind_of(error: Exception) -> FailureKind:
    if getattr(error, "preempted", False):
        return FailureKind.WORKER_PREEMPTED
    if isinstance(error, exceptions.OutOfMemoryError):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.WORKER_LOST


def _one_line(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    if isinstance(error, exceptions.RayTaskError) and cause is not None:
        return f"{type(cause).__name__}: {cause}"[:500]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]
