"""The Dockerfile, by hadolint."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def hadolint(tool: Callable[[str], str], file: Path) -> subprocess.CompletedProcess[str]:
    command = [tool("hadolint"), "--no-color", "--config", str(ROOT / "deploy" / "hadolint.yaml"), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_against_it(tool: Callable[[str], str]) -> None:
    run = hadolint(tool, ROOT / "deploy" / "Dockerfile")
    assert run.returncode == 0, run.stdout + run.stderr


def test_it_would_say_what_is_wrong(tool: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text((ROOT / "deploy" / "Dockerfile").read_text().replace("WORKDIR /campaigns", "WORKDIR campaigns"))
    run = hadolint(tool, file)
    assert run.returncode != 0
    assert "DL3000" in run.stdout
