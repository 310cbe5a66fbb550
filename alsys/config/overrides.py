"""Settings that go before those of a file: ``key.path=value``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from alsys.errors import InputError
from alsys.outside.contents import parse_yaml

Overrides = Sequence[str] | Mapping[str, object]
"""``["key.path=value"]``, values as YAML, or ``{"key.path": value}``, values as they are."""


def apply_overrides(data: object, overrides: Overrides) -> object:
    """Puts overrides into a config's data.

    Raises:
        InputError: Not of this form.
    """
    for key, value in _pairs(overrides):
        if not key or not isinstance(data, dict):
            raise InputError("overrides look like key.path=value", source="--set", value=key)
        node = data
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError("is not a section", source="--set", field=key)
        node[last] = value
    return data


def overridden(overrides: Overrides) -> list[str]:
    """Keys of overrides."""
    return [override.partition("=")[0].strip() for override in overrides]


def _pairs(overrides: Overrides) -> Iterator[tuple[str, object]]:
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield key, os.fspath(value) if isinstance(value, os.PathLike) else value
        return
    if not isinstance(overrides, Sequence) or isinstance(overrides, str):
        raise InputError(
            "must be a mapping of keys to values, or a list", field="overrides", value=overrides,
            remedy='write {"stop.labels": 200} or ["stop.labels=200"]',
        )  # fmt: skip
    for override in overrides:
        key, separator, text = override.partition("=") if isinstance(override, str) else ("", "", "")
        if not separator:
            raise InputError("overrides look like key.path=value", source="--set", value=override)
        try:
            yield key, parse_yaml(text)
        except InputError as error:
            raise InputError(
                "the value is not YAML", source="--set", field=key, value=text, remedy=error.remedy
            ) from error
