"""Hessians: which structures have a minimum, which minima have their second derivatives, and who is at work on which.

Of each structure that is asked for, a labeler first finds the minimum, then the Hessian there: two calls, so that a
labeler that dies loses one of them. Part of the ledger: events change it, nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from alsys.control.settings import PolicySettings
from alsys.errors import FailureKind
from alsys.events import HessianComputed, HessianFailed, HessianStarted, MinimumFound

_OF_THE_WORKER = (FailureKind.WORKER_LOST, FailureKind.WORKER_PREEMPTED, FailureKind.NODE_LOST)


@dataclass(frozen=True, slots=True)
class HessianStates:
    """Hessians of one campaign, by the name of their structure.

    Attributes:
        settings: Name the structures.
        minima: Frames of minima.
        found: Hessians.
        failures: Attempts of this driver that failed since the last step that was made.
        computing: Structure that each labeler is at work on.
    """

    settings: PolicySettings
    minima: dict[str, str] = field(default_factory=dict)
    found: dict[str, HessianComputed] = field(default_factory=dict)
    failures: dict[str, list[HessianFailed]] = field(default_factory=dict)
    computing: dict[str, str] = field(default_factory=dict)

    @property
    def waiting(self) -> list[str]:
        """Structures for which a labeler has something to do."""
        others = {*self.found, *self.computing.values(), *self.given_up}
        return [name for name in self.settings.hessians if name not in others]

    @property
    def given_up(self) -> dict[str, HessianFailed]:
        """Structures that will have no Hessian before the next run, and why: chemistry, or computing lost too often."""
        return {
            name: failed[-1]
            for name, failed in self.failures.items()
            if not failed[-1].failure.is_lost_computing or len(failed) >= self.settings.max_attempts
        }

    @property
    def is_busy(self) -> bool:
        """Whether anything is to come."""
        return bool(self.computing or self.waiting)

    @property
    def n_minima_left(self) -> int:
        """Labels of minima that are to come."""
        return sum(name not in self.minima for name in [*self.waiting, *self.computing.values()])

    def is_by_differences(self, name: str) -> bool:
        """Whether the engine's own second derivatives have failed where forces may do."""
        return any(event.failure not in _OF_THE_WORKER for event in self.failures.get(name, ()))

    def reopen(self) -> None:
        """A new driver: nothing is under way, and what failed is tried again."""
        self.computing.clear()
        self.failures.clear()

    def start(self, event: HessianStarted) -> None:
        """A labeler is at work."""
        self.computing[event.worker] = event.name

    def relax(self, event: MinimumFound) -> None:
        """There is a minimum."""
        self.minima[event.name] = event.frame_id
        self._end(event.worker, event.name)

    def compute(self, event: HessianComputed) -> None:
        """There is a Hessian."""
        self.minima[event.name] = event.frame_id
        self.found[event.name] = event
        self._end(event.worker, event.name)

    def fail(self, event: HessianFailed) -> None:
        """An attempt gave nothing."""
        self.computing.pop(event.worker, None)
        if not event.failure.is_nobodys_fault:
            self.failures.setdefault(event.name, []).append(event)

    def _end(self, worker: str, name: str) -> None:
        self.computing.pop(worker, None)
        self.failures.pop(name, None)
