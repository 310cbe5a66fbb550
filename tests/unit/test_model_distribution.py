"""alsys-model: the wheel as its users get it, with none of the packages that it does not ask for."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from alsys.potentials.bundle import write_bundle
from support.networks import random_state

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging" / "alsys-model"
ABSENT = ("mlflow", "prometheus_client", "pyscf", "ray", "rdkit", "sortedcontainers", "tblite", "zarr")
"""Packages of alsys that alsys-model does not name, and none of its own looks for."""

USE = """
import sys
import alsys
from ase.build import molecule

for place in sys.argv[1:]:
    atoms = molecule("H2O")
    try:
        atoms.calc = alsys.load_calculator(place)
        atoms.get_forces()
        print(atoms.calc.results["max_force_deviation"] >= 0, atoms.calc.todict()["version"])
    except alsys.errors.AlsysError as error:
        print(type(error).__name__, error)
try:
    alsys.Campaign
except ImportError as error:
    print(error)
"""
BLOCKED = """
import sys

sys.modules.update(dict.fromkeys({absent!r}))  # as if they were not installed
sys.meta_path[:] = [finder for finder in sys.meta_path if "ditable" not in repr(finder)]  # of a checkout
sys.path.insert(0, {wheel!r})
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        pytest.skip("this environment has no pip")
    source = folder / "source"  # a folder `build` of an earlier wheel would come along
    shutil.copytree(ROOT / "alsys", source / "alsys", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(FOLDER, source / "packaging" / "alsys-model", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [
        *pip,
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(source / "packaging" / "alsys-model"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def dependencies(path: Path) -> dict[str, list[str]]:
    project = tomllib.loads(path.read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def test_both_distributions_ask_for_the_same_versions() -> None:
    all_of = {name for names in dependencies(ROOT / "pyproject.toml").values() for name in names}
    for extra, names in dependencies(FOLDER / "pyproject.toml").items():
        assert set(names) <= all_of, extra


def test_wheel_holds_no_more_than_models_need(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[1] for name in names if name.startswith("alsys/") and name.count("/") > 1}
    assert packages == {"config", "dynamics", "events", "interop", "outside", "potentials", "store", "systems"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_models_are_used_without_what_makes_them(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    bundle = write_bundle(tmp_path / "v0003", random_state(), {})
    campaign = tmp_path / "campaign"
    among = write_bundle(campaign / "models" / "v0003", random_state(), {})
    (campaign / "store.zarr").mkdir()
    lines = used(tmp_path, [bundle, among, campaign, "models:/water@champion"], wheel=tmp_path / "wheel")
    assert lines == [
        "True 1",
        "True 1",
        f"EnvironmentProblem {campaign}: a campaign's log: zarr is not installed; pip install zarr",
        "EnvironmentProblem models:/water@champion: mlflow is not installed; pip install mlflow",
        "alsys.Campaign is part of `alsys`, not of `alsys-model`: install alsys",
    ]


def used(folder: Path, places: list[object], *, wheel: Path) -> list[str]:
    script = folder / "use.py"
    script.write_text(BLOCKED.format(absent=ABSENT, wheel=str(wheel)) + USE)
    command = [sys.executable, str(script), *map(str, places)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()
