"""Engines of other packages: found by the entry points of the group `alsys.labelers`.

A distribution names its engine in its metadata (`my-engine = "my_package.engine:MyEngine"`). A campaign file says
`kind: plugin`, `name: my-engine` and `settings:`, which the engine's own pydantic model checks. So a campaign file
names no code: only what somebody has installed can be chosen. See docs/labeling_engines.md.
"""

from __future__ import annotations

from typing import Final

from alsys import plugins
from alsys.config.engines import LABELERS, PluginLabeling
from alsys.labeling.engine import EngineClass, EngineLabeler

REQUIRED: Final = ("settings_model", "spec", "check", "compute")


def installed_plugins() -> dict[str, str]:
    """Name of each installed engine, and where it is: ``module:class``. Nothing is imported."""
    return plugins.installed(LABELERS)


def load_plugin(name: str) -> type[EngineClass]:
    """The class of an installed engine.

    Raises:
        InputError: No such engine is installed.
        EnvironmentProblem: It is installed and broken.
    """
    engine: type[EngineClass] = plugins.load(LABELERS, name, what="engine", field="labeling.name", required=REQUIRED)
    return engine


def build_plugin(config: PluginLabeling) -> EngineLabeler:
    """The labeler of an installed engine.

    Raises:
        InputError: Unknown name, or settings that the engine refuses.
    """
    engine = load_plugin(config.name)
    settings = plugins.settings_of(engine.settings_model, config.settings, name=config.name, field="labeling.settings")
    return EngineLabeler(engine, settings, config, config.threads)
