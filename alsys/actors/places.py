"""Which workers there are, which have a place, and who comes, goes and makes room for whom.

Workers have an order: a trainer, an explorer and a labeler first, without which nothing is learned, then the other
trainers, explorers, and labelers. A trainer or explorer that waits for a place, or a labeler where there is no other,
is given the place of later ones, once they have no call; they are asked for again when it has its place. Labelers
beyond those that are kept are started while more frames wait than there are labelers, and end when there was nothing
for them for a while.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alsys.actors.nodes import Demand, Holder, Look, Nodes, text_of
from alsys.actors.placement import WorkerSpec
from alsys.control.ports import PoolState, Role

WAITS_S: Final = 5.0
"""Seconds without a place after which a worker is said to wait, and others make room for it."""
STARTS_S: Final = 60.0
"""Seconds after which a worker waits for a place though there seems to be room: others use the cluster too."""


@dataclass(slots=True)
class WorkerEntry:
    """One worker, whether it is there or not.

    Attributes:
        spec: What it is and asks for.
        actor: Ray's handle; None while it is not there.
        pid: Of its process, once it is up; likewise its `node`.
        generation: Grows where what was said before is not heard any more.
        restarts: In a row, for reasons of its own.
        results: Since the last restart.
        failed_starts: In a row.
        asked: When it was last asked for; None while it is not.
        starting_since: When the budget of its start began; None once it is up.
        idle_since: When it had a call last.
        answered: When it was last asked whether it lives, and said so; `pinged`: an answer is due since then.
        is_wanted: It is to be there.
        is_leaving: It gets no more calls and ends once it has none.
        held_for: The worker that it makes room for; it is started again once that has its place.
        held_since: When it made room.
        sent: When its calls were sent, unix times.
    """

    spec: WorkerSpec
    is_wanted: bool
    actor: Any = None
    pid: int = 0
    node: str = ""
    generation: int = 0
    restarts: int = 0
    results: int = 0
    failed_starts: int = 0
    asked: float | None = None
    starting_since: float | None = None
    idle_since: float = -math.inf
    answered: float = -math.inf
    pinged: float | None = None
    is_slow: bool = False
    is_stopped: bool = False
    is_given_up: bool = False
    is_leaving: bool = False
    held_for: str = ""
    held_since: float = -math.inf
    sent: deque[float] = field(default_factory=deque)

    @property
    def is_up(self) -> bool:
        """It can be given work, or has some."""
        return self.actor is not None and self.starting_since is None

    def begin(self, now: float) -> None:
        """It is asked for."""
        self.asked = self.starting_since = now
        self.held_for = ""
        self.is_slow = self.is_stopped = False
        self.sent.clear()

    def arrive(self, pid: int, node: str, now: float) -> None:
        """It is up."""
        self.failed_starts, self.starting_since = 0, None
        self.pid, self.node, self.idle_since = pid, node, now

    def end(self) -> None:
        """It is gone, and what it still says is not heard."""
        self.generation += 1
        self.actor, self.pid, self.node, self.pinged = None, 0, "", None
        self.asked = self.starting_since = None
        self.is_leaving = False


class Places:
    """The workers of a pool.

    Args:
        specs: Workers by name, in their order.
        nodes: Where they may be.

    Attributes:
        n_labelers: Labelers that have something to do.
        ended: When a worker was ended last.
    """

    def __init__(self, specs: Mapping[str, WorkerSpec], nodes: Nodes) -> None:
        self.workers = {name: WorkerEntry(spec, is_wanted=spec.is_kept) for name, spec in specs.items()}
        self.n_labelers = 0
        self.ended = -math.inf
        self._judged: Look | None = None
        self._lacking: set[str] = set()
        self._nodes = nodes

    @property
    def all(self) -> Demand:
        """What all workers ask for together."""
        return _sum(entry.spec.demand for entry in self.workers.values())

    @property
    def least(self) -> Demand:
        """What the first worker of each role asks for together: without it nothing is learned."""
        firsts = {entry.spec.role: entry.spec.demand for entry in reversed(self.workers.values())}
        return _sum(firsts.values())

    def needed(self) -> set[str]:
        """One worker of each role, without which nothing is learned: one that is up, or else the next one to come."""
        needed: dict[Role, str] = {}
        for name, entry in self.workers.items():
            role, known = entry.spec.role, needed.get(entry.spec.role)
            is_there = known is not None and self.workers[known].is_up
            if not entry.is_given_up and not is_there and (entry.is_up or (known is None and entry.is_wanted)):
                needed[role] = name
        return set(needed.values())

    def is_waiting(self, name: str) -> bool:
        """Whether no node holds a worker that is asked for, as far as Ray has told."""
        entry, look = self.workers[name], self._nodes.look
        is_asked = entry.asked is not None and entry.starting_since is not None
        is_told = is_asked and look.begun > (entry.asked or 0.0) and name in look.unplaced
        return is_told and not self._is_hanging(name)

    def state(self, now: float) -> PoolState:
        """Who is there and who waits for what."""
        waiting: dict[str, str] = {}
        for name, entry in self.workers.items():
            if not entry.is_given_up and (entry.held_for or self._waits(name, now)):
                waiting[name] = self._nodes.missing(entry.spec.demand) or text_of(entry.spec.demand)
        asked = Counter(e.spec.role for e in self.workers.values() if e.is_wanted and not e.is_given_up)
        up = Counter(entry.spec.role for entry in self.workers.values() if entry.is_up)
        return PoolState(
            asked=asked.total(),
            up=up.total(),
            waiting=waiting,
            avoided={self._nodes.name(node): avoided.cause for node, avoided in self._nodes.avoided.items()},
            asked_of=asked,
            up_of=up,
            n_nodes=len(self._nodes.look.nodes),
            n_nodes_gone=self._nodes.n_gone,
            nodes=self._nodes.kinds(),
        )

    def _is_hanging(self, name: str) -> bool:
        """Whether a worker may have a place and no process: some like it do, and none of its role is up."""
        role, others = self.workers[name].spec.role, self.workers.values()
        return name in self._nodes.look.hanging and not any(o.is_up for o in others if o.spec.role is role)

    # --- labelers that come and go

    def lacking(self) -> list[str]:
        """Labelers to be started, since more frames wait than there are labelers."""
        labelers = self._labelers()
        n = self.n_labelers - sum(entry.is_wanted for entry in labelers.values())
        return [name for name, entry in labelers.items() if not entry.is_wanted][: max(n, 0)]

    def surplus(self, now: float) -> list[str]:
        """Labelers to be ended, since nothing waits for them, and they have no place or no call for so long."""
        labelers = self._labelers()
        n = sum(entry.is_wanted for entry in labelers.values()) - self.n_labelers
        spare = [
            name
            for name, entry in reversed(labelers.items())
            if entry.is_wanted and not entry.spec.is_kept and self._is_spare(name, entry, now)
        ]
        return spare[: max(n, 0)]

    def _is_spare(self, name: str, entry: WorkerEntry, now: float) -> bool:
        if entry.is_up:
            return not entry.sent and not entry.is_leaving and now - entry.idle_since >= entry.spec.idle_s
        return self.is_waiting(name) and now - (entry.asked or 0.0) >= entry.spec.idle_s

    def _labelers(self) -> dict[str, WorkerEntry]:
        return {n: e for n, e in self.workers.items() if e.spec.role is Role.LABELER and not e.is_given_up}

    # --- places

    def on_draining(self) -> list[str]:
        """Workers on nodes that are being drained."""
        nodes = self._nodes.draining()
        return [n for n, entry in self.workers.items() if entry.is_up and entry.node in nodes and not entry.is_leaving]

    def first_waiting(self, now: float) -> str | None:
        """The first worker that waits for a place which others can make; None where there is none."""
        needed = self.needed()
        for name, entry in self.workers.items():
            is_before = entry.spec.role is not Role.LABELER or name in needed
            if is_before and self._waits(name, now) and self._can_have_room(name):
                return name
        return None

    def _can_have_room(self, name: str) -> bool:
        """Whether others would help a worker by leaving: not where it lacks what none of them holds."""
        demand = self.workers[name].spec.demand
        if self._nodes.missing(demand):
            return False
        later = (self.workers[n] for n in self._later(name))
        return self._nodes.has_room(demand, ((e.node, e.spec.demand) for e in later if e.actor is not None))

    def to_come_again(self, now: float) -> list[str]:
        """Workers that made room for one that has its place by now, or does not take it."""
        held = {
            name: entry
            for name, entry in self.workers.items()
            if entry.held_for and not (entry.is_leaving or entry.is_given_up)
        }
        return [
            name
            for name, entry in held.items()
            if self.workers[entry.held_for].starting_since is None
            or not self._may_wait(entry.held_for)
            or now - entry.held_since >= STARTS_S
        ]

    def _may_wait(self, name: str) -> bool:
        asked = self.workers[name].asked
        return self.is_waiting(name) or (asked is not None and self._nodes.look.begun <= asked)

    def _waits(self, name: str, now: float) -> bool:
        """Whether a worker waits for a place and not for a process, which Ray does not tell apart at first."""
        asked = self.workers[name].asked
        if asked is None or now - asked < WAITS_S or not self.is_waiting(name):
            return False
        return now - asked >= STARTS_S or name in self._too_many()

    def _too_many(self) -> set[str]:
        """Workers without a place that have no room beside the others, as of the last look."""
        look = self._nodes.look
        if self._judged is not look:
            self._judged = look
            up = ((entry.node, entry.spec.demand) for entry in self.workers.values() if entry.is_up)
            asked = {n: e.spec.demand for n, e in self.workers.items() if e.actor is not None and not e.is_up}
            self._lacking = self._nodes.too_many(up, asked)
        return self._lacking

    def ahead_of(self, name: str) -> list[str]:
        """Labelers later in the order that wait for a place too, and would get it."""
        later = self._later(name)
        return [n for n in later if self.workers[n].spec.role is Role.LABELER and self.is_waiting(n)]

    def to_end_for(self, name: str) -> list[str]:
        """Workers later in the order that leave to make a place for a worker; busy ones only where none leaves yet."""
        if self._nodes.look.begun <= self.ended:
            return []
        later = {n: self.workers[n] for n in reversed(self._later(name))}
        up = {n: entry for n, entry in later.items() if entry.is_up and not entry.is_leaving}
        holders = [Holder(n, entry.node, entry.spec.demand, is_busy=bool(entry.sent)) for n, entry in up.items()]
        found = self._nodes.to_end(self.workers[name].spec.demand, holders)
        is_under_way = any(entry.held_for and entry.is_leaving for entry in self.workers.values())
        if is_under_way and any(holder.is_busy for holder in found):
            return []
        return [holder.name for holder in found]

    def _later(self, name: str) -> list[str]:
        """Workers that make room for a worker: all others for one that is needed, else those after it."""
        needed, names = self.needed(), list(self.workers)
        others = names if name in needed else names[names.index(name) + 1 :]
        return [n for n in others if n != name and n not in needed]


def _sum(demands: Any) -> Demand:
    total: dict[str, float] = {}
    for demand in demands:
        for name, amount in demand.items():
            total[name] = total.get(name, 0.0) + amount
    return total
