"""Parts of other packages, found by entry points: a campaign file names no code, only what somebody has installed.

A distribution names its part in its metadata, in the group of its sort (`PluginKind.group`):
``my-name = "my_package.module:MyClass"``. See `docs/plugins.md`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, Protocol

from pydantic import BaseModel, ValidationError

from alsys.errors import AlsysError, EnvironmentProblem, InputError, several


class Chosen(Protocol):
    """A section of a campaign file that names a part."""

    @property
    def name(self) -> str:
        """Under which it is installed."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its own, not checked yet."""


@dataclass(frozen=True, slots=True)
class PluginKind:
    """A sort of part that other packages may bring.

    Attributes:
        group: Of entry points.
        what: What a part is, for messages.
        place: Where a campaign file names it.
        required: Attributes that a part must have.
        example: Packages that bring one.
    """

    group: str
    what: str
    place: str
    required: tuple[str, ...]
    example: str = "examples/plugins/rules"

    @property
    def guide(self) -> str:
        """Where it is written how to install one."""
        return f"docs/plugins.md says how to install one, as {self.example}"

    def installed(self) -> dict[str, str]:
        """Name of each installed part, and where it is: ``module:class``. Nothing is imported."""
        return {entry.name: entry.value for entry in sorted(metadata.entry_points(group=self.group))}

    def distribution(self, name: str) -> tuple[str, str] | None:
        """Name and version of the distribution that brings a part; None where none says so."""
        for entry in metadata.entry_points(group=self.group, name=name):
            if entry.dist is not None:
                return entry.dist.name, entry.dist.version
        return None

    def load(self, name: str, place: str | None = None) -> Any:
        """An installed part.

        Args:
            name: Of the part.
            place: Of the section that names it; default is `place`.

        Raises:
            InputError: No such part is installed.
            EnvironmentProblem: It is installed and broken.
        """
        what, field = self.what, f"{place or self.place}.name"
        found = list(metadata.entry_points(group=self.group, name=name))
        if not found:
            known = sorted(self.installed())
            close = difflib.get_close_matches(name, known, n=1)
            listed = f"installed: {', '.join(known)}" if known else f"none is installed (entry points `{self.group}`)"
            remedy = f"did you mean `{close[0]}`?" if close else f"{listed}; see `alsys doctor`"
            raise InputError(f"no such {what} is installed", field=field, value=name, remedy=remedy)
        if len({entry.value for entry in found}) > 1:
            raise EnvironmentProblem(f"{field}: {name!r} is offered twice: {', '.join(e.value for e in found)}")
        try:
            part: Any = found[0].load()
        except Exception as error:  # a broken package fails in any way
            raise EnvironmentProblem(f"{field}: the {what} {name!r} does not import: {one_line(error)}") from error
        missing = [attribute for attribute in self.required if not hasattr(part, attribute)]
        if missing:
            raise EnvironmentProblem(f"{field}: the {what} {name!r} lacks {', '.join(missing)}")
        return part

    def chosen(self, section: Chosen, place: str | None = None) -> tuple[Any, Any]:
        """The part that a section names, and its settings, checked by its own model.

        Args:
            section: Of the campaign file.
            place: Of the section; default is `place`.

        Raises:
            InputError: No such part is installed, or it refuses its settings.
            EnvironmentProblem: It is installed and broken.
        """
        part = self.load(section.name, place)
        field = f"{place or self.place}.settings"
        return part, settings_of(part.settings_model, section.settings, name=section.name, field=field)

    @contextlib.contextmanager
    def calling(self, name: str) -> Iterator[None]:
        """Around a call of a part.

        Raises:
            EnvironmentProblem: In one line, where the part raises anything but an error of alsys.
        """
        try:
            yield
        except AlsysError:
            raise
        except Exception as error:  # as the package likes
            raise EnvironmentProblem(f"{self.place}: the {self.what} {name!r} fails: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """What an error of a package says."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


LABELERS: Final = PluginKind(
    "alsys.labelers", "engine", "labeling", ("settings_model", "spec", "check", "compute"), "docs/labeling_engines.md"
)
POTENTIALS: Final = PluginKind(
    "alsys.potentials", "potential", "model", ("settings_model", "check", "build"), "examples/plugins/mace"
)
METHODS: Final = PluginKind("alsys.methods", "exploration method", "exploration.methods", ("settings_model", "build"))
SELECTIONS: Final = PluginKind(
    "alsys.selections", "selection rule", "selection.diversity", ("settings_model", "select")
)
STOP_RULES: Final = PluginKind("alsys.stop_rules", "stop rule", "stop.rules", ("settings_model", "why_stop"))
PLUGIN_KINDS: Final = (LABELERS, POTENTIALS, METHODS, SELECTIONS, STOP_RULES)


def settings_of(model: type[BaseModel], given: Mapping[str, Any], *, name: str, field: str) -> Any:
    """The settings of a part, checked by its own model.

    Args:
        model: Of the settings.
        given: What the campaign file says.
        name: Of the part.
        field: Where the campaign file says it.

    Raises:
        InputError: The part refuses them, see `alsys.errors.several`.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise several([
            InputError(
                problem["msg"].removeprefix("Value error, ").removeprefix("Input "),
                field=".".join([field, *(str(part) for part in problem["loc"])]),
                value=problem["input"] if not isinstance(problem["input"], dict) else None,
                remedy=f"settings of {name}: {known}",
            )
            for problem in error.errors(include_url=False)
        ]) from None  # fmt: skip
