"""What an error of Ray means, in the terms of alsys."""

from __future__ import annotations

import errno
import re
from typing import Final

import ray.exceptions as exceptions

from alsys.errors import AlsysError, FailureKind, WorkerUnfit

_RAISED: Final = re.compile(r"[A-Za-z_.]*(Error|Exception|Unfit|Problem): .")
"""The last line of a traceback."""
_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOMEM, errno.EAGAIN, errno.EMFILE}
)
"""A disk that is full or away, and too little of something else: what a node may have again in a minute."""


def kind_of(error: Exception) -> FailureKind:
    """Why a worker was lost."""
    if getattr(error, "preempted", False):
        return FailureKind.WORKER_PREEMPTED
    if isinstance(error, exceptions.OutOfMemoryError):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.WORKER_LOST


def was_killed(error: Exception) -> bool:
    """Whether a process ended without a word: it was killed, where one that cannot start would have said why."""
    return isinstance(error, exceptions.RayActorError) and not error.actor_init_failed


def may_pass(error: Exception) -> bool:
    """Whether a start that failed may go well a little later: its process was killed, or its node lacked something."""
    cause = getattr(error, "cause", error)
    return was_killed(error) or (isinstance(cause, OSError) and cause.errno in _PASSING)


def is_unsure(error: Exception) -> bool:
    """Whether nobody knows yet what became of an actor: its node may be dead."""
    return isinstance(error, exceptions.ActorUnavailableError)


def unfit_of(error: Exception) -> WorkerUnfit | None:
    """What a worker said that lacks a package or a setting."""
    cause = getattr(error, "cause", error)
    return cause if isinstance(cause, WorkerUnfit) else None


def one_line(error: Exception) -> str:
    """What went wrong, without Ray's words around it."""
    cause = getattr(error, "cause", None)
    if isinstance(error, exceptions.RayTaskError) and cause is not None:
        return f"{type(cause).__name__}: {cause}"[:500]
    if isinstance(error, AlsysError):
        return str(error)[:500]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    if isinstance(error, exceptions.RayActorError) and error.actor_init_failed and raised:
        return raised[-1][:500]
    if isinstance(error, RuntimeError | TimeoutError):
        return (lines[0] if lines else type(error).__name__)[:500]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]
