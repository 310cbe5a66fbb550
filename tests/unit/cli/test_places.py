"""The same command in another folder, and what a finished campaign does; no campaign is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.places import check_place, remember_place
from alsys.config import CampaignConfig, parse_config
from alsys.errors import InputError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign file beside which the process is, and a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "project" / "configs").mkdir(parents=True)
    (tmp_path / "project" / "configs" / "c.yaml").write_text("")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project" / "configs" / "c.yaml"


def config(**more: object) -> CampaignConfig:
    content = {
        "name": "water",
        "systems": [{"name": "water", "molecule": "H2O"}],
        "labeling": {"kind": "analytic"},
        "model": {"kind": "pair"},
    }
    return parse_config({**content, **more})


def start(chosen: CampaignConfig, file: Path, *, is_remembered: bool = True) -> Path:
    """What `alsys run` leaves before the first label."""
    directory = CampaignFolder.of(chosen)
    directory.store.mkdir(parents=True)
    (directory.store / "HEAD").write_text("{}")
    directory.write_record(chosen, str(file))
    if is_remembered:
        remember_place(directory, str(file))
    return directory.path.resolve()


@pytest.mark.parametrize("is_remembered", [True, False])
@pytest.mark.parametrize("folder", [None, "runs/water"])
def test_a_second_campaign_of_a_file_is_not_started_in_silence(
    file: Path, folder: str | None, is_remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(directory=folder)
    check_place(chosen, "configs/c.yaml")
    place = start(chosen, file, is_remembered=is_remembered)
    check_place(chosen, "configs/c.yaml")
    for elsewhere in (file.parents[2] / "elsewhere", file.parent):
        monkeypatch.chdir(elsewhere)
        with pytest.raises(InputError, match="there is none in") as caught:
            check_place(chosen, os.path.relpath(file))
        assert f"--set directory={place}" in str(caught.value)
        assert "\n" not in str(caught.value)
        check_place(chosen, os.path.relpath(file), [f"directory={place}"])
        check_place(config(name="other", directory=folder), os.path.relpath(file))


def test_campaigns_far_from_their_file_are_remembered_until_they_are_gone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parents[2] / "elsewhere")
    place = start(config(), file)
    monkeypatch.chdir(file.parents[1])
    with pytest.raises(InputError, match=str(place)):
        check_place(config(), str(file))
    (file.parent / "copy.yaml").write_text("")
    check_place(config(), str(file.parent / "copy.yaml"))
    (place / "campaign.json").write_text("[")
    check_place(config(), str(file))


def test_a_new_campaign_in_place_of_one_that_was_moved_says_so(file: Path) -> None:
    assert check_place(config(), str(file)) == ""
    place = start(config(), file)
    assert check_place(config(), str(file)) == ""
    place.rename(place.with_name("moved"))
    said = check_place(config(), str(file))
    assert f"that of before in {place} is not there" in said
    assert "--set directory=FOLDER" in said
    assert check_place(config(), str(file), ["directory=campaigns/moved"]) == ""
    assert check_place(config(name="other"), str(file)) == ""


def test_trials_in_the_folder_of_temporary_files_are_not_remembered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the examples leave them: the next command from the project's folder starts a campaign there."""
    place = start(config(directory=str(tmp_path / "tmp" / "trial")), file)
    with pytest.raises(InputError, match=f"is in {place}, and there is none in {file.parents[1]}/campaigns/water"):
        check_place(config(), str(file))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    check_place(config(), str(file))
    remembered = start(config(directory="kept"), file)
    with pytest.raises(InputError, match=f"is in {remembered}, "):
        check_place(config(), str(file))


@pytest.mark.parametrize("home", [None, "/proc/nowhere", "relative"])
def test_without_a_state_folder_campaigns_above_the_file_are_found(
    file: Path, home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    start(config(), file)
    monkeypatch.chdir(file.parents[2] / "elsewhere")
    with pytest.raises(InputError, match="there is none in"):
        check_place(config(), str(file))


def test_a_campaign_of_an_older_alsys_is_known_by_its_science(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = CampaignFolder.of(config())
    directory.store.mkdir(parents=True)
    (directory.store / "HEAD").write_text("{}")
    directory.write_record(config())
    monkeypatch.chdir(file.parent)
    with pytest.raises(InputError, match="there is none in"):
        check_place(config(), "c.yaml")
    check_place(config(seed=2), "c.yaml")


def test_the_database_that_a_campaign_has_used_stays_its_own(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alsys.tracking.record import kept_uri, read_record

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place, uri = start(config(), file), f"sqlite:///{file.parents[1] / 'mlflow.db'}"
    directory = CampaignFolder(place)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert kept_uri(*read_record(place), place) == uri
    directory.write_record(config())
    assert kept_uri(*read_record(place), place) == f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}", (
        "it was never made"
    )
    monkeypatch.chdir(file.parents[1])
    directory.write_record(config())
    (file.parents[1] / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    directory.write_record(config())
    assert kept_uri(*read_record(place), place) == uri
    other = config(tracking={"uri": "http://127.0.0.1:9"})
    directory.write_record(other)
    assert kept_uri(*read_record(place), place) == "http://127.0.0.1:9"
    assert kept_uri(config(), read_record(place)[1], place) is None


@pytest.mark.parametrize(
    "name",
    ["a b", "water/ice", "c:d", "x@y", "10%", "wässer", "-water", ".water", "x" * 64, "", True, 5, None, "a\n", "a\tb"],
)
def test_names_that_a_file_system_or_mlflow_would_choke_on_are_one_line(name: object) -> None:
    with pytest.raises(InputError) as caught:
        config(name=name)
    assert "\n" not in str(caught.value)
    assert "name" in str(caught.value)
