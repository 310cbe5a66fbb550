"""`alsys launch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from alsys.cli import main
from alsys.launch.engines import ENGINES

ETHANOL = str(Path(__file__).parents[3] / "configs" / "ethanol.yaml")
MIRROR = ["--set", "mirror=s3://bucket/ethanol"]


def test_files_are_written_and_commands_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", ETHANOL, "--on", "skypilot", "--render", str(tmp_path / "out"), *MIRROR]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "out" / "skypilot.yaml").is_file()
    assert "RAY_AUTH_TOKEN=$(openssl rand -hex 32) sky jobs launch" in said
    assert "price not known" in said
    submits, later = said.split("and later there, each for itself:")
    assert "sky jobs launch" in submits
    assert "sky jobs cancel" in later, "not among what submits"


def test_an_engine_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", ETHANOL, "--on", "mainframe"]) == 2
    assert "alsys: --on: is no engine (got 'mainframe'); one of " in capsys.readouterr().err


def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> tuple[int, Path]:
    """Submits with a program in the place of SkyPilot's, which writes down what it gets."""
    program = tmp_path / "bin" / "sky"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$PWD $# ${{#RAY_AUTH_TOKEN}}" > {tmp_path}/seen\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return main(["launch", ETHANOL, "--on", "skypilot", *MIRROR]), tmp_path / "seen"


def test_it_is_submitted_from_its_folder_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, seen = submitted(tmp_path, monkeypatch, 0)
    assert code == 0
    folder, _, token = seen.read_text().split()
    assert folder == str(tmp_path / "launch" / "ethanol-skypilot")
    assert int(token) >= 32


def test_what_the_engine_refuses_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submitted(tmp_path, monkeypatch, 7)[0] == 3
    assert "ended with 7" in (error := capsys.readouterr().err)
    assert "then the same `alsys launch`" in error


def test_help_names_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["launch", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in ENGINES)


def test_a_program_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["launch", ETHANOL, "--on", "skypilot", *MIRROR]) == 3
    assert "sky not found" in capsys.readouterr().err
    assert not (tmp_path / "launch").exists()


def test_the_way_to_the_end_is_estimated_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    toy = str(Path(ETHANOL).with_name("toy.yaml"))
    sets = [*MIRROR, "--set", "runtime.kind=ray", "--set", "launch.ray={image: a, ssh_from: 203.0.113.7/32}"]
    assert main(["launch", toy, "--on", "ray", "--estimate", "--render", str(tmp_path / "out"), *sets]) == 0
    said = capsys.readouterr().out
    assert "until the end, if machines there are as fast as this one: " in said
    assert " a label" in said
    assert not (tmp_path / "campaigns").exists()
