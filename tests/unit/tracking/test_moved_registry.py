"""A project folder that is moved or copied: database, artifacts and campaign together."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

import alsys
from alsys.cli import main
from alsys.errors import AlsysError
from alsys.interop.moved_artifacts import COLUMNS, displaced, mend
from alsys.tracking.deliver import deliver
from alsys.tracking.mlflow import list_models
from alsys.tracking.record import kept_uri, read_record, resolved_tracking
from alsys.tracking.server import connect
from support.registry import Campaign, aliases_of, make_campaign

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose campaign has delivered two versions."""
    project = tmp_path_factory.mktemp("made") / "project"
    campaign = make_campaign(project / "campaigns" / "moved", "moved", "sqlite:///mlflow.db")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(project)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        record = json.loads((campaign.directory / "campaign.json").read_text())
        record["tracking"] = resolved_tracking(campaign.config, record, campaign.directory)
        (campaign.directory / "campaign.json").write_text(json.dumps(record))
        for version in (1, 2):
            campaign.publish(version)
            campaign.outbox.put_promote(version)
        assert deliver(campaign.directory).problem is None
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """The project at another place; where it was made is gone, as far as it knows."""
    project, gone = tmp_path / "there" / "with a blank", str(tmp_path / "gone")
    shutil.copytree(made, project)
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        for table, column in COLUMNS:
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(made), gone))
    for name in ("campaign.json", "outbox/place.json"):
        path = project / "campaigns" / "moved" / name
        path.write_text(path.read_text().replace(str(made), gone))
    return project


def dump(database: Path) -> str:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())


def forces(calculator: object) -> np.ndarray:
    water = molecule("H2O")
    water.calc = calculator
    return np.asarray(water.get_forces())


def test_a_calculator_finds_artifacts_beside_a_moved_database_and_writes_nothing(project: Path) -> None:
    before = (project / "mlflow.db").read_bytes()
    uri = f"sqlite:///{project / 'mlflow.db'}"
    found = alsys.load_calculator("models:/moved@champion", tracking_uri=uri)
    local = alsys.load_calculator(project / "campaigns" / "moved" / "models" / "v0002")
    np.testing.assert_array_equal(forces(found), forces(local))
    assert (project / "mlflow.db").read_bytes() == before


def test_a_look_at_the_registry_mends_it_for_plain_mlflow_too(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list", str(project / "campaigns" / "moved")]) == 0
    assert "moved/2 [champion]" in capsys.readouterr().out
    assert displaced(project / "mlflow.db") == {}
    assert str(tmp_path / "gone") not in dump(project / "mlflow.db")
    connect(f"sqlite:///{project / 'mlflow.db'}")
    import mlflow.pyfunc

    water = {"numbers": [8, 1, 1], "positions": [[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.48]]}
    answer = mlflow.pyfunc.load_model("models:/moved@champion").predict({"structure": [json.dumps(water)]})
    assert np.isfinite(answer["energy"]).all()


def test_a_campaign_goes_on_in_its_moved_registry(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    directory = project / "campaigns" / "moved"
    config, record = read_record(directory)
    uri = f"sqlite:///{project / 'mlflow.db'}"
    assert kept_uri(config, record, directory) == resolved_tracking(config, record, directory)["uri"] == uri
    campaign = Campaign(directory, config)
    campaign.publish(3)
    campaign.outbox.put_promote(3)
    assert deliver(directory).problem is None
    assert aliases_of("moved", uri) == {"champion": 3, "previous": 2}
    assert not (tmp_path / "gone").exists(), "nothing is written to where it was"
    assert len(list((project / "mlartifacts").rglob("model.json"))) == 3


def test_a_copied_project_has_artifacts_of_its_own(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    database = tmp_path / "copy" / "mlflow.db"
    assert list_models("moved", uri=f"sqlite:///{database}")
    assert not [line for line in dump(database).splitlines() if str(made / "mlartifacts") in line]


def test_a_database_without_its_artifacts_is_left_as_it_is(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "mlflow.db", tmp_path / "mlflow.db")
    assert displaced(tmp_path / "mlflow.db") == {}
    assert mend(tmp_path / "mlflow.db") == 0


def test_artifacts_that_were_not_moved_along_are_missed_in_one_line(project: Path) -> None:
    shutil.rmtree(project / "mlartifacts")
    with pytest.raises(AlsysError, match="its files are gone; if the database was moved") as caught:
        alsys.load_calculator("models:/moved@champion", tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    assert "\n" not in str(caught.value)
