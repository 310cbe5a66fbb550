"""What is known of each frame and each model of a campaign, and the counts beside them.

Plain values that the ledger and its parts fill in; whoever else holds one reads it. Nothing here decides anything, and
nothing here knows of the ledger.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from alsys.errors import FailureKind
from alsys.events import ExplorationReported, Heartbeat, WorkerLost
from alsys.frames import Arm
from alsys.metrics import Metrics
from alsys.units import HOUR_S


class Status(StrEnum):
    """Where a proposed frame is."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    LABELLED = "labelled"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"
    RETRACTED = "retracted"


FINAL = (Status.LABELLED, Status.DROPPED, Status.QUARANTINED, Status.RETRACTED)
"""Where a frame stays, unless a user asks for it again or retracts its label."""


@dataclass(slots=True)
class FrameRecord:
    """What the ledger knows of a frame.

    Attributes:
        seen_by: Version of the committee that gave `deviation`.
        attempts: Failed attempts so far.
        kills: Workers lost while they worked on it.
        verdict: Why it is in quarantine; None where it is not.
        last_worker: Worker that lost the computing of its last attempt.
        label_id: Its label, retracted or not; empty for none.
        unverified_of: Labeler whose label of it waits to be verified; empty where none does.
        n_not_reproduced: Labels of it that turned out wrong.
        chosen_by: As in `alsys.events.LabelAccepted`.
    """

    arm: Arm
    system: str
    deviation: float
    seen_by: int
    method: str = ""
    stratum: str = ""
    n_electrons: int = 0
    status: Status = Status.PENDING
    attempts: int = 0
    kills: int = 0
    verdict: tuple[FailureKind, str] | None = None
    last_worker: str = ""
    label_id: str = ""
    unverified_of: str = ""
    n_not_reproduced: int = 0
    chosen_by: int = -1


@dataclass(slots=True)
class ModelRecord:
    """What the ledger knows of a model version. `promoted` is None until it is decided.

    Attributes:
        reasons: What spoke against it, one by one.
        is_probation: Promoted in spite of that.
        parent: Champion when its fit began, which it started from and was compared with; 0 for none.
        n_train: Labels it was trained on.
        n_seen: Training labels accepted up to its dataset version, retracted ones included, imported ones not.
        n_changes: `alsys.control.state.ledger.Ledger.n_changes` of its dataset version.
        seq: Its dataset version.
        is_lost: Its bundle cannot be read.
        wall_s: Of its fit.
        digest: Of its bundle; empty in older logs.
        is_final: By the fit after the last label.
    """

    version: int
    n_labels: int
    n_train: int
    n_seen: int
    n_changes: int
    metrics: Metrics
    published: float
    promoted: bool | None = None
    reason: str = ""
    reasons: tuple[str, ...] = ()
    is_probation: bool = False
    parent: int = 0
    seq: int = 0
    is_lost: bool = False
    wall_s: float = 0.0
    digest: str = ""
    is_final: bool = False

    @property
    def error(self) -> tuple[float, float, float]:
        """Force MAE on the random arm and its 95 % interval, eV/Angstrom; NaN where unknown."""
        get = self.metrics.get
        found = get("force_mae_random_arm"), get("force_mae_random_arm_low"), get("force_mae_random_arm_high")
        mae, low, high = (math.nan if number is None else number for number in found)
        return mae, low, high


WITHOUT_FAULT = frozenset({"max-steps", "failed", "not-carved"})
"""Stops of walks that the model has not broken."""


@dataclass(slots=True)
class Exploration:
    """Exploration since the champion last changed."""

    walker_steps: int = 0
    steps_since_above: int = 0
    steps_since_candidate: int = 0
    broken_since_candidate: int = 0
    n_candidates: int = 0
    n_members: int = 0
    n_distinct: int = 0

    def add(self, event: ExplorationReported) -> None:
        """Takes a chunk of the champion's into account."""
        self.walker_steps += event.walker_steps
        self.n_candidates += event.n_candidates
        self.steps_since_above = 0 if event.n_above else self.steps_since_above + event.walker_steps
        if event.n_candidates:
            self.steps_since_candidate = self.broken_since_candidate = 0
        else:
            broken = sum(n for reason, n in event.stops.items() if reason not in WITHOUT_FAULT)
            self.broken_since_candidate += broken
            self.steps_since_candidate += max(event.walker_steps, broken)  # one that broke at once made none
        self.n_members, self.n_distinct = event.n_members, event.n_distinct


@dataclass(slots=True)
class RunningTimes:
    """Running mean of the seconds that one kind of work takes; None before the first.

    Of the first twenty the plain mean, so that a cold start does not count for long; then the newest weigh most.
    """

    mean: float | None = None
    n: int = 0

    def add(self, wall_s: float) -> None:
        """Takes one into account."""
        self.n += 1
        self.mean = wall_s if self.mean is None else self.mean + max(0.05, 1.0 / self.n) * (wall_s - self.mean)


LABEL_TIMES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""Seconds between which labels are counted by the time that they took."""


@dataclass(slots=True)
class Durations:
    """How often something took how long.

    Attributes:
        limits: Seconds, ascending.
        counts: How many took at most each of them and more than the one before; the last: more than all.
        total_s: All of them together.
    """

    limits: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.limits) + 1)

    def add(self, seconds: float) -> None:
        """Takes one into account."""
        self.counts[bisect_left(self.limits, seconds)] += 1
        self.total_s += seconds


@dataclass(slots=True)
class Totals:
    """Counts over the whole campaign.

    Attributes:
        failed_by: Failed attempts at labels by kind of failure.
        quarantined: Frames that came into quarantine, whatever became of them since.
        lost_by: Workers lost, by role and kind of failure.
        lost_s: What calls had taken that were lost with their workers.
        node_s: Seconds times machines.
        unpriced_s: Those of them that no cost is known of.
        cost: Money.
        nodes: Machines at the last heartbeat, by kind.
        cost_an_hour: What they cost then.
    """

    failed: int = 0
    failed_by: dict[FailureKind, int] = field(default_factory=dict)
    quarantined: int = 0
    repeated: int = 0
    conflicts: int = 0
    workers_lost: int = 0
    lost_by: dict[tuple[str, FailureKind], int] = field(default_factory=dict)
    lost_s: float = 0.0
    openings: int = 0
    walker_steps: int = 0
    candidates: int = 0
    stops: dict[str, int] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    capacity_s: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    node_s: float = 0.0
    unpriced_s: float = 0.0
    cost: float = 0.0
    nodes: Mapping[str, int] = field(default_factory=dict)
    cost_an_hour: float = 0.0

    @property
    def n_nodes(self) -> int:
        """Machines at the last heartbeat."""
        return sum(self.nodes.values())

    def add(self, event: ExplorationReported) -> None:
        """Takes a chunk into account."""
        self.walker_steps += event.walker_steps
        self.candidates += event.n_candidates
        for reason, count in event.stops.items():
            self.stops[reason] = self.stops.get(reason, 0) + count

    def fail(self, failure: FailureKind) -> None:
        """An attempt at a label failed."""
        self.failed += 1
        self.failed_by[failure] = self.failed_by.get(failure, 0) + 1

    def lose(self, event: WorkerLost) -> None:
        """A worker is lost, with what it was doing."""
        self.workers_lost += 1
        self.lost_s += event.spent_s
        self.lost_by[event.role, event.failure] = self.lost_by.get((event.role, event.failure), 0) + 1

    def beat(self, event: Heartbeat) -> None:
        """Takes the busy seconds since the last heartbeat into account."""
        self.wall_s += event.wall_s
        self._spend(event)
        for role, busy in event.busy_s.items():
            self.busy_s[role] = self.busy_s.get(role, 0.0) + busy
            capacity = event.wall_s * event.workers.get(role, 0)
            self.capacity_s[role] = self.capacity_s.get(role, 0.0) + capacity

    def _spend(self, event: Heartbeat) -> None:
        node_s = event.wall_s * (sum(event.nodes.values()) if event.nodes else 1)
        self.node_s += node_s
        self.cost += event.cost
        self.unpriced_s += 0.0 if event.cost else node_s
        if event.wall_s > 0.0:
            self.nodes, self.cost_an_hour = event.nodes, event.cost * HOUR_S / event.wall_s

    @property
    def utilisation(self) -> dict[str, float]:
        """Busy share of each kind of worker over the campaign's running time."""
        return {
            role: (self.busy_s.get(role, 0.0) / capacity if capacity > 0 else 0.0)
            for role, capacity in sorted(self.capacity_s.items())
        }
