"""This process and its terminal: where foreign text goes, and how the process ends although a call hangs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, TextIO

SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def diverted_errors(path: Path) -> Iterator[None]:
    """Whatever is written to standard error meanwhile, by C++ code too, goes to a file.

    Ray writes to the descriptor, and to `sys.stderr` from threads of its own; what alsys has to say goes to standard
    output, or to standard error once this is over. Where there is no standard error, nothing is diverted.
    """
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    before: TextIO = sys.stderr
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, kept)
        log = stack.enter_context(path.open("a", encoding="utf-8", errors="replace", buffering=1))
        with contextlib.suppress(OSError, ValueError):
            before.flush()
        os.dup2(log.fileno(), 2)
        sys.stderr = log
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(kept, 2)


def leave(code: int) -> NoReturn:
    """Ends the process at once, whatever its threads do; children die with it, and what is on disk is whole."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream is sys.stdout and stream.isatty():
                stream.write(SHOW_CURSOR)
            stream.flush()
    os._exit(code)
