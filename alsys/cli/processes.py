"""This process and its terminal: where foreign text goes, and how it ends, or begins anew, although a call hangs."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

SHOW_CURSOR = "\x1b[?25h"
AGAIN: Final = "ALSYS_BEGUN_AGAIN"
"""Environment variable: how often in a row the command has begun anew."""
MAX_AGAIN: Final = 5
LASTING_S: Final = 600.0
"""A process that has run for so long was no failed beginning."""
_begun = time.monotonic()


@contextlib.contextmanager
def diverted_output(path: Path) -> Iterator[None]:
    """Whatever is printed meanwhile by others than a display that was made before goes to a file.

    Ray's C++ code writes to the descriptor of standard error, its threads to `sys.stderr` and `sys.stdout`. What alsys
    has to say goes to the display, or to standard error once this is over.
    """
    output, errors = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(path.open("a", encoding="utf-8", errors="replace", buffering=1))
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error
            kept = -1
        else:
            stack.callback(os.close, kept)
        for stream in (output, errors):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if kept >= 0:
            os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        try:
            yield
        finally:
            sys.stdout, sys.stderr = output, errors
            if kept >= 0:
                os.dup2(kept, 2)


def leave(code: int) -> NoReturn:
    """Ends the process at once, whatever its threads do; children die with it, and what is on disk is whole."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        with contextlib.suppress(OSError, ValueError):
            if stream is sys.__stdout__ and stream.isatty():
                stream.write(SHOW_CURSOR)
            stream.flush()
    os._exit(code)


def open_streams() -> None:
    """Gives a process that was started without standard streams (``>&-``) ones that lead nowhere.

    What is opened first would get their numbers else, and whatever is printed would go into a file of the campaign.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False, encoding="utf-8"))  # noqa: SIM115


def flush_output() -> bool:
    """Writes out what was printed. False where nobody reads it any more; it goes nowhere from then on.

    Raises:
        OSError: It cannot be written for another reason, as on a full disk.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        devnull = os.open(os.devnull, os.O_WRONLY)  # what is left would fail once more when Python ends
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        if not isinstance(error, BrokenPipeError):
            raise
        return False
    with contextlib.suppress(OSError, ValueError):  # what stands for standard output may have no descriptor
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return not any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
    return True


def may_begin_again() -> bool:
    """Whether the command may begin anew: not where it has done so `MAX_AGAIN` times without lasting."""
    return _times_begun() < MAX_AGAIN


def begin_again(why: str) -> NoReturn:
    """Replaces this process by the same command, with all its threads; what is on disk is whole, and it goes on there.

    Args:
        why: For the user.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"alsys: {why}; the command begins anew\n")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os.environ[AGAIN] = str(_times_begun() + 1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _times_begun() -> int:
    count = os.environ.get(AGAIN, "0")
    return int(count) if count.isdecimal() and time.monotonic() - _begun < LASTING_S else 0
