"""Stand-ins for packages with pretrained potentials, which no test can install: true names, toy energies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(__file__).parents[1] / "stand_ins"


def install(patch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Has processes that are started from now on find them; `settings` are those of `stand_ins/stand_in.py`."""
    patch.setenv("PYTHONPATH", str(PACKAGES))
    patch.setenv("STAND_IN", json.dumps(settings))
