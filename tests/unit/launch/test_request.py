"""What travels with a campaign, and the command that runs it elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alsys.cli import command_line
from alsys.errors import InputError
from alsys.launch.folder import write_folder
from alsys.launch.request import LaunchRequest

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A campaign of a structure file."""
    text = (CONFIGS / "ethanol.yaml").read_text().replace("smiles: CCO", "file: structures/ethanol.xyz")
    (tmp_path / "structures").mkdir()
    (tmp_path / "structures" / "ethanol.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path / "mine.yaml"


def test_structure_files_travel_with_the_file_as_it_is(file: Path, tmp_path: Path) -> None:
    request = LaunchRequest.of(file, ["stop.labels=7"])
    folder = tmp_path / "out"
    assert write_folder(folder, {"a/b.yaml": "x\n"}, request) == [
        "a/b.yaml", "campaign/campaign.yaml", "campaign/structures/ethanol.xyz"
    ]  # fmt: skip
    assert (folder / "campaign" / "campaign.yaml").read_bytes() == file.read_bytes()
    elsewhere = LaunchRequest.of(folder / "campaign" / "campaign.yaml", request.overrides)
    assert elsewhere.config == request.config


def test_the_command_has_the_settings_of_the_user_and_an_address(file: Path) -> None:
    request = LaunchRequest.of(file, ["stop.labels=7", "directory=elsewhere", "runtime.address=local"])
    words = request.run("/data/x", ["labeling.resources={labeler: 1}"])
    args = command_line().parse_args(words[1:])
    assert args.set == [
        "stop.labels=7", "runtime.address=auto", "directory=/data/x", "labeling.resources={labeler: 1}",
        "runtime.worker_retries=1000",
    ]  # fmt: skip
    assert args.config == "campaign/campaign.yaml"
    mine = LaunchRequest.of(file, ["labeling.resources={mine: 1}", "runtime.worker_retries=5"])
    assert command_line().parse_args(mine.run("/data/x", ["labeling.resources={labeler: 1}"])[1:]).set == [
        "labeling.resources={mine: 1}", "runtime.worker_retries=5", "runtime.address=auto", "directory=/data/x"
    ]  # fmt: skip


def test_settings_hold_inside_of_sections_that_the_user_gives_as_a_whole(file: Path) -> None:
    request = LaunchRequest.of(file, ["labeling.groups={big: {workers: 2}}"])
    _, placing = request.fleet.placed()
    args = command_line().parse_args(request.run("/data/x", placing)[1:])
    elsewhere = LaunchRequest.of(file, args.set)
    assert [g.resources for g in elsewhere.fleet.groups[:2]] == [{"labeler": 1}, {"labeler_big": 1}]


@pytest.mark.parametrize("place", ["../ethanol.xyz", "/tmp/ethanol.xyz", "missing.xyz"])
def test_files_that_cannot_travel_are_refused(file: Path, place: str) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml: systems\[0\]\.file: "):
        LaunchRequest.of(file, [f"systems[0].file={place}"])


def test_what_was_changed_by_hand_is_not_overwritten(file: Path, tmp_path: Path) -> None:
    request, folder = LaunchRequest.of(file), tmp_path / "out"
    write_folder(folder, {"a.yaml": "x\n", "old.yaml": "x\n"}, request)
    write_folder(folder, {"a.yaml": "y\n"}, request)
    assert not (folder / "old.yaml").exists()
    (folder / "a.yaml").write_text("mine\n")
    with pytest.raises(InputError, match="changed by hand"):
        write_folder(folder, {"a.yaml": "z\n"}, request)
    assert (folder / "a.yaml").read_text() == "mine\n"
    write_folder(folder, {"a.yaml": "mine\n"}, request)


def test_a_folder_of_something_else_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="something else"):
        write_folder(tmp_path / "other", {"a.yaml": "x\n"}, LaunchRequest.of(file))
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other").mkdir()
    assert "a.yaml" in write_folder(tmp_path / "other", {"a.yaml": "x\n"}, LaunchRequest.of(file))
