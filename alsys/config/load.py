"""YAML to `CampaignConfig`, with one-line errors that name file, field, value and remedy."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from alsys.config.engines import LABELING_KINDS
from alsys.config.exploration_methods import METHOD_KINDS
from alsys.config.schema import PLACED, CampaignConfig
from alsys.config.start import START_KINDS
from alsys.errors import InputError
from alsys.outside.contents import MAX_YAML_BYTES, parse_yaml, read_text


def load_config(path: str | Path) -> CampaignConfig:
    """Reads and validates a campaign file.

    Raises:
        InputError: One line with file, field, value and remedy.
    """
    return parse_config(read_yaml(path), source=str(path))


def read_yaml(path: str | Path) -> object:
    """The content of a campaign file, in which no key is given twice.

    Raises:
        InputError: One line with file, line and what is wrong.
    """
    path = Path(path)
    try:
        text = read_text(path, MAX_YAML_BYTES)
    except InputError as error:
        message = error.message.removeprefix("cannot be read: ")
        raise InputError(
            f"cannot read the file: {message}", source=str(path), value=error.value, remedy=error.remedy
        ) from error
    try:
        return parse_yaml(text)
    except InputError as error:
        remedy = error.remedy or "see `alsys config schema`"
        raise InputError(
            error.message, source=str(path), field=error.field, value=error.value, remedy=remedy
        ) from error


def parse_config(data: object, source: str | None = None) -> CampaignConfig:
    """Validates the content of a campaign file.

    Raises:
        InputError: The first problem, in one line.
    """
    if not isinstance(data, Mapping):
        raise InputError("a campaign file is a mapping of keys", source=source, remedy="see configs/toy.yaml")
    try:
        return CampaignConfig.model_validate(data)
    except ValidationError as error:
        raise _first_problem(error, source) from None


def science_fields(config: CampaignConfig) -> dict[str, object]:
    """The fields that are frozen once a campaign has started, flat, by dotted path."""
    flat: dict[str, object] = {}
    _collect(config, "", flat)
    return flat


def config_hash(config: CampaignConfig) -> str:
    """Digest of the science fields, 32 hexadecimal characters."""
    text = json.dumps(science_fields(config), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _collect(section: BaseModel, prefix: str, flat: dict[str, object]) -> None:
    for name, info in type(section).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("operational"):
            continue
        value = getattr(section, name)
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            _collect(value, f"{path}.", flat)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for i, item in enumerate(value):
                _collect(item, f"{path}[{i}].", flat)
        else:
            flat[path] = list(value) if isinstance(value, tuple) else value


def _first_problem(error: ValidationError, source: str | None) -> InputError:
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = list(problem["loc"])
    field = _dotted(location)
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        remedy = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}"
        return InputError("unknown key", source=source, field=field, value=problem["input"], remedy=remedy)
    if kind == "missing":
        return InputError("is required", source=source, field=field, remedy="see `alsys config schema`")
    if kind == "union_tag_not_found":
        return InputError("is required", source=source, field=f"{field}.kind", remedy="see `alsys config schema`")
    if kind == "union_tag_invalid":
        context = problem.get("ctx", {})
        expected = context.get("expected_tags", "")
        value = context.get("tag", problem["input"])
        return InputError(
            "unknown kind", source=source, field=f"{field}.kind", value=value, remedy=f"one of {expected}"
        )
    if kind == PLACED:
        context = problem.get("ctx", {})
        return InputError(
            problem["msg"], source=source, field=context["field"], value=context["value"], remedy="give it another name"
        )
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = problem["input"] if not isinstance(problem["input"], Mapping) else None
    return InputError(message, source=source, field=field or None, value=value, remedy="see `alsys config schema`")


_TAGS = (
    frozenset({"gfn2-xtb", "gfn1-xtb", "nequip", "allegro", "pair", "calibrated", "fixed"})
    | LABELING_KINDS
    | METHOD_KINDS
)


def _dotted(location: list[Any]) -> str:
    text = ""
    for i, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (i > 0 and (part in _TAGS or (location[:i] == ["training", "start"] and part in START_KINDS))):
            # pydantic adds the tag of a union to the path
            text += f".{part}" if text else str(part)
    return text


def _keys_at(location: list[Any]) -> list[str]:
    schema: dict[str, Any] = CampaignConfig.model_json_schema()
    node: dict[str, Any] = schema

    def resolve(n: dict[str, Any]) -> dict[str, Any]:
        n = next((o for o in n.get("anyOf", ()) if "$ref" in o or "oneOf" in o), n)  # a section or null
        while "$ref" in n:
            n = schema["$defs"][n["$ref"].rsplit("/", 1)[-1]]
        return n

    for part in location:
        node = resolve(node)
        if isinstance(part, int):
            node = node.get("items", node)
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif part in node.get("discriminator", {}).get("mapping", {}):
            node = {"$ref": node["discriminator"]["mapping"][part]}
    return sorted(resolve(node).get("properties", {}))
