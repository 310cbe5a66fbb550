"""Clocks: seconds that a process has run, and the moments at which budgets end.

Unix time is for logs and people: it may be set back or forward by hours, so no duration and no deadline is taken from
it. Durations are differences of the monotonic clock, and of that only the part counts in which the process ran: one
that was stopped for an hour (SIGSTOP, a debugger, a suspended machine) judges nobody by that hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LONGEST_GAP_S: Final = 30.0
"""Longest time between two looks at the clock that counts in full; of a longer one, so much."""


class RunningClock:
    """Seconds that this process has run; must be read again and again, at least every `LONGEST_GAP_S`.

    Args:
        monotonic: Seconds of a clock that never goes back.
        longest_gap_s: See `LONGEST_GAP_S`.

    Attributes:
        paused_s: Seconds that did not count so far.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, longest_gap_s: float = LONGEST_GAP_S) -> None:
        self.paused_s = 0.0
        self._monotonic = monotonic
        self._longest_gap_s = longest_gap_s
        self._last = monotonic()
        self._seconds = 0.0

    def __call__(self) -> float:
        """Seconds since it was made in which the process ran."""
        now = self._monotonic()
        gap = max(0.0, now - self._last)
        self._last = now
        counted = min(gap, self._longest_gap_s)
        self.paused_s += gap - counted
        self._seconds += counted
        return self._seconds
