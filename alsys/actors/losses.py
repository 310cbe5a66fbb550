"""Workers that are lost on a cluster, until it is known whether their node was lost too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from alsys.actors.answers import Call
from alsys.actors.failures import is_unsure
from alsys.actors.nodes import Look
from alsys.actors.places import WorkerEntry

UNSURE_S: Final = 40.0
"""Until Ray knows what became of a node that is silent; its health check takes half a minute."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One of them.

    Attributes:
        name: Of the worker.
        entry: What the pool knows of it.
        generation: Of the entry; another one since then means that it is history.
        error: What Ray said.
        call: What failed.
        since: When.
        node: Where it was; empty where that is not known.
        is_node_dead: Its node died.
    """

    name: str
    entry: WorkerEntry
    generation: int
    error: Exception
    call: Call
    since: float
    node: str = ""
    is_node_dead: bool = False


class Losses:
    """Losses that wait for a look at the nodes that is younger than they are."""

    def __init__(self) -> None:
        self._waiting: list[Loss] = []

    def add(self, name: str, entry: WorkerEntry, error: Exception, call: Call, now: float) -> None:
        """A worker is lost."""
        self._waiting.append(Loss(name, entry, entry.generation, error, call, now))

    def answered(self, entry: WorkerEntry) -> None:
        """A worker lives: a question whether it does was lost on its way, if one was."""
        if self._waiting:
            self._waiting = [loss for loss in self._waiting if loss.entry is not entry or loss.call is not Call.PING]

    def unknown(self) -> list[str]:
        """Workers that are not judged yet."""
        return [loss.name for loss in self._waiting]

    def judged(self, look: Look, now: float) -> Iterator[Loss]:
        """Losses of which it is known by now, each once.

        Args:
            look: What Ray said last.
            now: By the clock of the pool.
        """
        waiting, self._waiting = self._waiting, []
        for loss in waiting:
            if loss.generation != loss.entry.generation:
                continue
            node = loss.entry.node or look.places.get(loss.name, "")
            is_later = look.begun > loss.since
            is_dead = is_later and node in look.dead
            if is_dead or (is_later and not is_unsure(loss.error)):
                yield replace(loss, node=node, is_node_dead=is_dead)
            elif now - loss.since < UNSURE_S:
                self._waiting.append(loss)
            elif loss.call is not Call.PING or not loss.entry.sent:  # else the call that it has will tell
                yield replace(loss, node=node)
