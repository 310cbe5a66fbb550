"""Programs that `make check-deploy` installs, and a campaign's folder for Kubernetes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("DEPLOY_TOOLS", ROOT / ".venv-deploy" / "bin"))


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """A program by its name; the test is skipped where it is not installed."""

    def found(name: str) -> str:
        if not (TOOLS / name).is_file():
            pytest.skip(f"{name} is not installed: `make check-deploy` installs it")
        return str(TOOLS / name)

    return found
