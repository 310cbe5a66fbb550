"""Nodes of a cluster as they were seen last: what they have, what is free, which are being drained or are avoided."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from alsys.config.prices import ANY, SPOT

GIB: Final = 1024**3
RESOLUTION: Final = 0.5e-4
"""Ray counts in steps of 1e-4, so what sums of fractions differ by is nothing."""
BAD_STARTS: Final = 2
"""Starts in a row that fail on a node before it is avoided, where the reason may go away."""
AVOIDED_S: Final = 900.0
"""Seconds after which one is tried again whose reason may have gone away."""
GROUP: Final = "ray.io/node-group"
MARKET: Final = "ray.io/market-type"
"""Labels that Ray gives nodes."""

Demand = Mapping[str, float]
"""Amounts of Ray resources, ``memory`` in bytes; none is zero."""


@dataclass(frozen=True, slots=True)
class Node:
    """One living node.

    Attributes:
        address: Its IP address.
        total: What it has in all.
        free: What is not given away.
        is_draining: It is about to end and takes no new work.
        kind: As in `alsys.config.prices`.
    """

    address: str = ""
    total: Demand = field(default_factory=dict)
    free: Demand = field(default_factory=dict)
    is_draining: bool = False
    kind: str = ANY


@dataclass(frozen=True, slots=True)
class Look:
    """What Ray said when it was asked.

    Attributes:
        begun: When it was asked, by the clock of the pool.
        nodes: Living nodes by identity.
        dead: Nodes that were there.
        unplaced: Workers that no node holds yet.
        hanging: Those of them of which some have a place, and no process.
        places: Nodes of the actors that one asked about.
        problem: What is wrong with Ray as a whole; empty for nothing.
    """

    begun: float = -math.inf
    nodes: Mapping[str, Node] = field(default_factory=dict)
    dead: Collection[str] = ()
    unplaced: Collection[str] = ()
    hanging: Collection[str] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that has a place and may have to leave it."""

    name: str
    node: str
    demand: Demand
    is_busy: bool


@dataclass(frozen=True, slots=True)
class Avoided:
    """Why no worker is started on a node, since when, and whether that lasts."""

    cause: str
    lasts: bool
    since: float


class Nodes:
    """What a pool knows of the nodes that its workers are placed on.

    Attributes:
        avoided: Nodes on which no worker is started.
        bad_starts: Starts in a row that failed, by node.
        n_gone: Nodes that were there and have left.
    """

    def __init__(self) -> None:
        self.avoided: dict[str, Avoided] = {}
        self.bad_starts: Counter[str] = Counter()
        self.n_gone = 0
        self._look = Look()
        self._seen: list[Demand] = []
        self._usable: dict[frozenset[tuple[str, float]], dict[str, Node]] = {}

    @property
    def look(self) -> Look:
        """What Ray said last."""
        return self._look

    @look.setter
    def look(self, look: Look) -> None:
        if look is self._look:
            return
        self.n_gone += len(self._look.nodes.keys() - look.nodes.keys()) if look.nodes else 0
        self._look = look
        self._usable.clear()
        for node in look.nodes.values():
            total = {name: x for name, x in node.total.items() if not name.startswith(("node:", "object_store"))}
            if not self.was_seen(total):  # one that has less says nothing new; nodes come and go for weeks
                self._seen = [*(known for known in self._seen if not _has(total, known)), total]
        for name in {*self.bad_starts, *self.avoided} if look.nodes else ():
            avoided = self.avoided.get(name)
            if name not in look.nodes:
                self.praise(name)
                self.avoided.pop(name, None)
            elif avoided is not None and not avoided.lasts and look.begun - avoided.since >= AVOIDED_S:
                self.praise(name)
                self.bad_starts[name] = BAD_STARTS - 1  # one more, and it is avoided again

    def praise(self, node: str) -> None:
        """A worker has started on a node, or there is no such node any more."""
        self.bad_starts.pop(node, None)
        if node in self.avoided and not self.avoided[node].lasts:
            del self.avoided[node]
            self._usable.clear()

    def blame(self, node: str, demand: Demand, cause: str, *, lasts: bool) -> bool:
        """A worker could not start on a node: whether it is avoided from now on, as there is another one.

        Args:
            node: Where it was.
            demand: Of the worker.
            cause: Why.
            lasts: It would not be better the next time.
        """
        self.bad_starts[node] += 1
        if not (lasts or self.bad_starts[node] >= BAD_STARTS) or not self.usable(demand).keys() - {node}:
            return False
        self.avoided[node] = Avoided(cause, lasts, self._look.begun)
        self._usable.clear()
        return True

    def forgive(self, demand: Demand) -> None:
        """Where nothing else is left for a worker, nodes are tried again whose reason may have gone away."""
        for name, node in self._look.nodes.items():
            if _has(node.total, demand):
                self.praise(name)

    def name(self, node: str) -> str:
        """A node for people: its address and the first letters of its identity."""
        known = self._look.nodes.get(node)
        return f"{known.address} ({node[:8]})" if known is not None else node[:8]

    def unusable(self) -> list[str]:
        """Living nodes on which no worker may be started."""
        return sorted(name for name, node in self._look.nodes.items() if node.is_draining or name in self.avoided)

    def kinds(self) -> Mapping[str, int]:
        """How many living nodes there are of each kind; one before Ray has said so: that of this process."""
        return Counter(node.kind for node in self._look.nodes.values()) or {ANY: 1}

    def draining(self) -> list[str]:
        """Nodes that are about to end."""
        return [name for name, node in self._look.nodes.items() if node.is_draining]

    def usable(self, demand: Demand) -> dict[str, Node]:
        """Living nodes that could hold a worker if they were empty."""
        key = frozenset(demand.items())
        if key not in self._usable:
            out, nodes = set(self.unusable()), self._look.nodes
            self._usable[key] = {n: node for n, node in nodes.items() if n not in out and _has(node.total, demand)}
        return self._usable[key]

    def missing(self, demand: Demand) -> str:
        """What no usable node has of what a worker asks for; empty where one could hold it, or none is known."""
        if not self._look.nodes or self.usable(demand):
            return ""
        if any(_has(node.total, demand) for node in self._look.nodes.values()):
            return f"{text_of(demand)}, which only nodes have that are drained or avoided"
        totals = [node.total for node in self._look.nodes.values()]
        lacking = {name: x for name, x in demand.items() if all(not _has(total, {name: x}) for total in totals)}
        return f"{text_of(lacking or demand)}, which no node has"

    def was_seen(self, demand: Demand) -> bool:
        """Whether there was ever a node that could hold a worker: then another one may come."""
        return any(_has(total, demand) for total in self._seen)

    def too_many(self, held: Iterable[tuple[str, Demand]], asked: Mapping[str, Demand]) -> set[str]:
        """Workers that have no room beside others on any node, each put on the first that has.

        Args:
            held: What workers that are up hold, with their node.
            asked: What others ask for, by name, in their order.
        """
        out = set(self.unusable())
        left = {name: dict(node.total) for name, node in self._look.nodes.items()}
        for node, demand in held:
            _take(left.get(node, {}), demand)
        rest = [amounts for name, amounts in left.items() if name not in out]
        first: dict[frozenset[tuple[str, float]], int] = defaultdict(int)  # before it there is no room for this demand
        lacking: set[str] = set()
        for name, demand in asked.items():
            key = frozenset(demand.items())
            while first[key] < len(rest) and not _has(rest[first[key]], demand):
                first[key] += 1
            if first[key] < len(rest):
                _take(rest[first[key]], demand)
            else:
                lacking.add(name)
        return lacking

    def has_room(self, demand: Demand, held: Iterable[tuple[str, Demand]]) -> bool:
        """Whether a worker would have a place if others left theirs.

        Args:
            demand: Of the worker.
            held: What the others hold, with their node; an empty one may be any.
        """
        usable = self.usable(demand)
        free = {name: dict(node.free) for name, node in usable.items()}
        for node, amounts in held:
            for name in usable if not node else [node] if node in usable else []:
                _take(free[name], {key: -amount for key, amount in amounts.items()})
        return any(_has(amounts, demand) for amounts in free.values())

    def to_end(self, demand: Demand, holders: Sequence[Holder]) -> list[Holder]:
        """Workers that must leave one node so that another worker fits there; empty where none would help.

        As few as possible are busy, and then as few as possible leave.

        Args:
            demand: Of the worker that waits.
            holders: Workers that may leave, those that may leave first at the front.
        """
        on_node: dict[str, list[Holder]] = defaultdict(list)
        for holder in sorted(holders, key=lambda holder: holder.is_busy):
            on_node[holder.node].append(holder)
        best: list[Holder] = []
        for name, node in self.usable(demand).items():
            free, leaving = dict(node.free), list[Holder]()
            for holder in on_node[name]:
                if _has(free, demand):
                    break
                leaving.append(holder)
                _take(free, {key: -amount for key, amount in holder.demand.items()})
            if _has(free, demand):
                if not leaving:
                    return []  # there is room, and Ray will see it
                if not best or _cost(leaving) < _cost(best):
                    best = leaving
        return best


def kind_of(labels: Mapping[str, str]) -> str:
    """The kind of a node by its labels."""
    spot = SPOT if labels.get(MARKET) == "spot" else ""
    return labels.get(GROUP, ANY) + spot


def text_of(demand: Demand) -> str:
    """As ``{CPU: 1, memory: 4 GiB}``."""
    amounts = {name: f"{round(x / GIB, 2):g} GiB" if name == "memory" else f"{x:g}" for name, x in demand.items()}
    return "{" + ", ".join(f"{name}: {amount}" for name, amount in amounts.items()) + "}"


def _cost(leaving: Sequence[Holder]) -> tuple[int, int]:
    return sum(holder.is_busy for holder in leaving), len(leaving)


def _take(amounts: dict[str, float], demand: Demand) -> None:
    for name, amount in demand.items():
        amounts[name] = amounts.get(name, 0.0) - amount


def _has(amounts: Demand, demand: Demand) -> bool:
    return all(amounts.get(name, 0.0) >= amount - RESOLUTION for name, amount in demand.items())
