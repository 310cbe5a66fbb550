"""A Ray that is made up, with nodes, deaths and a clock that is moved by hand, for the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

from ray import exceptions

from alsys.actors.greeting import Greeting, versions
from alsys.actors.nodes import Look, Node
from alsys.actors.placement import WorkerSpec
from alsys.actors.pool import RayPool
from alsys.clock import RunningClock
from alsys.config.runtime import RuntimeConfig
from alsys.control.ports import PoolEvent, Role, Worker
from alsys.errors import EnvironmentProblem


class Ref:
    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def future(self) -> Future[Any]:
        return self._future


class Call:
    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *_: object) -> Ref:
        future: Future[Any] = Future()
        self._actor.calls.append((self._name, future))
        if self._name == "ping" or (self._name == "ready" and self._actor.starts):
            if self._actor.is_dead:
                future.set_exception(exceptions.ActorUnavailableError("socket closed", b"\0" * 16))
            else:
                future.set_result(self._actor.greeting)
        return Ref(future)


class Actor:
    def __init__(self, pid: int, node: str, *, starts: bool) -> None:
        self.pid, self.node, self.starts = pid, node, starts
        self.calls: list[tuple[str, Future[Any]]] = []
        self.is_killed = self.is_dead = False
        self.cpus = 1.0

    def come_up(self) -> None:
        """The answer to the first call."""
        self.calls[0][1].set_result(self.greeting)

    @property
    def greeting(self) -> Greeting:
        """What it says of itself."""
        return Greeting(self.pid, self.node, versions())

    def __getattr__(self, name: str) -> Call:
        return Call(self, name)


class FakeRay:
    """What a pool asks of Ray."""

    def __init__(self) -> None:
        self.is_up = False
        self.is_local = True
        self.address: str | None = None
        self.problem: str | None = None
        self.actors: dict[str, list[Actor]] = {}
        self.now: Callable[[], float] = lambda: 0.0
        self.nodes: dict[str, Node] = {"n0": Node("10.0.0.1", {"CPU": 8.0})}
        self.dead: set[str] = set()
        self.waits_for: set[str] = set()
        self.hanging: set[str] = set()
        self.stopped: dict[int, float] = {}
        self.starts = True
        self.renewals = 0
        self.comes_up = True

    async def start(self) -> None:
        self.is_up = True

    async def renew(self) -> None:
        self.is_up = False
        self.renewals += 1
        if not self.comes_up:
            raise EnvironmentProblem("cannot start Ray on this machine")
        await asyncio.sleep(0)
        self.problem, self.is_up = None, True

    async def stop(self) -> None:
        self.is_up = False

    def failure(self) -> str | None:
        return self.problem if self.is_up else None

    def stopped_s(self, pid: int) -> float:
        return self.stopped.get(pid, 0.0)

    def end_stopped(self, limit_s: float) -> list[int]:
        ended = [pid for pid, seconds in self.stopped.items() if seconds >= limit_s]
        for actor in [actor for row in self.actors.values() for actor in row if actor.pid in ended]:
            actor.calls[0][1].set_exception(RuntimeError("The actor died"))
            del self.stopped[actor.pid]
        return ended

    def look(self) -> Look:
        places = {name: row[-1].node for name, row in self.actors.items()}
        nodes = dict(self.nodes)
        for name, row in self.actors.items():
            if row and not row[-1].is_killed and name not in self.waits_for and row[-1].node in nodes:
                node = nodes[row[-1].node]
                free = {**node.total, **node.free}
                nodes[row[-1].node] = replace(node, free={**free, "CPU": free["CPU"] - row[-1].cpus})
        return Look(self.now(), nodes, self.dead, set(self.waits_for), self.hanging, places)

    def ask_about(self, name: str) -> None:
        assert name in self.actors

    def _place(self, name: str, spec: WorkerSpec, unusable: Sequence[str]) -> str:
        """The first node with room; the first one where none has."""
        usable = [node for node in self.nodes if node not in unusable]
        left = {node: self.nodes[node].total["CPU"] for node in usable}
        for other, row in self.actors.items():
            if other != name and row and row[-1].node in left and not row[-1].is_killed:
                left[row[-1].node] -= row[-1].cpus
        return next((node for node in usable if left[node] >= spec.cpus), [*usable, ""][0])

    def start_actor(self, name: str, spec: WorkerSpec, unusable: Sequence[str]) -> Actor:
        row = self.actors.setdefault(name, [])
        node = self._place(name, spec, unusable)
        has_place = name not in self.waits_for
        row.append(Actor(1000 + sum(map(len, self.actors.values())), node, starts=self.starts and has_place))
        row[-1].cpus = spec.cpus
        return row[-1]

    def put(self, value: object) -> object:
        return value

    def kill(self, actor: Actor) -> None:
        actor.is_killed = True


class Nobody(Worker):
    """A worker that is never built."""

    def run(self, order: Any) -> Any:
        raise AssertionError(order)


class Bench:
    """A pool, its Ray and its clock."""

    def __init__(self, specs: Mapping[str, WorkerSpec] | None = None, **runtime: Any) -> None:
        self.now = 0.0
        self.ray = FakeRay()
        self.ray.now = lambda: self.now
        spec, made_up = WorkerSpec(Role.LABELER, Nobody), cast(Any, self.ray)
        self.pool = RayPool(
            specs or {"labeler-0": spec, "labeler-1": spec},
            RuntimeConfig(**runtime),
            cluster=made_up,
            clock=RunningClock(lambda: self.now),
        )

    async def after(self, seconds: float) -> list[PoolEvent]:
        """What happened once so many seconds have passed."""
        events = []
        for _ in range(max(1, int(seconds))):
            self.now += min(1.0, seconds)
            events += await self.pool.wait(0.001)
        return events

    def actor(self, name: str = "labeler-0") -> Actor:
        return self.ray.actors[name][-1]


def kinds(events: list[PoolEvent]) -> list[tuple[str, str]]:
    return [(type(event).__name__, event.worker) for event in events]
