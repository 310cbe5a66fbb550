"""Delivery to MLflow: a child process that delivers the outbox while the driver goes on.

`poke` never blocks and never raises for a registry that is down: at most one child runs, a failure is followed by a
growing pause and one line of warning, and what was not delivered stays in the outbox. The child dies with the driver
(its stdin ends). The driver never imports mlflow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from alsys.clock import RunningClock
from alsys.tracking.outbox import Outbox

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
_POLL_S: Final = 0.05
_MOST_WORDS: Final = 1000
"""Characters of a reason that are kept; remedies stand at its end."""


class DeliveryProcess:
    """Runs deliveries of one campaign.

    Args:
        campaign_dir: The campaign; the child logs to its ``logs/mlflow.log``.
        command: The child; default is ``python -m alsys.tracking.deliver CAMPAIGN_DIR --stdin``.
        first_pause_s: Pause after a failure; doubled after each further one.
        clock: Seconds in which this process ran.
    """

    def __init__(
        self,
        campaign_dir: str | Path,
        *,
        command: Sequence[str] | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._directory = Path(campaign_dir)
        self._outbox = Outbox.of(campaign_dir)
        module = "alsys.tracking.deliver"
        self._command = list(command or (sys.executable, "-P", "-m", module, str(self._directory), "--stdin"))
        self._first_pause_s = first_pause_s
        self._clock = clock or RunningClock()
        self._child: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._started = 0

    @property
    def log(self) -> Path:
        """Where the child writes."""
        return self._directory / "logs" / "mlflow.log"

    @property
    def n_started(self) -> int:
        """Deliveries tried so far."""
        return self._started

    def poke(self) -> None:
        """Sees to it that pending items are being delivered, unless a failure is too recent. Returns at once."""
        self._reap()
        if self._child is None and self._clock() < self._not_before:
            return
        try:
            has_pending = self._outbox.has_pending()
        except OSError as error:
            self._failed(str(error))
            return
        if not has_pending:
            return
        if self._child is not None:
            self._wake(self._child)
        else:
            self._start()

    def flush(self, timeout_s: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Waits until everything is delivered; False at once where a fresh try fails, time is up, or `is_over`."""
        try:
            return self._flush(self._clock() + timeout_s, timeout_s, is_over)
        except OSError as error:
            self._failed(str(error))
            return False

    def _flush(self, deadline: float, timeout_s: float, is_over: Callable[[], bool]) -> bool:
        tries = self._started + (self._child is None)
        while self._outbox.has_pending():
            self._reap()
            if self._child is None:
                if self._started >= tries and self._failures:
                    return False
                self._start()
            else:
                self._wake(self._child)
            if self._clock() >= deadline or is_over():
                if not self._failures:
                    late = f"the delivery was not finished in {timeout_s:g} s"
                    self._note("the campaign was to end before the delivery was finished" if is_over() else late)
                return False
            time.sleep(_POLL_S)
        return True

    def close(self) -> None:
        """Ends the child, whatever it is doing; a later delivery takes up from there."""
        if self._child is None:
            return
        self._child.kill()
        self._forget(self._child)

    def _start(self) -> None:
        self._started += 1
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the driver
                )
        except OSError as error:
            self._failed(str(error))
            return
        if self._child.stdin is not None:
            os.set_blocking(self._child.stdin.fileno(), False)

    def _wake(self, child: subprocess.Popen[bytes]) -> None:
        if child.stdin is not None:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full of calls, or gone: seen at the next poke
                os.write(child.stdin.fileno(), b"\n")

    def _reap(self) -> None:
        child = self._child
        if child is None or child.poll() is None:
            return
        code = child.returncode
        self._forget(child)
        if code == 0:
            self._failures, self._not_before = 0, 0.0
            self._note(None)
        else:
            self._failed(self._last_words() or f"exit code {code}")

    def _failed(self, reason: str) -> None:
        pause = min(LONGEST_PAUSE_S, self._first_pause_s * 2**self._failures)
        self._failures += 1
        self._not_before = self._clock() + pause
        self._note(reason)
        if self._failures == 1:
            logger.warning("MLflow did not take the models (the campaign goes on): %s", reason)
        else:
            logger.info("MLflow did not take the models, try %d: %s", self._failures, reason)

    def _note(self, problem: str | None) -> None:
        with contextlib.suppress(OSError):  # a full disk: the warning is in the log
            self._outbox.note_problem(problem)

    def _forget(self, child: subprocess.Popen[bytes]) -> None:
        child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        self._child = None

    def _last_words(self) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:_MOST_WORDS] if lines else ""
