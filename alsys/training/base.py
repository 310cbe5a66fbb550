"""What a trainer is: a pinned snapshot in, a trained committee out.

The random arm is never trained on; it measures the new committee and, on the same frames, the champion, so that
promotion is a paired comparison. A validation set is held out by whole trajectories. Several trainers may share a fit:
each is asked for a member at a time, one of them for the committee, once all members are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from alsys.config.training import TrainingConfig
from alsys.errors import FailureKind
from alsys.labels import Hessian, Prediction
from alsys.metrics import Metrics
from alsys.potentials.base import CommitteeState
from alsys.potentials.calibration import Band
from alsys.store.base import Snapshot

APART: Final = "apart_{:02d}"
"""Folder, in that of the fit that is running, of a member that one of several trainers fits."""


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """What a trainer is asked to do.

    Attributes:
        version: Version of the committee to make.
        snapshot: Labelled frames, free atoms included (they set the energy shifts).
        parent: Committee to warm-start from; None starts afresh.
        champion: Committee to measure beside the new one; None where there is none.
        seed: Seed of this fit.
        n_review: So many of the newest labels are predicted by the new committee, to find wrong ones among them.
        band: Calibrated band in force, which the new committee is examined against; None where there is none.
        known: Frames of the snapshot that the parent has been fitted to.
        budget_s: CPU seconds for the fit of all members; None: as ``training.budget_s`` says of labels that cost
            nothing.
        is_final: The fit after the last label: see `alsys.training.final`.
        hessians: Second derivatives at frames of the snapshot; those of frames that are not in it say nothing.
        attempt: Fits of this version that gave nothing: a fit that was cut off goes on in the same attempt only.
        fitted: All members, where several trainers have fitted them: they are put together and measured.
    """

    version: int
    snapshot: Snapshot
    parent: CommitteeState | None
    champion: CommitteeState | None
    seed: int
    n_review: int = 0
    band: Band | None = None
    known: frozenset[str] = frozenset()
    budget_s: float | None = None
    is_final: bool = False
    hessians: tuple[Hessian, ...] = ()
    attempt: int = 0
    fitted: tuple[FittedMember, ...] = ()

    def seconds(self, training: TrainingConfig) -> float:
        """CPU seconds that the fit is given."""
        return training.least_fit_s if self.budget_s is None else self.budget_s


@dataclass(frozen=True, slots=True)
class FittedMember:
    """A member of a committee that one of several trainers has fitted.

    Attributes:
        version: Of the committee.
        number: Of the member.
        spec: Specification of its network.
        weights: State dict.
        steps: Gradient steps; likewise the others as of `alsys.training.fit.FittedModel`.
        resumed_s: Of its seconds, those before it was cut off.
        is_compiled: Its steps were.
        compiling_s: Seconds for which it waited for a compiler.
    """

    version: int
    number: int
    spec: Mapping[str, object]
    weights: Mapping[str, NDArray[np.generic]]
    steps: int
    epochs: float
    seconds: float
    rollbacks: int
    resumed_s: float = 0.0
    is_compiled: bool = False
    compiling_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberShare:
    """Which member of a committee a trainer fits beside others.

    Attributes:
        number: Of the member.
        n_workers: Trainers that share the members, by which each member has more time.
        spec: Specification that others of this fit were fitted with; None while there are none.
    """

    number: int
    n_workers: int
    spec: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class MemberOrder:
    """One member of a fit.

    Attributes:
        fit: The fit; the same object for all members.
        share: Which member.
    """

    fit: TrainingOrder
    share: MemberShare


@dataclass(frozen=True, slots=True)
class TrainedCommittee:
    """A fitted committee.

    Attributes:
        state: Its weights.
        metrics: Finite numbers. Always: ``wall_s``, ``n_train``, ``n_validation``, ``n_random``, ``epochs``,
            ``force_mae_train``; the others of `alsys.metrics` where they can be measured.
        calibration: ``(deviation, error)`` of each random-arm frame: largest force deviation and force MAE.
        predictions: What it predicts for the labels that were to be reviewed, by frame.
    """

    state: CommitteeState
    metrics: Metrics
    calibration: tuple[tuple[float, float], ...] = field(default=())
    predictions: Mapping[str, Prediction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingFailure:
    """Why a fit gave no committee."""

    version: int
    kind: FailureKind
    message: str


class Trainer(Protocol):
    """Fits committees."""

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Fits within the configured budget; members that others have fitted are taken as they are."""
        ...


@runtime_checkable
class MemberTrainer(Trainer, Protocol):
    """A trainer that can fit a single member beside other trainers."""

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        """Fits it within its share of the budget. What it learns depends on its seed, not on where it is fitted."""
        ...
