"""`alsys data` on damaged stores: one line that says what to do, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alsys.campaign.folder import CampaignFolder, read_status
from alsys.cli import main
from alsys.config import parse_config
from alsys.events import Event
from alsys.store.base import StoreReader
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.store_records import events_of, fill, records

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "stop": {"labels": 4},
}


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignFolder:
    directory = CampaignFolder(tmp_path / "campaign")
    directory.write_record(parse_config(CONFIG))
    store = open_writer(directory.store)
    fill(store, 5)
    store.close()
    return directory


def overwrite(campaign: CampaignFolder, array: str, at: int, content: bytes) -> None:
    with (campaign.store / array / "c" / "0").open("r+b") as file:
        file.seek(at)
        file.write(content)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["data", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_sound_store(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(capsys, "verify", str(campaign.path))
    assert (code, output) == (0, "sound: 5 frames, 5 labels, 10 events\n")
    code, output, _ = run(capsys, "verify", str(campaign.path), "--json")
    assert json.loads(output)["labels_without_digest"] == 0


@pytest.mark.parametrize("name", ["gap", "wall_s", "scf_cycles"])
def test_lost_chunks(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (campaign.store / "labels" / name / "c" / "0").unlink()
    code, output, _ = run(capsys, "verify", str(campaign.path))
    assert code == 4
    assert output.startswith("DAMAGED: ")
    assert f"labels/{name}: chunk 0 is missing" in output.splitlines()


@pytest.mark.parametrize(("array", "at", "content"), [("labels/energy", 24, b"12345678"), ("atoms/mask", 3, b"\0")])
def test_changed_labels(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str], array: str, at: int, content: bytes
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
    campaign: CampaignFolder,
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
        assert error.count("\n") == 1
        if "not what the log says" in error:  # found by its digest, before it is read
            assert error.startswith(f"alsys: {campaign.path}: damaged: 1 ")
            assert "`alsys data repair" in error
        else:
            assert error.startswith(f"alsys: {array.partition('/')[0]}")
            assert f"`alsys data verify {campaign.path}`" in error
    assert not any(output.exists() for output in outputs)
    assert run(capsys, "verify", str(campaign.path))[0] == 4


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty"), (b"{", "is damaged")])
def test_a_damaged_head(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str], content: bytes, what: str
) -> None:
    (campaign.store / "HEAD").write_bytes(content)
    for command in ("info", "verify"):
        code, _, error = run(capsys, command, str(campaign.path))
        assert code == 4
        assert error.startswith(f"alsys: {campaign.store / 'HEAD'} {what}")
        assert f"`alsys data repair {campaign.path}` rebuilds it" in error
        assert error.count("\n") == 1


def test_repair_names_what_it_did_and_the_quarantine_lists_it(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(campaign.path)
    overwrite(campaign, "labels/energy", 24, b"12345678")
    head = campaign.store / "HEAD"
    head.write_bytes(b"")
    code, _, errors = run(capsys, "info", path)
    assert (code, len(errors.splitlines())) == (4, 1)
    assert f"HEAD is empty; `alsys data repair {path}` rebuilds it" in errors
    code, output, _ = run(capsys, "repair", path)
    assert code == 0
    assert output.splitlines()[0].startswith("HEAD is rebuilt from the commits: dataset version 1, 5 labels")
    assert "1 frame set aside with what labels they had" in output
    assert output.splitlines()[-1] == "sound: 5 frames, 5 labels"
    assert (
        run(capsys, "verify", path)[1] == "sound: 5 frames, 5 labels, 11 events, 1 retracted, 1 damaged and set aside\n"
    )
    listed = json.loads(run(capsys, "quarantine", "list", path, "--json")[1])
    assert [row["kind"] for row in listed] == ["damaged"]
    code, output, _ = run(capsys, "quarantine", "export", path, str(tmp_path / "q.xyz"))
    assert (code, "1 frames" in output) == (0, True)
    assert run(capsys, "repair", path)[1] == "nothing to repair\nsound: 5 frames, 5 labels\n"
    assert json.loads(run(capsys, "repair", path, "--json")[1]) == {
        "done": [], "set_aside": {}, "ok": True, "problems": [],
    }  # fmt: skip


def test_a_campaign_without_head_is_still_one(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (campaign.store / "HEAD").unlink()
    for words in (["info"], ["verify"], ["quarantine", "list"]):
        code, _, errors = run(capsys, *words, str(campaign.path))
        assert (code, len(errors.splitlines())) == (4, 1)
        assert "data repair" in errors
    assert run(capsys, "repair", str(campaign.path))[0] == 0
    code, _, errors = run(capsys, "repair", str(campaign.path.parent))
    assert (code, len(errors.splitlines())) == (2, 1)


def test_a_damaged_frame_is_never_labelled(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    waiting, _ = records(2, seed=9)
    store = open_writer(campaign.store)
    store.stage(events_of(waiting, []), waiting)
    store.commit()
    store.close()
    overwrite(campaign, "frames/charge", 4 * 5, b"\1\0\0\0")
    assert run(capsys, "repair", str(campaign.path))[0] == 0
    damaged = waiting[0].frame.frame_id
    listed = json.loads(run(capsys, "quarantine", "list", str(campaign.path), "--json")[1])
    assert [(row["frame_id"], row["kind"]) for row in listed] == [(damaged, "damaged")]
    code, _, errors = run(capsys, "quarantine", "retry", str(campaign.path), damaged)
    assert code == 2
    assert "is damaged in the arrays" in errors
    assert run(capsys, "quarantine", "retry", str(campaign.path), "--all")[0] == 2


def test_the_status_of_a_head_is_folded_once(campaign: CampaignFolder) -> None:
    logs: list[StoreReader] = []

    class Read:
        """A reader that tells whether its log was asked for."""

        def __init__(self) -> None:
            self._reader = open_reader(campaign.store)

        def __getattr__(self, name: str) -> object:
            return getattr(self._reader, name)

        def iter_events(self) -> Iterator[Event]:
            logs.append(self._reader)
            return self._reader.iter_events()

    def status() -> dict[str, Any]:
        return read_status(campaign, Read())  # type: ignore[arg-type]

    first = status()
    logs.clear()
    assert status() == first
    assert logs == []
    store = open_writer(campaign.store)
    fill(store, 1, seed=5)
    store.close()
    assert status()["labels"] != first["labels"]
    assert status()["labels"] != first["labels"]
    assert len(logs) == 1, "a new HEAD"
    campaign.write_record(parse_config({**CONFIG, "stop": {"labels": 9}}))
    assert status()["labels"]["target"] == 9
    campaign.kept_status.write_text("{")
    assert status()["labels"]["target"] == 9
    assert len(logs) == 3, "another config; a file that is not what was written"
