"""What users may ask of a campaign's data, and what they are told."""

from __future__ import annotations

import json

import pytest

from alsys.control.rules.requests import (
    Answer,
    Request,
    RetractLabels,
    RetryFrames,
    TrainLonger,
    carry_out,
    from_record,
    to_record,
)
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind, InputError
from alsys.events import (
    CampaignOpened,
    Event,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    LabelAccepted,
    LabelRetracted,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings

LABELLED = ["aaaaaa11" + "0" * 24, "aaaaaa22" + "0" * 24]
QUARANTINED = {"bbbbbb11" + "0" * 24: FailureKind.TIMEOUT, "cccccc11" + "0" * 24: FailureKind.SCF_NOT_CONVERGED}
PENDING = "dddddd11" + "0" * 24


def ledger(n_labels: int = 10) -> Ledger:
    events: list[Event] = [CampaignOpened(t=0.0, epoch=1, config_hash="", version="")]
    events += [
        FrameProposed(t=0.0, frame_id=frame_id, arm=Arm.INITIAL, system="s", deviation=0.0)
        for frame_id in (*LABELLED, *QUARANTINED, PENDING)
    ]
    events += [
        LabelAccepted(t=1.0, frame_id=frame_id, label_id="e" + frame_id[1:], worker="w", wall_s=1.0)
        for frame_id in LABELLED
    ]
    events += [
        FrameQuarantined(t=1.0, frame_id=frame_id, failure=failure, message="why")
        for frame_id, failure in QUARANTINED.items()
    ]
    return Ledger.fold(policy_settings(n_labels=n_labels), events)


def done(state: Ledger, request: Request, name: str = "r1", *, is_running: bool = True) -> tuple[list[str], str]:
    """Frames concerned and what the user is told; the ledger takes the events."""
    events, answer = carry_out(state, request, name, 5.0, is_running=is_running)
    assert answer.is_accepted
    frame_ids = []
    for event in events:
        assert isinstance(event, FrameRetried | LabelRetracted)
        assert event.request == name
        frame_ids.append(event.frame_id)
        state.apply(event)
    assert state.is_balanced
    return frame_ids, answer.message


@pytest.mark.parametrize(
    ("request_", "frame_ids"),
    [
        (RetryFrames(frames=("bbbbbb",)), ["bbbbbb11" + "0" * 24]),
        (RetryFrames(frames=(" ID-CCCCCC1 ", "bbbbbb1", "cccccc")), ["cccccc11" + "0" * 24, "bbbbbb11" + "0" * 24]),
        (RetryFrames(failure="timeout"), ["bbbbbb11" + "0" * 24]),
        (RetryFrames(is_all=True), list(QUARANTINED)),
    ],
)
def test_frames_are_retried_by_name_by_kind_or_all(request_: RetryFrames, frame_ids: list[str]) -> None:
    state = ledger()
    found, message = done(state, request_)
    assert found == frame_ids
    assert all(state.frames[frame_id].status is Status.PENDING for frame_id in frame_ids)
    assert message.startswith("1 frame is" if len(found) == 1 else f"{len(found)} frames are")


@pytest.mark.parametrize(
    "request_",
    [
        RetractLabels("wrong", frames=("aaaaaa11",)),
        RetractLabels("wrong", labels=("eaaaaa11",)),
        RetractLabels("wrong", frames=("aaaaaa11",), labels=("eaaaaa11" + "0" * 24,)),
    ],
)
def test_labels_are_retracted_by_frame_or_by_label_and_each_once(request_: RetractLabels) -> None:
    state = ledger()
    found, message = done(state, request_)
    assert found == [LABELLED[0]]
    assert state.n_labels == 1
    assert "1 label is no longer data" in message


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (RetryFrames(), "name frames"),
        (RetryFrames(frames=("bbbbbb",), is_all=True), "name frames"),
        (RetryFrames(frames=("bbbbb",)), "at least 6 characters"),
        (RetryFrames(frames=("ffffff",)), "no such frame"),
        (RetryFrames(frames=("bbbbbb", "aaaaaa11")), "labelled"),
        (RetryFrames(frames=("dddddd",)), "pending"),
        (RetryFrames(failure="timeot"), "scf-not-converged"),
        (RetryFrames(failure="crashed"), "no frame is in quarantine"),
        (RetractLabels("wrong"), "name frames or labels"),
        (RetractLabels(" ", frames=("aaaaaa11",)), "reason"),
        (RetractLabels("wrong", frames=("aaaaaa",)), "2 frames begin like this"),
        (RetractLabels("wrong", frames=("aaaaaa11", "bbbbbb")), "no label; it is quarantined"),
        (RetractLabels("wrong", labels=("aaaaaa11",)), "no such label"),
        (
            RetractLabels("wrong", frames=("aaaaaa11", "999999", "888888")),
            "no such frame or label (got '999999, 888888')",
        ),
    ],
)
def test_a_bad_request_is_refused_as_a_whole_in_one_line(request_: Request, words: str) -> None:
    state = ledger()
    before = dict(state.counts)
    with pytest.raises(InputError) as error:
        carry_out(state, request_, "r1", 5.0, is_running=True)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert state.counts == before


def test_a_request_is_carried_out_once_and_a_new_one_for_the_same_is_refused() -> None:
    state = ledger()
    retract = RetractLabels("wrong", frames=("aaaaaa11",))
    assert done(state, retract)[0] == [LABELLED[0]]
    assert done(state, retract)[0] == []
    with pytest.raises(InputError, match="retracted before"):
        carry_out(state, retract, "r2", 5.0, is_running=True)
    retry = RetryFrames(frames=("bbbbbb",))
    (frame_id,) = done(state, retry, "r3")[0]
    state.apply(FrameQuarantined(t=6.0, frame_id=frame_id, failure=FailureKind.TIMEOUT, message="again"))
    assert done(state, retry, "r3")[0] == [], "found again after a crash"
    assert done(state, retry, "r4")[0] == [frame_id], "asked for again"


def test_the_user_is_told_what_follows() -> None:
    retry, retract = RetryFrames(is_all=True), RetractLabels("wrong", frames=(LABELLED[0],))
    assert "the campaign goes on" in done(ledger(), retry)[1]
    assert "the next `alsys run`" in done(ledger(), retry, is_running=False)[1]
    assert "stop.labels" in done(ledger(n_labels=2), retry)[1]
    assert "the campaign labels others" in done(ledger(), retract)[1]
    assert "the next `alsys run` labels others" in done(ledger(), retract, is_running=False)[1]


@pytest.mark.parametrize(
    "request_", [RetryFrames(("a",), "", True), RetractLabels("why\nnot", ("a", "b"), ("c",)), TrainLonger(9.5)]
)
def test_requests_come_back_from_json(request_: Request) -> None:
    assert from_record(json.loads(json.dumps(to_record(request_)))) == request_


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"kind": "delete"},
        {"kind": "retry", "frame": []},
        {"kind": []},
        {"kind": "retract", "reason": 5, "frames": ["a"]},
        {"kind": "retract", "frames": ["a"]},
        {"kind": "retry", "frames": "abc"},
        {"kind": "retry", "failure": ["timeout"]},
        {"kind": "retry", "is_all": "no"},
        {"kind": "rollback", "version": float("inf")},
        {"kind": "rollback", "version": -1},
        {"kind": "rollback", "version": True},
        {"kind": "train"},
        {"kind": "train", "budget_s": 0},
        {"kind": "train", "budget_s": float("nan")},
    ],
)
def test_what_is_no_request_is_refused(record: object) -> None:
    with pytest.raises(InputError, match="not a request"):
        from_record(record)


def test_a_reason_is_one_line() -> None:
    state = ledger()
    events, answer = carry_out(state, RetractLabels("two\n lines", (LABELLED[0],)), "r", 5.0, is_running=True)
    assert [event.reason for event in events if isinstance(event, LabelRetracted)] == ["two lines"]
    assert isinstance(answer, Answer)
