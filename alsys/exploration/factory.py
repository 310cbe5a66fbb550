"""From a campaign's config to an explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alsys.config.schema import CampaignConfig
from alsys.exploration.base import Explorer
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Frame


def build_explorer(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], seed: int) -> Explorer:
    """Walkers on all systems."""
    return WalkerExplorer(config, starts, seed)
