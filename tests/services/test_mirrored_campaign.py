"""Campaigns whose mirror is on an S3 server: drivers that are killed, lose their machine, or are two."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alsys.store.encoding import to_hex
from alsys.store.zarr import open_reader
from services.s3 import BUCKET, BadNetwork

PATIENCE_S = 120.0
TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"


class Machines:
    """Drivers of one campaign, each in a folder of its own choice."""

    def __init__(self, endpoint: str, name: str, tmp_path: Path) -> None:
        self.url, self.tmp_path, self.acknowledged = f"s3://{BUCKET}/{name}", tmp_path, tmp_path / "acknowledged"
        self.environment = os.environ | {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def start(self, machine: str, *settings: str, takes_over: bool = False) -> subprocess.Popen[str]:
        given = [f"directory={self.tmp_path / machine}", f"mirror={self.url}", "tracking.enabled=false", *settings]
        sets = [part for setting in given for part in ("--set", setting)]
        command = [
            sys.executable,
            "-m",
            "alsys.cli",
            "run",
            str(TOY),
            "--quiet",
            "--ack-log",
            str(self.acknowledged),
            *(["--take-over"] if takes_over else []),
            *sets,
        ]
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def fetch(self, folder: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "alsys.cli", "fetch", self.url, str(self.tmp_path / folder)]
        return subprocess.run(command, env=self.environment, text=True, capture_output=True, check=False)

    def n_acknowledged(self) -> int:
        return self.acknowledged.read_text().count("\n") if self.acknowledged.exists() else 0

    def stored(self, machine: str) -> set[str]:
        reader = open_reader(self.tmp_path / machine / "store.zarr")
        assert reader.verify().problems == []
        return set(to_hex(reader.column("labels/label_id")))

    def kill_after(self, driver: subprocess.Popen[str], n_labels: int) -> None:
        """Once so many more labels are acknowledged."""
        wanted, deadline = self.n_acknowledged() + n_labels, time.monotonic() + PATIENCE_S
        while self.n_acknowledged() < wanted and driver.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            driver.send_signal(signal.SIGKILL)
        driver.communicate()


@pytest.fixture
def network(server: str) -> Iterator[BadNetwork]:
    network = BadNetwork(server)
    yield network
    network.close()


@pytest.mark.timeout(900)
def test_ten_kills_and_four_lost_machines_cost_no_acknowledged_label(network: BadNetwork, tmp_path: Path) -> None:
    """On a network that refuses a tenth of the requests and loses a tenth of the answers."""
    machines = Machines(network.url, "killed", tmp_path)
    network.refused = network.dropped = 0.1
    for life in range(10):
        driver = machines.start("lost" if life % 3 == 2 else "kept")
        machines.kill_after(driver, 1 + life % 5)
        if life % 3 == 2:
            subprocess.run(["rm", "-r", str(tmp_path / "lost")], check=True)
    last = machines.start("last")
    said, _ = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, said
    acknowledged = set(machines.acknowledged.read_text().split())
    assert len(acknowledged) >= 100
    assert acknowledged <= machines.stored("last")
    fetched = machines.fetch("view")
    assert fetched.returncode == 0, fetched.stderr
    assert machines.stored("view") == machines.stored("last")
    for name in ("campaign.json", "report.html"):
        assert (tmp_path / "view" / name).read_bytes() == (tmp_path / "last" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "view/models").iterdir()) == sorted(
        p.name for p in (tmp_path / "last/models").iterdir()
    )


@pytest.mark.timeout(600)
def test_a_second_driver_is_refused_or_where_it_is_meant_fences_the_first(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "two", tmp_path)
    first = machines.start("a", "stop.labels=400")
    deadline = time.monotonic() + PATIENCE_S
    while not machines.n_acknowledged():
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    mistaken = machines.start("b")
    said, _ = mistaken.communicate(timeout=PATIENCE_S)
    assert mistaken.returncode == 2
    assert f"process {first.pid} on " in said
    assert "--take-over" in said
    assert first.poll() is None
    second = machines.start("b", takes_over=True)
    said, _ = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 3
    assert "another driver took over" in said
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, said
    assert set(machines.acknowledged.read_text().split()) <= machines.stored("b")


def test_a_mirror_of_another_campaign_is_refused_before_anything_starts(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "mine", tmp_path)
    driver = machines.start("a", "stop.labels=20")
    driver.communicate(timeout=PATIENCE_S)
    (tmp_path / "other").mkdir()
    other = machines.start("other/b", "stop.labels=20", "seed=5")
    said, _ = other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 2
    assert "seed" in said
    view = machines.fetch("view")
    assert view.returncode == 0
    assert not machines.stored("view") - machines.stored("a")


@pytest.mark.timeout(600)
def test_a_driver_is_stopped_from_elsewhere(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "stopped", tmp_path)

    def stop() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "alsys.cli", "stop", machines.url, "--timeout", "120"]
        return subprocess.run(command, env=machines.environment, text=True, capture_output=True, check=False)

    assert "nothing to stop" in stop().stdout
    driver = machines.start("a", "stop.labels=100000")
    deadline = time.monotonic() + PATIENCE_S
    while machines.n_acknowledged() < 60:
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.1)
    assert "has stopped" in stop().stdout
    output, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, output
    again = machines.start("b", "stop.labels=20")
    output, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, output
    assert machines.stored("a") <= machines.stored("b")
