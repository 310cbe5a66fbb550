"""From a campaign's config to a trainer."""

from __future__ import annotations

from alsys.config.schema import CampaignConfig
from alsys.training.base import Trainer


def build_trainer(config: CampaignConfig) -> Trainer:
    """The trainer of a config; imports only what it needs."""
    if config.model.kind == "pair":
        from alsys.training.pair import PairTrainer

        return PairTrainer(config)
    from alsys.training.trainer import NequIPTrainer

    return NequIPTrainer(config)
