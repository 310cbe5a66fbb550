"""Busy seconds of workers, for utilisation."""

from __future__ import annotations

from alsys.control.ports import Role


class BusyTimes:
    """Seconds that workers had a call in flight, by role; `now` is never unix time, which may be set."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Role, float]] = {}
        self._spent: dict[Role, float] = {}

    def start(self, role: Role, worker: str, now: float) -> None:
        """A worker got a call; no effect where it has one already."""
        self._since.setdefault(worker, (role, now))

    def stop(self, role: Role, worker: str, now: float) -> None:
        """A worker has no call left."""
        since = self._since.pop(worker, None)
        if since is not None:
            self._spent[role] = self._spent.get(role, 0.0) + now - since[1]

    def take(self, now: float) -> dict[Role, float]:
        """Busy seconds by role since the last `take`."""
        for worker, (role, since) in self._since.items():
            self._spent[role] = self._spent.get(role, 0.0) + now - since
            self._since[worker] = (role, now)
        spent, self._spent = self._spent, {}
        return spent
