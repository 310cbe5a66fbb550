"""What travels with a campaign, and the command that runs it elsewhere."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from alsys.cli import command_line
from alsys.errors import InputError
from alsys.launch.folder import WRITTEN, write_folder
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


@pytest.mark.parametrize("ended", range(3))
def test_a_launch_that_was_killed_while_it_wrote_is_gone_on_from(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    """Whichever files were written by then: none of them was changed by hand."""
    folder, request, place = tmp_path / "out", LaunchRequest.of(file), os.replace
    write_folder(folder, {"a.yaml": "x\n", "b.yaml": "x\n", "old.yaml": "x\n"}, request)
    n_left = [ended]

    def replace_until_killed(one: object, other: object) -> None:
        n_left[0] -= 1
        if n_left[0] < 0:
            raise KeyboardInterrupt
        place(one, other)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_until_killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder, {"a.yaml": "y\n", "b.yaml": "y\n", "new.yaml": "y\n"}, request)
    write_folder(folder, {"a.yaml": "z\n", "b.yaml": "z\n"}, request)
    assert sorted(path.name for path in folder.glob("*.yaml")) == ["a.yaml", "b.yaml"]
    (folder / "a.yaml").write_text("mine\n")
    with pytest.raises(InputError, match="changed by hand"):
        write_folder(folder, {"a.yaml": "q\n"}, request)


def test_a_first_launch_that_was_killed_while_it_wrote_is_gone_on_from(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, request = tmp_path / "out", LaunchRequest.of(file)
    written = {f"{n}.yaml": "x\n" for n in range(3)}
    place, n_left = os.replace, [2]

    def replace_until_killed(one: object, other: object) -> None:
        n_left[0] -= 1
        if n_left[0] < 0:
            raise KeyboardInterrupt
        place(one, other)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_until_killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder, written, request)
    assert "0.yaml" in write_folder(folder, written, request)


def test_a_list_of_files_of_others_removes_nothing_outside_of_its_folder(file: Path, tmp_path: Path) -> None:
    request, folder, mine = LaunchRequest.of(file), tmp_path / "out", tmp_path / "mine.txt"
    write_folder(folder, {"a.yaml": "x\n", "mine.txt": "mine"}, request)
    mine.write_text("mine")
    record = (folder / WRITTEN).read_text().replace('"mine.txt"', '"../mine.txt"')
    (folder / WRITTEN).write_text(record)
    with pytest.raises(InputError, match="is not what was written"):
        write_folder(folder, {"a.yaml": "x\n"}, request)
    assert mine.read_text() == "mine"


def test_a_structure_file_takes_the_place_of_nothing_that_is_written(file: Path, tmp_path: Path) -> None:
    request = LaunchRequest.of(file)
    with pytest.raises(InputError, match="has the name of a file that is written beside it"):
        write_folder(tmp_path / "out", {"campaign/structures/ethanol.xyz": "x\n"}, request)


def test_campaigns_of_different_names_never_share_machines(file: Path) -> None:
    long = "a" * 55
    names = ["mine", "Mine", "my.run", "my_run", "my-run", "my--run", f"{long}b", f"{long}c", "_"[:0] + "x-", "x"]
    found = [LaunchRequest.of(file, [f"name={name}"]).name for name in names]
    assert len(set(found)) == len(names), found
    assert found[0] == "alsys-mine"
    assert found[4] == "alsys-my-run"
    for name in found:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 50


@pytest.mark.parametrize(
    "setting",
    [
        "tracking.uri=http://admin:geheim@mlflow:5000",
        "tracking.uri=postgresql://mlflow:geheim@db/mlflow",
        "launch.package=alsys @ git+https://geheim@github.com/me/alsys",
    ],
)
def test_passwords_in_urls_get_into_no_file(file: Path, setting: str) -> None:
    with pytest.raises(InputError, match="would be written into files") as told:
        LaunchRequest.of(file, [setting])
    assert "geheim" not in str(told.value)


def test_urls_without_passwords_are_taken(file: Path) -> None:
    for setting in ("tracking.uri=http://mlflow:5000", "launch.package=alsys @ git+ssh://git@github.com/me/alsys"):
        LaunchRequest.of(file, [setting])


@pytest.mark.parametrize("field", ["image", "kuberay.gpu_image", "ray.image", "ray.gpu_image"])
def test_images_have_no_blanks(file: Path, field: str) -> None:
    with pytest.raises(InputError, match=rf"launch\.{field}"):
        LaunchRequest.of(file, [f'launch.{field}="a b: c"'])
