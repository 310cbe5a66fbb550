"""A registered name belongs to one campaign. On a real MLflow, one database for the module."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from alsys.campaign.campaign import Campaign as Run
from alsys.cli import main
from alsys.errors import InputError
from alsys.tracking.deliver import deliver
from alsys.tracking.identity import kept_identity
from alsys.tracking.mlflow import list_models, promote, release, rollback
from alsys.tracking.ownership import Owner, check_name, owner_at, owner_of
from alsys.tracking.server import Tag, connect
from alsys.tracking.undelivered import undelivered
from support.registry import Campaign, aliases_of, make_campaign

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connect(uri, create=True)
    return uri


def deliver_one(folder: Path, name: str, uri: str, version: int = 1) -> Campaign:
    campaign = make_campaign(folder, name, uri)
    campaign.publish(version)
    campaign.outbox.put_promote(version)
    deliver(campaign.directory)
    return campaign


def test_another_campaign_of_the_name_registers_nothing_and_says_so(uri: str, tmp_path: Path) -> None:
    deliver_one(tmp_path / "first", "namesake", uri)
    second = deliver_one(tmp_path / "second", "namesake", uri)
    assert aliases_of("namesake", uri) == {"champion": 1}
    assert len(list_models("namesake", uri=uri)) == 1
    report = deliver(second.directory)
    assert report.left == 2
    assert report.problem is not None
    assert "namesake is the name of models of another campaign" in report.problem
    assert "--set tracking.model=namesake-2" in report.problem
    second.outbox.note_problem(report.problem)
    [line] = undelivered(second.directory, [1], is_tracked=True).lines()
    assert line.startswith("not in the registry: v0001 (namesake is the name of models of another campaign")


def test_a_name_of_its_own_delivers_what_waited(uri: str, tmp_path: Path) -> None:
    deliver_one(tmp_path / "first", "waited", uri)
    second = deliver_one(tmp_path / "second", "waited", uri)
    renamed = second.config.tracking.model_copy(update={"model": "waited-2"})
    config = second.config.model_copy(update={"tracking": renamed})
    assert deliver(second.directory, config).problem is None
    assert aliases_of("waited-2", uri) == {"champion": 1}
    assert aliases_of("waited", uri) == {"champion": 1}


def test_a_name_that_is_let_go_belongs_to_the_next_campaign(uri: str, tmp_path: Path) -> None:
    first = deliver_one(tmp_path / "first", "passed", uri)
    release("passed", uri=uri)
    second = deliver_one(tmp_path / "second", "passed", uri)
    assert aliases_of("passed", uri) == {"champion": 2, "previous": 1}
    [line] = undelivered(second.directory, [1], is_tracked=True).lines()
    assert "was version 1 of another campaign and is v0001 of this one now; `alsys models rollback passed`" in line
    first.publish(2)
    first.outbox.put_promote(2)
    assert deliver(first.directory).problem is None, "it has versions there: these are registered, and move no alias"
    assert aliases_of("passed", uri) == {"champion": 2, "previous": 1}
    [line] = undelivered(first.directory, [1, 2], is_tracked=True).lines()
    assert "`champion` of passed in the registry stays version 2 of another campaign" in line
    assert rollback("passed", uri=uri) == 1
    first.publish(3)
    first.outbox.put_promote(3)
    deliver(first.directory)
    assert aliases_of("passed", uri) == {"champion": 4, "previous": 1}, "the name follows a rollback"


def test_a_registry_of_an_older_alsys_goes_on(uri: str, tmp_path: Path) -> None:
    """Its registered models have no tags, and two campaigns may share a name."""
    campaign = deliver_one(tmp_path / "campaign", "older", uri)
    client = connect(uri).client
    for tag in (Tag.CAMPAIGN_ID, Tag.CAMPAIGN):
        client.delete_registered_model_tag("older", tag)
    other = make_campaign(tmp_path / "other", "older", uri)
    with pytest.raises(InputError, match="is the name of models of another campaign"):
        check_name(other.config, uri, kept_identity(other.outbox.directory))
    check_name(campaign.config, uri, kept_identity(campaign.outbox.directory))
    campaign.publish(2)
    campaign.outbox.put_promote(2)
    assert deliver(campaign.directory).problem is None
    assert aliases_of("older", uri) == {"champion": 2, "previous": 1}
    assert client.get_registered_model("older").tags[Tag.CAMPAIGN_ID] == campaign.outbox.campaign_id


def test_a_model_of_somebody_else_keeps_its_name(uri: str, tmp_path: Path) -> None:
    client = connect(uri).client
    client.create_registered_model("theirs")
    campaign = make_campaign(tmp_path / "campaign", "theirs", uri)
    check_name(campaign.config, uri, None)  # nothing is registered under it yet
    client.create_model_version("theirs", source=str(tmp_path))
    with pytest.raises(InputError, match="models that alsys has not registered"):
        check_name(campaign.config, uri, None)
    campaign.publish(1)
    report = deliver(campaign.directory)
    assert report.problem is not None
    assert "models that alsys has not registered" in report.problem
    assert len(connect(uri).versions("theirs")) == 1


def test_a_database_is_asked_without_mlflow_as_mlflow_answers(uri: str, tmp_path: Path) -> None:
    from alsys.tracking.ownership import ask

    deliver_one(tmp_path / "campaign", "asked", uri)
    client = connect(uri).client
    client.create_model_version("asked", source=str(tmp_path))
    client.delete_model_version("asked", "2")
    for name in ("asked", "nobody"):
        assert owner_at(uri, name) == ask(connect(uri), name)
    owner = owner_at(uri, "asked")
    assert owner is not None
    assert (owner.campaign, owner.n_versions, owner.champion) == ("asked", 1, 1)


def test_whose_a_name_is_follows_from_tags_then_aliases_then_the_newest() -> None:
    a, b = ({Tag.CAMPAIGN_ID: one * 32, Tag.CAMPAIGN: one} for one in "ab")

    def owner(tags: dict[str, str], versions: list[dict[str, str]], **aliases: int) -> str | None:
        found = owner_of(tags, enumerate(versions, 1), aliases)
        return None if found is None else found.campaign_id[:1]

    assert owner({}, []) is None
    assert owner({Tag.CAMPAIGN_ID: "b" * 32}, [a]) == "b"
    assert owner({Tag.CAMPAIGN_ID: "released"}, [a, b], champion=1) is None
    assert owner({}, [a, b], champion=1) == "a"
    assert owner({}, [a, b], challenger=1) == "a"
    assert owner({}, [a, b]) == "b"
    assert owner({}, [a, {}]) == "a"
    assert owner({}, [{}]) == ""


def test_a_dead_server_is_no_reason(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path / "campaign", "dead", "http://127.0.0.1:9")
    check_name(campaign.config, "http://127.0.0.1:9", None)


def write_toy(folder: Path, uri: str) -> Path:
    folder.mkdir(parents=True)
    file = folder / "toy.yaml"
    file.write_text(
        "name: begun\nsystems: [{name: water, molecule: H2O}]\nlabeling: {kind: analytic}\nmodel: {kind: pair}\n"
        f"directory: {folder / 'campaign'}\ntracking: {{uri: '{uri}'}}\n"
    )
    return file


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_second_campaign_of_the_name_is_refused_before_it_starts(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: list[str]
) -> None:
    if owner_at(uri, "begun") is None:
        deliver_one(tmp_path / "first", "begun", uri)
    file = write_toy(tmp_path / "second", uri)
    assert main(["run", str(file), *dry]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert (
        f"{file}: name: is the name of models of another campaign in {uri} (1 version, champion is version 1)" in line
    )
    assert "`alsys models release begun`" in line
    assert not (tmp_path / "second" / "campaign").exists()
    assert Run(str(file), overrides=["tracking.model=begun-2"]).plan.config.model_name == "begun-2"


def test_a_copied_campaign_may_start(uri: str, tmp_path: Path) -> None:
    original = deliver_one(tmp_path / "original", "doubled", uri)
    shutil.copytree(original.directory, tmp_path / "copy")
    check_name(original.config, uri, kept_identity(tmp_path / "copy" / "outbox"))


def test_a_user_gives_the_name_by_promoting(uri: str, tmp_path: Path) -> None:
    original = deliver_one(tmp_path / "original", "given", uri)
    shutil.copytree(original.directory, tmp_path / "copy")
    copy = Campaign(tmp_path / "copy", original.config)
    copy.publish(2)
    deliver(copy.directory)
    assert aliases_of("given", uri) == {"champion": 1}
    promote("given", 2, uri=uri)
    owner = owner_at(uri, "given")
    assert owner is not None
    assert owner.campaign_id == copy.outbox.campaign_id
    original.publish(2)
    original.outbox.put_promote(2)
    deliver(original.directory)
    assert aliases_of("given", uri) == {"champion": 2, "previous": 1}, "it is the copy's now"


def test_an_owner_is_told_through_json(
    uri: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alsys.tracking import ownership

    deliver_one(tmp_path / "campaign", "told", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ownership.main(["told"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert Owner(**{**content, "writers": tuple(content["writers"])}) == owner_at(uri, "told")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert ownership.main(["told"]) == 1
