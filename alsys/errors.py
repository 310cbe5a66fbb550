"""Errors, grouped by what the handler does, and the stable kinds of expected failures.

An exception is for a caller who must stop: `InputError` (exit 2), `EnvironmentProblem` (exit 3), `CampaignFailed`
(exit 4). What a campaign expects to go wrong (an SCF that does not converge, a lost worker) is never an exception
across a module border: it travels as a value carrying a `FailureKind`.
"""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

MAX_SHOWN: Final = 10
MAX_LINE: Final = 1800
"""Characters of one line about several errors."""
"""Errors of one file that are told at once."""
MAX_PART: Final = 600
"""Characters of each part of an error's line."""


AGAIN: Final = "the same `alsys run`, or `Campaign.run` in Python,"
"""What goes on with a campaign, for a user of the command line or of Python."""


class FailureKind(StrEnum):
    """Why a piece of work gave no result. The values are stable: they are written to the event log."""

    SCF_NOT_CONVERGED = "scf-not-converged"
    UNPHYSICAL_FRAME = "unphysical-frame"
    UNSUPPORTED = "unsupported"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    WORKER_LOST = "worker-lost"
    WORKER_PREEMPTED = "worker-preempted"
    INTERNAL = "internal"
    LABEL_REJECTED = "label-rejected"
    LABEL_NOT_REPRODUCED = "label-not-reproduced"
    DAMAGED = "damaged"
    NODE_LOST = "node-lost"

    @classmethod
    def _missing_(cls, value: object) -> FailureKind | None:
        return cls.LABEL_NOT_REPRODUCED if value == "label-disputed" else None  # in older logs

    @property
    def is_lost_computing(self) -> bool:
        """True where the machine failed and not the chemistry: worth another try elsewhere."""
        return self in _LOST_COMPUTING

    @property
    def is_nobodys_fault(self) -> bool:
        """True where neither the work nor the worker had a part in it: not held against them."""
        return self in _NOBODYS_FAULT


_LOST_COMPUTING = frozenset(
    {
        FailureKind.OUT_OF_MEMORY,
        FailureKind.TIMEOUT,
        FailureKind.CRASHED,
        FailureKind.WORKER_LOST,
        FailureKind.WORKER_PREEMPTED,
        FailureKind.NODE_LOST,
        FailureKind.INTERNAL,
    }
)

_NOBODYS_FAULT = frozenset({FailureKind.WORKER_PREEMPTED, FailureKind.NODE_LOST})


class AlsysError(Exception):
    """Base of all errors that alsys raises on purpose."""

    exit_code = 4


class InputError(AlsysError):
    """The user's input cannot be used. Prints as one line: file, field, value, remedy.

    Args:
        message: What is wrong, without the value.
        source: The file the input came from, where there is one.
        field: Dotted path of the field, for example ``labeling.basis``.
        value: The offending value.
        remedy: What to do about it.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        field: str | None = None,
        value: object = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.source = source
        self.field = field
        self.value = value
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [_shortened(part) for part in (self.source, self.field) if part]
        text = ": ".join([*parts, _shortened(self.message)])
        if self.value is not None:
            text += f" (got {_shortened(_representation(self.value))})"
        if self.remedy:
            text += f"; {self.remedy}"
        return " ".join(text.split())

    def located(self, source: str | None = None, field: str | None = None) -> InputError:
        """The same error with file or field filled in where they were missing."""
        error = type(self)(
            self.message,
            source=self.source or source,
            field=self.field or field,
            value=self.value,
            remedy=self.remedy,
        )
        for note in getattr(self, "__notes__", ()):
            error.add_note(note)
        return error


def several(errors: Sequence[InputError]) -> InputError:
    """The first of some errors; the others, up to `MAX_SHOWN` in all, are its notes (PEP 678), one line each.

    Args:
        errors: One at least.
    """
    first, *others = errors
    for other in others[: MAX_SHOWN - 1]:
        first.add_note(str(other))
    if len(errors) > MAX_SHOWN:
        first.add_note(f"and {len(errors) - MAX_SHOWN} more")
    return first


def told(error: AlsysError) -> str:
    """An error and its notes as one line of at most `MAX_LINE` characters."""
    first, notes = str(error), [str(note) for note in getattr(error, "__notes__", ())]
    source = getattr(error, "source", None)
    rest = " | ".join(note.removeprefix(f"{source}: ") for note in notes)
    if rest and len(first) + len(rest) > MAX_LINE:
        rest = f"{rest[: max(MAX_LINE - len(first), 200)]} ..."
    return f"{first} | also: {rest}" if rest else first


def _shortened(text: str) -> str:
    """A text of which a line can be made, whatever somebody wrote into a file."""
    return text if len(text) <= MAX_PART else f"{text[: MAX_PART - 24]} ... ({len(text)} characters)"


def _representation(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"an {type(value).__name__} too large to be printed"


class StoreBusy(InputError):
    """Another process is writing this store."""


class EnvironmentProblem(AlsysError):
    """Something the machine should have is missing or broken."""

    exit_code = 3


class WorkerUnfit(EnvironmentProblem):
    """The process of a worker lacks what it needs, such as a package: another try there would not help."""


_REMEDIES: Final = {
    errno.ENOSPC: "make space and repeat the command",
    errno.EDQUOT: "make space in your quota and repeat the command",
    errno.EROFS: "mount its file system for writing, or work on a copy",
    errno.EACCES: "see who may read and write it",
    errno.EPERM: "see who may read and write it",
}


def remedy_of(error: OSError) -> str:
    """What helps where the file system refused; empty for nothing."""
    return _REMEDIES.get(error.errno or 0, "")


class RayLost(EnvironmentProblem):
    """Ray hangs inside this process, whose threads cannot be ended: the same command in a new process goes on.

    Args:
        message: What was seen.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(f"{message}; in a new process, {AGAIN} goes on")


class CampaignFailed(AlsysError):
    """The campaign cannot go on by itself."""

    exit_code = 4


class StoreError(AlsysError):
    """The store cannot be read or written."""


class StoreCorrupt(StoreError):
    """What is on disk contradicts HEAD, or itself. Prints as one line: what is wrong, remedy.

    Args:
        message: What is wrong.
        remedy: What to do about it; empty for nothing. Commands in it get their folder from `located`.
    """

    def __init__(self, message: str, remedy: str = "`alsys data verify` names all that is damaged") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(message, remedy)

    def located(self, campaign: object) -> StoreCorrupt:
        """The same error, whose remedy names the campaign's folder."""
        folder = shlex.quote(str(campaign))
        return type(self)(self.message, re.sub(r"`alsys data (\w+)`", rf"`alsys data \1 {folder}`", self.remedy))

    def __str__(self) -> str:
        return " ".join("; ".join(part for part in (self.message, self.remedy) if part).split())


class Fenced(StoreError):
    """The store is no longer this writer's: taken over, removed, moved or replaced. It must stop at once."""

    exit_code = 3
