"""Schemas of Kubernetes' resource definitions, made strict: a field that they do not know fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

TOP = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


def strict_schema(definition: Path, version: str) -> dict[str, Any]:
    """JSON schema of a resource, from its CustomResourceDefinition."""
    content = yaml.load(definition.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in content["spec"]["versions"] if v["name"] == version]
    return {**closed(schema), "properties": {**closed(schema)["properties"], **TOP}}


def closed(schema: Any) -> Any:
    """The same, refusing fields that are not named where some are, unless the schema says that any may be there."""
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties")}
    if "properties" in schema:
        found["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    if "items" in schema:
        found["items"] = closed(schema["items"])
    if "additionalProperties" in schema:
        found["additionalProperties"] = closed(schema["additionalProperties"])
    return found


def problems(manifest: Any, schema: dict[str, Any]) -> Iterator[str]:
    """What a schema has against a manifest, each with its place."""
    for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
        yield f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"
