"""What all sections of the campaign file share: strictness, the mark of operational fields, names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_switches(cls, data: Any) -> Any:
        """Pydantic takes ``true`` for 1, so `labels: yes` would be one label."""
        for name, value in data.items() if isinstance(data, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and not _takes(field.annotation, bool):
                raise ValueError(f"{name} must not be {str(value).lower()}: give a value")
        return data


def _takes(annotation: Any, kind: type) -> bool:
    """Whether a field's type names a kind of value, or any."""
    if annotation is kind or annotation is Any:
        return True
    return any(_takes(part, kind) or isinstance(part, kind) for part in get_args(annotation))


def operational(default: Any = ..., **kwargs: Any) -> Any:
    """A field that may change when a campaign is resumed."""
    return Field(default, json_schema_extra={"operational": True}, **kwargs)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Resources = dict[str, Annotated[float, Field(ge=0)]]
