"""Text of files that engines read: YAML with scripts as blocks, the same for the same content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import yaml

WIDTH: Final = 10_000
"""Commands are one line each."""


class _Dumper(yaml.SafeDumper):
    """Writes lists below their key, indented, and never refers to another place of the file."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indents lists too."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Writes everything where it stands."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def as_yaml(data: Any, head: Sequence[str] = ()) -> str:
    """A YAML document.

    Args:
        data: Mappings, lists, numbers and text; keys stay in their order.
        head: Lines of a comment before it.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in head)
    return comment + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
