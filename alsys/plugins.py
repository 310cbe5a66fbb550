"""Parts of other packages, found by entry points: a campaign file names no code, only what somebody has installed.

A distribution names its part in its metadata, in the group of its sort (``alsys.labelers``, ``alsys.potentials``, ...):
``my-name = "my_package.module:MyClass"``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ValidationError

from alsys.errors import EnvironmentProblem, InputError


def installed(group: str) -> dict[str, str]:
    """Name of each installed part, and where it is: ``module:class``. Nothing is imported."""
    return {entry.name: entry.value for entry in sorted(metadata.entry_points(group=group))}


def load(group: str, name: str, *, what: str, field: str, required: Sequence[str]) -> Any:
    """An installed part.

    Args:
        group: Of entry points.
        name: Of the part.
        what: What it is, for messages.
        field: Where the campaign file names it.
        required: Attributes that it must have.

    Raises:
        InputError: No such part is installed.
        EnvironmentProblem: It is installed and broken.
    """
    found = list(metadata.entry_points(group=group, name=name))
    if not found:
        known = sorted(installed(group))
        close = difflib.get_close_matches(name, known, n=1)
        listed = f"installed: {', '.join(known)}" if known else f"none is installed (entry points `{group}`)"
        remedy = f"did you mean `{close[0]}`?" if close else f"{listed}; see `alsys doctor`"
        raise InputError(f"no such {what} is installed", field=field, value=name, remedy=remedy)
    if len({entry.value for entry in found}) > 1:
        raise EnvironmentProblem(f"{field}: {name!r} is offered twice: {', '.join(e.value for e in found)}")
    try:
        part: Any = found[0].load()
    except Exception as error:  # a broken package fails in any way
        raise EnvironmentProblem(
            f"{field}: the {what} {name!r} does not import: {type(error).__name__}: {error}"
        ) from error
    missing = [attribute for attribute in required if not hasattr(part, attribute)]
    if missing:
        raise EnvironmentProblem(f"{field}: the {what} {name!r} lacks {', '.join(missing)}")
    return part


def settings_of(model: type[BaseModel], given: Mapping[str, Any], *, name: str, field: str) -> Any:
    """The settings of a part, checked by its own model.

    Args:
        model: Of the settings.
        given: What the campaign file says.
        name: Of the part.
        field: Where the campaign file says it.

    Raises:
        InputError: The part refuses them.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = ".".join([field, *(str(part) for part in problem["loc"])])
        value = problem["input"] if not isinstance(problem["input"], dict) else None
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        known = ", ".join(model.model_fields)
        raise InputError(message, field=path, value=value, remedy=f"settings of {name}: {known}") from None
