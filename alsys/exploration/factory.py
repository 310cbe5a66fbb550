"""From a campaign's config to an explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alsys.config.schema import CampaignConfig
from alsys.exploration.allocation import methods_of
from alsys.exploration.base import Explorer
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Frame
from alsys.selection.chunks import ChunkSelection


def check_parts(config: CampaignConfig) -> None:
    """Refuses methods and selection rules of other packages that are not installed here, or refuse their settings.

    Raises:
        InputError: Names the field.
        EnvironmentProblem: A package is broken.
    """
    methods_of(config)
    ChunkSelection(config.selection, config.seed)


def build_explorer(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], seed: int) -> Explorer:
    """Walkers on all systems."""
    return WalkerExplorer(config, starts, seed)
