"""What the coordinator needs from the world, as protocols: workers, bundles of models, a registry, requests.

A pool owns its workers: it starts them, restarts them when they die, and reports every call exactly once, either as a
`Completion` or inside a `WorkerDown`. Implementations: `alsys.control.inprocess` and `alsys.actors.pool`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from alsys.config.prices import ANY
from alsys.control.rules.requests import Answer, Request
from alsys.errors import FailureKind, InputError
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.frames import Frame
from alsys.labeling.base import Curvature, HessianOrder, LabelingOrder
from alsys.labeling.gate.findings import Finding
from alsys.labels import Label, LabelFailure, Prediction
from alsys.potentials.base import CommitteeState
from alsys.potentials.calibration import Band
from alsys.training.base import FittedMember, MemberOrder, TrainedCommittee, TrainingFailure, TrainingOrder

N_NAMED: Final = 3
"""Workers, or nodes, that are named where the same is said of more."""
FORGIVEN_AFTER: Final = 20
"""Results in a row after which a worker's restarts are forgotten. More than one: a labeler that fails its first check
gives a result, and is replaced for it."""


class Role(StrEnum):
    """Kinds of worker, in the plural as they appear in `alsys status`."""

    EXPLORER = "explorers"
    LABELER = "labelers"
    TRAINER = "trainers"


Work = LabelingOrder | HessianOrder | ExplorationOrder | TrainingOrder | MemberOrder
"""What a worker gets: frames to label, a step towards a Hessian, a chunk to explore, a committee or a member to fit."""

Result = (
    tuple[Label | LabelFailure, ...]
    | Curvature
    | LabelFailure
    | ExplorationReport
    | TrainedCommittee
    | FittedMember
    | TrainingFailure
)
"""What a worker returns."""


class Worker(Protocol):
    """Carries out the orders of its role, one at a time: an order in, a value out. An exception is a bug.

    A worker may have `close`, which ends what it has started.
    """

    def run(self, order: Any) -> Result:
        """Expected failures are values too; see `alsys.labeling.base`, `.exploration.base` and `.training.base`."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A worker is ready for its first call, at the start or after a restart."""

    worker: str
    role: Role


@dataclass(frozen=True, slots=True)
class Completion:
    """A call came back. Times are unix times.

    Attributes:
        after_commit: To be run once what follows from the result is on disk.
    """

    worker: str
    role: Role
    result: Result
    sent: float
    started: float
    finished: float
    after_commit: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class WorkerDown:
    """A worker died, or raised (a bug); all its calls are lost, the first of them was running.

    Attributes:
        is_final: True where the pool will not restart it.
    """

    worker: str
    role: Role
    failure: FailureKind
    message: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class WorkerLeaving:
    """A worker gets no more calls; those that it has still come back, or are lost with it."""

    worker: str
    role: Role


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker without calls was given back. It may come again."""

    worker: str
    role: Role


PoolEvent = WorkerUp | Completion | WorkerDown | WorkerLeaving | WorkerGone


@dataclass(frozen=True, slots=True)
class PoolState:
    """How many workers there are, and what the others wait for.

    Attributes:
        asked: Workers that are to be there.
        up: Those that are.
        waiting: What each worker that has had no place for a while waits for, as ``{CPU: 1}``.
        avoided: Nodes on which workers cannot start, and why.
        asked_of: `asked` by role.
        up_of: `up` by role.
        n_nodes: Living nodes; 0 without Ray.
        n_nodes_gone: Nodes that have left since the pool was made, dead or given back.
        nodes: Machines that are there, used or not, by their kind (`alsys.config.prices`).
    """

    asked: int = 0
    up: int = 0
    waiting: Mapping[str, str] = field(default_factory=dict)
    avoided: Mapping[str, str] = field(default_factory=dict)
    asked_of: Mapping[Role, int] = field(default_factory=dict)
    up_of: Mapping[Role, int] = field(default_factory=dict)
    n_nodes: int = 0
    n_nodes_gone: int = 0
    nodes: Mapping[str, int] = field(default_factory=lambda: {ANY: 1})

    @property
    def message(self) -> str:
        """Who waits for what, and which nodes are avoided; empty where none waits."""
        if not self.waiting:
            return ""
        waiting = [f"{who} wait{'s' * (n == 1)} for {what}" for what, who, n in _grouped(self.waiting)]
        avoided = [
            f"node{'s' * (n > 1)} {who} {'is' if n == 1 else 'are'} avoided: {why}"
            for why, who, n in _grouped(self.avoided)
        ]
        return "; ".join([*waiting, *avoided])


def _grouped(told: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """What is said of several, of whom, the first by name, and of how many."""
    names: dict[str, list[str]] = {}
    for name, what in told.items():
        names.setdefault(what, []).append(name)
    return [
        (what, ", ".join(who[:N_NAMED]) + f" and {len(who) - N_NAMED} more" * (len(who) > N_NAMED), len(who))
        for what, who in names.items()
    ]


class WorkerPool(Protocol):
    """Workers by name."""

    @property
    def roles(self) -> Mapping[str, Role]:
        """What each worker is for, whether it is up or not."""
        ...

    async def start(self) -> None:
        """Begins to start all workers; each says `WorkerUp` when it is ready."""
        ...

    def want(self, n_labelers: int) -> None:
        """So many labelers have something to do; a pool may start and end labelers accordingly."""
        ...

    def state(self) -> PoolState:
        """How many workers there are now."""
        ...

    def submit(self, worker: str, work: Work) -> None:
        """Sends work to a worker; calls to one worker run in order. Never blocks."""
        ...

    def restart(self, worker: str, message: str) -> None:
        """Ends a worker that cannot be trusted and starts it anew; it is reported as a `WorkerDown` with `message`."""
        ...

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """What happened since the last call; waits at most `timeout_s` for the first event."""
        ...

    def wake(self) -> None:
        """Has a `wait` that is under way return at once, perhaps with nothing; called in the loop's own thread."""
        ...

    async def close(self) -> None:
        """Ends all workers."""
        ...


class LabelGate(Protocol):
    """Judges labels; see `alsys.labeling.gate.gate`. One thread asks it, in order."""

    @property
    def reference_frame(self) -> Frame | None:
        """What labelers are checked with; None where they are not."""
        ...

    @property
    def n_learned(self) -> int:
        """Labels that matter after a restart: the accepted ones with the smallest identities."""
        ...

    def learn(self, frame: Frame, label: Label, prediction: Prediction | None = None) -> None:
        """A label is data."""
        ...

    def forget(self, label_id: str) -> None:
        """A label is no longer data."""
        ...

    def judge(
        self, labelled: Sequence[tuple[Frame, Label, Prediction | None]], band: Band | None
    ) -> list[tuple[Finding, ...]]:
        """What is odd about each of the labels of a call; where nothing is, it is data and learned from."""
        ...

    def verify(
        self,
        frame: Frame,
        tight: Label,
        first: Label | None,
        findings: Sequence[Finding],
        prediction: Prediction | None,
    ) -> tuple[Label | None, tuple[Finding, ...], float]:
        """Judges a label that failed the gate by its frame's label at tighter settings."""
        ...

    def audit(self, frame: Frame, label: Label, tight: Label) -> tuple[str, float, float]:
        """What speaks against a label that was made again at tighter settings."""
        ...

    def judge_reference(self, reference: Label | None, label: Label) -> str:
        """What is wrong with a labeler's label of the reference frame; empty where nothing is."""
        ...

    def review(self, labelled: Iterable[tuple[Frame, Label, Prediction]]) -> dict[str, tuple[Finding, ...]]:
        """Labels that are data and look wrong to a newer committee, by frame."""
        ...


class BundleStore(Protocol):
    """Bundles on disk, by version."""

    def write(self, trained: TrainedCommittee, card: Mapping[str, object]) -> str:
        """Writes a bundle atomically; one that was written but never published is replaced. Returns its digest."""
        ...

    def read(self, version: int) -> CommitteeState:
        """The committee of a bundle."""
        ...


class Registry(Protocol):
    """Where others get models. Calls return at once and never raise for a registry that is down."""

    def publish(self, version: int, card: Mapping[str, object]) -> None:
        """Queues a version whose bundle is written; a repeated call has no effect."""
        ...

    def promote(self, version: int, reason: str = "", times: int = 1) -> None:
        """Queues an alias change; a repeated call has no effect.

        Args:
            version: The new champion.
            reason: Why.
            times: How often it became champion, this time included: a roll-back is not a repeated call.
        """
        ...

    def reject(self, version: int, reason: str) -> None:
        """Queues why a version stays challenger; a repeated call has no effect."""
        ...

    def poke(self) -> None:
        """Gives queued items another try."""
        ...


class RequestBox(Protocol):
    """Where a user's requests wait for a driver."""

    def waiting(self) -> list[tuple[str, Request | InputError]]:
        """Names and contents of all requests, oldest first; an error for one that cannot be read."""
        ...

    def answer(self, name: str, answer: Answer) -> None:
        """Says what became of a request, which waits no longer."""
        ...


class NoRegistry:
    """A registry for campaigns that track nothing."""

    def publish(self, version: int, card: Mapping[str, object]) -> None:
        """Keeps nothing."""

    def promote(self, version: int, reason: str = "", times: int = 1) -> None:
        """Keeps nothing."""

    def reject(self, version: int, reason: str) -> None:
        """Keeps nothing."""

    def poke(self) -> None:
        """Has nothing to try."""
