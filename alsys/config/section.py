"""What all sections of the campaign file share: strictness, the mark of operational fields, names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from alsys.outside.contents import QUOTES
from alsys.plugins import PluginKind

NOT_INSTALLED: Final = "not_installed"
"""Type of a problem whose context says key, value and remedy."""

TOGETHER: Final = "together"
"""Type of a problem whose context has several, each a `Problem`."""

VALUES: Final = ("method", "preset", "xc", "calculator", "model")
"""Fields whose values are taken for kinds."""

MIN_PREFIX: Final = 4
"""Letters and digits with which such a value may begin."""


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _names_in_any_case(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = cls.model_fields
        return {k: spelled(fields[k].annotation, v) if k in fields else v for k, v in data.items()}

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_switches(cls, data: Any) -> Any:
        """Pydantic takes ``true`` for 1, so `labels: yes` would be one label."""
        if not isinstance(data, Mapping):
            return data
        types = {name: field.annotation for name, field in cls.model_fields.items()}
        return {
            name: Switch(value, is_text=_takes(types[name], str))
            if isinstance(value, bool)
            and name in types
            and not _takes(types[name], bool)
            and not _has_sections(types[name])
            else value
            for name, value in data.items()
        }


@dataclass(frozen=True, slots=True)
class Switch:
    """``true`` or ``false`` in the place of a number or a text, which no field takes.

    Attributes:
        value: As given.
        is_text: The field takes text.
    """

    value: bool
    is_text: bool

    @property
    def problem(self) -> tuple[str, str]:
        """What is wrong, and what to do."""
        return f"must not be {str(self.value).lower()}", QUOTES if self.is_text else "give a value"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a section whose fields are each right.

    Attributes:
        message: What is wrong.
        field: Dotted path of one field below the section; empty for several.
        value: Its value.
        remedy: What to do.
    """

    message: str
    field: str = ""
    value: str | None = None
    remedy: str = ""


def together(problems: Iterable[Problem]) -> None:
    """Raises all problems that a section finds, where there are any."""
    if found := tuple(problems):
        raise PydanticCustomError(TOGETHER, "{message}", {"message": found[0].message, "problems": found})


def spelled(annotation: Any, value: Any) -> Any:
    """A value with names in the spelling of the schema, whatever their case; anything else as it is.

    Names are the words that a field's type lists, and the `kind` of the sections that it takes.
    """
    if isinstance(value, str):
        return value if _takes_any_text(annotation) else spelled_word(_words(annotation), value)
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        kind = spelled_word(_kinds(annotation), value["kind"])
        return value if kind == value["kind"] else {**value, "kind": kind}
    if isinstance(value, list | tuple):
        return [spelled(annotation, item) for item in value]
    return value


def spelled_word(words: Collection[str], value: str) -> str:
    """The one of some words that a value is, in any case; the value where it is none."""
    found = [word for word in words if word.casefold() == value.casefold()]
    return found[0] if found and value not in words else value


def _takes_any_text(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return False
    return annotation in (str, Any) or any(_takes_any_text(part) for part in get_args(annotation))


def _words(annotation: Any) -> list[str]:
    """Strings that a type lists, not those inside of sections."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for part in get_args(annotation) for word in _words(part)]


def _kinds(annotation: Any) -> list[str]:
    """Kinds of the sections that a type takes."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get("kind")
        return [] if field is None else _words(field.annotation)
    return [kind for part in get_args(annotation) for kind in _kinds(part)]


def _has_sections(annotation: Any) -> bool:
    """Whether a type takes sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_has_sections(part) for part in get_args(annotation))


def _takes(annotation: Any, kind: type) -> bool:
    """Whether a field's type names a kind of value, or any."""
    if annotation is kind or annotation is Any:
        return True
    return any(_takes(part, kind) or isinstance(part, kind) for part in get_args(annotation))


def plugin_named(kind: PluginKind, union: Any) -> BeforeValidator:
    """Lets the name of an installed part stand for the section of kind `plugin` with that name.

    Args:
        kind: Of the part.
        union: Sections, whose kinds go before, and words beside them.
    """

    def named_plugin(data: Any) -> Any:
        named = as_plugin(data, union)
        if named is data or named["name"] in (installed := kind.installed()):
            return named
        is_kind = isinstance(data, Mapping)
        known = ", ".join(_kinds(union) if is_kind else _words(union))
        listed = f"(installed: {', '.join(installed) or 'none'}; see `alsys doctor`)"
        remedy = f"one of {known}; no plug-in of this name is installed {listed}; {kind.guide}"
        raise PydanticCustomError(
            NOT_INSTALLED,
            "unknown kind" if is_kind else "unknown name",
            {
                "key": ".kind" if is_kind else "",
                "value": named["name"],
                "remedy": f"write {meant}" if (meant := _meant(union, named["name"])) else remedy,
            },
        )

    return BeforeValidator(named_plugin)


def _meant(union: Any, name: str) -> str:
    """The section in which a word is a value, for a word that was given as its kind; empty where there is none.

    A field lists its values in its type, or as examples.
    """
    bare = _bare(name)
    for section in get_args(union):
        fields = getattr(section, "model_fields", {})
        for key in [key for key in VALUES if key in fields]:
            for word in (*_words(fields[key].annotation), *(fields[key].examples or ())):
                if bare == _bare(word) or (len(bare) >= MIN_PREFIX and _bare(word).startswith(bare)):
                    others = [other for other, field in fields.items() if field.is_required() and other != key]
                    more = ", ..." if len(others) > 1 and key != "preset" else ""
                    return f"{{kind: {_kinds(section)[0]}, {key}: {word}{more}}}"
    return ""


def _bare(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.casefold())


def as_plugin(data: Any, union: Any) -> Any:
    """What is of no kind of some sections, and none of the words beside them, as the section of kind `plugin`."""
    is_kind, known = isinstance(data, Mapping), _kinds(union) if isinstance(data, Mapping) else _words(union)
    name = data.get("kind") if is_kind else data if known else None
    if not isinstance(name, str) or spelled_word(known, name) in known:
        return data
    return {**(data if is_kind else {}), "kind": "plugin", "name": name}


def operational(default: Any = ..., **kwargs: Any) -> Any:
    """A field that may change when a campaign is resumed."""
    return Field(default, json_schema_extra={"operational": True}, **kwargs)


NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]
Image = Annotated[str, Field(pattern=r"^\S+$")]
"""Of a container or a machine, in the words of an engine."""
Resources = dict[str, Annotated[float, Field(ge=0)]]
DEVICE_NAME: Final = r"^(auto|cpu|cuda(:\d+)?)$"
Device = Annotated[str, Field(pattern=DEVICE_NAME)]
"""Where networks are evaluated, in PyTorch's names."""
DEVICE = "Where networks are evaluated: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where the worker sees one."
RAY_MEMORY = "MiB of its node that one worker asks of Ray, for its process and what it starts; default: none."
GPUS = "Ray GPUs of one worker, which sees no others; 0.5 lets two share one."


class PluginSection(Section):
    """A part of another package. Instead of ``kind: plugin`` and ``name: painn`` a file may say ``kind: painn``."""

    kind: Literal["plugin"]
    name: Name = Field(description="Name under which it is installed; `alsys doctor` lists them.")
    settings: dict[str, Any] = Field({}, description="Its own settings.")
