"""The small network that moves walkers between two evaluations of a committee that learned a difference.

With each committee it learns the same frames, but whole labels, from the weights that it had beside the committee's
parent, in a share of the fit's budget. It travels in the committee's state. How well walkers conserve their energy
depends on it, where they go does not (`alsys.dynamics.multiple_time_steps`).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from alsys.config.models import EquivariantModel, NequIPModel
from alsys.config.schema import CampaignConfig
from alsys.metrics import Metrics
from alsys.training.base import (
    FittedMember,
    MemberOrder,
    MemberTrainer,
    TrainedCommittee,
    Trainer,
    TrainingFailure,
    TrainingOrder,
)

logger = logging.getLogger(__name__)


def inner_config(config: CampaignConfig) -> CampaignConfig:
    """The config of the fits of small networks.

    Args:
        config: With `exploration.multiple_time_step`.
    """
    steps, model = config.exploration.multiple_time_step, config.model
    assert steps is not None
    if isinstance(model, EquivariantModel):
        model = NequIPModel(
            kind="nequip", r_max=model.r_max, cutoffs=model.cutoffs, dtype=model.dtype, states=model.states,
            num_layers=steps.num_layers, l_max=steps.l_max, num_features=steps.num_features,
        )  # fmt: skip
    training: dict[str, object] = {
        "delta": None, "start": None, "weights": {}, "bootstrap": 1.0, "compile": False, "parallel": 1,
    }  # fmt: skip
    sections = {
        "model": model.model_copy(update={"members": 1}),
        "training": config.training.model_copy(update=training),
        "exploration": config.exploration.model_copy(update={"uncertainty": "committee"}),
        "promotion": config.promotion.model_copy(update={"examine": False}),
    }
    return config.model_copy(update=sections)


class InnerModelTrainer:
    """A trainer whose committees carry a small network.

    Args:
        config: The campaign.
        committees: Fits committees.
        small: Fits the network, as a committee of one member, with `inner_config`.
    """

    def __init__(self, config: CampaignConfig, committees: Trainer, small: Trainer) -> None:
        assert config.exploration.multiple_time_step is not None
        self._share, self._training = config.exploration.multiple_time_step.share, config.training
        self._committees, self._small = committees, small

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        """As of the committees; the network is fitted where they are put together.

        Raises:
            TypeError: Their members cannot be fitted apart.
        """
        if not isinstance(self._committees, MemberTrainer):
            raise TypeError("members of these committees are fitted together")
        seconds = (1.0 - self._share) * order.fit.seconds(self._training)
        return self._committees.fit_member(replace(order, fit=replace(order.fit, budget_s=seconds)))

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Fits the committee, then the network; where that fails the committee keeps its parent's."""
        seconds = order.seconds(self._training)
        trained = self._committees.run(replace(order, budget_s=(1.0 - self._share) * seconds))
        if isinstance(trained, TrainingFailure):
            return trained
        inner = None if order.parent is None else order.parent.inner
        fitted = self._small.run(
            replace(
                order, parent=inner, champion=None, n_review=0, band=None, budget_s=self._share * seconds,
                is_final=False, fitted=(),
            )
        )  # fmt: skip
        if isinstance(fitted, TrainingFailure):
            logger.warning("v%04d goes without a new network for inner steps: %s", order.version, fitted.message)
            return replace(trained, state=replace(trained.state, inner=inner))
        own = Metrics({"inner_force_mae_train": fitted.metrics["force_mae_train"]})
        return replace(trained, state=replace(trained.state, inner=fitted.state), metrics=trained.metrics | own)
