"""One finished campaign, whose labels each program trains on; `make test-trainers` installs the programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from alsys.cli import main

CONFIG = {
    "name": "methanol",
    "seed": 1,
    "systems": [{"name": "methanol", "smiles": "CO"}],
    "labeling": {"kind": "xtb", "method": "GFN1-xTB"},
    "model": {"kind": "pair", "members": 2},
    "training": {"first_at": 40, "refit_every": 40, "validation_share": 0.2},
    "initial": {"frames": 80},
    "selection": {"random_share": 0.3},
    "exploration": {"walkers": 8, "temperatures": [300, 600], "chunk_steps": 50},
    "stop": {"labels": 160},
    "tracking": {"enabled": False},
    "runtime": {"kind": "in-process"},
}


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Methanol with GFN1-xTB, 160 labels."""
    folder = tmp_path_factory.mktemp("campaign")
    config = folder / "methanol.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "directory": str(folder / "methanol")}))
    assert main(["run", str(config), "--quiet"]) == 0
    return folder / "methanol"
