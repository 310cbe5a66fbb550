"""SIGKILL of trainers that share the members of a fit: their members go on where they were, and the campaign ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

CAMPAIGN: dict[str, Any] = {
    "name": "shared",
    "seed": 1,
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic", "workers": 1},
    "model": {"kind": "nequip", "num_layers": 1, "l_max": 1, "num_features": 4, "r_max": 4.0, "members": 2},
    "training": {
        "workers": 2, "first_at": 10, "refit_every": 100, "budget_s": 36, "max_epochs": 1_000_000, "compile": False,
        "max_ahead": None,
    },
    "exploration": {"walkers": 2, "workers": 1},
    "initial": {"frames": 12},
    "selection": {"random_share": 0.2},
    "promotion": {"examine": False},
    "stop": {"labels": 12, "final_fit_s": 0},
    "tracking": {"enabled": False},
}  # fmt: skip
START_S, FIT_S = 120.0, 400.0


def trainers(pid: int) -> dict[int, float]:
    """Processes of trainers, and the CPU seconds that each has used."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if "TrainerActor" in " ".join(process.cmdline()):
                found[process.pid] = process.cpu_times().user
        except psutil.Error:
            continue
    return found


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_member_goes_on_after_its_trainer_was_killed(tmp_path: Path) -> None:
    """Both members were kept once; then one trainer is killed. The version that comes out goes on from there."""
    config = tmp_path / "shared.json"  # which is YAML too
    config.write_text(json.dumps(CAMPAIGN))
    campaign, log = tmp_path / "campaign", tmp_path / "output.txt"
    command = [sys.executable, "-m", "alsys.cli", "run", str(config), "--quiet", "--set", f"directory={campaign}"]
    with log.open("wb") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=output, cwd=tmp_path)
    try:
        deadline = time.monotonic() + START_S + FIT_S
        kept = [campaign / "fit" / f"apart_{i:02d}" / "member_00.safetensors" for i in range(2)]
        while not all(path.exists() for path in kept):
            assert driver.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shown = subprocess.run(
            [sys.executable, "-m", "alsys.cli", "status", str(campaign), "--json"],
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        assert json.loads(shown.stdout)["fit"]["n_workers"] == 2
        found = trainers(driver.pid)
        assert len(found) == 2
        os.kill(next(iter(found)), signal.SIGKILL)
        assert driver.wait(FIT_S) == 0, log.read_text()[-3000:]
    finally:
        driver.kill()
        driver.wait()
    cards = {path.name: json.loads((path / "card.json").read_text()) for path in campaign.glob("models/v*")}
    first = cards["v0001"]["metrics"]
    assert first["resumed_s"] >= 25.0, "one member went on from what was kept of it"
    assert first["resumed_s"] < 40.0, "and the other was not touched"
    weights = sorted(path.name for path in (campaign / "models" / "v0001").glob("member_*"))
    assert len(weights) == 2
