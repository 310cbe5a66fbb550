"""A small process that outlives this one by a moment, to end what Ray leaves behind.

Ray's agents look after their parent rarely, and wait for a GCS that is dead: after SIGKILL of a driver they stay for
more than half a minute. The reaper is told their process ids, and kills them once its input ends, which happens however
this process ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import psutil

_SCRIPT: Final = """
import os, signal, sys
for line in sys.stdin.read().split():
    pid, started = line.split(":")
    try:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[19] == started:
                os.kill(int(pid), signal.SIGKILL)
    except (OSError, IndexError):
        pass
"""
"""Kills processes by id and start (field 22 of /proc/PID/stat), since ids are given to others later."""


class Reaper:
    """Ends processes when this one has ended, or when it is closed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._known: set[str] = set()
        with contextlib.suppress(OSError):  # then they end by themselves, later
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def add(self, processes: Sequence[psutil.Process]) -> None:
        """Takes processes to end."""
        if self._process is None or self._process.stdin is None:
            return
        rows = {f"{process.pid}:{started}\n" for process in processes if (started := _started(process.pid))}
        with contextlib.suppress(OSError):
            self._process.stdin.write("".join(rows - self._known))
            self._process.stdin.flush()
        self._known |= rows

    def close(self) -> None:
        """Ends the processes now, and the reaper."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process = None


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot; empty where there is none, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
