"""`alsys data quarantine` and `alsys data retract`, with a driver and without one."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import ase.io
import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.requests import RequestFolder, answer_waiting
from alsys.cli import main
from alsys.config import parse_config
from alsys.control.rules.requests import Answer, RetractLabels, RetryFrames
from alsys.errors import FailureKind
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    LabelAccepted,
    LabelFailed,
    LabelRetracted,
)
from alsys.frames import Arm
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import records

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "stop": {"labels": 4},
}
CANDIDATES, LABELS = records(6)
IDS = [candidate.frame.frame_id for candidate in CANDIDATES]
REASON = 'SCF: "no convergence" after 50 cycles'


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignFolder:
    """Six frames: four labelled, one that did not converge, one that took three attempts; finished."""
    directory = CampaignFolder(tmp_path / "campaign")
    directory.write_record(parse_config(CONFIG))
    store = open_writer(directory.store)
    events = [
        CampaignOpened(t=0.0, epoch=1, config_hash="", version=""),
        *(FrameProposed(t=1.0, frame_id=f, arm=Arm.INITIAL, system="m", deviation=0.0) for f in IDS),
        *(LabelAccepted(t=2.0, frame_id=x.frame_id, label_id=x.label_id, worker="w", wall_s=1.0) for x in LABELS[:4]),
        LabelFailed(t=3.0, frame_id=IDS[4], failure=FailureKind.SCF_NOT_CONVERGED, message=REASON, worker="w"),
        FrameQuarantined(t=3.0, frame_id=IDS[4], failure=FailureKind.SCF_NOT_CONVERGED, message=REASON),
        *(LabelFailed(t=3.0, frame_id=IDS[5], failure=FailureKind.TIMEOUT, worker=f"w{i}") for i in range(3)),
        FrameQuarantined(t=3.0, frame_id=IDS[5], failure=FailureKind.TIMEOUT, message="failed 3 times"),
        CampaignStopped(t=4.0, reason="labels", message="4 labels"),
    ]
    store.stage(events, CANDIDATES, LABELS[:4], [FAKE_LEVEL])
    store.commit()
    store.close()
    return directory


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Runs a command; its output, or its one line of error."""
    assert main(["data", *words]) == code
    captured = capsys.readouterr()
    if code:
        assert captured.err.count("\n") == 1, captured.err
        assert captured.out == ""
    return captured.err if code else captured.out


def status(directory: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, int]]:
    assert main(["status", str(directory.path), "--json"]) == 0
    content: dict[str, dict[str, int]] = json.loads(capsys.readouterr().out)
    return content


def test_quarantine_is_listed_with_reasons(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(campaign.path)
    rows = json.loads(run(capsys, "quarantine", "list", path, "--json"))
    assert rows == [
        {"frame_id": IDS[4], "system": "m", "arm": "initial", "kind": "scf-not-converged", "message": REASON,
         "attempts": 1},
        {"frame_id": IDS[5], "system": "m", "arm": "initial", "kind": "timeout", "message": "failed 3 times",
         "attempts": 3},
    ]  # fmt: skip
    lines = run(capsys, "quarantine", "list", path).splitlines()
    assert lines[0].split() == ["frame_id", "system", "arm", "kind", "attempts", "message"]
    assert lines[1].split(maxsplit=5) == [IDS[4], "m", "initial", "scf-not-converged", "1", REASON]
    run(capsys, "quarantine", "retry", path, "--all")
    assert run(capsys, "quarantine", "list", path) == "no frame is in quarantine\n"
    assert json.loads(run(capsys, "quarantine", "list", path, "--json")) == []


def test_quarantine_is_exported_with_reasons(
    campaign: CampaignFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "quarantine.extxyz"
    assert "2 frames" in run(capsys, "quarantine", "export", str(campaign.path), str(output))
    images = ase.io.read(output, ":")
    assert [atoms.info["frame_id"] for atoms in images] == [f"id-{frame_id}" for frame_id in IDS[4:]]
    assert [atoms.info["reason"] for atoms in images] == [REASON, "failed 3 times"]
    assert [atoms.info["kind"] for atoms in images] == ["scf-not-converged", "timeout"]
    assert [atoms.info["attempts"] for atoms in images] == [1, 3]
    assert (images[1].positions == CANDIDATES[5].frame.positions).all()
    assert images[0].calc is None
    assert "extxyz" in run(capsys, "quarantine", "export", str(campaign.path), str(tmp_path / "a.h5"), code=2)


def test_frames_are_retried_when_nobody_runs_the_campaign(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run(capsys, "quarantine", "retry", str(campaign.path), IDS[5][:8])
    assert output.startswith("1 frame is pending again")
    assert "stop.labels" in output, "a finished campaign labels nothing more until it is extended"
    counts = status(campaign, capsys)["candidates"]
    assert (counts["pending"], counts["quarantined"]) == (1, 1)
    events = open_reader(campaign.store).events()
    assert [event.frame_id for event in events if isinstance(event, FrameRetried)] == [IDS[5]]
    assert not list(campaign.requests.iterdir())


def test_labels_are_retracted_when_nobody_runs_the_campaign(
    campaign: CampaignFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(campaign.path)
    output = run(capsys, "retract", path, IDS[0][:10], "--label", LABELS[2].label_id, "--reason", "another functional")
    assert "2 labels are no longer data; the next `alsys run`" in output
    content = status(campaign, capsys)
    assert (content["labels"]["accepted"], content["labels"]["retracted"]) == (2, 2)
    verified = json.loads(run(capsys, "verify", path, "--json"))
    assert (verified["ok"], verified["labels"], verified["retracted"]) == (True, 4, 2)
    assert "2 retracted" in run(capsys, "verify", path)
    info = json.loads(run(capsys, "info", path, "--json"))
    assert (info["retracted"], info["levels"][0]["labels"]) == (2, 2)
    assert "2 labels are retracted" in run(capsys, "info", path)
    run(capsys, "export", path, str(tmp_path / "now.xyz"))
    run(capsys, "export", path, str(tmp_path / "before.xyz"), "--seq", "1")
    exported = [
        [atoms.info["frame_id"][3:] for atoms in ase.io.read(tmp_path / f"{name}.xyz", ":")]
        for name in ("now", "before")
    ]
    assert exported == [[IDS[1], IDS[3]], IDS[:4]]
    assert main(["report", path]) == 0
    page = (campaign.path / "report.html").read_text()
    assert IDS[0] in page
    assert LABELS[2].label_id in page
    assert "another functional" in page


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["quarantine", "retry", "{}"], "name frames"),
        (["quarantine", "retry", "{}", IDS[4], "--all"], "name frames"),
        (["quarantine", "retry", "{}", "ffffffff"], "no such frame"),
        (["quarantine", "retry", "{}", IDS[4][:5]], "at least 6 characters"),
        (["quarantine", "retry", "{}", IDS[0]], "not in quarantine"),
        (["quarantine", "retry", "{}", "--kind", "out-of-luck"], "out-of-memory"),
        (["quarantine", "retry", "{}", "--kind", "crashed"], "no frame is in quarantine"),
        (["retract", "{}", "--reason", "wrong"], "name frames or labels"),
        (["retract", "{}", IDS[0], "--reason", " "], "needs a reason"),
        (["retract", "{}", IDS[0], IDS[4], "--reason", "wrong"], "no label; it is quarantined"),
        (["retract", "{}", "--label", IDS[0], "--reason", "wrong"], "no such label"),
    ],
)
def test_bad_requests_change_nothing(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    before = open_reader(campaign.store).head.lengths
    assert expected in run(capsys, *(word.format(campaign.path) for word in words), code=2)
    assert open_reader(campaign.store).head.lengths == before
    assert not list(campaign.requests.iterdir())


@pytest.mark.parametrize("words", [["quarantine", "list"], ["quarantine", "retry"], ["retract", "--reason", "x"]])
def test_folders_that_are_no_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "is not a campaign directory" in run(capsys, *words, str(tmp_path), code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_reason_is_required(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["data", "retract", str(campaign.path), IDS[0]])
    assert error.value.code == 2
    assert "--reason" in capsys.readouterr().err


def test_a_running_driver_is_asked_and_its_answer_printed(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = open_writer(campaign.store)  # as a driver holds it
    folder = RequestFolder(campaign.requests)
    seen = []

    def drive() -> None:
        while len(seen) < 2:
            for name, request in folder.waiting():
                seen.append(request)
                folder.answer(name, Answer(len(seen) == 1, "said the driver"))

    driver = threading.Thread(target=drive)
    driver.start()
    assert run(capsys, "retract", str(campaign.path), IDS[0], "--reason", "why") == "said the driver\n"
    assert "said the driver" in run(capsys, "quarantine", "retry", str(campaign.path), "--all", code=2)
    driver.join()
    assert seen == [RetractLabels("why", (IDS[0],)), RetryFrames(is_all=True)]
    assert not list(campaign.requests.iterdir())
    writer.close()


def test_a_driver_that_does_not_answer_keeps_the_request(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = open_writer(campaign.store)
    words = ("retract", str(campaign.path), IDS[0], "--reason", "why", "--timeout", "0.2")
    assert "the driver is busy" in (error := run(capsys, *words, code=4))
    assert "the request stays and is carried out when the driver comes to it" in error
    folder = RequestFolder(campaign.requests)
    [(name, request)] = folder.waiting()
    assert request == RetractLabels("why", (IDS[0],))
    left = {path.name: path.read_bytes() for path in campaign.requests.iterdir()}
    folder.answer(name, Answer(True, "done"))
    assert list(campaign.requests.iterdir()) == [], "nobody waits for the answer"
    for file, content in left.items():
        (campaign.requests / file).write_bytes(content)
    writer.close()
    assert "1 frame is" in run(capsys, "quarantine", "retry", str(campaign.path), IDS[4])
    kinds = [type(event) for event in open_reader(campaign.store).events()[-2:]]
    assert kinds == [LabelRetracted, FrameRetried], "the older request was answered first"


def test_an_answer_that_comes_with_the_last_look_is_taken(campaign: CampaignFolder) -> None:
    folder = RequestFolder(campaign.requests)
    name = folder.add(RetryFrames(is_all=True))
    folder.answer(name, Answer(True, "just so"))
    assert folder.leave(name) == Answer(True, "just so")
    assert list(campaign.requests.iterdir()) == []


def test_answers_that_a_killed_command_left_are_removed(campaign: CampaignFolder) -> None:
    campaign.requests.mkdir()
    (campaign.requests / f"{10**18:020d}-0123abcd.answer.json").write_text("{}")
    fresh = campaign.requests / f"{time.time_ns():020d}-0123abcd.answer.json"
    fresh.write_text("{}")
    answer_waiting(campaign)
    assert list(campaign.requests.iterdir()) == [fresh]


def test_labels_are_retracted_by_what_the_acknowledgement_log_says(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("retract", str(campaign.path), LABELS[0].label_id, IDS[1], "--reason", "why")
    assert "2 labels are no longer data" in run(capsys, *words)
    gone = {event.frame_id for event in open_reader(campaign.store).tombstones()}
    assert gone == set(IDS[:2])
    missing = run(capsys, "retract", str(campaign.path), LABELS[2].label_id, "f" * 32, "--reason", "why", code=2)
    assert "no such frame or label" in missing
    assert "f" * 32 in missing
    assert LABELS[2].label_id not in missing


def test_a_request_whose_effect_is_on_disk_is_not_carried_out_again(campaign: CampaignFolder) -> None:
    """The process died between the commit and the answer."""
    folder = RequestFolder(campaign.requests)
    name = folder.add(RetryFrames(is_all=True))
    left = (campaign.requests / f"{name}.request.json").read_bytes()
    answer_waiting(campaign)
    assert folder.take_answer(name) == Answer(
        True,
        "2 frames are pending again; but a stop criterion holds: raise it (`stop.labels`, `stop.wall_s`, ...) "
        "for the next `alsys run`",
    )
    n_events = open_reader(campaign.store).head.lengths["events"]
    (campaign.requests / f"{name}.request.json").write_bytes(left)
    answer_waiting(campaign)
    assert folder.take_answer(name) == Answer(True, "was carried out before")
    assert open_reader(campaign.store).head.lengths["events"] == n_events


def test_a_file_that_is_no_request_is_refused_and_in_nobodys_way(campaign: CampaignFolder) -> None:
    folder = RequestFolder(campaign.requests)
    campaign.requests.mkdir()
    for name, content in (("0", "{"), ("1", '{"kind": "delete"}'), ("2", "\xff")):
        (campaign.requests / f"{name}.request.json").write_bytes(content.encode("latin-1"))
    name = folder.add(RetractLabels("why", (IDS[0],)))
    answer_waiting(campaign)
    for bad in "012":
        answer = folder.take_answer(bad)
        assert answer is not None
        assert not answer.is_accepted
    good = folder.take_answer(name)
    assert good is not None
    assert good.is_accepted


def test_what_is_no_request_is_set_aside_with_its_reason(campaign: CampaignFolder) -> None:
    folder = RequestFolder(campaign.requests)
    campaign.requests.mkdir()
    deep = "[" * 200_000
    for name, content in (("a", deep), ("b" * 150, '{"kind": "retry"}'), ("c", '{"kind": "retract", "reason": 5}')):
        (campaign.requests / f"{name}.request.json").write_text(content)
    (campaign.requests / "d.request.json").mkdir()
    os.mkfifo(campaign.requests / "e.request.json")
    name = folder.add(RetractLabels("why", (IDS[0],)))
    assert [known for known, _ in folder.waiting()] == [name]
    answer_waiting(campaign)
    good = folder.take_answer(name)
    assert good is not None
    assert good.is_accepted
    reasons = folder.failed()
    assert len(reasons) == 5
    assert "reason is of the wrong type" in reasons["c.request.json"]
    assert (campaign.requests / "failed" / "a.request.json").read_text() == deep
    assert list(campaign.requests.glob("*.request.json")) == []
