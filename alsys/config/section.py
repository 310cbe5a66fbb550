"""What all sections of the campaign file share: strictness, the mark of operational fields, names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from alsys.outside.contents import QUOTES
from alsys.plugins import Door

NOT_INSTALLED: Final = "not_installed"
"""Type of a problem whose context says key, value and remedy."""

PLACED = "placed"
"""Type of a problem whose context says field, value and remedy."""


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
        for name, value in data.items() if isinstance(data, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and not _takes(field.annotation, bool):
                remedy = QUOTES if _takes(field.annotation, str) else "give a value"
                raise ValueError(f"{name} must not be {str(value).lower()}: {remedy}")
        return data


def placed(message: str, field: str, value: str, remedy: str) -> PydanticCustomError:
    """A problem of one value below the section that finds it."""
    context = {"message": message, "field": field, "value": value, "remedy": remedy}
    context = {"message": message, "field": field, "value": value, "remedy": remedy}
    return PydanticCustomError(PLACED, "{message}", context)


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


def _takes(annotation: Any, kind: type) -> bool:
    """Whether a field's type names a kind of value, or any."""
    if annotation is kind or annotation is Any:
        return True
    return any(_takes(part, kind) or isinstance(part, kind) for part in get_args(annotation))


def plugin_named(door: Door, union: Any) -> BeforeValidator:
    """Lets the name of an installed part stand for the section of kind `plugin` with that name.

    Args:
        door: Of the part.
        union: Sections, whose kinds go before, and words beside them.
    """

    def named_plugin(data: Any) -> Any:
        named, installed = as_plugin(data, union), door.installed()
        if named is data or named["name"] in installed:
            return named
        is_kind = isinstance(data, Mapping)
        known = ", ".join(_kinds(union) if is_kind else _words(union))
        listed = f"(installed: {', '.join(installed) or 'none'}; see `alsys doctor`)"
        raise PydanticCustomError(
            NOT_INSTALLED,
            "unknown kind" if is_kind else "unknown name",
            {
                "key": ".kind" if is_kind else "",
                "value": named["name"],
                "remedy": f"one of {known}; no plug-in of this name is installed {listed}",
            },
        )

    return BeforeValidator(named_plugin)


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


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Resources = dict[str, Annotated[float, Field(ge=0)]]


class PluginSection(Section):
    """A part of another package. Instead of ``kind: plugin`` and ``name: painn`` a file may say ``kind: painn``."""

    kind: Literal["plugin"]
    name: Name = Field(description="Name under which it is installed; `alsys doctor` lists them.")
    settings: dict[str, Any] = Field({}, description="Its own settings.")
