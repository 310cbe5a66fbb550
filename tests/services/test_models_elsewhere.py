"""Models where nothing of alsys is: environments made anew, and a registry of HTTP, PostgreSQL and S3."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.interop.calculator import load_calculator
from alsys.potentials.bundle import write_bundle
from alsys.tracking.publish import publish
from services import mlflow_server, postgres
from services.mlflow_server import mlflow_server as started_mlflow
from services.postgres import PASSWORD, postgres_server
from services.processes import Service, free_port, running
from services.s3 import BadNetwork
from support.networks import random_state

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'

ROOT = Path(__file__).resolve().parents[2]
FORCES = """
import importlib.util, json
import alsys
from ase.build import molecule

atoms = molecule("CH3OH")
atoms.calc = alsys.load_calculator("models:/elsewhere@champion")
absent = [name for name in ("ray", "pyscf", "rdkit", "tblite", "zarr") if importlib.util.find_spec(name)]
print(json.dumps({"forces": atoms.get_forces().tolist(), "file": alsys.__file__, "absent": absent}))
"""


@pytest.fixture(scope="module")
def registry(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An MLflow server in front of PostgreSQL and S3, and its name and password in this process's environment."""
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL: Debian's package `postgresql`")
    if not mlflow_server.is_installed():
        pytest.skip("psycopg2, boto3 or flask_wtf is missing: `make test-services` installs them")
    with contextlib.ExitStack() as services, pytest.MonkeyPatch.context() as patch:
        network = services.enter_context(contextlib.closing(BadNetwork(server)))
        database = services.enter_context(postgres_server())
        folder = tmp_path_factory.mktemp("registry")
        patch.setenv("MLFLOW_TRACKING_USERNAME", mlflow_server.USER)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        yield services.enter_context(started_mlflow(database.port, network.url, folder))


@pytest.fixture(scope="module")
def bundle(registry: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committee of networks, which the registry has as `elsewhere`."""
    path = write_bundle(tmp_path_factory.mktemp("bundle") / "v0001", random_state(), {"n_labels": 40})
    model = publish(path, "elsewhere", registry.url)
    assert (model.name, model.version, model.aliases) == ("elsewhere", 1, ("champion",))
    return path


def environment_of(folder: Path, *words: str, cwd: Path | None = None) -> Path:
    """A new virtual environment's Python, with what pip is told to install."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *words]
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return python


@pytest.mark.timeout(1200)
def test_alsys_model_alone_loads_from_the_registry(registry: Service, bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "alsys", source / "alsys", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "packaging", source / "packaging", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    python = environment_of(tmp_path / "venv", f"{source / 'packaging' / 'alsys-model'}[registry]")
    names = {"MLFLOW_TRACKING_URI": registry.url, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [str(python), "-c", FORCES]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"].startswith(str(tmp_path / "venv"))
    assert found["absent"] == []
    methanol = molecule("CH3OH")
    methanol.calc = load_calculator(bundle)
    np.testing.assert_allclose(found["forces"], methanol.get_forces(), atol=1e-12)


@pytest.mark.timeout(1200)
def test_a_model_is_served_from_what_goes_with_it(registry: Service, bundle: Path, tmp_path: Path) -> None:
    """As `mlflow models serve` does it, with the requirements in an environment that pip made of them."""
    import mlflow.artifacts

    from alsys.interop.mlflow_settings import servers_kept

    with servers_kept():
        mlflow.set_tracking_uri(registry.url)
        place = mlflow.artifacts.download_artifacts("models:/elsewhere@champion", dst_path=str(tmp_path / "model"))
    model = Path(place)
    python = environment_of(tmp_path / "venv", "--requirement", "requirements.txt", cwd=model)
    port = free_port()
    command = [
        str(python.with_name("mlflow")), "models", "serve", "--model-uri", str(model), "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    names = {"PATH": path, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
    methanol = molecule("CH3OH")
    structure = {"numbers": methanol.numbers.tolist(), "positions": methanol.positions.tolist()}
    rows = [structure, {"numbers": [92], "positions": [[0, 0, 0]]}, {"numbers": [6]}]
    with running(Service("mlflow models serve", command, port, tmp_path / "serve.log", "/ping", names)) as service:
        answers = posted(f"{service.url}/invocations", [json.dumps(row) for row in rows])
    methanol.calc = load_calculator(bundle)
    np.testing.assert_allclose(answers[0]["forces"], methanol.get_forces(), atol=1e-6)
    assert answers[0]["energy"] == pytest.approx(methanol.get_potential_energy())
    assert answers[0]["reason"] is None
    assert "does not know these elements" in answers[1]["reason"]
    assert "not a structure" in answers[2]["reason"]
    assert answers[1]["energy"] is answers[2]["energy"] is None


def posted(url: str, structures: list[str]) -> list[dict[str, Any]]:
    """Rows of the answer."""
    content = json.dumps({"dataframe_records": [{"structure": one} for one in structures]}).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        rows: list[dict[str, Any]] = json.loads(answer.read())["predictions"]
    return rows
