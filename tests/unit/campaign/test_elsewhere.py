"""A campaign that is read and asked through its mirror, as from a laptop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alsys import load_calculator, open_dataset
from alsys.campaign import mirror as mirrors
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.mirror import Mirror
from alsys.campaign.presence import SIGN, Driver
from alsys.campaign.requests import RequestFolder
from alsys.cli import main
from alsys.config import parse_config
from alsys.control.rules.requests import Answer, RetractLabels
from alsys.errors import InputError
from alsys.events import CampaignOpened, LabelRetracted, ModelPromoted, ModelPublished
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import bundle_digest, write_bundle
from alsys.store import segments
from alsys.store.objects import Objects
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import fill, records, stage

URL = "s3://bucket/ethanol"
CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "tracking": {"enabled": False},
    "stop": {"labels": 40},
}
MEMBER = {"coefficients": np.zeros((1, 8)), "shifts": np.zeros(1)}
STATE = CommitteeState(1, "pair", {"elements": ["H"], "r_max": 4.0, "n_basis": 8}, (MEMBER,))


class Counted(Objects):
    """Objects whose reads are counted, by folder."""

    read: list[str]

    def get(self, name: str) -> bytes | None:
        self.read.append(f"{self._prefix}{name}")
        return super().get(name)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    objects = Counted(Objects.at("memory:///")._store, URL)
    Counted.read = []
    places: dict[str, Any] = {URL: objects}
    monkeypatch.setattr(Objects, "at", lambda url, **_: places[url])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mirrors, "EVERY_S", 0.02)
    monkeypatch.setattr(mirrors, "WHILE_ASKED_S", 0.01)
    return objects


@pytest.fixture
def home(bucket: Counted, tmp_path: Path) -> Path:
    """The campaign's own folder: three labels, a model; nobody drives it."""
    directory = CampaignFolder(tmp_path / "home")
    directory.write_record(parse_config(CONFIG))
    mirror = Mirror(bucket, directory.path)
    write_bundle(directory.models / "v0001", STATE, {})
    with closing(mirror.open_writer()) as store:
        store.stage([CampaignOpened(t=0.0, epoch=1, config_hash="", version="")])
        stage(store, 3, seed=1)
        digest = bundle_digest(directory.models / "v0001")
        published = ModelPublished(t=1.0, version=1, parent=0, seq=1, n_labels=3, wall_s=1.0, metrics={}, digest=digest)
        store.stage([published, ModelPromoted(t=1.0, version=1, reason="the first")])
        store.commit()
    directory.worker_logs.mkdir(parents=True)
    (directory.worker_logs / "labeler-0.log").write_text("hello\n")
    (directory.logs / "campaign.log").write_text("")
    (directory.path / "walkers").mkdir()
    (directory.path / "walkers/walker-0.json").write_text("{}")
    mirror.push()
    return directory.path


def lines(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(words)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_a_url_is_read_where_a_folder_is(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status = json.loads(lines(capsys, "status", URL, "--json"))
    assert (status["state"], status["labels"]["accepted"], status["champion"]) == ("interrupted", 3, 1)
    assert URL in lines(capsys, "status", URL)
    assert json.loads(lines(capsys, "data", "info", URL, "--json"))["head_seq"] == 1
    assert "sound: 3 frames" in lines(capsys, "data", "verify", URL)
    assert "no frame" in lines(capsys, "data", "quarantine", "list", URL)
    assert "3 frames" in lines(capsys, "data", "export", URL, "out.extxyz")
    assert lines(capsys, "logs", URL, "labeler-0") == "hello\n"
    assert lines(capsys, "logs", URL).splitlines()[0].endswith("s ago: nothing yet"), "the driver's"
    assert "--follow: is for the campaign's own folder" in lines(capsys, "logs", URL, "labeler-0", "--follow", code=2)
    assert "report.html" in lines(capsys, "report", URL)
    assert (tmp_path / "report.html").is_file()
    assert "version 1" in lines(capsys, "models", "export", URL, "bundle")
    assert "is in no registry" in lines(capsys, "models", "list", URL, code=2)
    assert len(open_dataset(URL)) == 3
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], calculator=load_calculator(URL))
    assert atoms.get_potential_energy() == 0.0
    assert sorted(p.name for p in home.iterdir() if p.name.startswith("rep")) == [], "nothing there was written"


def test_the_second_look_reads_what_is_new(home: Path, bucket: Counted) -> None:
    assert len(open_dataset(URL)) == 3
    bucket.read.clear()
    assert len(open_dataset(URL)) == 3
    assert [name for name in bucket.read if name.startswith("files/")] == []
    assert len(bucket.read) == 1, "the last segment, which says that the store is the same"
    with closing(Mirror(bucket, home).open_writer(has_files=False)) as store:
        fill(store, 2, seed=2)
    bucket.read.clear()
    assert len(open_dataset(URL)) == 5
    assert not any("walkers" in name for name in bucket.read)
    assert {name.rpartition("/")[0] for name in bucket.read} == {"store/log"}
    assert len(bucket.read) < 6


def test_a_copy_that_is_behind_a_compaction_is_made_anew(
    home: Path, bucket: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(open_dataset(URL)) == 3
    monkeypatch.setattr(segments, "COMPACT_EVERY", 3)
    with closing(Mirror(bucket, home).open_writer()) as store:
        for seed in range(2, 20):
            fill(store, 1, seed=seed)
            time.sleep(0.01)
    assert "store/log/000000000003" not in bucket.names("store/log")
    assert len(open_dataset(URL)) == 21


def test_another_campaign_at_the_url_takes_the_place_of_the_copy(home: Path, bucket: Counted, tmp_path: Path) -> None:
    assert len(open_dataset(URL)) == 3
    bucket.remove(bucket.names(""))
    with pytest.raises(InputError, match="holds no campaign"):
        open_dataset(URL)
    other = CampaignFolder(tmp_path / "other")
    other.write_record(parse_config(CONFIG))
    mirror = Mirror(bucket, other.path)
    with closing(mirror.open_writer()) as store:
        fill(store, 4, seed=9)
    mirror.push()
    assert len(open_dataset(URL)) == 4


def test_requests_reach_a_driver_through_the_bucket(
    home: Path, bucket: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []
    done = threading.Event()

    def answer() -> None:
        folder = RequestFolder(home / "requests")
        while not done.wait(0.01):
            for name, request in folder.waiting():
                asked.append(request)
                folder.answer(name, Answer(True, "done"))

    driver = threading.Thread(target=answer)
    with Mirror(bucket, home) as mirror, mirror.driven(None, takes_over=False, tell=print):
        driver.start()
        assert json.loads(lines(capsys, "status", URL, "--json"))["state"] == "running"
        assert lines(capsys, "data", "retract", URL, "abcdef12", "--reason", "wrong") == "done\n"
        done.set()
        driver.join()
    assert asked == [RetractLabels("wrong", ("abcdef12",))]
    assert bucket.names("asked") == bucket.names("answered") == []


def test_a_status_is_not_behind_the_log(home: Path, bucket: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    """What a driver says of now is put every few seconds, its commits at once."""
    live = {"state": "running", "head_seq": 0, "labels": {"accepted": 0}, "written": {"boot": "x", "monotonic": 1.0}}
    bucket.put("files/logs/live.json", json.dumps(live).encode())
    with Mirror(bucket, home).driven(None, takes_over=False, tell=print):
        status = json.loads(lines(capsys, "status", URL, "--json"))
    assert (status["state"], status["labels"]["accepted"]) == ("running", 3)


def test_without_a_driver_requests_are_carried_out_at_once(
    home: Path, bucket: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    frame_id = records(3, seed=1)[0][1].frame.frame_id
    assert "no longer data" in lines(capsys, "data", "retract", URL, frame_id[:12], "--reason", "wrong")
    assert "was retracted before" in lines(capsys, "data", "retract", URL, frame_id, "--reason", "again", code=2)
    assert "is champion already" in lines(capsys, "rollback", URL, "1", code=2)
    assert bucket.get(SIGN) is None
    assert bucket.names("asked") == bucket.names("answered") == []
    assert sum(isinstance(e, LabelRetracted) for e in segments.open_reader(bucket.below("store")).events()) == 1
    with closing(Mirror(bucket, home).open_writer()) as store:
        assert store.snapshot(FAKE_LEVEL.level_id).n_frames == 2, "the next driver knows"


def test_what_a_driver_could_not_answer_the_next_one_hears(home: Path, bucket: Counted) -> None:
    name = f"{time.time_ns():020d}-0123abcd"
    bucket.put(f"asked/{name}.request.json", b'{"kind": "rollback", "version": 1}')
    for odd in ("asked/../x", "asked/deep/er.request.json", "asked/nonsense"):
        bucket.put(odd.replace("../", ""), b"{}")
    first = Mirror(bucket, home)
    assert first.asked.hear(), "and dies"
    assert bucket.names("asked") == [f"asked/{name}.request.json"]
    second = Mirror(bucket, home)
    assert second.asked.hear()
    assert [found for found, _ in RequestFolder(home / "requests").waiting()] == [name]
    bucket.remove([f"asked/{name}.request.json"])
    assert not second.asked.hear(), "withdrawn"
    assert RequestFolder(home / "requests").waiting() == []


@pytest.mark.parametrize("words", [("data", "repair", URL), ("validate", URL), ("data", "import", URL, "f.extxyz")])
def test_what_needs_the_campaigns_own_folder_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    said = lines(capsys, *words, code=2)
    assert "`alsys fetch` makes one" in said
    assert said.count("\n") == 1


def test_a_driver_elsewhere_is_named_where_it_does_not_stop(
    home: Path, bucket: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no driver runs" in lines(capsys, "stop", URL)
    with Mirror(bucket, home).driven(None, takes_over=False, tell=print):
        said = lines(capsys, "stop", URL, "--timeout", "0.01", code=4)
    assert f"process {Driver.this().pid} on " in said


def test_a_stop_of_nothing_is_no_stop(home: Path, capsys: pytest.CaptureFixture[str], bucket: Counted) -> None:
    assert "nothing to stop" in lines(capsys, "stop", URL)
    bucket.remove(list(bucket.listed()))
    assert "holds no campaign, so nothing was stopped" in lines(capsys, "stop", URL, code=2)
