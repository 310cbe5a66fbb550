"""Fits whose members several trainers share.

Every trainer begins a fit in the same way (`Beginning`), whichever member it is asked for: the order, the frames and
the seeds decide what a member learns. Each member that is fitted apart is kept in a folder of its own, so that it goes
on with any trainer. All members of a committee have one specification: where one that goes on from a checkpoint has
another mean number of neighbours than the rest, it is asked for once more with theirs
(`alsys.control.handlers.shared_fits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from alsys.frames import FloatArray
from alsys.metrics import Metrics
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import load_weights
from alsys.training.base import (
    FittedMember,
    MemberOrder,
    MemberShare,
    MemberTrainer,
    TrainedCommittee,
    TrainingFailure,
    TrainingOrder,
)
from alsys.training.checkpoints import FitCheckpoint
from alsys.training.dataset import Split
from alsys.training.fit import FittedModel
from alsys.training.members import Member
from alsys.training.renewal import Renewal
from alsys.training.step import Layout
from alsys.training.tensors import TrainingFrames


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a fit begins with.

    Attributes:
        order: With the parent as large as the network to fit.
        share: Which member is fitted here; None for all of them.
        parts: Frames by use, less the baseline.
        learned: Likewise, with frames that teach curvature.
        spec: Specification of the networks.
        parent: Committee to go on from; None where it has another specification or baseline.
        renewal: How its members begin.
        constants: Shifts (eV), scale (eV) and energies of states (eV) of a member that begins anew.
        frames: Those of `learned` that are trained on, as tensors.
        is_on_pairs: Steps run compiled.
        started: When the budget began.
        unfinished: Where it is kept how far the fit is; None for nowhere.
    """

    order: TrainingOrder
    share: MemberShare | None
    parts: Split
    learned: Split
    spec: dict[str, object]
    parent: CommitteeState | None
    renewal: Renewal
    constants: tuple[list[float], float, FloatArray]
    frames: TrainingFrames
    is_on_pairs: bool
    started: float
    unfinished: FitCheckpoint | None


def given_spec(order: TrainingOrder, share: MemberShare | None) -> dict[str, object] | None:
    """The specification of members that have been fitted already; None where there are none."""
    if order.fitted:
        return dict(order.fitted[0].spec)
    return None if share is None or share.spec is None else dict(share.spec)


def taken(members: Sequence[Member], fitted: Sequence[FittedMember]) -> list[FittedModel]:
    """Fits that other trainers have done; the models get their weights, shifts and scales.

    Args:
        members: All members.
        fitted: Likewise, in any order.
    """
    by_number = {one.number: one for one in fitted}
    fits = []
    for number, (model, _) in enumerate(members):
        one = by_number[number]
        load_weights(model, one.weights)
        flat = Layout.of(model).flat(model)
        fits.append(FittedModel(flat, one.steps, one.epochs, one.seconds, one.rollbacks))
    return fits


def cost_of(fits: Sequence[FittedModel]) -> Metrics:
    """What the fits of all members took."""
    n_steps = sum(fit.steps for fit in fits)
    return Metrics(
        {
            "epochs": float(np.mean([fit.epochs for fit in fits])),
            "steps": float(np.mean([fit.steps for fit in fits])),
            "step_ms": 1e3 * sum(fit.seconds for fit in fits) / max(n_steps, 1),
            "rollbacks": float(sum(fit.rollbacks for fit in fits)),
        }
    )


def cost_here(members: Sequence[Member], compiling_s: float, *, is_compiled: bool) -> Metrics:
    """How all members were fitted by this trainer."""
    return Metrics(
        {
            "is_compiled": float(is_compiled),
            "compiling_s": compiling_s,
            "resumed_s": sum(plan.seconds for _, plan in members),
        }
    )


def cost_elsewhere(fitted: Sequence[FittedMember]) -> Metrics:
    """How members were fitted by other trainers."""
    return Metrics(
        {
            "is_compiled": float(all(one.is_compiled for one in fitted)),
            "compiling_s": max(one.compiling_s for one in fitted),
            "resumed_s": sum(one.resumed_s for one in fitted),
        }
    )


class SharingTrainer:
    """A trainer that is asked for committees and for single members.

    Args:
        trainer: It.
    """

    def __init__(self, trainer: MemberTrainer) -> None:
        self._trainer = trainer

    @overload
    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure: ...

    @overload
    def run(self, order: MemberOrder) -> FittedMember | TrainingFailure: ...

    def run(self, order: TrainingOrder | MemberOrder) -> TrainedCommittee | FittedMember | TrainingFailure:
        """Carries an order of either kind out."""
        return self._trainer.fit_member(order) if isinstance(order, MemberOrder) else self._trainer.run(order)
