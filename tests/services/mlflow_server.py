"""MLflow as `deploy/compose.yaml` starts it: PostgreSQL behind it, artifacts on S3 that it hands out itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from services.postgres import PASSWORD
from services.processes import Service, free_port, running
from services.s3 import BUCKET
from support.compose import FILE, compose, interpolated, needed

PYTHON = os.environ.get("MLFLOW_SERVER_PYTHON", sys.executable)
USER = "admin"


@cache
def is_installed() -> bool:
    """Whether the server's Python has what it needs."""
    needed = "import mlflow.version, psycopg2, boto3, flask_wtf"
    return subprocess.run([PYTHON, "-c", needed], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def mlflow_server(database_port: int, s3: str, folder: Path) -> Iterator[Service]:
    """A server whose only user is `USER`, with `PASSWORD`.

    Args:
        database_port: Of PostgreSQL.
        s3: URL of the S3 server.
        folder: Of its log and its users.
    """
    port = free_port()
    text = FILE.read_text()
    deployed = compose(interpolated(text, dict.fromkeys(needed(text), PASSWORD)))["services"]["mlflow"]
    moved = {
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=5000": f"--port={port}",
        "--workers=2": "--workers=1",
        "--artifacts-destination=s3://alsys/mlflow": f"--artifacts-destination=s3://{BUCKET}/mlflow",
    }
    assert moved.keys() <= set(deployed["command"])
    command = [PYTHON, "-m", *deployed["entrypoint"], *(moved.get(word, word) for word in deployed["command"])]
    users = folder / "basic_auth.ini"
    users.write_text((FILE.parent / "mlflow" / "basic_auth.ini").read_text().replace("/mlflow/", f"{folder}/"))
    environment = {name: str(value) for name, value in deployed["environment"].items()}
    environment |= {
        "MLFLOW_S3_ENDPOINT_URL": s3,
        "AWS_ENDPOINT_URL": s3,
        "MLFLOW_BACKEND_STORE_URI": environment["MLFLOW_BACKEND_STORE_URI"].replace(
            "postgres:5432", f"127.0.0.1:{database_port}"
        ),
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
    }
    with running(Service("MLflow", command, port, folder / "mlflow.log", "/health", environment)) as service:
        yield service
