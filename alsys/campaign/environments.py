"""Python environments that workers run in (`runtime.environments`): looked at before anything starts.

The driver needs none of the packages that only workers use: it asks the environment.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final

from alsys.config import CampaignConfig
from alsys.config.runtime import Role
from alsys.errors import AlsysError, EnvironmentProblem, InputError, WorkerUnfit
from alsys.version import __version__
from alsys.worker_process import WorkerFailed, WorkerProcess

PROBE_S: Final = 60.0
CHECK_S: Final = 180.0
_PROBE: Final = """
import json, sys
from importlib import metadata
found = {"python": "%d.%d" % sys.version_info[:2]}
try:
    from alsys.version import __version__
    found["alsys"] = __version__
except ImportError:
    pass
try:
    found["ray"] = metadata.version("ray")
except metadata.PackageNotFoundError:
    pass
print(json.dumps(found))
"""
_MODULES: Final[Mapping[Role, str]] = {
    "trainers": "alsys.training.trainer",
    "explorers": "alsys.exploration.explorer",
    "labelers": "alsys.labeling.factory",
    "teachers": "alsys.potentials.ase_single_points",
}
"""Module whose imports a role needs."""
MODEL_ROLES: Final = frozenset({"trainers", "explorers"})
"""Who evaluates the model."""


def check_environments(config: CampaignConfig, elements: Sequence[str]) -> None:
    """Refuses environments in which workers cannot run, and a model that those who evaluate it do not have.

    Args:
        config: The campaign.
        elements: Symbols of all its systems.

    Raises:
        InputError: Names the environment, or the field of the model.
        EnvironmentProblem: A package is missing there, or here.
    """
    roles: dict[str | None, list[Role]] = {}
    for role in [role for role in _MODULES if role != "teachers" or config.has_ase_teacher]:
        roles.setdefault(config.runtime.python_of(role), []).append(role)
    for python, those in roles.items():
        if python is not None:
            _check_environment(python, those, config, elements)
        elif set(those) & MODEL_ROLES:
            _check_model(config, elements)


def _check_environment(python: str, roles: Sequence[Role], config: CampaignConfig, elements: Sequence[str]) -> None:
    field, folder = f"runtime.environments.{roles[0]}", config.runtime.environments[roles[0]]
    _check_python(python, field, folder, needs_ray=config.runtime.kind == "ray" and set(roles) != {"teachers"})
    process = WorkerProcess(WorkerCheck, python=python)
    try:
        problem: AlsysError | None = process.call("problem", (roles, config, list(elements)), CHECK_S).value
    except (WorkerFailed, WorkerUnfit) as error:
        raise EnvironmentProblem(f"{field}: {folder}: {error}") from None
    finally:
        process.close()
    if isinstance(problem, InputError):
        message = f"{problem.message}, in {folder}"
        raise InputError(message, field=problem.field, value=problem.value, remedy=problem.remedy)
    if problem is not None:
        raise EnvironmentProblem(f"{problem}, in {folder}")


def _check_python(python: str, field: str, folder: str, *, needs_ray: bool) -> None:
    """Refuses an interpreter that cannot talk to this one: pickles pass between them."""
    place: dict[str, Any] = {"field": field, "value": folder}
    if not os.access(python, os.X_OK):
        raise InputError(
            "is no Python environment: it has no bin/python", remedy=f"{sys.executable} -m venv {folder}", **place
        )
    try:
        said = subprocess.run(
            [python, "-I", "-c", _PROBE], capture_output=True, timeout=PROBE_S, check=True, stdin=subprocess.DEVNULL
        )
        found = json.loads(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"its bin/python is no working Python: {reason}", remedy="make it anew", **place) from None
    wanted = {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "alsys": __version__}
    if needs_ray:
        wanted["ray"] = metadata.version("ray")
    for name, version in wanted.items():
        if found.get(name) != version:
            has = f"{name} {found[name]}" if name in found else f"no {name}"
            raise InputError(
                f"has {has}, and workers need {name} {version} there, as here",
                remedy="make it with this Python" if name == "python" else f"install {name} {version} there",
                **place,
            )


class WorkerCheck:
    """Inside an environment: whether workers can be built there."""

    def problem(self, question: tuple[Sequence[Role], CampaignConfig, Sequence[str]]) -> AlsysError | None:
        """What is missing for some roles; None for nothing."""
        roles, config, elements = question
        try:
            for role in roles:
                importlib.import_module(_MODULES[role])
            if set(roles) & MODEL_ROLES:
                _check_model(config, elements)
            if "explorers" in roles:
                from alsys.exploration.factory import check_parts

                check_parts(config)
        except ImportError as error:
            return EnvironmentProblem(f"runtime.environments.{roles[0]}: {error}")
        except AlsysError as error:
            return error
        return None


def _check_model(config: CampaignConfig, elements: Sequence[str]) -> None:
    """Refuses a model whose package is not installed here, or that the package refuses."""
    if config.model.kind == "allegro":
        from alsys.potentials.architectures import check_installed

        check_installed("allegro")
    if config.model.kind == "plugin":
        from alsys.potentials.plugins import check_plugin

        check_plugin(config.model, elements)
