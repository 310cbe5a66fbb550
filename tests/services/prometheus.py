"""A Prometheus on loopback that scrapes a campaign on a Ray of its own, set up by the files in deploy/prometheus."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOYED = ROOT / "deploy" / "prometheus"
PATIENCE_S = 120.0
NAME = "fleet-test"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    url: str

    def ask(self, path: str, **parameters: object) -> Any:
        """What its HTTP API answers.

        Raises:
            AssertionError: It refuses.
        """
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30.0) as answer:
                told = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        assert told["status"] == "success", told
        return told["data"]

    def values(self, expression: str, seconds: float = 120.0) -> list[float]:
        """All finite values that an expression had lately."""
        now = time.time()
        data = self.ask("query_range", query=expression, start=now - seconds, end=now, step=2)
        values = [float(value) for series in data["result"] for _, value in series["values"]]
        return [value for value in values if math.isfinite(value)]


@contextlib.contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[Prometheus]:
    """The configuration of deploy/prometheus, which looks every second and finds these targets."""
    shutil.copytree(DEPLOYED, folder)
    config = (folder / "prometheus.yml").read_text()
    assert config.count(": 15s") == 2
    (folder / "prometheus.yml").write_text(config.replace(": 15s", ": 1s"))
    (folder / "targets" / "local.yml").write_text(yaml.safe_dump([{"targets": targets}]))
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
    with (folder / "log").open("w") as log:
        address = f"127.0.0.1:{port}"
        server = subprocess.Popen([*command, f"--web.listen-address={address}"], cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(lambda: _is_ready(f"http://{address}"), server, folder / "log")
            yield Prometheus(f"http://{address}")
        finally:
            server.terminate()
            server.wait(30.0)


@contextlib.contextmanager
def campaign(folder: Path, port: int) -> Iterator[Path]:
    """A toy campaign on a Ray of its own that runs until it is left; its folder."""
    config = yaml.safe_load((ROOT / "configs" / "toy.yaml").read_text())
    config |= {
        "name": NAME,
        "directory": str(folder / "campaign"),
        "runtime": {"metrics_port": port},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "stop": {"labels": 5000, "wall_s": 3600},
    }
    config["labeling"] |= {"delay_s": 0.3}
    config["exploration"] |= {"trust": {"kind": "calibrated", "tolerated_error": 0.02, "failed_error": 1.0}}
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "alsys.cli", "run", str(file), "--quiet"]
    with (folder / "driver.log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        driver = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        try:
            wait_for(lambda: _has_model(folder / "campaign"), driver, folder / "driver.log")
            yield folder / "campaign"
        finally:
            driver.send_signal(signal.SIGTERM)
            try:
                driver.wait(PATIENCE_S)
            finally:
                driver.kill()


def _has_model(directory: Path) -> bool:
    live = directory / "logs" / "live.json"
    return live.is_file() and bool(json.loads(live.read_text())["models"])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
