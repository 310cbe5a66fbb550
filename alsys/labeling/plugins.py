"""Engines of other packages: found by the entry points of the group `alsys.labelers`.

A distribution names its engine in its metadata (`my-engine = "my_package.engine:MyEngine"`). A campaign file says
`kind: plugin`, `name: my-engine` and `settings:`, which the engine's own pydantic model checks. So a campaign file
names no code: only what somebody has installed can be chosen. See docs/labeling_engines.md.
"""

from __future__ import annotations

import difflib
from importlib import metadata
from typing import Any

from pydantic import ValidationError

from alsys.config.engines import PluginLabeling
from alsys.errors import EnvironmentProblem, InputError
from alsys.labeling.engine import EngineClass, EngineLabeler

GROUP = "alsys.labelers"
REQUIRED = ("settings_model", "spec", "check", "compute")


def installed_plugins() -> dict[str, str]:
    """Name of each installed engine, and where it is: ``module:class``. Nothing is imported."""
    return {entry.name: entry.value for entry in sorted(metadata.entry_points(group=GROUP))}


def load_plugin(name: str) -> type[EngineClass]:
    """The class of an installed engine.

    Raises:
        InputError: No such engine is installed.
        EnvironmentProblem: It is installed and broken.
    """
    found = list(metadata.entry_points(group=GROUP, name=name))
    if not found:
        known = sorted(installed_plugins())
        close = difflib.get_close_matches(name, known, n=1)
        listed = f"installed: {', '.join(known)}" if known else f"no package offers one (entry points `{GROUP}`)"
        remedy = f"did you mean `{close[0]}`?" if close else listed
        raise InputError("no such engine", field="labeling.name", value=name, remedy=remedy)
    if len({entry.value for entry in found}) > 1:
        raise EnvironmentProblem(f"labeling.name: {name!r} is offered twice: {', '.join(e.value for e in found)}")
    try:
        engine: Any = found[0].load()
    except Exception as error:  # a broken package fails in any way
        raise EnvironmentProblem(
            f"labeling.name: the engine {name!r} does not import: {type(error).__name__}: {error}"
        ) from error
    missing = [attribute for attribute in REQUIRED if not hasattr(engine, attribute)]
    if missing:
        raise EnvironmentProblem(f"labeling.name: the engine {name!r} lacks {', '.join(missing)}")
    loaded: type[EngineClass] = engine
    return loaded


def build_plugin(config: PluginLabeling) -> EngineLabeler:
    """The labeler of an installed engine.

    Raises:
        InputError: Unknown name, or settings that the engine refuses.
    """
    engine = load_plugin(config.name)
    try:
        settings = engine.settings_model.model_validate(dict(config.settings))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = ".".join(["labeling.settings", *(str(part) for part in problem["loc"])])
        value = problem["input"] if not isinstance(problem["input"], dict) else None
        known = ", ".join(engine.settings_model.model_fields)
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise InputError(message, field=path, value=value, remedy=f"settings of {config.name}: {known}") from None
    return EngineLabeler(engine, settings, config, config.threads)
