"""MLflow's server as `deploy/compose.yaml` and Kubernetes start it: nobody without the password gets anything."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

from services.prometheus import free_port
from support.compose import FILE, compose

PASSWORD = "a-password-of-the-test"
PATIENCE_S = 120.0
API = "/api/2.0/mlflow/experiments/search?max_results=1"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int

    def status(self, path: str, password: str = "", host: str = "localhost:5000") -> int:
        """Code of its answer."""
        headers = {"Host": host}
        if password:
            headers["Authorization"] = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self.status("/health") == HTTPStatus.OK
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("Flask-WTF is not installed: `make test-services` installs it")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    service = compose()["services"]["mlflow"]
    here = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--artifacts-destination": str(folder / "artifacts"),
    }
    words = [f"{key}={here.get(key, value)}" for key, value in (word.split("=", 1) for word in service["command"])]
    settings = folder / "basic_auth.ini"
    settings.write_text((FILE.parent / "mlflow" / "basic_auth.ini").read_text().replace("/mlflow/", f"{folder}/"))
    environment = {
        **{name: value for name, value in service["environment"].items() if name.startswith("MLFLOW")},
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *service["entrypoint"], *words], env=os.environ | environment, cwd=folder,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        found = Server(port)
        wait_for(found, process, folder / "log")
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30.0)


def wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once it answers."""
    deadline = time.monotonic() + PATIENCE_S
    while not server.is_up():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


@pytest.mark.parametrize("path", ["/", API, ARTIFACTS, "/api/2.0/mlflow/registered-models/search?max_results=1"])
def test_strangers_are_refused(path: str, server: Server) -> None:
    assert server.status(path) == HTTPStatus.UNAUTHORIZED
    assert server.status(path, "another-password") == HTTPStatus.UNAUTHORIZED


def test_the_password_opens_it_by_the_names_that_it_has(server: Server) -> None:
    for host in ("localhost:5000", "mlflow:5000", "127.0.0.1:5000"):
        assert server.status(API, PASSWORD, host) == HTTPStatus.OK
    assert server.status(API, PASSWORD, "elsewhere.example.com") == HTTPStatus.FORBIDDEN, "DNS rebinding"


def test_probes_need_neither(server: Server) -> None:
    assert server.status("/health", host="10.1.2.3:5000") == HTTPStatus.OK
