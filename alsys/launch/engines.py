"""Engines that a campaign can be launched on, each in a module of its own; what one is: `alsys.launch.engine`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from alsys.errors import InputError
from alsys.launch import ray_up, skypilot, slurm
from alsys.launch.engine import Engine
from alsys.launch.kuberay.engine import ENGINE as KUBERAY
from alsys.launch.request import LaunchRequest

ENGINES: Final[Mapping[str, Engine]] = {
    engine.name: engine for engine in (skypilot.ENGINE, KUBERAY, ray_up.ENGINE, slurm.ENGINE)
}
"""By the name that ``--on`` takes."""
LAUNCHES: Final = "launch"
"""Folder of the folders that launches write, where the user names none."""


def engine_named(name: str, engines: Mapping[str, Engine] = ENGINES) -> Engine:
    """An engine.

    Raises:
        InputError: There is none of this name.
    """
    if name not in engines:
        raise InputError("is no engine", field="--on", value=name, remedy=f"one of {', '.join(engines)}")
    return engines[name]


def default_folder(request: LaunchRequest, engine: Engine) -> Path:
    """Where files of a launch are written, where the user names no folder."""
    return Path(LAUNCHES) / f"{request.config.name}-{engine.name}"
