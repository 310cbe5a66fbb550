"""Waiting for files and sockets, however many are open: `select.select` takes numbers below 1024 only."""

from __future__ import annotations

import select
from typing import Protocol, TypeVar


class HasFileno(Protocol):
    """A file, socket or pipe."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


F = TypeVar("F", bound="int | HasFileno")


def readable(*sources: F, timeout_s: float | None = None) -> list[F]:
    """Those of some descriptors from which there is something to read, their end included.

    Args:
        sources: Descriptors, or what has one.
        timeout_s: How long to wait; None for as long as it takes.
    """
    numbers = {source if isinstance(source, int) else source.fileno(): source for source in sources}
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    ready = poll.poll(None if timeout_s is None else 1e3 * timeout_s)
    return [numbers[number] for number, _ in ready]
