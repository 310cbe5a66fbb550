"""Busy seconds of workers, for utilisation."""

from __future__ import annotations

from alsys.control.ports import Role


class BusyTimes:
    """Seconds that workers had a call in flight, by role; `now` is never unix time, which may be set.

    Sums grow by the busy workers of a role whenever their number changes, so no look goes over the workers.
    """

    def __init__(self) -> None:
        self._busy: dict[Role, set[str]] = {role: set() for role in Role}
        self._spent = dict.fromkeys(Role, 0.0)
        self._last = dict.fromkeys(Role, 0.0)

    def start(self, role: Role, worker: str, now: float) -> None:
        """A worker got a call; no effect where it has one already."""
        self._count(role, now)
        self._busy[role].add(worker)

    def stop(self, role: Role, worker: str, now: float) -> None:
        """A worker has no call left."""
        self._count(role, now)
        self._busy[role].discard(worker)

    def take(self, now: float) -> dict[Role, float]:
        """Busy seconds by role since the last `take`."""
        for role in Role:
            self._count(role, now)
        spent, self._spent = self._spent, dict.fromkeys(Role, 0.0)
        return spent

    def _count(self, role: Role, now: float) -> None:
        self._spent[role] += len(self._busy[role]) * (now - self._last[role])
        self._last[role] = now
