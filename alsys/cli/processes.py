"""This process and its terminal: where foreign text goes, and how the process ends although a call hangs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

SHOW_CURSOR = "\x1b[?25h"


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
