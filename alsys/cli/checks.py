"""One line of `alsys doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_FREE_GB: Final = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the diagnosis; `is_ok` None for what is only worth knowing."""

    name: str
    is_ok: bool | None
    detail: str
