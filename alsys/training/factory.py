"""From a campaign's config to a trainer."""

from __future__ import annotations

from pathlib import Path

from alsys.config.schema import CampaignConfig
from alsys.training.base import MemberTrainer, Trainer


def build_trainer(config: CampaignConfig, start: Path | None = None, fit: Path | None = None) -> Trainer:
    """The trainer of a config; imports only what it needs.

    Args:
        config: The campaign.
        start: Folder for what the first fit starts from (`alsys.training.start`); None where nothing is kept.
        fit: Folder for the fit that is running (`alsys.training.checkpoints`); likewise.
    """
    trainer = _committees(config, start, fit)
    if config.training.workers == 1 or not isinstance(trainer, MemberTrainer):
        return trainer
    from alsys.training.shared_fits import SharingTrainer

    return SharingTrainer(trainer)


def _committees(config: CampaignConfig, start: Path | None, fit: Path | None) -> Trainer:
    if config.exploration.multiple_time_step is None:
        return _trainer(config, start, fit)
    from alsys.training.inner import InnerModelTrainer, inner_config

    small = _trainer(inner_config(config), None, None if fit is None else fit / "inner")
    return InnerModelTrainer(config, _trainer(config, start, fit), small)


def _trainer(config: CampaignConfig, start: Path | None, fit: Path | None) -> Trainer:
    if config.model.kind == "pair":
        from alsys.training.pair import PairTrainer

        return PairTrainer(config)
    if config.training.start is not None:
        from alsys.training.start import StartingTrainer

        return StartingTrainer(config, start, fit)
    from alsys.training.trainer import NequIPTrainer

    return NequIPTrainer(config, folder=fit)
