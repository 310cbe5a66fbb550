"""What an engine is: it renders files and names commands.

Both are deterministic, and neither looks at a cluster.

For authors: `submit` and `look` return `Command`s, not bare words, because of secrets; `machines` is what a cost is
made of; the campaign's file and the structure files that it names are written by the launcher, below ``campaign/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from alsys.launch.cost import Rented
from alsys.launch.request import LaunchRequest


@dataclass(frozen=True, slots=True)
class Command:
    """A command of another program.

    Attributes:
        words: The program and its arguments; relative paths are in the folder of the files.
        purpose: What it does, in a few words, as ``watch``.
        secrets: Environment variables that it reads; the launcher gives random values to those that are not set.
    """

    words: tuple[str, ...]
    purpose: str = ""
    secrets: tuple[str, ...] = ()


class Engine(Protocol):
    """Something that starts machines or processes, and keeps them."""

    @property
    def name(self) -> str:
        """What ``--on`` takes."""

    @property
    def programs(self) -> tuple[str, ...]:
        """What must be installed here to submit."""

    def check(self, request: LaunchRequest) -> None:
        """Refuses a campaign that cannot run there.

        Raises:
            InputError: File, field, value and remedy.
        """

    def render(self, request: LaunchRequest) -> dict[str, str]:
        """Files, by their place in a folder. The campaign's own are put beside them, below `request.CAMPAIGN`."""

    def machines(self, request: LaunchRequest) -> tuple[Rented, ...]:
        """What is paid for."""

    def submit(self, request: LaunchRequest) -> tuple[Command, ...]:
        """What is run in the folder of the files, one after another, and again to resume."""

    def look(self, request: LaunchRequest) -> tuple[Command, ...]:
        """What a user may run later: to watch, stop, fetch and tear down."""
