"""SIGKILL of drivers and actors at random moments: the campaign ends, no acknowledged label is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.store.zarr import open_reader

CONFIGS = Path(__file__).parents[2] / "configs"


class Driver:
    """`alsys run` as a user starts it."""

    def __init__(self, folder: Path, config: str, *overrides: str) -> None:
        self.folder = folder
        self.campaign = folder / "campaign"
        self.acks = folder / "acks.txt"
        command = [
            sys.executable,
            "-m",
            "alsys.cli",
            "run",
            str(CONFIGS / config),
            "--quiet",
            "--ack-log",
            str(self.acks),
        ]
        for override in (f"directory={self.campaign}", "tracking.enabled=false", *overrides):
            command += ["--set", override]
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output, cwd=self.folder)

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL after a while; False where the campaign had ended before."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return True

    def finish(self, timeout_s: float) -> None:
        assert self.process is not None
        code = self.process.wait(timeout_s)
        assert code == 0, (self.folder / "output.txt").read_text()[-3000:]

    def check(self, n_labels: int) -> None:
        """The promises: verified, nothing acknowledged lost, nothing doubled, everything asked for."""
        command = [sys.executable, "-m", "alsys.cli", "data", "verify", str(self.campaign), "--json"]
        verified = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        assert verified["ok"], verified
        assert verified["duplicate_labels"] == 0
        reader = open_reader(CampaignFolder(self.campaign).store)
        stored = {event.label_id for event in reader.events() if event.kind == "label-accepted"}
        acknowledged = self.acks.read_text().split()
        assert len(acknowledged) == len(set(acknowledged)), "a label was acknowledged twice"
        assert set(acknowledged) <= stored, "an acknowledged label is lost"
        snapshot = reader.snapshot(reader.levels()[0].level_id)
        assert int((snapshot.arm != 0).sum()) == n_labels


def test_killed_driver_in_process(tmp_path: Path) -> None:
    rng = random.Random(5)
    driver = Driver(tmp_path, "toy.yaml", "runtime.kind=in-process", "stop.labels=60", "labeling.delay_s=0.05")
    for _ in range(3):
        driver.start()
        if not driver.kill_after(rng.uniform(3.0, 7.0)):
            break
    driver.start()
    driver.finish(120)
    driver.check(60)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("config", "n_labels", "longest_s"), [("toy.yaml", 100, 25.0), ("xtb.yaml", 60, 35.0)])
def test_driver_killed_ten_times(tmp_path: Path, config: str, n_labels: int, longest_s: float) -> None:
    rng = random.Random(7)
    driver = Driver(
        tmp_path, config, f"stop.labels={n_labels}", "labeling.delay_s=0.8" if config == "toy.yaml" else "seed=1"
    )
    kills = 0
    for _ in range(10):
        driver.start()
        if not driver.kill_after(rng.uniform(2.0, longest_s)):
            break
        kills += 1
    driver.start()
    driver.finish(400)
    driver.check(n_labels)
    assert kills == 10, "the campaign ended before it was killed ten times"


@pytest.mark.slow
def test_a_fit_survives_its_driver(tmp_path: Path) -> None:
    """Killed when two of three members are done: the version that comes out has not fitted them again."""
    driver = Driver(tmp_path, "xtb.yaml", "runtime.kind=in-process", "stop.labels=30", "training.budget_s=20")
    driver.start()
    assert driver.process is not None
    deadline = time.monotonic() + 200
    while not (driver.campaign / "fit" / "member_01.safetensors").exists():
        assert driver.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert driver.kill_after(0.0)
    driver.start()
    driver.finish(300)
    driver.check(30)
    cards = {path.name: json.loads((path / "card.json").read_text()) for path in driver.campaign.glob("models/v*")}
    assert cards["v0001"]["metrics"]["resumed_s"] > 10.0
    assert all(card["metrics"]["resumed_s"] == 0.0 for name, card in cards.items() if name != "v0001")


@pytest.mark.ray
@pytest.mark.slow
def test_actors_killed(tmp_path: Path) -> None:
    rng = random.Random(11)
    driver = Driver(tmp_path, "toy.yaml", "stop.labels=100", "labeling.delay_s=1.0")
    driver.start()
    killed = 0
    deadline = time.monotonic() + 200
    while driver.process is not None and driver.process.poll() is None and killed < 6 and time.monotonic() < deadline:
        time.sleep(rng.uniform(2.0, 6.0))
        actors = [p for p in _descendants(driver.process.pid) if "Actor" in p]
        if actors:
            pid = int(rng.choice(actors).split()[0])
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert killed == 6
    driver.finish(300)
    driver.check(100)


def _descendants(pid: int) -> list[str]:
    rows = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            rows.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return rows
