"""Recipes of docs/using.md, run as they are written there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": f"{sys.prefix}/lib"}  # where the wheel of MPICH is


def recipe(word: str) -> str:
    """The Python block of docs/using.md that holds a word."""
    text = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if word in block]
    return str(found)


def run(word: str, folder: Path, before: str, after: str) -> dict[str, Any]:
    """Executes a recipe in a folder, between what it takes for granted and what looks at its results.

    Args:
        word: In the recipe.
        folder: The working folder.
        before: Python.
        after: Python; sets ``result`` to what JSON can hold.
    """
    start = "import json, sys\nfrom pathlib import Path\nimport ase.io\nimport numpy as np\n"
    start += "atoms = ase.io.read('start.xyz')\n"
    program = f"{start}{before}\n{recipe(word)}\n{after}\nPath('result.json').write_text(json.dumps(result))\n"
    (folder / "recipe.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "recipe.py"], cwd=folder, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found
