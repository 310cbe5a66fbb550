"""What cannot be written is refused before the work; a model that took long is kept whatever happens to its place."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.cli.outputs import PAUSE_S, Kept, check_file, check_folder, keep_bundle
from alsys.config import parse_config
from alsys.errors import InputError
from alsys.events import CampaignOpened
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labels import Label
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle
from alsys.store.zarr import open_writer
from alsys.testing.fakes import FAKE_LEVEL

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "nequip"},
    "tracking": {"enabled": False},
}
MEMBER = {"coefficients": np.zeros((1, 8)), "shifts": np.zeros(1)}
STATE = CommitteeState(4, "pair", {"elements": ["H"], "r_max": 4.0, "n_basis": 8}, (MEMBER,))


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Runs a command that must end with one line."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.out == ""
    return captured.err


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_that_can_be_made_leave_no_trace(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "a", "OUTPUT")
    assert content(tmp_path / "new") == []
    with pytest.raises(InputError, match="exists already"):
        check_folder(tmp_path / "new", "OUTPUT")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"):
        check_folder(tmp_path / "link", "OUTPUT")


@pytest.mark.parametrize("name", ["file/out", "file/sub/out", "x" * 300, "x" * 253])
def test_folders_that_cannot_be_made(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"OUTPUT: cannot be written: .*name a folder"):
        check_folder(tmp_path / name, "OUTPUT")
    assert content(tmp_path) == ["file"]


def test_files_that_can_be_written_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kept")
    check_file(tmp_path / "a", "--output")
    check_file(tmp_path / "b", "--output")
    assert content(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file/a", "Not a directory"), ("none/a", "No such file"), ("folder", "is no file"), ("", "is no file"),
        ("x" * 300, "too long"), ("/dev/null", "is no file"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_written(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"--output: .*{words}"):
        check_file(tmp_path / name, "--output")
    assert content(tmp_path) == ["file", "folder"]


def test_a_model_goes_to_its_place(tmp_path: Path) -> None:
    assert keep_bundle(tmp_path / "out", STATE, {}) == Kept(tmp_path / "out")
    assert read_bundle(tmp_path / "out").version == 4


def test_a_model_whose_place_is_gone_is_kept_in_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "aside").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    kept = keep_bundle(tmp_path / "file" / "out", STATE, {})
    assert kept.problem == "Not a directory"
    assert kept.place.parent.parent == tmp_path / "aside"
    assert read_bundle(kept.place).version == 4


def test_a_model_that_fits_nowhere_waits_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(file))
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            file.unlink()

    kept = keep_bundle(file / "out", STATE, {}, pause)
    assert kept == Kept(file / "out")
    assert read_bundle(kept.place).version == 4
    assert pauses == [PAUSE_S] * 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "keeps the model and tries again every 10 s" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["OUT/small"], "OUTPUT: cannot be written: Not a directory"),
        (["new", "--temperature", "-5"], "--temperature: must be above 0 and at most 20,000 K (got -5.0)"),
        (["new", "--temperature", "300", "--temperature", "nan"], "--temperature: must be above 0"),
        (["new", "--temperature", "1e9"], "(got 1000000000.0)"),
        (["new"], "BUNDLE: no such folder"),
    ],
)
def test_distilling_is_refused_before_the_model_is_read(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    output, *more = [option.replace("OUT", str(tmp_path / "file")) for option in options]
    path = tmp_path / output
    assert words in refused(capsys, "models", "distil", tmp_path / "none", path, "--config", tmp_path / "c.yaml", *more)
    assert content(tmp_path) == ["c.yaml", "file"]


def test_packages_are_refused_before_they_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert "OUTPUT: cannot be written" in refused(
        capsys, "models", "import", tmp_path / "x.nequip.zip", tmp_path / "file" / "out", "--trust-code"
    )


def make_campaign(folder: Path, *, is_atoms_only: bool = False) -> CampaignFolder:
    """Free atoms, H a doublet and C a triplet, and two frames of H2."""
    directory = CampaignFolder(folder / "campaign")
    directory.write_record(parse_config(CONFIG))
    candidates = [
        Candidate(
            Frame.molecule([z], np.zeros((1, 3)), multiplicity=m), Source("m", Arm.ATOM, "free-atom", trajectory=i)
        )
        for i, (z, m) in enumerate([(1, 2), (6, 3)])
    ]
    if not is_atoms_only:
        candidates += [
            Candidate(
                Frame.molecule([1, 1], np.array([[0.0, 0.0, 0.0], [0.0, 0.0, x]])),
                Source("m", Arm.INITIAL, "test", trajectory=9),
            )
            for x in (0.7, 0.8)
        ]
    labels = [Label(c.frame.frame_id, FAKE_LEVEL.level_id, -1.0, np.zeros((c.frame.n_atoms, 3))) for c in candidates]
    store = open_writer(directory.store)
    store.stage([CampaignOpened(t=0.0, epoch=1, config_hash="", version="")], candidates, labels, [FAKE_LEVEL])
    store.commit()
    store.close()
    return directory


@pytest.mark.parametrize("name", ["deepmd", "rmd17"])
def test_free_atoms_are_left_out_of_formats_of_singlets_and_counted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(make_campaign(tmp_path).path)
    output = tmp_path / "out"
    assert main(["data", "export", path, str(output), "--format", name]) == 0
    said = capsys.readouterr().out
    assert said == f"{output}: 2 frames; 2 free atoms are left out: {name} holds neutral singlets only\n"
    assert "holds neutral singlets only" in refused(
        capsys, "data", "export", path, tmp_path / "b", "--format", name, "--arm", "atom"
    )
    assert not (tmp_path / "b").exists()


def test_other_formats_take_free_atoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(make_campaign(tmp_path).path)
    assert main(["data", "export", path, str(tmp_path / "out.xyz")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.xyz'}: 4 frames\n"


def test_nothing_but_free_atoms_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(make_campaign(tmp_path, is_atoms_only=True).path)
    said = refused(capsys, "data", "export", path, tmp_path / "out", "--format", "deepmd")
    assert "nothing but free atoms (got '2 frames'); choose extxyz" in said
    assert not (tmp_path / "out").exists()


def test_reports_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = make_campaign(tmp_path).path
    for output, words in (
        (tmp_path / "none" / "r.html", "--output: cannot be written: No such file"),
        (tmp_path, "--output: is no file"),
    ):
        assert words in refused(capsys, "report", campaign, "--output", output)
    (campaign / "report.html").mkdir()
    assert "--output: is no file" in refused(capsys, "report", campaign)
    assert main(["report", str(campaign), "--output", str(tmp_path / "r.html")]) == 0
    assert content(tmp_path) == ["campaign", "r.html"]


def test_versions_are_decimal_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "version: is a number in the registry (got '²')" in refused(capsys, "models", "promote", "toy", "²")


def test_a_registry_that_is_a_text_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("not a database\n")
    uri = f"sqlite:///{tmp_path / 'notes.txt'}"
    for words in (["list"], ["show", "toy"], ["promote", "toy", "1"], ["rollback", "toy"]):
        said = refused(capsys, "models", *words, "--uri", uri)
        assert "tracking.uri: is no SQLite database" in said
        assert uri in said
        assert "name the database of MLflow" in said
    said = refused(capsys, "models", "export", "models:/toy@champion", tmp_path / "out", "--uri", uri)
    assert "tracking_uri: is no SQLite database" in said
    assert content(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("source", ["models:/", "models://", "models:/@champion", "models:/toy@", "models:/toy/"])
def test_registered_names_that_are_none(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "models", "export", source, tmp_path / "out")
    assert f"names no registered model (got {source!r}); write models:/NAME@champion" in said


def test_the_schema_lists_what_a_group_of_workers_may_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields that the section around a group lacks are refused in it, so they are not listed."""
    assert main(["config", "schema"]) == 0
    printed = capsys.readouterr().out
    assert "labeling[pyscf].groups.NAME.min_workers: integer | null" in printed
    assert "labeling[pyscf].groups.NAME.device: " in printed
    assert "labeling[xtb].groups.NAME.device: " not in printed
    assert "exploration.groups.NAME.gpus: " in printed
