"""A pool in this process: the same loop without Ray.

Inline, calls run one after another inside `wait`, which makes a campaign on fakes deterministic and fast: this is the
permanent specification of the loop. With threads, each worker has one thread, for campaigns on one machine where
starting Ray is not worth it; a thread whose call hangs is left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial

from alsys.control.ports import (
    FORGIVEN_AFTER,
    Completion,
    PoolEvent,
    PoolState,
    Role,
    Work,
    Worker,
    WorkerDown,
    WorkerUp,
)
from alsys.errors import FailureKind, WorkerUnfit
from alsys.exploration.walker_states import StateTimer, WalkerStates, resumed
from alsys.threads import WorkerThread

CLOSE_S = 10.0
"""Longest wait for the calls that run when a pool is closed."""
FIRST_PAUSE_S = 0.25
"""After a worker could not be built anew; the next ones are twice as long each, `MAX_PAUSE_S` at most."""
MAX_PAUSE_S = 30.0


class InProcessPool:
    """Workers in this process.

    Args:
        workers: Role and factory of each worker, by name.
        use_threads: One thread for each worker instead of running calls inline.
        restarts: How often a worker that raised is built anew, without `FORGIVEN_AFTER` results in a row.
        walkers: Where those of explorers are.
        clock: Unix time.
    """

    def __init__(
        self,
        workers: Mapping[str, tuple[Role, Callable[[], Worker]]],
        *,
        use_threads: bool = False,
        restarts: int = 20,
        walkers: WalkerStates | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._factories = dict(workers)
        self._workers: dict[str, Worker] = {}
        self._most_restarts = restarts
        self._results = dict.fromkeys(workers, 0)
        self._restarts = dict.fromkeys(workers, restarts)
        self._clock = clock
        self._walkers = walkers or WalkerStates()
        self._timers: dict[str, StateTimer] = {}
        self._queue: deque[tuple[str, Work, float]] = deque()
        self._ready: deque[PoolEvent] = deque()
        self._wake = asyncio.Event()
        self._threads = {name: WorkerThread(name) for name in workers} if use_threads else {}
        self._generation = dict.fromkeys(workers, 0)
        self._pauses: dict[str, asyncio.TimerHandle] = {}
        self._unfit: WorkerUnfit | None = None

    @property
    def roles(self) -> Mapping[str, Role]:
        """As `WorkerPool.roles`."""
        return {name: role for name, (role, _) in self._factories.items()}

    async def start(self) -> None:
        """Builds all workers."""
        for name in self._factories:
            self._build(name)

    def want(self, n_labelers: int) -> None:
        """As `WorkerPool.want`; threads that wait cost nothing, so all workers stay."""

    def state(self) -> PoolState:
        """As `WorkerPool.state`; nothing is waited for here."""
        return PoolState(
            asked=len(self._factories),
            up=len(self._workers),
            asked_of=Counter(role for role, _ in self._factories.values()),
            up_of=Counter(self._factories[name][0] for name in self._workers),
        )

    def submit(self, worker: str, work: Work) -> None:
        """Queues a call."""
        if not self._threads:
            self._queue.append((worker, work, self._clock()))
            return
        generation, object_, sent = self._generation[worker], self._workers[worker], self._clock()
        call = self._threads[worker].submit(lambda: self._run(object_, worker, work, sent))
        future = asyncio.wrap_future(call)
        future.add_done_callback(lambda done: self._done(worker, generation, done))

    def restart(self, worker: str, message: str) -> None:
        """Builds a worker anew."""
        self._replace(worker, message)
        self._wake.set()

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Runs one queued call, or waits for a thread.

        Raises:
            WorkerUnfit: A worker lacks what it needs.
        """
        await asyncio.sleep(0)  # inline calls must not starve the commits
        if not self._ready and self._queue:
            worker, work, sent = self._queue.popleft()
            self._finish(worker, lambda: self._run(self._workers[worker], worker, work, sent))
        if not self._ready and self._threads:
            try:
                await asyncio.wait_for(self._wake.wait(), timeout_s)
            except TimeoutError:
                return []
            finally:
                self._wake.clear()
        elif not self._ready:
            await asyncio.sleep(min(timeout_s, 0.01))
        if self._unfit is not None:
            raise self._unfit
        events = list(self._ready)
        self._ready.clear()
        return events

    def wake(self) -> None:
        """Ends a `wait`; inline, where it never waits for long, without effect."""
        self._wake.set()

    async def close(self) -> None:
        """Ends threads and labelers; calls that are running are waited for, for `CLOSE_S` at most."""
        deadline = time.monotonic() + CLOSE_S
        for pause in self._pauses.values():
            pause.cancel()
        for name in self._generation:
            self._generation[name] += 1
        for thread in self._threads.values():
            thread.close()
        for thread in self._threads.values():
            thread.close(max(0.0, deadline - time.monotonic()))
        for worker in self._workers.values():
            _close(worker)

    def _build(self, name: str) -> None:
        role, factory = self._factories[name]
        worker = factory()
        if role is Role.EXPLORER:
            self._timers[name] = StateTimer()
            worker = resumed(worker, self._walkers.take(name), factory)
        self._workers[name] = worker
        self._ready.append(WorkerUp(name, role))

    def _run(self, worker: Worker, name: str, work: Work, sent: float) -> Completion:
        started, since = self._clock(), time.perf_counter()
        result = worker.run(work)
        finished = started + time.perf_counter() - since  # the clock may be set meanwhile
        state = self._timers[name].take(worker) if name in self._timers else None
        if state is not None:
            self._walkers.hold(name, state)
        to_write = self._walkers.to_write(name, state)
        return Completion(name, self._factories[name][0], result, sent, started, finished, to_write)

    def _done(self, name: str, generation: int, future: asyncio.Future[Completion]) -> None:
        if not future.cancelled():
            future.exception()  # that of a worker that was ended is nobody's, and asyncio need not speak of it
            if generation == self._generation[name]:
                self._finish(name, future.result)
        self._wake.set()

    def _finish(self, name: str, call: Callable[[], Completion]) -> None:
        """A worker that raises is a crashed worker: it is replaced, as Ray would replace an actor."""
        try:
            self._ready.append(call())
            self._results[name] += 1
            if self._results[name] >= FORGIVEN_AFTER:
                self._restarts[name] = self._most_restarts
        except WorkerUnfit as error:
            self._unfit = error
        except Exception as error:
            self._replace(name, f"{type(error).__name__}: {error}")

    def _replace(self, name: str, message: str) -> None:
        """Ends a worker, drops its calls, and builds it anew while it may be."""
        if name not in self._workers:
            return  # it is being built anew
        self._generation[name] += 1
        self._results[name] = 0
        self._queue = deque(item for item in self._queue if item[0] != name)
        _close(self._workers.pop(name))
        if name in self._threads:
            self._threads[name].close()  # what hangs in it is left behind
            self._threads[name] = WorkerThread(name)
        if self._tell_down(name, message):
            self._rebuild(name)

    def _tell_down(self, name: str, message: str) -> bool:
        """Says that a worker is lost; whether it may be built anew."""
        is_final, role = self._restarts[name] <= 0, self._factories[name][0]
        self._ready.append(WorkerDown(name, role, FailureKind.WORKER_LOST, message, is_final=is_final))
        self._restarts[name] -= 1
        return not is_final

    def _rebuild(self, name: str, pause_s: float = FIRST_PAUSE_S) -> None:
        """Builds a worker anew; where that fails, once more after a pause: a GPU may be full for a while."""
        try:
            self._build(name)
        except WorkerUnfit as error:
            self._unfit = error
        except Exception as error:
            if self._tell_down(name, f"{type(error).__name__}: {error}"):
                again = partial(self._rebuild, name, min(2.0 * pause_s, MAX_PAUSE_S))
                self._pauses[name] = asyncio.get_running_loop().call_later(pause_s, again)
        self._wake.set()


def _close(worker: Worker) -> None:
    close = getattr(worker, "close", None)
    if close is not None:
        close()
