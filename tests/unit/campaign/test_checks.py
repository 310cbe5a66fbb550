"""Campaigns that would be lost are refused before they start."""

from __future__ import annotations

from pathlib import Path

import pytest

from alsys.cli import main

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"


@pytest.mark.parametrize("kind", ["working_dir_files", "py_modules_files"])
def test_a_campaign_among_the_packages_of_a_job_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = tmp_path / "ray" / "session_1" / "runtime_resources" / kind / "_ray_pkg_0123"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "toy.yaml").write_bytes(TOY.read_bytes())
    assert main(["run", "toy.yaml"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    for part in ("toy.yaml", "directory", "campaigns/toy", "--set directory=/data/NAME"):
        assert part in line
    assert not (folder / "campaigns").exists()
    assert main(["run", "toy.yaml", "--dry-run", "--set", f"directory={tmp_path / 'toy'}"]) == 0
