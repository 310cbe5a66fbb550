"""The schema of campaign files as a tree: what stands at a place, and which values it takes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alsys.config.schema import CampaignConfig

_PLAIN = {"boolean": "true | false", "string": "text", "object": "mapping"}


@functools.cache
def root() -> dict[str, Any]:
    """JSON Schema of a campaign file."""
    return CampaignConfig.model_json_schema()


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a campaign file.

    Attributes:
        field: Its dotted path.
        node: Its part of the schema.
    """

    field: str
    node: dict[str, Any]

    @property
    def keys(self) -> list[str]:
        """Keys that a mapping may have there; none where they are free, or several kinds have different ones."""
        return sorted(self.node.get("properties", {}))

    @property
    def kinds(self) -> list[str]:
        """Values of `kind` that it may have there."""
        return list(self.node.get("discriminator", {}).get("mapping", {}))


def place_of(location: Sequence[str | int]) -> Place:
    """The place of a problem, whose location has tags that pydantic adds for the members of unions."""
    field, node = "", root()
    for part in location:
        tags = node.get("discriminator", {}).get("mapping", {})
        if isinstance(part, int):
            field, inner = f"{field}[{part}]", node.get("items", {})
        elif part in tags:
            inner = {"$ref": tags[part]}
        elif "anyOf" in node:
            words = re.findall(r"\w+", part)  # with validators it is `function-after[NAME(), CLASS]`
            named = [option for option in node["anyOf"] if option.get("$ref", "").rsplit("/", 1)[-1] in words]
            if not named:
                continue
            inner = named[0]
        else:
            field = f"{field}.{part}" if field else part
            free = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
            inner = node.get("properties", {}).get(part) or next((one for one in free if isinstance(one, dict)), {})
        node = resolved(inner)
    return Place(field, node)


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a node refers to; of one that may be null, what it is otherwise."""
    while True:
        options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
        if len(options) == 1:
            node = options[0]
        elif "$ref" in node:
            node = root()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        else:
            return node


def values_of(node: dict[str, Any]) -> str:
    """Which values a field takes: the words that it may be, or their type."""
    if "$ref" in node:
        return values_of(resolved(node))
    if "anyOf" in node:
        return " | ".join(dict.fromkeys(values_of(option) for option in node["anyOf"]))
    if words := node.get("enum", [node["const"]] if "const" in node else []):
        return " | ".join(word if isinstance(word, str) else json.dumps(word) for word in words)
    if node.get("type") == "array":
        inner = dict.fromkeys(values_of(item) for item in node.get("prefixItems", [node.get("items", {})]))
        return f"list of {' | '.join(inner)}"
    kind = str(node.get("type", "anything"))
    return _PLAIN.get(kind, kind)


def switched(node: dict[str, Any], value: bool) -> str:
    """A section as it is written where it is switched on or off, or its shape where nothing in it does that."""
    switches = [name for name in ("enabled", "examine") if name in resolved(node).get("properties", {})]
    return f"{{{switches[0]}: {str(value).lower()}}}" if switches else shape_of(node, value)


def shape_of(node: dict[str, Any], value: object) -> str:
    """A value as it is written at a node of the schema, for what was meant by another."""
    node = resolved(node)
    kinds = Place("", node).kinds
    if node.get("type") == "array":
        items = node.get("prefixItems", [node.get("items", {})])
        return f"[{', '.join(shape_of(item, value) for item in items)}]"
    if kinds:
        return f"{{kind: {value if value in kinds else 'KIND'}}}"
    if node.get("type") == "object":
        return "{KEY: VALUE}"
    return str(value) if isinstance(value, str | int | float) else "VALUE"
