"""Events of the campaign as a whole: its runs, its workers, what explorers report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from alsys.errors import FailureKind
from alsys.events.base import Event, event


@event("campaign-opened")
class CampaignOpened(Event):
    """A driver opened the campaign: the first one starts it, later ones resume it."""

    epoch: int
    config_hash: str
    version: str
    host: str = ""
    pid: int = 0


@event("campaign-stopped")
class CampaignStopped(Event):
    """The campaign reached a stop criterion, failed, or the user stopped it.

    Attributes:
        reason: Stable word: ``labels``, ``wall-time``, ``node-hours``, ``cost``, ``target-reached``,
            ``nothing-uncertain``, ``rule``, ``user``, ``failed``.
        is_final: False where running the same command again goes on (``user``).
    """

    reason: str
    message: str = ""
    is_final: bool = True


@event("stop-requested", is_durable=False)
class StopRequested(Event):
    """The user asked the campaign to stop; with `drain`, work in flight is finished first."""

    drain: bool


@event("heartbeat")
class Heartbeat(Event):
    """Busy seconds of each kind of worker since the last heartbeat, and seconds that passed: for utilisation.

    Attributes:
        nodes: Machines that were there, by their kind; empty in older logs, where one is counted.
        cost: Money for them in these seconds; 0 where nobody has said what they cost.
    """

    wall_s: float
    busy_s: Mapping[str, float]
    workers: Mapping[str, int]
    nodes: Mapping[str, int] = field(default_factory=dict)
    cost: float = 0.0


@event("budget-warned")
class BudgetWarned(Event):
    """Most of a budget is spent.

    Attributes:
        budget: ``node-hours`` or ``cost``.
        spent: Of it, by then.
        limit: How much there was.
    """

    budget: str
    spent: float
    limit: float


@event("budget-reserved")
class BudgetReserved(Event):
    """What is left of a budget is for the last fit: no frame is labelled any more but those in flight.

    Attributes:
        budget: As in `BudgetWarned`; likewise the others.
    """

    budget: str
    spent: float
    limit: float


@event("worker-lost")
class WorkerLost(Event):
    """A worker died; its frames in flight are pending again.

    Attributes:
        spent_s: What the call that it had had taken until then; 0 where it had none.
    """

    worker: str
    role: str
    failure: FailureKind
    message: str = ""
    spent_s: float = 0.0


@event("worker-left", is_durable=False)
class WorkerLeft(Event):
    """A worker without calls was given back; one of its name that comes later is another one."""

    worker: str


@event("workers-waiting")
class WorkersWaiting(Event):
    """Workers have had no place for a while, or other ones than before; or none waits any more.

    Attributes:
        asked: Workers that are to be there.
        up: Those that are.
        message: Who waits for what, and which nodes are avoided; empty where none waits.
    """

    asked: int
    up: int
    message: str = ""


@event("exploration-started", is_durable=False)
class ExplorationStarted(Event):
    """A chunk was sent to an explorer."""

    worker: str
    n_steps: int
    n_random: int
    rescored: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()


@event("exploration-reported")
class ExplorationReported(Event):
    """One chunk of exploration.

    Attributes:
        n_steps: Steps of `exploration.timestep` that each walker was asked to make; inner ones on multiple time steps.
        walker_steps: Steps made, summed over walkers.
        n_candidates: Frames it proposed.
        n_above: Frames that crossed the lower edge of the trust band.
        stops: Walkers stopped, by reason.
        deviation_max: Largest force deviation seen, eV/Angstrom.
        deviation_mean: Mean over walkers and steps of the frame's largest force deviation, eV/Angstrom.
        trust: Edges of the trust band it ran with, force deviation, eV/Angstrom; empty in older logs.
        n_members: Members of the committee; 0 where unknown.
        n_distinct: Members that are not copies of another one.
        method_steps: Steps that walkers of each exploration method were asked to make.
    """

    worker: str
    model_version: int
    n_steps: int
    walker_steps: int
    n_candidates: int
    n_above: int
    wall_s: float
    stops: Mapping[str, int] = field(default_factory=dict)
    deviation_max: float = 0.0
    deviation_mean: float = 0.0
    trust: tuple[float, ...] = ()
    n_members: int = 0
    n_distinct: int = 0
    method_steps: Mapping[str, int] = field(default_factory=dict)


@event("exploration-failed")
class ExplorationFailed(Event):
    """A chunk came back without a report; the explorer is restarted by the pool."""

    worker: str
    failure: FailureKind
    message: str = ""


@event("event-lost")
class EventLost(Event):
    """In the place of an event that was damaged and could not be mended; `alsys data repair` puts it there."""
