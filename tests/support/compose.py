"""`deploy/compose.yaml` as Compose reads it: variables filled in, merges done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).parents[2] / "deploy" / "compose.yaml"
VARIABLE: Final = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


def needed(text: str) -> set[str]:
    """Variables without which Compose refuses the file."""
    return {name for name, sign, _ in VARIABLE.findall(text) if sign == "?"}


def interpolated(text: str, environment: Mapping[str, str]) -> str:
    """The file with variables, or what stands for them."""

    def value(match: re.Match[str]) -> str:
        name, sign, rest = match.groups()
        return environment[name] if name in environment or sign == "?" else rest

    return VARIABLE.sub(value, text)


def compose(text: str | None = None) -> dict[str, Any]:
    """The rehearsal, with passwords that are none."""
    text = FILE.read_text() if text is None else text
    content: dict[str, Any] = yaml.safe_load(interpolated(text, dict.fromkeys(needed(text), "none")))
    return content
