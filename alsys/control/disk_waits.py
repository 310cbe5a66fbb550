"""Which refusals of the disk a driver waits for, and for how long.

A full disk or quota is waited for until there is space: a person will make some. An error of the device and a file
system that has turned read-only are waited for `PATIENCE_S`, since network storage comes back. Everything else (a
folder that is gone, a file that may not be written) ends the driver at once: waiting would not mend it. A wait ends too
when somebody asks the campaign to stop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable

from alsys.clock import RunningClock
from alsys.errors import AGAIN, EnvironmentProblem

logger = logging.getLogger(__name__)

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
PASSING = frozenset({errno.EIO, errno.EROFS})
PATIENCE_S = 600.0
"""Seconds for which `PASSING` errors are waited for."""
RETRY_S = 1.0
"""Seconds between two tries."""
GO_ON = f"all that was acknowledged is on disk; mend it, then {AGAIN} goes on"


class DiskWait:
    """Waits of one kind of write.

    Args:
        clock: Seconds in which this process ran.
        retry_s: Seconds between two tries.
        patience_s: Seconds for which `PASSING` errors are waited for.

    Attributes:
        problem: One line while the disk refuses; None otherwise.
    """

    def __init__(
        self, clock: Callable[[], float] | None = None, retry_s: float = RETRY_S, patience_s: float = PATIENCE_S
    ) -> None:
        self.problem: str | None = None
        self._clock = clock or RunningClock()
        self._retry_s, self._patience_s = retry_s, patience_s
        self._since = 0.0
        self._is_leaving = False
        self._left = asyncio.Event()

    async def refused(self, error: OSError) -> None:
        """Waits before the next try.

        Raises:
            EnvironmentProblem: This error is not waited for, or no longer.
        """
        what = f"cannot write {_place(error)}{os.strerror(error.errno) if error.errno else error}"
        if error.errno not in NO_SPACE | PASSING:
            raise EnvironmentProblem(f"{what}; {GO_ON}") from error
        if self.problem is None:
            self._since = self._clock()
            again = f"trying again for {self._patience_s / 60:.0f} minutes"
            how = "waiting for space" if error.errno in NO_SPACE else again
            logger.error("%s; %s, nothing is lost", what, how)
        elif error.errno in PASSING and self._clock() - self._since > self._patience_s:
            raise EnvironmentProblem(f"{what}, for {self._patience_s / 60:.0f} minutes; {GO_ON}") from error
        self.problem = what
        if self._is_leaving:
            raise EnvironmentProblem(f"stopped as asked while {what}; {GO_ON}") from error
        try:
            await asyncio.wait_for(self._left.wait(), self._retry_s)
        except TimeoutError:
            return

    def recovered(self, what: str) -> None:
        """The disk has taken it."""
        if self.problem is not None:
            logger.warning("%s can be written again", what)
            self.problem = None

    def leave(self) -> None:
        """Somebody wants the driver to end: one more try, then no wait."""
        self._is_leaving = True
        self._left.set()


def _place(error: OSError) -> str:
    return f"{error.filename}: " if error.filename else "the store: "
