"""Asking a driver to stop: signals, requests of other processes, a call from another thread, a limit of time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from alsys.errors import InputError
from alsys.events import StopRequested
from alsys.outside.contents import read_json

PATIENCE_S: Final = 10.0
"""After a signal, what can be done later is waited for so long."""


class StopSignal:
    """Asks the campaign to stop: SIGINT, SIGTERM, SIGHUP, `alsys stop`, `ask`, or a limit of time.

    Signals are heard in the main thread only; one that the process was started without, as by nohup, stays ignored.

    Args:
        request: File in which another process asks.
        wall_s: Seconds after which the campaign is to stop; None for no limit.
        insist: Called at a second SIGINT; default raises KeyboardInterrupt.
    """

    def __init__(self, request: Path, wall_s: float | None = None, insist: Callable[[], None] | None = None) -> None:
        self._request = request
        self._until = None if wall_s is None else time.monotonic() + wall_s
        self._insist = insist
        self._signalled = 0.0
        self._asked: bool | None = None
        self._old: dict[int, Any] = {}

    def ask(self, *, drain: bool = False) -> None:
        """Asks from any thread; `drain` lets labels that are being computed arrive."""
        self._asked = drain

    @property
    def is_signalled(self) -> bool:
        """Whether a signal has come."""
        return self._signalled > 0.0

    @property
    def is_impatient(self) -> bool:
        """Whether a signal has come, and `PATIENCE_S` ago: what can be done later waits no longer."""
        return self.is_signalled and time.monotonic() - self._signalled > PATIENCE_S

    def __enter__(self) -> StopSignal:
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def __call__(self) -> StopRequested | None:
        """What was asked for; None where nothing was. Takes the handlers back from Ray, which sets its own."""
        self._install()
        if self.is_signalled:
            return StopRequested(t=time.time(), drain=False)
        if self._asked is None and self._until is not None and time.monotonic() >= self._until:
            self._asked = False
        if self._asked is not None:
            return StopRequested(t=time.time(), drain=self._asked)
        try:
            request = read_json(self._request)
        except InputError:
            return None
        self._request.unlink(missing_ok=True)
        return StopRequested(t=time.time(), drain=isinstance(request, dict) and bool(request.get("drain")))

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if self._old.get(number, signal.getsignal(number)) is signal.SIG_IGN and number != signal.SIGINT:
                continue
            old = signal.signal(number, self._on_signal)
            self._old.setdefault(number, old)

    def _on_signal(self, number: int, _: object) -> None:
        if self.is_signalled and number == signal.SIGINT:
            if self._insist is None:
                raise KeyboardInterrupt
            self._insist()
        self._signalled = self._signalled or time.monotonic()
