"""The Ray pool: starts workers as actors, hands them calls, restarts the dead ones, and Ray where it dies.

A worker that dies, or raises, is reported once (`WorkerDown`) with all its calls, and replaced after a pause that grows
while it keeps dying; a worker that fails to start three times in a row is given up. A preempted node is not held
against the worker, and neither is the end of Ray: one of our own is brought up anew with all workers. A start has a
budget; an actor that no node can hold is spoken of, and ends the run where nothing can change that. A worker that is
stopped (SIGSTOP) on this machine is spoken of, and replaced when it stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import time
from typing import Any, Final

import ray.exceptions as exceptions

from alsys.actors.campaign_files import CampaignFiles
from alsys.actors.cluster import Cluster
from alsys.actors.placement import WorkerSpec
from alsys.clock import RunningClock
from alsys.config.runtime import RuntimeConfig
from alsys.control.ports import FORGIVEN_AFTER, Completion, PoolEvent, Role, Work, WorkerDown, WorkerUp
from alsys.errors import AGAIN, EnvironmentProblem, FailureKind, WorkerUnfit
from alsys.exploration.base import ExplorationOrder
from alsys.potentials.base import CommitteeState
from alsys.training.base import TrainingOrder

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS: Final = 3
"""In a row, with an error or in vain; a worker that is killed while it starts has `runtime.worker_retries`."""
MAX_PAUSE_S: Final = 30.0
MAX_RENEWALS: Final = 20
"""How often Ray is brought up anew while one driver runs."""
WATCH_EVERY_S: Final = 1.0
SLOW_START_S: Final = 45.0
"""A start that takes longer is spoken of."""
SPEAK_OF_STOPPED_S: Final = 10.0


@dataclass(slots=True)
class _Worker:
    spec: WorkerSpec
    actor: Any = None
    pid: int = 0
    generation: int = 0
    restarts: int = 0
    results: int = 0
    failed_starts: int = 0
    starting_since: float | None = None
    is_slow: bool = False
    is_stopped: bool = False
    is_given_up: bool = False
    sent: deque[float] = field(default_factory=deque)


class RayPool:
    """Workers as Ray actors.

    Args:
        specs: Workers by name.
        runtime: Where Ray is, how often a worker may be restarted, and how long things may take.
        folder: The campaign's, for workers with files.
        cluster: Ray; default is the one of `runtime`.
        clock: Seconds that this process has run.
    """

    def __init__(
        self,
        specs: Mapping[str, WorkerSpec],
        runtime: RuntimeConfig,
        folder: Path = Path(),
        cluster: Cluster | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._workers = {name: _Worker(spec) for name, spec in specs.items()}
        self._specs = specs
        self._runtime = runtime
        self._clock = clock or RunningClock()
        self._cluster = cluster or Cluster(runtime, sum(spec.cpus for spec in specs.values()), self._clock)
        self._events: deque[PoolEvent] = deque()
        self._inbox: deque[tuple[str, int, bool, Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._weights: tuple[int, Any] | None = None
        self._files = CampaignFiles(folder, self._cluster.put)
        self._renewal: asyncio.Task[None] | None = None
        self._renewals = 0
        self._watched = float("-inf")

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
        await self._cluster.start()
        for name in self._workers:
            self._start(name)

    def submit(self, worker: str, work: Work) -> None:
        """Sends a call to an actor."""
        entry = self._workers[worker]
        entry.sent.append(time())
        try:
            ref = self._send(worker, entry, work)
        except Exception as error:  # Ray is dead
            failed: Future[Any] = Future()
            failed.set_exception(error)
            self._arrived(worker, entry.generation, False, failed)
            return
        self._follow(worker, ref, is_start=False)

    def restart(self, worker: str, message: str) -> None:
        """Ends an actor and starts it anew; its calls are reported as lost."""
        failed: Future[Any] = Future()
        failed.set_exception(RuntimeError(message))
        self._arrived(worker, self._workers[worker].generation, False, failed)

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Waits for calls to return, workers to come up or to die.

        Raises:
            EnvironmentProblem: Ray is gone and cannot be brought up anew, no node can hold the workers of a role, or
                a worker lacks what it needs.
        """
        if not self._inbox and not self._events:
            self._wake.clear()
            if not self._inbox:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), timeout_s)
        self._watch()
        while self._inbox:
            name, generation, is_start, future = self._inbox.popleft()
            if generation == self._workers[name].generation:
                self._events.append(self._settle(name, is_start, future))
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        """Ends a `wait`."""
        self._wake.set()

    async def close(self) -> None:
        """Ends the actors, and Ray where this pool started it."""
        if self._renewal is not None:
            self._renewal.cancel()
        for entry in self._workers.values():
            entry.generation += 1
            if entry.actor is not None:
                self._cluster.kill(entry.actor)
        self._weights = None
        await self._cluster.stop()
        await asyncio.to_thread(self._files.close)

    def _send(self, name: str, entry: _Worker, work: Work) -> Any:
        if isinstance(work, ExplorationOrder) and work.state is not None:
            return entry.actor.run.remote(replace(work, state=None), self._weights_ref(work.state))
        if isinstance(work, TrainingOrder) and entry.spec.files:
            return self._files.last_of(name, entry.actor.fit.remote(work))
        news = self._files.news(name, entry.spec.files)
        return entry.actor.run.remote(work, None, *news) if news else entry.actor.run.remote(work)

    def _weights_ref(self, state: CommitteeState) -> Any:
        """One copy of the weights in the object store, owned by the driver."""
        if self._weights is None or self._weights[0] != state.version:
            self._weights = (state.version, self._cluster.put(state))
        return self._weights[1]

    def _start(self, name: str) -> None:
        if not self._cluster.is_up:
            return  # all workers are started once it is
        entry = self._workers[name]
        entry.starting_since, entry.is_slow, entry.is_stopped = self._clock(), False, False
        entry.sent.clear()
        try:
            entry.actor = self._cluster.start_actor(name, entry.spec)
            ref = entry.actor.ready.remote(*self._files.at_start(name, entry.spec))
        except Exception as error:  # Ray is dead
            failed: Future[Any] = Future()
            failed.set_exception(error)
            self._arrived(name, entry.generation, True, failed)
            return
        self._follow(name, ref, is_start=True)

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
            cause = getattr(error, "cause", error)
            if isinstance(cause, WorkerUnfit):
                raise cause from None
            return self._lost(name, error, is_start)
        if is_start:
            entry.failed_starts, entry.starting_since, entry.pid = 0, None, value
            return WorkerUp(name, entry.spec.role)
        started, finished, result, files = value
        if files:
            self._files.take(name, files)
        entry.results += 1
        if entry.results >= FORGIVEN_AFTER:
            entry.restarts = 0
        return Completion(name, entry.spec.role, result, entry.sent.popleft(), started, finished)

    def _lost(self, name: str, error: Exception, is_start: bool) -> WorkerDown:
        entry = self._workers[name]
        self._end(entry)
        if self._is_ray_gone():  # then it is no worker's fault
            return WorkerDown(name, entry.spec.role, FailureKind.WORKER_PREEMPTED, "Ray died")
        failure = _kind_of(error)
        entry.failed_starts += is_start and not _was_killed(error)
        entry.results = 0
        entry.restarts += failure is not FailureKind.WORKER_PREEMPTED
        entry.is_given_up = entry.restarts > self._runtime.worker_retries or entry.failed_starts >= MAX_FAILED_STARTS
        if not entry.is_given_up and self._loop is not None:
            pause = min(MAX_PAUSE_S, 0.25 * 2 ** min(entry.restarts - 1, 10)) if is_start else 0.0
            self._loop.call_later(pause, self._start_again, name, entry.generation)
        return WorkerDown(name, entry.spec.role, failure, _one_line(error), is_final=entry.is_given_up)

    def _start_again(self, name: str, generation: int) -> None:
        if generation == self._workers[name].generation:
            self._start(name)

    def _end(self, entry: _Worker) -> None:
        """Nothing that this actor still says is heard."""
        entry.generation += 1
        entry.starting_since, entry.pid = None, 0
        if entry.actor is not None:
            self._cluster.kill(entry.actor)
            entry.actor = None

    # --- watching

    def _is_ray_gone(self) -> bool:
        return self._renewal is not None or not self._cluster.is_up or self._cluster.failure() is not None

    def _watch(self) -> None:
        if self._renewal is not None:
            if not self._renewal.done():
                return
            renewal, self._renewal = self._renewal, None
            renewal.result()
        now = self._clock()
        if now - self._watched < WATCH_EVERY_S or self._loop is None:
            return
        self._watched = now
        failure = self._cluster.failure()
        if failure is not None:
            self._renew(failure)
            return
        for name, entry in self._workers.items():
            if entry.starting_since is not None:
                self._watch_start(name, entry, now - entry.starting_since)
            elif entry.pid:
                self._watch_stopped(name, entry)

    def _renew(self, failure: str) -> None:
        """All workers are lost; Ray is brought up anew where it is ours."""
        if not self._cluster.is_local:
            where = self._cluster.address or "this machine"
            raise EnvironmentProblem(f"{failure}: the cluster at {where} is lost; see to it, then {AGAIN} goes on")
        self._renewals += 1
        if self._renewals > MAX_RENEWALS:
            raise EnvironmentProblem(f"{failure}; it was brought up anew {MAX_RENEWALS} times; see logs/stderr.log")
        logger.warning("%s; it is brought up anew, with all workers", failure)
        for name, entry in self._workers.items():
            was_there = entry.actor is not None
            entry.generation += 1
            entry.actor, entry.pid, entry.starting_since = None, 0, None
            if was_there:
                self._events.append(WorkerDown(name, entry.spec.role, FailureKind.WORKER_PREEMPTED, failure))
        self._weights = None
        self._files.forget()
        self._renewal = asyncio.create_task(self._bring_up())

    async def _bring_up(self) -> None:
        try:
            await self._cluster.renew()
        finally:
            self.wake()
        for name, entry in self._workers.items():
            if not entry.is_given_up:
                entry.generation += 1
                self._start(name)
        logger.warning("Ray is up again")

    def _watch_start(self, name: str, entry: _Worker, spent: float) -> None:
        if spent >= SPEAK_OF_STOPPED_S and self._cluster.is_local:
            for pid in self._cluster.end_stopped(self._runtime.stopped_timeout_s):
                logger.warning("process %d was stopped while it started, and is ended", pid)
        if spent >= SLOW_START_S and not entry.is_slow:
            entry.is_slow = True
            missing = _missing(entry.spec, self._cluster.resources())
            if missing and self._cluster.is_local:
                self._give_up(name, entry, missing)
                return
            reason = f"no node has what it asks for: {missing}" if missing else "nodes are full, or it starts slowly"
            logger.warning("%s has not started for %.0f s: %s", name, spent, reason)
        elif spent >= self._runtime.worker_start_timeout_s:
            missing = _missing(entry.spec, self._cluster.resources())
            if missing:
                self._give_up(name, entry, missing)
                return
            failed: Future[Any] = Future()
            failed.set_exception(TimeoutError(f"not started after {spent:.0f} s (runtime.worker_start_timeout_s)"))
            self._arrived(name, entry.generation, True, failed)

    def _give_up(self, name: str, entry: _Worker, missing: str) -> None:
        """No node can hold a worker: the others do without it, where there are any.

        Raises:
            EnvironmentProblem: It is the last of its role.
        """
        self._end(entry)
        entry.is_given_up = True
        role = entry.spec.role
        message = f"no node has what it asks for: {missing}"
        if all(other.is_given_up for other in self._workers.values() if other.spec.role is role):
            raise EnvironmentProblem(f"{name} cannot be placed: {message}; ask for less, or add such a node")
        logger.warning("%s is given up: %s", name, message)
        self._events.append(WorkerDown(name, role, FailureKind.WORKER_LOST, message, is_final=True))

    def _watch_stopped(self, name: str, entry: _Worker) -> None:
        seconds = self._cluster.stopped_s(entry.pid)
        if not seconds:
            entry.is_stopped = False
        elif seconds >= self._runtime.stopped_timeout_s:
            self.restart(name, f"was stopped (process {entry.pid}) for {seconds:.0f} s")
            entry.pid = 0
        elif seconds >= SPEAK_OF_STOPPED_S and not entry.is_stopped:
            entry.is_stopped = True
            limit = self._runtime.stopped_timeout_s
            logger.warning("%s (process %d) is stopped; it is replaced after %.0f s", name, entry.pid, limit)


def _missing(spec: WorkerSpec, nodes: list[Mapping[str, float]]) -> str:
    """What no single node has of what a worker asks for; empty where one could hold it, or none is known."""
    asked = {"CPU": spec.cpus, "GPU": spec.gpus, **spec.resources}
    asked = {name: amount for name, amount in asked.items() if amount > 0}
    if not nodes or any(all(node.get(name, 0.0) >= amount for name, amount in asked.items()) for node in nodes):
        return ""
    lacking = {name: amount for name, amount in asked.items() if all(node.get(name, 0.0) < amount for node in nodes)}
    return ", ".join(f"{amount:g} {name}" for name, amount in (lacking or asked).items())


def _kind_of(error: Exception) -> FailureKind:
    if getattr(error, "preempted", False):
        return FailureKind.WORKER_PREEMPTED
    if isinstance(error, exceptions.OutOfMemoryError):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.WORKER_LOST


def _was_killed(error: Exception) -> bool:
    """Whether a process ended without a word: it was killed, where one that cannot start would have said why."""
    return isinstance(error, exceptions.RayActorError) and not error.actor_init_failed


def _one_line(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    if isinstance(error, exceptions.RayTaskError) and cause is not None:
        return f"{type(cause).__name__}: {cause}"[:500]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RuntimeError | TimeoutError):
        return (lines[0] if lines else type(error).__name__)[:500]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]
