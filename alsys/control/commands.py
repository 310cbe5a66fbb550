"""What the ledger decides, as values. The coordinator carries them out; nothing here does anything by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from alsys.events import Event


@dataclass(frozen=True, slots=True)
class Emit:
    """Record this event: a decision that is part of the campaign's history."""

    event: Event


@dataclass(frozen=True, slots=True)
class LabelFrames:
    """Send these pending frames to a labeler, in one call.

    Attributes:
        is_verification: At tighter settings: their labels failed the gate.
    """

    worker: str
    frame_ids: tuple[str, ...]
    is_verification: bool = False


@dataclass(frozen=True, slots=True)
class AuditLabel:
    """Label a frame that has a label once more, at tighter settings."""

    worker: str
    frame_id: str


@dataclass(frozen=True, slots=True)
class CheckLabeler:
    """Send the reference frame to a labeler."""

    worker: str


@dataclass(frozen=True, slots=True)
class ComputeHessian:
    """Have a structure relaxed, or the Hessian of its minimum computed."""

    worker: str
    name: str


@dataclass(frozen=True, slots=True)
class Explore:
    """Send a chunk of exploration to an explorer.

    Attributes:
        version: Committee to use; the coordinator sends its weights where the explorer has another version.
        seeds: Identities of labelled frames to start from.
        rescore: Identities of pending frames whose deviation under `version` is wanted.
        compare: Identities of labelled frames that `version` was not trained on.
        trust: Edges of the trust band, force deviation, eV/Angstrom.
        shares: Share of the walkers for each exploration method.
    """

    worker: str
    version: int
    n_steps: int
    n_random: int
    max_candidates: int
    seeds: tuple[str, ...]
    rescore: tuple[str, ...]
    compare: tuple[str, ...] = ()
    trust: tuple[float, float] = (0.1, 0.6)
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Train:
    """Fit a new committee on everything labelled so far.

    Attributes:
        parent: Version to warm-start from; 0 for none.
        n_labels: Accepted labels when this was decided.
        budget_s: CPU seconds for it.
        is_final: The fit after the last label.
    """

    worker: str
    version: int
    parent: int
    champion: int
    n_labels: int
    budget_s: float
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The campaign is over: `reason` as in `alsys.events.CampaignStopped`."""

    reason: str
    message: str
    is_final: bool = True


Command = Emit | LabelFrames | AuditLabel | CheckLabeler | ComputeHessian | Explore | Train | Finish


@dataclass(frozen=True, slots=True)
class Idle:
    """Workers that can take a call now.

    Attributes:
        explorers: Explorers with no call in flight.
        labelers: Labelers with no call in flight.
        busy_labelers: Labelers with exactly one call in flight, which may be sent a second one ahead of time.
        trainers: Trainers with no fit in flight.
        n_others: Labelers that are up and neither, because they have more calls or are about to be restarted.
        has_trainer: Whether there is a trainer, busy or not.
    """

    explorers: tuple[str, ...] = ()
    labelers: tuple[str, ...] = ()
    busy_labelers: Collection[str] = ()
    trainers: tuple[str, ...] = ()
    n_others: int = 0
    has_trainer: bool = True

    @property
    def n_labelers(self) -> int:
        """Labelers that there are, busy or not."""
        return len(self.labelers) + len(self.busy_labelers) + self.n_others
