"""Settings that go before those of a file: ``key.path=value``."""

from __future__ import annotations

from collections.abc import Sequence

from alsys.errors import InputError
from alsys.outside.contents import parse_yaml


def apply_overrides(data: object, overrides: Sequence[str]) -> object:
    """Applies `--set key.path=value`; values are YAML.

    Raises:
        InputError: Not of this form.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key or not isinstance(data, dict):
            raise InputError("overrides look like key.path=value", source="--set", value=override)
        try:
            value = parse_yaml(text)
        except InputError as error:
            raise InputError(
                "the value is not YAML", source="--set", field=key, value=text, remedy=error.remedy
            ) from error
        node = data
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError("is not a section", source="--set", field=key)
        node[last] = value
    return data
