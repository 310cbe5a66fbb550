"""What all sections of the campaign file share: strictness, the mark of operational fields, names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from alsys import plugins
from alsys.outside.contents import QUOTES


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


def plugin_named(group: str, union: Any) -> BeforeValidator:
    """Lets the name of an installed part stand for the section of kind `plugin` with that name.

    Args:
        group: Of entry points.
        union: Sections, whose kinds go before.
    """

    def named_plugin(data: Any) -> Any:
        named = as_plugin(data, union)
        return named if named is not data and named["name"] in plugins.installed(group) else data

    return BeforeValidator(named_plugin)


def as_plugin(data: Any, union: Any) -> Any:
    """A section of a kind that none of some sections is, as the one of kind `plugin` with that name."""
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or spelled_word(_kinds(union), kind) in _kinds(union):
        return data
    return {**data, "kind": "plugin", "name": kind}


def operational(default: Any = ..., **kwargs: Any) -> Any:
    """A field that may change when a campaign is resumed."""
    return Field(default, json_schema_extra={"operational": True}, **kwargs)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Resources = dict[str, Annotated[float, Field(ge=0)]]
