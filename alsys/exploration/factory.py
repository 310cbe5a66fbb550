"""From a campaign's config to an explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alsys.config.schema import CampaignConfig, ExplorationConfig
from alsys.dynamics.masses import masses_of
from alsys.dynamics.multiple_time_steps import longest_outer_step
from alsys.errors import InputError
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


def check_time_steps(settings: ExplorationConfig, systems: Mapping[str, Frame]) -> None:
    """Refuses masses of hydrogen and outer steps that do not suit a system.

    Raises:
        InputError: Names the system.
    """
    for name, frame in systems.items():
        try:
            longest = longest_outer_step(masses_of([frame], settings.hydrogen_mass))
        except InputError as error:
            message = f"{name}: {error.message}"
            raise InputError(
                message, field="exploration.hydrogen_mass", value=error.value, remedy=error.remedy
            ) from None
        if settings.steps_per_look > 1 and settings.steps_per_look * settings.timestep >= longest:
            raise InputError(
                f"steps of {settings.timestep:g} fs are half a vibration of {name} ({longest:.1f} fs) or more, so that "
                "impulses heat its bonds",
                field="exploration.multiple_time_step.outer_steps",
                value=settings.steps_per_look,
                remedy="take fewer or shorter ones, or set exploration.hydrogen_mass: 3",
            )


def build_explorer(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], seed: int) -> Explorer:
    """Walkers on all systems."""
    return WalkerExplorer(config, starts, seed)
