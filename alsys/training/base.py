"""What a trainer is: a pinned snapshot in, a trained committee out.

The random arm is never trained on; it measures the new committee and, on the same frames, the champion, so that
promotion is a paired comparison. A validation set is held out by whole trajectories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from alsys.config.training import TrainingConfig
from alsys.errors import FailureKind
from alsys.labels import Hessian, Prediction
from alsys.metrics import Metrics
from alsys.potentials.base import CommitteeState
from alsys.potentials.calibration import Band
from alsys.store.base import Snapshot


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

    def seconds(self, training: TrainingConfig) -> float:
        """CPU seconds that the fit is given."""
        return training.least_fit_s if self.budget_s is None else self.budget_s


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
        """Fits within the configured budget."""
        ...
