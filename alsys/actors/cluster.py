"""Ray as a whole: how it comes up, whether it is alive, how it is brought up anew, how it ends.

A Ray that is started here listens on the loopback interface only, keeps its sockets in a folder whose name is short
enough for them, and is this process's own: its processes are watched, and all of it is brought up anew where one of
them dies or stays stopped. A cluster at an address is somebody else's: it is asked for its nodes, and where it does not
answer, the run ends. All calls that start or end Ray are made by one thread, because Ray's processes die with the
thread that started them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, TypeVar

import psutil
import ray
from ray._private import state as ray_state
from ray.core.generated import gcs_pb2

from alsys.actors.nodes import Demand, Look, Node, kind_of
from alsys.actors.placement import WorkerSpec, start_actor
from alsys.actors.ray_start import address_of, connect
from alsys.actors.reaper import Reaper
from alsys.clock import RunningClock
from alsys.config.runtime import RuntimeConfig
from alsys.errors import RayLost
from alsys.threads import WorkerThread

T = TypeVar("T")
logger = logging.getLogger(__name__)

STOP_S: Final = 30.0
"""Seconds for Ray to end by itself."""
LOOK_EVERY_S: Final = 0.5
"""How often Ray's processes are looked at while they come up."""
DEAD_S: Final = 5.0
"""Seconds for Ray to notice by itself that a process of its own died while it came up."""
ASK_EVERY_S: Final = 2.0
MANY: Final = 20
"""More workers than these are looked up in one table of all."""
NODE_PROCESSES: Final = ("gcs_server", "raylet")
Actor = tuple[str, Demand]
"""Its identity, and what it asks for."""


class Cluster:
    """The Ray that a pool works on.

    Args:
        runtime: Where it is, and how long it may be silent.
        demand: What all workers ask for together.
        least: What the first of each role ask for together.
        clock: Seconds that this process has run.
        ask: Asks Ray; called in a thread of its own, in which it may hang.
        listen: Is given what workers write, by a thread of Ray (`alsys.actors.worker_logs`).
    """

    def __init__(
        self,
        runtime: RuntimeConfig,
        demand: Demand,
        least: Demand,
        clock: Callable[[], float] | None = None,
        ask: Callable[[float, Mapping[str, Actor], Collection[str]], Look] | None = None,
        listen: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._listen = listen
        self._runtime = runtime
        self._demand = demand
        self._least = least
        self._ask = ask or ask_ray
        self._clock = clock or RunningClock()
        self._thread = WorkerThread("ray")
        self._asker: WorkerThread | None = None
        self._question: Future[Look] | None = None
        self._look = Look()
        self._actors: dict[str, Actor] = {}
        self._node_of: dict[str, str] = {}
        self._asked_about: set[str] = set()
        self._heard = 0.0
        self._asked = 0.0
        self._stopped_since: dict[int, float] = {}
        self._is_ours = False
        self._reaper: Reaper | None = None
        self._processes: dict[str, Any] = {}
        self._is_left = False
        self.is_up = False

    @property
    def address(self) -> str | None:
        """Of a cluster that others run; None for a Ray that is started here."""
        return address_of(self._runtime)

    @property
    def is_local(self) -> bool:
        """Whether all processes of this Ray are on this machine, started by this process."""
        return self._is_ours and self.address is None

    async def start(self) -> None:
        """Starts Ray here or joins a cluster.

        Raises:
            EnvironmentProblem: Ray does not come up.
            RayLost: It hangs while it comes up.
        """
        self._is_ours = await self._come_up()
        self._processes = _node_processes() if self.is_local else {}
        self._watch_over_children()
        self._stopped_since.clear()
        self._look = Look()
        self._actors.clear()
        self._heard = self._asked = self._clock()
        self._question = None
        if self._asker is not None:
            self._asker.close()  # it may wait for a Ray that is gone
            self._asker = None
        self.is_up = True

    async def renew(self) -> None:
        """Ends what is left of a Ray of our own and starts another one.

        Raises:
            EnvironmentProblem: Ray does not come up.
            RayLost: What is left of it does not end.
        """
        self.is_up = False
        leftovers = self._children()
        _end(leftovers)
        try:
            await asyncio.wait_for(self._run(ray.shutdown), STOP_S)
        except TimeoutError as error:
            raise RayLost("what is left of Ray does not end") from error
        _end(self._children())
        self._reap()
        await self.start()

    async def stop(self) -> None:
        """Ends a Ray that was started here, or leaves the cluster. Returns after `STOP_S` at the latest."""
        was_up, self.is_up = self.is_up, False
        if was_up and self._is_ours:
            children = self._children()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._run(ray.shutdown), STOP_S)
            _end(children)
        elif not was_up and self.address is None:  # it is being started, and nobody waits for that any more
            self._is_left = True
            _end([child for child in _descendants(os.getpid()) if _is_of_ray(child)])
        self._reap()
        self._thread.close(1.0 if was_up else 0.0)
        if self._asker is not None:
            self._asker.close()

    def _watch_over_children(self) -> None:
        """Has all processes of a Ray of our own end after this one."""
        if self.is_local:
            self._reaper = self._reaper or Reaper()
            self._reaper.add(self._children())

    def _reap(self) -> None:
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None

    def failure(self) -> str | None:
        """What is wrong with Ray as a whole, in words; None for nothing. Returns at once."""
        if not self.is_up:
            return None
        if self.is_local:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    return f"Ray's {name} died"
                if self._stopped_s(process.pid) > self._runtime.ray_timeout_s / 2.0:
                    return f"Ray's {name} is stopped"
        return self._silence()

    def stopped_s(self, pid: int) -> float:
        """Seconds for which a process on this machine has been stopped; 0 where it is not, or not of this Ray."""
        return self._stopped_s(pid) if self.is_local else 0.0

    def end_stopped(self, limit_s: float) -> list[int]:
        """Kills processes of a Ray of our own that have been stopped for so long; their process ids."""
        ended = [child for child in self._children() if self._stopped_s(child.pid) >= limit_s]
        _end(ended)
        return [child.pid for child in ended]

    def look(self) -> Look:
        """What Ray said last about its nodes, and which workers have no place on one."""
        return self._look

    def ask_about(self, name: str) -> None:
        """Has Ray asked soon, and for the node of a worker too."""
        self._asked_about.add(name)

    # --- what the pool asks of Ray

    def start_actor(self, name: str, spec: WorkerSpec, unusable: Sequence[str]) -> Any:
        """Starts an actor and returns its handle at once.

        Args:
            name: Of the worker.
            spec: What it asks for.
            unusable: Nodes that must not hold it.
        """
        actor = start_actor(name, spec, unusable)
        self._actors[name] = actor._actor_id.hex(), spec.demand
        self._node_of.pop(name, None)
        return actor

    def put(self, value: object) -> Any:
        """One copy in the object store, owned by this process."""
        return ray.put(value)

    def kill(self, actor: Any) -> None:
        """Ends an actor, running or not."""
        if self.is_up and self.failure() is None and ray.is_initialized():
            with contextlib.suppress(Exception):  # it is dead already, or Ray is
                ray.kill(actor, no_restart=True)

    # --- inside

    async def _come_up(self) -> bool:
        """Whether Ray is ours to end, once it is there. One that died while it came up is waited for by Ray itself."""
        budget = self._runtime.ray_start_timeout_s
        until = self._clock() + budget
        connecting = asyncio.wrap_future(self._thread.submit(self._connect))
        died, before = None, {child.pid for child in _descendants(os.getpid())}
        while True:
            done, _ = await asyncio.wait([connecting], timeout=DEAD_S if died else LOOK_EVERY_S)
            if done:
                return connecting.result()
            if died:
                raise RayLost(f"Ray's {died} died while Ray came up")
            died = None if self.address else _dead_child(before)
            if self._clock() >= until:
                raise RayLost(
                    f"Ray has not come up in {budget:.0f} s (runtime.ray_start_timeout_s); is the machine overloaded?"
                )

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread.submit(call))

    def _connect(self) -> bool:
        """Whether Ray is ours to end."""
        if ray.is_initialized():
            return False
        return connect(self._runtime, self._demand, self._least, lambda: self._is_left, self._listen)

    def _silence(self) -> str | None:
        """Whether Ray answers: one question at a time, in a thread of its own."""
        now = self._clock()
        if self._question is not None and self._question.done():
            problem = self._question.exception()
            if problem is None:
                if not self._look.nodes:  # Ray's agents may have started a little later than Ray
                    self._watch_over_children()
                self._heard = now
                look = self._question.result()
                self._node_of |= look.places
                self._look = replace(look, places=dict(self._node_of))
                if self._look.problem:
                    return self._look.problem
            self._question = None
        if self._question is None and (now - self._asked >= ASK_EVERY_S or self._asked_about):
            self._asked = now
            if self._asker is None:
                self._asker = WorkerThread("ray-health")
            actors, about = dict(self._actors), frozenset(self._asked_about)
            self._asked_about.clear()
            self._question = self._asker.submit(lambda: self._ask(now, actors, about))
        if now - self._heard > self._runtime.ray_timeout_s:
            return f"Ray has not answered for {now - self._heard:.0f} s"
        return None

    def _stopped_s(self, pid: int) -> float:
        now = self._clock()
        try:
            is_stopped = psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        except psutil.Error:
            is_stopped = False
        if not is_stopped:
            self._stopped_since.pop(pid, None)
            return 0.0
        return now - self._stopped_since.setdefault(pid, now)

    def _children(self) -> list[psutil.Process]:
        """Processes of a Ray that was started here."""
        if not self.is_local:
            return []
        found = {child.pid: child for child in _descendants(os.getpid()) if _is_of_ray(child)}
        for process in self._processes.values():
            for child in _descendants(process.pid):
                found[child.pid] = child
        return list(found.values())


def ask_ray(now: float, actors: Mapping[str, Actor], about: Collection[str]) -> Look:
    """What Ray says of its nodes and of actors. Raises, or hangs, where it does not answer.

    Args:
        now: When it is asked.
        actors: Of the workers.
        about: Workers whose node is asked for.
    """
    own = ray.get_runtime_context().get_node_id()
    nodes, known = ray.nodes(), ray_state.state
    free, draining = known.available_resources_per_node(), known.get_draining_nodes()
    job_id = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    pending = known.actor_table(None, job_id=job_id, actor_state_name="PENDING_CREATION")
    without = {actor for actor, told in pending.items() if not told["Pid"]}
    lacking = {name: demand for name, (actor, demand) in actors.items() if actor in without}
    unplaced, hanging = told_apart(lacking, _queued() if lacking else [])
    about = [name for name in about if name in actors]
    table = known.actor_table(None, job_id=job_id) if len(about) > MANY else {}
    asked = {name: table.get(actors[name][0]) if table else known.actor_table(actors[name][0]) for name in about}
    return Look(
        begun=now,
        nodes={
            node["NodeID"]: Node(
                address=node["NodeManagerAddress"],
                total=node["Resources"],
                free=free.get(node["NodeID"], {}),
                is_draining=node["NodeID"] in draining,
                kind=kind_of(node["Labels"]),
            )
            for node in nodes
            if node["Alive"]
        },
        dead=frozenset(node["NodeID"] for node in nodes if not node["Alive"]),
        unplaced=unplaced,
        hanging=hanging,
        places={name: told["Address"]["NodeID"] for name, told in asked.items() if told},
        problem="the node of this process is dead to Ray"
        if any(node["NodeID"] == own and not node["Alive"] for node in nodes)
        else "",
    )


def told_apart(
    lacking: Mapping[str, Demand], queued: Sequence[tuple[Demand, int]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Workers without a process that wait for a place, and those of them that may have one where none comes up.

    Ray has what it asks for reserved for an actor before it starts its process. Where the interpreter that it is to
    have is not on the node, say, it tries that for ever, and the actor looks as if it waited for a place.

    Args:
        lacking: What workers without a process ask for.
        queued: For how many actors and tasks of the cluster, ours and others, a place of a kind is sought.
    """
    kinds = {name: _kind(demand) for name, demand in lacking.items()}
    n_alike, n_queued = Counter(kinds.values()), {_kind(amounts): n for amounts, n in queued}
    left = {name: n_queued.get(kind, n_alike[kind]) for name, kind in kinds.items()}
    unplaced = frozenset(name for name, n in left.items() if n)
    return unplaced, frozenset(name for name in unplaced if left[name] < n_alike[kinds[name]])


def _kind(amounts: Demand) -> frozenset[tuple[str, float]]:
    return frozenset((name, round(amount, 4)) for name, amount in amounts.items())


def _queued() -> list[tuple[Demand, int]]:
    """What is asked for on the cluster, a hundred kinds at most, and for how many no node has room."""
    told = ray_state.state._connect_and_get_accessor().get_all_resource_usage()
    kinds = gcs_pb2.ResourceUsageBatchData.FromString(told).resource_load_by_shape.resource_demands if told else ()
    return [
        (dict(kind.shape), kind.num_ready_requests_queued + kind.num_infeasible_requests_queued + kind.backlog_size)
        for kind in kinds
    ]


def _node_processes() -> dict[str, Any]:
    """GCS and raylet of the Ray that this process started, as `subprocess.Popen`."""
    from ray._private import worker

    node = worker._global_node
    known = {} if node is None else node.all_processes
    return {name: known[name][0].process for name in NODE_PROCESSES if known.get(name)}


def _dead_child(before: Collection[int]) -> str | None:
    """The name of a GCS or raylet that this process started and that has died; None where there is none.

    Nobody has waited for it, so it is still in the table of processes.

    Args:
        before: Process ids that are none of this Ray's.
    """
    for child in _descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):
            if child.pid not in before and child.name() in NODE_PROCESSES and child.status() == psutil.STATUS_ZOMBIE:
                return child.name()
    return None


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _is_of_ray(process: psutil.Process) -> bool:
    """Whether a process is one of Ray's, or an actor."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return any(part.startswith("ray::") or os.path.dirname(ray.__file__) in part for part in command)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
