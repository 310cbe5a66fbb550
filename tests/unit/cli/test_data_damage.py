"""`alsys data` on damaged stores: one line that says what to do, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alsys.cli import main
from alsys.cli.campaign import CampaignDirectory
from alsys.config import parse_config
from alsys.store.zarr import open_writer
from alsys.testing.store_records import fill

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "stop": {"labels": 4},
}


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignDirectory:
    directory = CampaignDirectory(tmp_path / "campaign")
    directory.write_record(parse_config(CONFIG))
    store = open_writer(directory.store)
    fill(store, 5)
    store.close()
    return directory


def overwrite(campaign: CampaignDirectory, array: str, at: int, content: bytes) -> None:
    with (campaign.store / array / "c" / "0").open("r+b") as file:
        file.seek(at)
        file.write(content)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["data", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_sound_store(campaign: CampaignDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(capsys, "verify", str(campaign.path))
    assert (code, output) == (0, "sound: 5 frames, 5 labels, 10 events\n")
    code, output, _ = run(capsys, "verify", str(campaign.path), "--json")
    assert json.loads(output)["labels_without_digest"] == 0


@pytest.mark.parametrize("name", ["gap", "wall_s", "scf_cycles"])
def test_lost_chunks(campaign: CampaignDirectory, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (campaign.store / "labels" / name / "c" / "0").unlink()
    code, output, _ = run(capsys, "verify", str(campaign.path))
    assert code == 4
    assert output.startswith("DAMAGED: ")
    assert f"labels/{name}: chunk 0 is missing" in output.splitlines()


@pytest.mark.parametrize(("array", "at", "content"), [("labels/energy", 24, b"12345678"), ("atoms/mask", 3, b"\0")])
def test_changed_labels(
    campaign: CampaignDirectory, capsys: pytest.CaptureFixture[str], array: str, at: int, content: bytes
) -> None:
    overwrite(campaign, array, at, content)
    code, output, _ = run(capsys, "verify", str(campaign.path))
    assert code == 4
    assert len(output.splitlines()) == 2
    assert "is not what was accepted" in output


@pytest.mark.parametrize(
    ("array", "at", "content"),
    [
        ("frames/arm", 0, b"\xff"),
        ("frames/system", 0, b"\xff\xff\xff\x7f"),
        ("frames/n_atoms", 0, b"\xff\xff\xff\x7f"),
        ("frames/n_atoms", 0, b"\xff\xff\xff\xff"),
        ("frames/n_charges", 0, b"\xff\xff\xff\x7f"),
        ("labels/frame", 0, b"\xff"),
        ("labels/level", 0, b"\xff"),
        ("names/bytes", 0, b"\xff"),
        ("names/end", 0, b"\xff"),
        ("levels/bytes", 0, b"\xff"),
        ("events/end", 0, b"\xff\xff"),
        ("atoms/numbers", 0, b"\xff"),
    ],
)
def test_damaged_codes_and_counts(
    campaign: CampaignDirectory,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    array: str,
    at: int,
    content: bytes,
) -> None:
    overwrite(campaign, array, at, content)
    outputs = [tmp_path / "a.extxyz", tmp_path / "a.db"]
    for words in (["info"], *(["export", str(output)] for output in outputs)):
        code, _, error = run(capsys, words[0], str(campaign.path), *words[1:])
        assert code == 4
        assert error.startswith(f"alsys: {array.partition('/')[0]}")
        assert error.count("\n") == 1
        assert "`alsys data verify`" in error
    assert not any(output.exists() for output in outputs)
    assert run(capsys, "verify", str(campaign.path))[0] == 4


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty"), (b"{", "is damaged")])
def test_a_damaged_head(
    campaign: CampaignDirectory, capsys: pytest.CaptureFixture[str], content: bytes, what: str
) -> None:
    (campaign.store / "HEAD").write_bytes(content)
    for command in ("info", "verify"):
        code, _, error = run(capsys, command, str(campaign.path))
        assert code == 4
        assert error.startswith(f"alsys: {campaign.store / 'HEAD'} {what}")
        assert "restore it from a backup" in error
        assert error.count("\n") == 1
