"""The Ray pool: starts workers as actors, hands them calls, restarts the dead ones, and Ray where it dies.

A worker that dies, or raises, is reported once (`WorkerDown`) with all its calls, and replaced after a pause that grows
while it keeps dying; a worker that fails to start three times in a row is given up. A dead or preempted node is not
held against the worker, and neither is the end of Ray: one of our own is brought up anew with all workers. A node on
which workers cannot start is avoided as long as there is another one, and one that is being drained is left. Which
workers there are, and who makes room for whom, is in `alsys.actors.places`. A start has a budget, which a wait for a
place does not use up; a place that no node has is spoken of, and ends the run where nothing can change that. Workers
without a call are asked now and then whether they live. A worker that is stopped (SIGSTOP) on this machine is spoken
of, and replaced when it stays so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from alsys.actors.answers import Answers, Call
from alsys.actors.campaign_files import CampaignFiles
from alsys.actors.cluster import Cluster
from alsys.actors.failures import kind_of, may_pass, one_line, unfit_of
from alsys.actors.losses import Losses
from alsys.actors.nodes import Nodes
from alsys.actors.placement import WorkerSpec
from alsys.actors.places import Places, WorkerEntry
from alsys.actors.ray_start import full_folder
from alsys.actors.worker_files import WALKERS
from alsys.actors.worker_logs import WorkerLogs
from alsys.clock import RunningClock
from alsys.config.runtime import RuntimeConfig
from alsys.control.ports import (
    FORGIVEN_AFTER,
    Completion,
    PoolEvent,
    PoolState,
    Role,
    Work,
    WorkerDown,
    WorkerGone,
    WorkerLeaving,
    WorkerUp,
)
from alsys.errors import AGAIN, EnvironmentProblem, FailureKind
from alsys.exploration.walker_states import WalkerStates

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS: Final = 3
"""In a row, with an error or in vain; one that is killed, or finds a full disk, has `runtime.worker_retries`."""
MAX_PAUSE_S, FULL_PAUSE_S = 30.0, 5.0
MAX_RENEWALS: Final = 20
"""How often Ray is brought up anew in a row, each within `RENEWALS_S` of the one before."""
RENEWALS_S: Final = 600.0
WATCH_EVERY_S: Final = 1.0
SLOW_START_S: Final = 45.0
"""A start that takes longer is spoken of."""
SPEAK_OF_STOPPED_S: Final = 10.0
PING_EVERY_S: Final = 15.0
"""How often a worker without a call is asked whether it lives."""


class RayPool:
    """Workers as Ray actors.

    Args:
        specs: Workers by name, in the order in which they are placed.
        runtime: Where Ray is, how often a worker may be restarted, and how long things may take.
        folder: The campaign's, for workers with files.
        cluster: Ray; default is the one of `runtime`.
        clock: Seconds that this process has run.
        walkers: Where those of explorers are.
    """

    def __init__(
        self,
        specs: Mapping[str, WorkerSpec],
        runtime: RuntimeConfig,
        folder: Path = Path(),
        cluster: Cluster | None = None,
        clock: Callable[[], float] | None = None,
        walkers: WalkerStates | None = None,
    ) -> None:
        self._specs = specs
        self._runtime = runtime
        self._clock = clock or RunningClock()
        self._nodes = Nodes()
        self._places = Places(specs, self._nodes)
        self._workers = self._places.workers
        self._logs = WorkerLogs(folder, specs)
        self._cluster = cluster or Cluster(
            runtime, self._places.all, self._places.least, self._clock, listen=self._logs.take
        )
        self._events: deque[PoolEvent] = deque()
        self._files = CampaignFiles(folder, self._cluster.put, walkers)
        self._answers = Answers(self._cluster, self._files)
        self._losses = Losses()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._renewals, self._renewed = 0, 0.0
        self._watched = float("-inf")

    @property
    def roles(self) -> Mapping[str, Role]:
        """As `WorkerPool.roles`."""
        return {name: spec.role for name, spec in self._specs.items()}

    def want(self, n_labelers: int) -> None:
        """As `WorkerPool.want`."""
        self._places.n_labelers = n_labelers

    def state(self) -> PoolState:
        """As `WorkerPool.state`."""
        return self._places.state(self._clock())

    async def start(self) -> None:
        """Brings Ray up and starts all actors that are kept, at the same time.

        Raises:
            EnvironmentProblem: Ray does not come up.
        """
        self._loop = asyncio.get_running_loop()
        self._answers.open()
        await self._cluster.start()
        for name, entry in self._workers.items():
            if entry.is_wanted:
                self._start(name)

    def submit(self, worker: str, work: Work) -> None:
        """Sends a call to an actor."""
        self._answers.work(worker, self._workers[worker], work)

    def restart(self, worker: str, message: str) -> None:
        """Ends an actor and starts it anew; its calls are reported as lost."""
        self._answers.fail(worker, self._workers[worker], Call.WORK, RuntimeError(message))

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Waits for calls to return, workers to come up or to die.

        Raises:
            EnvironmentProblem: Ray is gone and cannot be brought up anew, no node can hold the workers of a role, or
                a worker lacks what it needs.
        """
        await asyncio.sleep(0)  # where answers wait all the time, others of this loop must have their turn: commits
        if not self._events:
            await self._answers.wait(timeout_s)
        self._watch()
        for name, call, future in self._answers.take():
            self._settle(name, call, future)
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        """Ends a `wait`."""
        self._answers.wake()

    async def close(self) -> None:
        """Ends the actors, and Ray where this pool started it."""
        if self._renewal is not None:
            self._renewal.cancel()
        for entry in self._workers.values():
            entry.generation += 1
            if entry.actor is not None:
                self._cluster.kill(entry.actor)
        self._answers.forget_weights()
        await self._cluster.stop()
        await asyncio.to_thread(self._files.close)

    def _start(self, name: str) -> None:
        if not self._cluster.is_up:
            return  # all workers are started once it is
        entry = self._workers[name]
        entry.begin(self._clock())
        try:
            entry.actor = self._cluster.start_actor(name, entry.spec, self._nodes.unusable())
        except Exception as error:  # Ray is dead
            self._answers.fail(name, entry, Call.START, error)
            return
        self._answers.start(name, entry)

    # --- what came back

    def _settle(self, name: str, call: Call, done: Future[Any]) -> None:
        entry = self._workers[name]
        try:
            value = done.result()
            if call is Call.START:
                entry.node = value.node
                value.check(entry.spec.identity, is_elsewhere=entry.spec.python is not None)
        except Exception as error:
            if self._cluster.is_local or (call is Call.WORK and isinstance(error, RuntimeError | TimeoutError)):
                self._lose(name, error, call, "")
            else:  # its node may be dead, which Ray says a little later
                self._losses.add(name, entry, error, call, self._clock())
                entry.pinged, entry.answered = None, self._clock()  # asked once more meanwhile
                self._cluster.ask_about(name)
            return
        if call is Call.START:
            entry.arrive(value.pid, value.node, self._clock())
            self._nodes.praise(value.node)
            self._events.append(WorkerUp(name, entry.spec.role))
            return
        self._losses.answered(entry)
        if call is Call.PING:
            entry.pinged, entry.answered = None, self._clock()
            return
        started, finished, result, files = value
        if files:
            self._files.take(name, files)
        entry.results += 1
        if entry.results >= FORGIVEN_AFTER:
            entry.restarts = 0
        kept, role = self._files.walkers.to_write(name, files.get(WALKERS)), entry.spec.role
        self._events.append(Completion(name, role, result, entry.sent.popleft(), started, finished, kept))
        if not entry.sent:
            entry.idle_since = self._clock()
            if entry.is_leaving:
                self._leave(name)

    def _lose(self, name: str, error: Exception, call: Call, node: str, *, is_node_dead: bool = False) -> None:
        """A worker is lost.

        Args:
            name: Its name.
            error: What Ray said.
            call: What failed.
            node: Where it was; empty where that is not known.
            is_node_dead: Its node died.

        Raises:
            WorkerUnfit: It lacks what it needs, and no other node could have it.
        """
        entry = self._workers[name]
        is_start = call is Call.START
        self._end(entry)
        if self._is_ray_gone():  # then it is no worker's fault
            self._events.append(WorkerDown(name, entry.spec.role, FailureKind.WORKER_PREEMPTED, "Ray died"))
            self._start_later(name, entry, WATCH_EVERY_S)  # where it is not brought up anew after all
            return
        lack = "" if self._runtime.address else full_folder()  # then it waits, and nobody is to blame
        failure, message = FailureKind.WORKER_PREEMPTED if lack else kind_of(error), one_line(error) + lack
        if is_node_dead:
            failure, message = FailureKind.NODE_LOST, f"its node {node[:8]} died"
        message = self._logs.beside(name, message)
        is_to_blame = not is_node_dead and failure is not FailureKind.WORKER_PREEMPTED
        if is_start and is_to_blame:
            is_to_blame = not self._is_node_to_blame(entry, error, node)
            unfit = unfit_of(error)
            if is_to_blame and unfit is not None:
                raise unfit from None
            entry.failed_starts += is_to_blame and not may_pass(error)
        entry.results, entry.restarts = 0, entry.restarts + is_to_blame
        entry.is_given_up = entry.restarts > self._runtime.worker_retries or entry.failed_starts >= MAX_FAILED_STARTS
        if not entry.is_given_up:
            pause = min(MAX_PAUSE_S, 0.25 * 2 ** min(max(entry.restarts - 1, 0), 10)) if is_start else 0.0
            self._start_later(name, entry, FULL_PAUSE_S if lack else pause)
        self._events.append(WorkerDown(name, entry.spec.role, failure, message, is_final=entry.is_given_up))

    def _is_node_to_blame(self, entry: WorkerEntry, error: Exception, node: str) -> bool:
        """Whether a start failed because of its node, which is avoided from now on if there is another one."""
        lasts = unfit_of(error) is not None
        if not node or not self._nodes.blame(node, entry.spec.demand, one_line(error), lasts=lasts):
            return False
        logger.warning("node %s is avoided: %s", self._nodes.name(node), one_line(error))
        return True

    def _start_later(self, name: str, entry: WorkerEntry, pause_s: float) -> None:
        generation = entry.generation

        def start() -> None:
            is_asked_for = entry.asked is not None  # meanwhile, as one that made room and comes again
            if generation == entry.generation and entry.is_wanted and not (entry.held_for or is_asked_for):
                self._start(name)

        if self._loop is not None:
            self._loop.call_later(pause_s, start)

    def _end(self, entry: WorkerEntry) -> None:
        """Nothing that this actor still says is heard."""
        if entry.actor is not None:
            self._cluster.kill(entry.actor)
            self._places.ended = self._clock()
        entry.end()

    def _leave(self, name: str) -> None:
        """A worker without calls ends, and is started elsewhere where it is still wanted."""
        entry = self._workers[name]
        self._end(entry)
        self._events.append(WorkerGone(name, entry.spec.role))
        if entry.is_wanted and not entry.held_for:
            self._start(name)

    def _ask_to_leave(self, name: str, reason: str) -> None:
        """A worker gets no more calls, and ends once it has none."""
        entry = self._workers[name]
        logger.info("%s ends after its call: %s", name, reason)
        if entry.starting_since is not None or not entry.sent:
            self._leave(name)
            return
        entry.is_leaving = True
        self._events.append(WorkerLeaving(name, entry.spec.role))

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
            return self._renew(failure)
        self._nodes.look = self._cluster.look()
        for loss in self._losses.judged(self._nodes.look, now):
            self._lose(loss.name, loss.error, loss.call, loss.node, is_node_dead=loss.is_node_dead)
        for name in self._losses.unknown():
            self._cluster.ask_about(name)
        self._resize(now)
        for name, entry in self._workers.items():
            if entry.starting_since is not None:
                self._watch_start(name, entry, now)
            elif entry.pid:
                self._watch_stopped(name, entry)
                if not entry.sent:
                    self._ping(name, entry, now)

    def _resize(self, now: float) -> None:
        """Workers come, go, and make room for those before them."""
        for name in self._places.on_draining():
            self._ask_to_leave(name, "its node is being drained")
        for name in self._places.surplus(now):
            self._workers[name].is_wanted = False
            self._ask_to_leave(name, "nothing waits for it")
        for name in self._places.lacking():
            self._workers[name].is_wanted = True
            self._start(name)
        first = self._places.first_waiting(now)
        for name in self._places.to_come_again(now):
            self._start(name)
        for name in [] if first is None else [*self._places.ahead_of(first), *self._places.to_end_for(first)]:
            self._workers[name].held_for, self._workers[name].held_since = str(first), now
            self._ask_to_leave(name, f"makes room for {first}")

    def _renew(self, failure: str) -> None:
        """All workers are lost; Ray is brought up anew where it is ours."""
        if not self._cluster.is_local:
            where = self._cluster.address or "this machine"
            raise EnvironmentProblem(f"{failure}: the cluster at {where} is lost; see to it, then {AGAIN} goes on")
        now = self._clock()
        self._renewals = self._renewals + 1 if now - self._renewed < RENEWALS_S else 1
        self._renewed = now
        if self._renewals > MAX_RENEWALS:
            raise EnvironmentProblem(f"{failure}; brought up anew {MAX_RENEWALS} times in a row; see logs/stderr.log")
        logger.warning("%s; it is brought up anew, with all workers", failure)
        for name, entry in self._workers.items():
            was_there = entry.actor is not None
            entry.end()
            if was_there:
                self._events.append(WorkerDown(name, entry.spec.role, FailureKind.WORKER_PREEMPTED, failure))
        self._answers.forget_weights()
        self._renewal = asyncio.create_task(self._bring_up())

    async def _bring_up(self) -> None:
        try:
            await self._cluster.renew()
        finally:
            self.wake()
        for name, entry in self._workers.items():
            if entry.is_wanted and not entry.is_given_up:
                entry.generation += 1
                self._start(name)
        logger.warning("Ray is up again")

    def _watch_start(self, name: str, entry: WorkerEntry, now: float) -> None:
        assert entry.starting_since is not None
        missing = self._nodes.missing(entry.spec.demand)
        if missing:
            self._nodes.forgive(entry.spec.demand)
        if self._places.is_waiting(name) and self._nodes.was_seen(entry.spec.demand):
            entry.starting_since = max(entry.starting_since, now)
            return
        spent = now - entry.starting_since
        hint = f"; is there {entry.spec.python} on its node?" if entry.spec.python else ""
        if spent >= SPEAK_OF_STOPPED_S and self._cluster.is_local:
            for pid in self._cluster.end_stopped(self._runtime.stopped_timeout_s):
                logger.warning("process %d was stopped while it started, and is ended", pid)
        if spent >= SLOW_START_S and not entry.is_slow:
            entry.is_slow = True
            if missing and self._cluster.is_local:
                self._give_up(name, entry, missing)
                return
            reason = f"it asks for {missing}" if missing else f"it starts slowly{hint}"
            logger.warning("%s has not started for %.0f s: %s", name, spent, reason)
        elif spent >= self._runtime.worker_start_timeout_s:
            if missing:
                self._give_up(name, entry, missing)
                return
            message = f"not started after {spent:.0f} s (runtime.worker_start_timeout_s){hint}"
            self._answers.fail(name, entry, Call.START, TimeoutError(message))

    def _give_up(self, name: str, entry: WorkerEntry, missing: str) -> None:
        """No node can hold a worker: the others do without it, where there are any.

        Raises:
            EnvironmentProblem: It is the last of its role.
        """
        self._end(entry)
        entry.is_given_up = True
        role, demand = entry.spec.role, entry.spec.demand
        message = f"it asks for {missing}"
        others = [other for other in self._workers.values() if other.spec.role is role]
        if all(other.is_given_up or (other.actor is None and other.spec.demand == demand) for other in others):
            raise EnvironmentProblem(f"{name} cannot be placed: {message}; ask for less, or add such a node")
        logger.warning("%s is given up: %s", name, message)
        self._events.append(WorkerDown(name, role, FailureKind.WORKER_LOST, message, is_final=True))

    def _watch_stopped(self, name: str, entry: WorkerEntry) -> None:
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

    def _ping(self, name: str, entry: WorkerEntry, now: float) -> None:
        """Asks a worker without a call whether it lives, which no call would tell."""
        if entry.pinged is not None:
            if now - entry.pinged >= self._runtime.stopped_timeout_s + PING_EVERY_S:
                self.restart(name, f"did not answer for {now - entry.pinged:.0f} s")
                entry.pinged = None
        elif now - max(entry.idle_since, entry.answered) >= PING_EVERY_S:
            entry.pinged = now
            self._answers.ping(name, entry)
