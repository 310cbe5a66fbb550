"""What MLflow keeps of a version: a model that can be served elsewhere, tags, curves, the page, where its data are."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tomllib
import warnings
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from alsys.errors import InputError
from alsys.interop.mlflow_settings import servers_kept, shown
from alsys.interop.model_sources import read_model
from alsys.testing.stores import fill
from alsys.tracking import model_wheel
from alsys.tracking.deliver import deliver
from alsys.tracking.logged_model import requirements
from alsys.tracking.mlflow import list_models
from alsys.tracking.publish import publish
from alsys.tracking.server import connect
from support.registry import Campaign, aliases_of, make_campaign

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'

ROOT = Path(__file__).resolve().parents[3]
WATER = {"numbers": [8, 1, 1], "positions": [[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.48]]}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def two(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign with two versions, the first of them promoted."""
    campaign = make_campaign(tmp_path_factory.mktemp("two") / "campaign", "two", uri)
    campaign.publish(1)
    campaign.outbox.put_promote(1)
    campaign.publish(2)
    report = deliver(campaign.directory)
    assert report.problem is None
    return campaign


def client_of(uri: str) -> Any:
    return connect(uri).client


def test_the_wheel_installs_what_alsys_model_does(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "packaging" / "alsys-model" / "pyproject.toml").read_text())
    left_out = {
        name.removeprefix("alsys.").removesuffix("*")
        for name in project["tool"]["setuptools"]["packages"]["find"]["exclude"]
    }
    assert left_out == model_wheel.LEFT_OUT
    assert {re.split("[<>=]", line)[0] for line in project["project"]["dependencies"]} == set(model_wheel.NEEDED)
    wheel = model_wheel.build(tmp_path)
    (tmp_path / "again").mkdir()
    assert model_wheel.build(tmp_path / "again").read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        about = archive.read(f"alsys_model-{model_wheel.__version__}.dist-info/METADATA").decode()
        record = archive.read(f"alsys_model-{model_wheel.__version__}.dist-info/RECORD").decode()
        assert {row[0] for row in csv.reader(io.StringIO(record))} == set(archive.namelist())
    asked = {Requirement(line) for line in re.findall(r"Requires-Dist: (.*)", about)}
    assert asked == {Requirement(line) for line in project["project"]["dependencies"]}
    absent = ("mlflow", "prometheus_client", "pyscf", "ray", "rdkit", "sortedcontainers", "tblite", "zarr")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
    code += "sys.meta_path[:] = [f for f in sys.meta_path if 'ditable' not in repr(f)]\n"
    code += "import alsys, alsys.interop.served; print(alsys.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))


def test_requirements_can_be_installed(two: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.8.0+cpu" if name == "torch" else "1.0")
    bundle = two.directory / "models" / "v0001"
    assert "torch==2.8.0" in requirements(bundle)
    model = json.loads((bundle / "model.json").read_text())
    copy = two.directory.parent / "bundle"
    copy.mkdir()
    (copy / "model.json").write_text(json.dumps({**model, "kind": "allegro", "baseline": {"engine": "tblite"}}))
    assert {"nequip==1.0", "nequip-allegro==1.0", "tblite==1.0"} <= set(requirements(copy))


def test_a_model_brings_the_code_that_reads_it(two: Campaign) -> None:
    folder = Path(client_of(two.uri).get_model_version("two", "1").source and _artifacts(two, 1))
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines[0] == f"code/alsys_model-{model_wheel.__version__}-py3-none-any.whl"
    assert (folder / lines[0]).is_file()
    assert not [line for line in lines if "+" in line or line.startswith("alsys=")]
    assert not list(folder.rglob("*.pkl"))


def _artifacts(campaign: Campaign, version: int) -> str:
    import mlflow.artifacts

    with servers_kept():
        connect(campaign.uri)
        place: str = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/two/{version}")
    return place


def test_a_bad_row_fails_alone_where_it_is_served(two: Campaign) -> None:
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import predictions_to_json

    with servers_kept():
        connect(two.uri)
        model = mlflow.pyfunc.load_model("models:/two@champion")
    answer = model.predict({"structure": [json.dumps(WATER), '{"numbers": [1]}']})
    text = io.StringIO()
    predictions_to_json(answer, text)
    good, bad = json.loads(text.getvalue(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))[
        "predictions"
    ]
    assert good["energy"] is not None
    assert good["reason"] is None
    assert bad["energy"] is None
    assert "structure[1]" in bad["reason"]
    alone = model.predict({"structure": [json.dumps(WATER)]})
    assert alone["energy"].dtype == np.float64


def test_models_are_found_by_what_they_know(two: Campaign) -> None:
    client = client_of(two.uri)
    found = client.search_model_versions("tags.`alsys.elements` LIKE '%O%' AND tags.`alsys.members` = '3'")
    assert {version.name for version in found} == {"two"}
    assert client.search_model_versions("tags.`alsys.elements` LIKE '%Zn%'") == []
    (experiment,) = {run.info.experiment_id for run in _runs(client)}
    models = client.search_logged_models([experiment], filter_string="metrics.force_mae_random_arm < 0.4")
    assert [model.tags["alsys.version"] for model in models] == ["2"]


def _runs(client: Any) -> list[Any]:
    experiments = [e.experiment_id for e in client.search_experiments()]
    return [run for run in client.search_runs(experiments) if run.data.tags.get("alsys.campaign") == "two"]


def test_versions_are_children_of_the_campaigns_run(two: Campaign) -> None:
    client = client_of(two.uri)
    runs = _runs(client)
    (parent,) = (run for run in runs if run.data.tags.get("alsys.role") == "campaign")
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    points = client.get_metric_history(parent.info.run_id, "force_mae_random_arm")
    assert sorted((point.step, point.value) for point in points) == [(10, 0.5), (20, 0.25)]
    for run in children:
        assert "card.json" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_a_delivery_that_comes_again_doubles_nothing(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "again", uri)
    campaign.publish(1)
    (item,) = campaign.outbox.pending()
    assert deliver(campaign.directory).problem is None
    campaign.outbox.put_publish(1, dict(item.card))
    assert deliver(campaign.directory).problem is None
    client = client_of(uri)
    runs = [
        run
        for run in client.search_runs([e.experiment_id for e in client.search_experiments()])
        if run.data.tags.get("alsys.campaign") == "again"
    ]
    assert len(runs) == 2
    for run in runs:
        assert len(client.get_metric_history(run.info.run_id, "force_mae_random_arm")) == 1


def test_what_is_in_the_data_is_in_tags_example_and_source(uri: str, tmp_path: Path) -> None:
    import mlflow.data
    import mlflow.pyfunc

    import alsys
    from alsys.store.zarr import open_writer

    campaign = make_campaign(tmp_path / "campaign", "filled", uri)
    writer = open_writer(campaign.directory / "store.zarr")
    fill(writer, 3)
    writer.close()
    campaign.publish(1)
    report = deliver(campaign.directory)
    assert report.problem is None
    client = client_of(uri)
    (version,) = client.search_model_versions("name = 'filled'")
    assert version.tags["alsys.systems"] == "fake"
    assert version.tags["alsys.periodic"] == "none"
    run = client.get_run(version.run_id)
    source = mlflow.data.get_source(run.inputs.dataset_inputs[0].dataset)
    assert source.campaign == str(campaign.directory)
    assert source.version == 7
    assert source.from_json(source.to_json()).to_dict() == source.to_dict()
    source.version = None
    dataset = source.load()
    assert len(dataset) == 3 == len(alsys.open_dataset(campaign.directory))
    with servers_kept():
        connect(uri)
        model = mlflow.pyfunc.load_model("models:/filled/1")
        answer = model.predict(model.input_example)
    assert json.loads(model.input_example["structure"][0])["numbers"] == next(dataset.frames()).numbers.tolist()
    assert "does not know these elements" in answer["reason"][0], "the pair model of tests has no carbon"
    parent = run.data.tags["mlflow.parentRunId"]
    assert "report.html" in [file.path for file in client.list_artifacts(parent)]


def test_a_source_of_an_older_alsys_says_what_is_missing() -> None:
    from alsys.campaign.mlflow_source import CampaignSource

    source = CampaignSource.from_dict({"store": "store.zarr", "seq": 7})
    assert source.version == 7
    with pytest.raises(InputError, match="does not say where its campaign is"):
        source.load()


def test_a_model_goes_to_another_registry(two: Campaign, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path / 'other.db'}"
    model = publish("models:/two@champion", "shared", there, uri=two.uri)
    assert (model.name, model.version, model.campaign_version, model.n_labels) == ("shared", 1, 1, 10)
    ours, card = read_model("models:/two@champion", tracking_uri=two.uri)
    theirs, copied = read_model("models:/shared@champion", tracking_uri=there)
    assert card == copied
    for one, other in zip(ours.members, theirs.members, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    publish(two.directory / "models" / "v0002", "shared", there)
    assert aliases_of("shared", there) == {"champion": 2, "previous": 1}
    again = publish(two.directory / "models" / "v0001", "shared", there)
    assert again.version == 1, "the same bundle is no new version"
    assert aliases_of("shared", there) == {"champion": 1, "previous": 2}
    assert len(list_models("shared", uri=there)) == 2


def test_published_and_campaigns_names_are_kept_apart(two: Campaign, tmp_path: Path) -> None:
    bundle = two.directory / "models" / "v0001"
    with pytest.raises(InputError, match="models of another campaign"):
        publish(bundle, "two", two.uri)
    publish(bundle, "taken", two.uri)
    campaign = make_campaign(tmp_path / "campaign", "taken", two.uri)
    campaign.publish(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = deliver(campaign.directory)
    assert report.problem is not None
    assert "models that were published" in report.problem
    assert len(list_models("taken", uri=two.uri)) == 1


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a'b", "a@b"])
def test_what_is_no_name_is_refused(two: Campaign, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no name"):
        publish(two.directory / "models" / "v0001", name, f"sqlite:///{tmp_path / 'x.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("postgresql+psycopg2://me:s3cr@t@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("https://me:secret@host:5000", "https://me:***@host:5000"),
        ("sqlite:////home/me/a:b@c/mlflow.db", "sqlite:////home/me/a:b@c/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("http://host:5000/a failed: ask me@host", "http://host:5000/a failed: ask me@host"),
        ("http://host:5000 failed: ask me@host", "http://host:5000 failed: ask me@host"),
        ("to http://me:a@host/x and http://me:b@host", "to http://me:***@host/x and http://me:***@host"),
    ],
)
def test_passwords_are_not_shown(uri: str, text: str) -> None:
    assert shown(uri) == text
