"""Delivery to a real MLflow on SQLite. One database for the module: making its tables takes five seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from alsys.errors import EnvironmentProblem, InputError
from alsys.potentials.base import FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee
from alsys.tracking.deliver import deliver
from alsys.tracking.delivery_process import DeliveryProcess
from alsys.tracking.mlflow import list_models, promote, rollback, show_model
from alsys.tracking.registry import OutboxRegistry
from alsys.tracking.server import connect, prepare_environment, resolve_uri
from alsys.tracking.undelivered import undelivered
from alsys.validation.results import UnitResult, ValidationRecord, record_path, write_validation
from support.registry import Campaign, aliases_of, make_campaign

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'

WATER = {"numbers": [8, 1, 1], "positions": [[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.48]]}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    prepare_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connect(uri, create=True).client.search_experiments()
    return uri


@pytest.fixture(scope="module")
def three(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign with three versions: the first two were promoted, the third was not."""
    campaign = make_campaign(tmp_path_factory.mktemp("three") / "campaign", "three", uri)
    for version in (1, 2, 3):
        campaign.publish(version)
        if version < 3:
            campaign.outbox.put_promote(version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = deliver(campaign.directory)
    assert report.problem is None
    assert len(report.delivered) == 5
    return campaign


def test_aliases_over_three_versions(three: Campaign) -> None:
    assert aliases_of("three", three.uri) == {"previous": 1, "champion": 2, "challenger": 3}
    assert not three.outbox.has_pending()


def test_a_version_carries_what_it_was_made_from(three: Campaign) -> None:
    model = show_model("three", uri=three.uri)
    assert (model.campaign, model.campaign_version, model.parent) == ("three", 2, 1)
    assert (model.n_labels, model.head_seq) == (20, 14)
    assert model.metrics["force_mae_random_arm"] == 0.25
    assert json.loads(model.level_of_theory) == {"engine": "analytic"}
    run = connect(three.uri).client.get_run(model.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["force_mae_random_arm"] == 0.25
    assert run.data.params["labeling.kind"] == "analytic"
    assert run.data.params["systems.0.name"] == "water"
    [data] = run.inputs.dataset_inputs
    assert data.dataset.digest == model.dataset_digest == f"{2:032x}"
    assert json.loads(data.dataset.source)["version"] == 14
    history = connect(three.uri).client.get_metric_history(model.run_id, "force_mae_random_arm")
    assert [metric.step for metric in history] == [20]


def test_numbers_of_a_validation_are_logged_to_the_run_of_their_version(three: Campaign) -> None:
    name = "validation.parity.force_mae"
    for number in (1, 2):
        metrics = {name: 0.1 / number, **{f"validation.torsions.m{k}.error_mean": float(k) for k in range(120)}}
        three.outbox.put_validation(2, metrics, 1e9 + number)
        report = deliver(three.directory)
        assert report.problem is None
        assert len(report.delivered) == 1
    version = show_model("three", uri=three.uri)
    client = connect(three.uri).client
    assert version.campaign_version == 2
    run = client.get_run(version.run_id)
    assert run.data.metrics[name] == 0.05
    assert run.data.metrics["validation.torsions.m119.error_mean"] == 119.0
    assert run.data.metrics["force_mae_random_arm"] == 0.25
    history = client.get_metric_history(version.run_id, name)
    assert [(metric.value, metric.step) for metric in history] == [(0.1, 20), (0.05, 20)]
    three.outbox.put_validation(1, {name: 0.3}, 1e9)
    unit = UnitResult(
        "frequencies", "k", "done", "water", curves={"reference": [300.0, 900.0], "model": [310.0, 890.0]}
    )
    record = ValidationRecord(1, 3, {"engine": "x"}, (unit,))
    write_validation(record_path(three.directory / "validation", 1), record)
    deliver(three.directory)
    run_id = show_model("three", "1", uri=three.uri).run_id
    page = Path(client.download_artifacts(run_id, "validation.html")).read_text(encoding="utf-8")
    assert "Vibrations of water" in page
    assert "<svg" in page
    assert not [f.path for f in client.list_artifacts(version.run_id) if f.path == "validation.html"], (
        "v2 has no record"
    )
    tags = client.get_model_version("three", "1").tags
    assert json.loads(tags["alsys.validation"]) == {name: 0.3}


def test_a_validation_of_a_version_that_was_never_registered_is_refused(three: Campaign) -> None:
    three.outbox.put_validation(77, {"validation.parity.force_mae": 0.1}, 1e9)
    report = deliver(three.directory)
    assert "never registered" in next(iter(report.refused.values()))


def test_artifacts_lie_beside_the_database_wherever_they_are_read_from(three: Campaign) -> None:
    database = Path(resolve_uri(three.uri).removeprefix("sqlite:///"))
    bundles = list((database.parent / "mlartifacts" / "tests").rglob("model.json"))
    assert bundles
    assert all(read_bundle(bundle.parent).kind == "pair" for bundle in bundles)


def test_the_registered_model_predicts_what_the_bundle_does_without_pickle(
    three: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    connect(three.uri)
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model("models:/three@champion")
    assert not list(Path(model._model_meta.artifact_path.removeprefix("file://")).rglob("*.pkl"))
    methane = {"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.8]], "cell": None, "pbc": None}
    answer = model.predict({"structure": [json.dumps(WATER), json.dumps(methane)]})
    committee = build_committee(read_bundle(three.directory / "models" / "v0002"))
    from alsys.frames import Frame

    expected = committee.evaluate(
        FrameBatch.of([Frame.molecule(s["numbers"], s["positions"]) for s in (WATER, methane)])
    )
    np.testing.assert_allclose(answer["energy"], expected.energy)
    np.testing.assert_allclose(np.concatenate([np.array(f) for f in answer["forces"]]), expected.forces)
    np.testing.assert_allclose(answer["deviation"], expected.frame_deviation)
    assert [len(d) for d in answer["force_deviation"]] == [3, 2]


def test_a_kill_after_registering_and_before_done_registers_once(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "twice", uri)
    campaign.publish(1)
    campaign.outbox.put_promote(1)
    copy = tmp_path / "outbox-before"
    campaign.outbox.campaign_id  # noqa: B018  made before the copy, as it is before anything is registered
    shutil.copytree(campaign.outbox.directory, copy)
    assert deliver(campaign.directory).problem is None
    shutil.rmtree(campaign.outbox.directory)
    shutil.copytree(copy, campaign.outbox.directory)
    assert len(deliver(campaign.directory).delivered) == 2
    assert [(v.version, v.aliases) for v in list_models("twice", uri=uri)] == [(1, ("champion",))]
    client = connect(uri).client
    experiment = client.get_experiment_by_name("tests").experiment_id
    assert len(client.search_runs([experiment], "tags.`alsys.campaign` = 'twice'")) == 2, "its own, and the campaign's"


def test_a_kill_between_logging_and_registering_reuses_the_run_and_the_model(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "halfway", uri)
    campaign.publish(1)
    before = tmp_path / "outbox-before"
    campaign.outbox.campaign_id  # noqa: B018
    shutil.copytree(campaign.outbox.directory, before)
    assert deliver(campaign.directory).problem is None
    client = connect(uri).client
    run_id = show_model("halfway", 1, uri=uri).run_id
    client.delete_registered_model("halfway")
    shutil.rmtree(campaign.outbox.directory)
    shutil.copytree(before, campaign.outbox.directory)
    assert deliver(campaign.directory).problem is None
    assert show_model("halfway", "challenger", uri=uri).run_id == run_id
    assert len(client.get_run(run_id).outputs.model_outputs) == 1


def test_resuming_a_campaign_does_not_undo_a_rollback(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "rolled", uri)
    for version in (1, 2):
        campaign.publish(version)
        campaign.outbox.put_promote(version)
    deliver(campaign.directory)
    assert rollback("rolled", uri=uri) == 1
    assert aliases_of("rolled", uri) == {"champion": 1, "previous": 2}
    for version in (1, 2):  # what a restart of the campaign puts again
        campaign.outbox.put_publish(version, {"version": version})
        campaign.outbox.put_promote(version)
    assert deliver(campaign.directory).delivered == []
    assert aliases_of("rolled", uri) == {"champion": 1, "previous": 2}
    assert rollback("rolled", uri=uri) == 2


def test_verdicts_and_reasons_are_in_the_registry_and_a_campaign_rolls_back(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "judged", uri)
    registry = OutboxRegistry(campaign.directory, DeliveryProcess(campaign.directory, command=["true"]))
    for version in (1, 2, 3):
        campaign.make_bundle(version)
    registry.promote(1, "first version")
    registry.promote(2, "better: [-20.0, -10.0] meV/Angstrom")
    registry.reject(3, "worse; lost 6 of 8 walkers at 625 K")
    assert deliver(campaign.directory).problem is None
    assert aliases_of("judged", uri) == {"previous": 1, "champion": 2, "challenger": 3}
    rejected = show_model("judged", "challenger", uri=uri)
    assert (rejected.verdict, rejected.reason) == ("rejected", "worse; lost 6 of 8 walkers at 625 K")
    entity = connect(uri).client.get_model_version("judged", "3")
    assert entity.description == "rejected: worse; lost 6 of 8 walkers at 625 K"
    assert show_model("judged", uri=uri).verdict == "promoted"
    registry.promote(1, "rolled back by the user from v0002", times=2)
    assert deliver(campaign.directory).problem is None
    assert aliases_of("judged", uri) == {"previous": 2, "champion": 1, "challenger": 3}
    assert show_model("judged", uri=uri).reason == "rolled back by the user from v0002"
    registry.close()


def test_a_user_promotes_a_challenger(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "chosen", uri)
    campaign.publish(1)
    campaign.publish(2)
    deliver(campaign.directory)
    assert aliases_of("chosen", uri) == {"challenger": 2}
    assert promote("chosen", 2, uri=uri).aliases == ("champion",)
    promote("chosen", 1, uri=uri)
    assert aliases_of("chosen", uri) == {"champion": 1, "previous": 2}


def test_a_missing_bundle_is_refused_and_does_not_hold_up_the_rest(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "lossy", uri)
    campaign.outbox.put_publish(1)
    campaign.outbox.put_promote(1)
    campaign.publish(2)
    report = deliver(campaign.directory)
    assert report.problem is None
    assert len(report.refused) == 2
    assert [version.campaign_version for version in list_models("lossy", uri=uri)] == [2]


def test_a_dead_server_keeps_the_items_and_answers_in_seconds(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "dead", "http://127.0.0.1:9")
    campaign.publish(1)
    campaign.outbox.put_promote(1)
    started = time.monotonic()
    report = deliver(campaign.directory)
    assert time.monotonic() - started < 20
    assert report.left == 2
    assert report.problem == "MLflow at http://127.0.0.1:9 does not answer"
    assert len(campaign.outbox.pending()) == 2
    with pytest.raises(EnvironmentProblem, match="gave no answer"):
        list_models(uri=campaign.uri)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda uri: list_models("nobody", uri=uri), "no registered model of this name"),
        (lambda uri: show_model("three", 99, uri=uri), "no such version"),
        (lambda uri: show_model("three", "best", uri=uri), "no such version"),
        (lambda uri: promote("three", 99, uri=uri), "no such version"),
        (lambda uri: promote("nobody", 1, uri=uri), "no registered model of this name"),
        (lambda uri: rollback("nobody", uri=uri), "no registered model of this name"),
        (lambda uri: list_models(uri="sqlite:////nowhere/at/all.db"), "no such database"),
        (lambda uri: list_models(uri="file:///tmp/mlruns"), "not an MLflow server"),
    ],
)
def test_unknown_names_and_versions_are_one_line(three: Campaign, action: object, words: str) -> None:
    assert callable(action)
    with pytest.raises(InputError, match=words) as caught:
        action(three.uri)
    assert "\n" not in str(caught.value)


def test_rollback_without_a_champion_before_is_refused(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "only", uri)
    campaign.publish(1)
    campaign.outbox.put_promote(1)
    deliver(campaign.directory)
    with pytest.raises(InputError, match="no previous champion"):
        rollback("only", uri=uri)


def test_two_campaigns_share_one_database_at_the_same_time(uri: str, tmp_path: Path) -> None:
    campaigns = [make_campaign(tmp_path / name, name, uri) for name in ("left", "right")]
    for campaign in campaigns:
        for version in (1, 2, 3):
            campaign.publish(version)
            campaign.outbox.put_promote(version)
    command = [sys.executable, "-m", "alsys.tracking.deliver"]
    children = [subprocess.Popen([*command, str(c.directory)], stderr=subprocess.PIPE, text=True) for c in campaigns]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    for campaign in campaigns:
        assert aliases_of(campaign.config.name, uri) == {"previous": 2, "champion": 3}
        assert len(list_models(campaign.config.name, uri=uri)) == 3


def test_a_broken_item_holds_nobody_up_and_is_named(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "broken", uri)
    for version in (1, 2, 3):
        campaign.publish(version)
        campaign.outbox.put_promote(version, "better")
    names = [item.file_name for item in campaign.outbox.pending()]
    (campaign.outbox.directory / names[0]).write_text('{"kind"')
    (campaign.outbox.directory / names[3]).write_bytes(b"\0" * 100)
    damage = campaign.directory / "models" / "v0003" / "member_00.safetensors"
    damage.write_bytes(damage.read_bytes()[:-8] + b"\1" * 8)
    report = deliver(campaign.directory)
    assert report.problem is None
    assert aliases_of("broken", uri) == {"previous": 1, "champion": 2}
    assert show_model("broken", 2, uri=uri).n_labels == 20
    state = campaign.outbox.state()
    assert state.published == {1, 2}
    expected = {f"outbox/failed/{name}" for name in (names[0], names[3])}
    assert set(state.set_aside) == expected | {f"outbox/refused/{name}" for name in names[4:]}
    assert "the bundle v0003 cannot be read" in state.set_aside[f"outbox/refused/{names[4]}"]


def test_an_item_that_mlflow_refuses_waits_and_others_go_on(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "refusing", uri)
    for version in (1, 2, 3):
        campaign.make_bundle(version)
        metrics = {"a metric ( of an odd name": 1.0} if version == 2 else {"ok": 1.0}
        campaign.outbox.put_publish(version, {"metrics": metrics})
        campaign.outbox.put_promote(version)
    report = deliver(campaign.directory)
    assert report.problem is not None
    assert report.problem.startswith("v0002: ")
    assert report.left == 2
    assert aliases_of("refusing", uri) == {"previous": 1, "champion": 2}
    waiting = campaign.outbox.pending()
    path = campaign.outbox.directory / waiting[0].file_name
    path.write_text(path.read_text().replace("a metric ( of an odd name", "even"))
    assert deliver(campaign.directory).problem is None
    champion = show_model("refusing", uri=uri)
    assert champion.campaign_version == 3, "a promotion that comes late does not undo the next one"


def test_what_a_user_deleted_is_restored_or_made_anew(uri: str, tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "deleted", uri)
    campaign.publish(1)
    campaign.publish(2)
    deliver(campaign.directory)
    client = connect(uri).client
    experiment = client.get_experiment_by_name("tests").experiment_id
    client.delete_experiment(experiment)
    campaign.publish(3)
    assert deliver(campaign.directory).problem is None
    assert client.get_experiment_by_name("tests").lifecycle_stage == "active"
    client.delete_run(show_model("deleted", 1, uri=uri).run_id)
    campaign.outbox.put_validation(1, {"validation.parity.force_mae": 0.1}, 1e9)
    assert deliver(campaign.directory).problem is None
    run = client.get_run(show_model("deleted", 1, uri=uri).run_id)
    assert (run.info.lifecycle_stage, run.data.metrics["validation.parity.force_mae"]) == ("active", 0.1)
    client.delete_model_version("deleted", "2")
    campaign.outbox.put_promote(2)
    assert deliver(campaign.directory).problem is None
    assert show_model("deleted", uri=uri).campaign_version == 2
    client.delete_registered_model("deleted")
    campaign.outbox.put_reject(3, "worse")
    assert deliver(campaign.directory).problem is None
    [only] = list_models("deleted", uri=uri)
    assert (only.campaign_version, only.verdict) == (3, "rejected")
    runs = client.search_runs([experiment], "tags.`alsys.campaign` = 'deleted'")
    assert len(runs) == 4, "the runs that were there are used again: of each version, and of the campaign"


def test_a_copied_campaign_registers_as_one_of_its_own(uri: str, tmp_path: Path) -> None:
    original = make_campaign(tmp_path / "original", "copied", uri)
    original.publish(1)
    original.outbox.put_promote(1)
    deliver(original.directory)
    shutil.copytree(original.directory, tmp_path / "copy")
    copy = Campaign(tmp_path / "copy", original.config)
    for campaign, label in ((original, 20), (copy, 30)):
        campaign.make_bundle(2)
        campaign.outbox.put_publish(2, {"n_labels": label})
        assert deliver(campaign.directory).problem is None
        assert aliases_of("copied", uri) == {"champion": 1, "challenger": 2}, "the copy moves none of the original's"
    assert [(v.campaign_version, v.n_labels) for v in list_models("copied", uri=uri)] == [(1, 10), (2, 20), (2, 30)]
    identities = [v.tags["alsys.campaign_id"] for v in connect(uri).versions("copied")]
    assert identities[0] == identities[1] == original.outbox.campaign_id
    assert identities[2] == copy.outbox.campaign_id != identities[0]


def test_a_copy_moves_no_alias_of_its_original_until_a_user_gives_it_one(uri: str, tmp_path: Path) -> None:
    original = make_campaign(tmp_path / "original", "aliased", uri)
    original.publish(1)
    original.outbox.put_promote(1)
    deliver(original.directory)
    shutil.copytree(original.directory, tmp_path / "copy")
    copy = Campaign(tmp_path / "copy", original.config)
    copy.publish(2)
    copy.outbox.put_promote(2)
    assert deliver(copy.directory).problem is None
    assert aliases_of("aliased", uri) == {"champion": 1}
    [line] = undelivered(copy.directory, [1, 2], is_tracked=True).lines()
    assert "stays version 1 of the campaign that this one was copied from" in line
    assert "`alsys models promote aliased 2`" in line
    original.publish(3)
    original.outbox.put_promote(3)
    deliver(original.directory)
    assert aliases_of("aliased", uri) == {"champion": 3, "previous": 1}, "the original's own"
    assert undelivered(original.directory, [1, 3], is_tracked=True).lines() == []
    promote("aliased", 2, uri=uri)
    copy.publish(4)
    copy.outbox.put_promote(4)
    deliver(copy.directory)
    assert aliases_of("aliased", uri) == {"champion": 4, "previous": 2}
    assert undelivered(copy.directory, [1, 2, 4], is_tracked=True).lines() == []


def test_a_copy_of_a_copy_leaves_both_alone(uri: str, tmp_path: Path) -> None:
    original = make_campaign(tmp_path / "a", "generations", uri)
    original.publish(1)
    original.outbox.put_promote(1)
    deliver(original.directory)
    for before, name in (("a", "b"), ("b", "c")):
        shutil.copytree(tmp_path / before, tmp_path / name)
        copy = Campaign(tmp_path / name, original.config)
        copy.publish(2)
        copy.outbox.put_promote(2)
        deliver(copy.directory)
        assert aliases_of("generations", uri) == {"champion": 1}


def test_a_copy_whose_original_cannot_be_seen_is_known_by_its_models(uri: str, tmp_path: Path) -> None:
    """As on another machine that uses the same server."""
    original = make_campaign(tmp_path / "here" / "original", "far", uri)
    original.publish(1)
    deliver(original.directory)
    shutil.copytree(original.directory, tmp_path / "there" / "copy")
    original.publish(2)
    deliver(original.directory)
    (tmp_path / "here").rename(tmp_path / "unseen")
    copy = Campaign(tmp_path / "there" / "copy", original.config)
    copy.make_bundle(2, seed=3)
    copy.outbox.put_publish(2)
    assert deliver(copy.directory).problem is None
    assert [v.campaign_version for v in list_models("far", uri=uri)] == [1, 2, 2]
    assert len({v.tags["alsys.campaign_id"] for v in connect(uri).versions("far")}) == 2
