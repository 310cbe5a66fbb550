"""A campaign on the services of `deploy/compose.yaml`, each a process here: PostgreSQL, S3, MLflow, Prometheus."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from alsys.interop.calculator import load_calculator
from alsys.store.encoding import to_hex
from alsys.store.zarr import open_reader
from services import mlflow_server, postgres
from services.mlflow_server import mlflow_server as started_mlflow
from services.postgres import PASSWORD, postgres_server
from services.processes import Service, free_port
from services.prometheus import prometheus
from services.s3 import BUCKET, BadNetwork

XTB = Path(__file__).parents[2] / "configs" / "xtb.yaml"
PATIENCE_S = 400.0


@dataclass
class Stack:
    """The services, and campaigns on them."""

    postgres: Service
    network: BadNetwork
    mlflow: Service
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a driver: S3 for the mirror alone, MLflow hands out its artifacts itself."""
        return os.environ | {
            "AWS_ENDPOINT_URL": self.network.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": self.mlflow.url, "MLFLOW_TRACKING_USERNAME": mlflow_server.USER,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }  # fmt: skip

    def alsys(self, *words: str) -> list[str]:
        """A command."""
        return [sys.executable, "-m", "alsys.cli", *words]

    def start(self, name: str, *settings: str) -> subprocess.Popen[str]:
        """A small campaign of its own name."""
        given = [
            f"name={name}", f"directory={self.folder / name}", f"mirror=s3://{BUCKET}/{name}", "model.members=2",
            "training.budget_s=4", "training.first_at=8", "training.refit_every=10", "initial.frames=10",
            "tracking.flush_s=300", *settings,
        ]  # fmt: skip
        sets = [part for setting in given for part in ("--set", setting)]
        acknowledged = str(self.folder / f"{name}.acknowledged")
        command = self.alsys("run", str(XTB), "--quiet", "--ack-log", acknowledged, *sets)
        return subprocess.Popen(
            command, env=self.environment, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def acknowledged(self, name: str) -> list[str]:
        """Labels that a campaign has called its own."""
        path = self.folder / f"{name}.acknowledged"
        return path.read_text().split() if path.exists() else []

    def waits_for(self, driver: subprocess.Popen[str], name: str, n_labels: int) -> None:
        """Returns once so many labels are acknowledged."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.acknowledged(name)) < n_labels:
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < deadline, f"{len(self.acknowledged(name))} of {n_labels} labels"
            time.sleep(0.05)

    def stored(self, folder: Path) -> set[str]:
        """Labels in a store, which is whole."""
        reader = open_reader(folder / "store.zarr")
        assert reader.verify().problems == []
        return set(to_hex(reader.column("labels/label_id")))

    def says(self, *words: str) -> str:
        """What a command of alsys prints."""
        done = subprocess.run(
            self.alsys(*words), env=self.environment, cwd=self.folder, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def stack(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL: Debian's package `postgresql`")
    if not mlflow_server.is_installed():
        pytest.skip("psycopg2, boto3 or flask_wtf is missing: `make test-services` installs them")
    folder = tmp_path_factory.mktemp("stack")
    with contextlib.ExitStack() as services:
        network = services.enter_context(contextlib.closing(BadNetwork(server)))
        database = services.enter_context(postgres_server())
        mlflow = services.enter_context(started_mlflow(database.port, network.url, folder))
        yield Stack(database, network, mlflow, folder)


@pytest.mark.timeout(900)
def test_a_campaign_is_carried_by_the_services_from_first_label_to_a_model_in_the_registry(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus: Debian's package `prometheus`")
    port = free_port()
    with prometheus(tmp_path / "prometheus", [f"127.0.0.1:{port}"]) as scraper:
        driver = stack.start("carried", "stop.labels=40", f"runtime.metrics_port={port}")
        said, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, said
        counted = scraper.values('alsys_labels_accepted_total{campaign="carried"}', PATIENCE_S)
    assert len(set(counted)) > 1, "it saw them grow"
    labels = set(stack.acknowledged("carried"))
    assert len(labels) >= 40
    assert labels <= stack.stored(stack.folder / "carried")

    stack.says("fetch", f"s3://{BUCKET}/carried", str(tmp_path / "view"))
    assert stack.stored(tmp_path / "view") == stack.stored(stack.folder / "carried"), "from the mirror"

    versions = json.loads(stack.says("models", "list", "carried", "--json"))
    assert [version for version in versions if "champion" in version["aliases"]]
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):  # and no access to the bucket
        monkeypatch.setenv(name, stack.environment[name])
    calculator = load_calculator("models:/carried@champion", tracking_uri=stack.mlflow.url)
    methanol = molecule("CH3OH")
    methanol.calc = calculator
    local = methanol.copy()
    local.calc = load_calculator(stack.folder / "carried")
    np.testing.assert_array_equal(methanol.get_forces(), local.get_forces())


@pytest.mark.timeout(900)
def test_services_that_go_down_cost_no_acknowledged_label_and_do_not_stop_a_campaign(
    stack: Stack, tmp_path: Path
) -> None:
    driver = stack.start("shaken", "stop.labels=40", "tracking.flush_s=5")
    stack.waits_for(driver, "shaken", 12)
    stack.network.refused = 1.0
    stack.mlflow.stop(signal.SIGKILL)
    stack.postgres.stop(signal.SIGKILL)
    said, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, said
    assert "not in the registry" in said
    labels = stack.stored(stack.folder / "shaken")
    assert len(labels) >= 40
    assert set(stack.acknowledged("shaken")) <= labels
    stack.network.refused = 0.0
    stack.postgres.start()
    stack.mlflow.start()
    driver = stack.start("shaken", "stop.labels=40")
    said, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, said
    assert "not in the registry" not in said
    assert json.loads(stack.says("models", "list", "shaken", "--json")), "what could not be told then is told now"
    stack.says("fetch", f"s3://{BUCKET}/shaken", str(tmp_path / "view"))
    assert stack.stored(tmp_path / "view") == labels, "the mirror has caught up"
