"""Databases of MLflow's server, by the driver that its image has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

ROOT = Path(__file__).parents[3]
FILES = ("deploy/compose.yaml", "alsys/launch/kuberay/files/mlflow/mlflow.yaml.j2")


@pytest.mark.parametrize("name", FILES)
def test_the_database_is_reached_by_the_driver_that_is_installed(name: str) -> None:
    schemes = re.findall(r"(postgresql[a-z0-9+]*)://", (ROOT / name).read_text())
    drivers = {make_url(f"{scheme}://host/mlflow").get_dialect().driver for scheme in schemes}
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["mlflow-server"]
    assert drivers == {"psycopg2"}
    assert any(package.startswith("psycopg2-binary") for package in extra)
