"""Settings that go before those of a file: ``key.path=value``; `systems[0].charge` is of a list's first entry."""

from __future__ import annotations

import os
import re
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
        node: dict[str, object] | list[object] = data
        *parents, last = [part for part in re.split(r"[.\[\]]", key) if part]
        for parent in parents:
            inner = node[_place(node, parent, key)] if isinstance(node, list) else node.setdefault(parent, {})
            if not isinstance(inner, dict | list):
                raise InputError("is not a section", source="--set", field=key)
            node = inner
        if isinstance(node, list):
            node[_place(node, last, key)] = value
        else:
            node[last] = value
    return data


def _place(entries: list[object], word: str, key: str) -> int:
    """Which entry of a list."""
    if not word.isdecimal() or int(word) >= len(entries):
        raise InputError(
            f"is in a list of {len(entries)} entries, counted from 0", source="--set", field=key, value=word,
            remedy="write LIST[0].KEY=VALUE, or give the whole list: LIST=[{...}]",
        )  # fmt: skip
    return int(word)


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
            is_twice = "given twice" in error.message
            message, remedy = (error.message, "give it once") if is_twice else ("the value is not YAML", error.remedy)
            raise InputError(message, source="--set", field=key, value=text, remedy=remedy) from error
