"""Shell scripts of the repository, by shellcheck."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def scripts() -> list[Path]:
    """Tracked files that begin as a shell script."""
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    found = [ROOT / name for name in tracked.split("\0") if name and not name.endswith(".j2")]
    return [
        path
        for path in found
        if path.is_file() and path.read_bytes()[:40].split(b"\n")[0].endswith((b"/sh", b"/bash", b"env bash"))
    ]


@pytest.mark.parametrize("script", scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_has_nothing_against_it(script: Path, tool: Callable[[str], str]) -> None:
    command = [tool("shellcheck"), "--severity=warning", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_the_slurm_script_is_among_them() -> None:
    assert ROOT / "cluster" / "slurm.sbatch" in scripts()
