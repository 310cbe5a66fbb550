"""What all sections of the campaign file share: strictness, the mark of operational fields, names."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def operational(default: Any = ..., **kwargs: Any) -> Any:
    """A field that may change when a campaign is resumed."""
    return Field(default, json_schema_extra={"operational": True}, **kwargs)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
