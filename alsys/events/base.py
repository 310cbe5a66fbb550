"""Base of all events, and how a class becomes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field
from typing import Any, ClassVar, TypeVar, dataclass_transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        t: Unix time at which it happened, s.
    """

    kind: ClassVar[str] = ""
    is_durable: ClassVar[bool] = True
    t: float


E = TypeVar("E", bound=Event)
EVENTS: dict[str, type[Event]] = {}
"""Durable events by kind."""


def log_name(attribute: Field[Any]) -> str:
    """Name of an attribute in the log: its own, or the one that its ``metadata`` gives as ``log``."""
    return str(attribute.metadata.get("log", attribute.name))


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def event(kind: str, *, is_durable: bool = True) -> Callable[[type[E]], type[E]]:
    """Makes a class an event.

    Args:
        kind: Its name in the log, for ever.
        is_durable: Whether it is written; else the ledger sees it, and the log does not.
    """

    def registered(cls: type[E]) -> type[E]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        made.kind, made.is_durable = kind, is_durable
        if is_durable:
            EVENTS[kind] = made
        return made

    return registered
