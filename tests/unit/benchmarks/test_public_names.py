"""Benchmarks and examples use no private name of alsys."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").rglob("*.py")])


def private_names(source: str) -> list[str]:
    """Private names that are imported from alsys, or asked of a module of it."""
    tree = ast.parse(source)
    modules = set()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "alsys":
            found += [f"{node.module}.{a.name}" for a in node.names if a.name.startswith("_") and a.name[:2] != "__"]
            modules |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {a.asname or a.name for a in node.names if a.name.partition(".")[0] == "alsys"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found += [f"{node.value.id}.{node.attr}"] if node.attr.startswith("_") and node.attr[:2] != "__" else []
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_is_used(path: Path) -> None:
    assert private_names(path.read_text()) == []


def test_private_names_are_seen() -> None:
    source = "from alsys.cli import run as command\nfrom alsys.frames import _x, Frame\ncommand._initial()\n"
    assert private_names(source) == ["alsys.frames._x", "command._initial"]
