"""What the ledger does about labels that may be wrong: who verifies, audits and checks, and what a restart leaves."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from alsys.control.commands import AuditLabel, CheckLabeler, Finish, Idle, LabelFrames
from alsys.control.rules.decisions import decide
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind
from alsys.events import (
    AuditReason,
    AuditsDrawn,
    AuditStarted,
    CampaignOpened,
    Event,
    FrameProposed,
    FrameQuarantined,
    LabelAccepted,
    LabelAudited,
    LabelFailed,
    LabelFailedGate,
    LabelFlaggedByModel,
    LabelNotReproduced,
    LabelStarted,
    ReferenceChecked,
    ReferenceCheckStarted,
    WorkerLost,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings

OPENED = CampaignOpened(t=0.0, epoch=1, config_hash="", version="test")


def proposed(*frame_ids: str) -> list[Event]:
    return [FrameProposed(t=0.0, frame_id=f, arm=Arm.INITIAL, system="s", deviation=float("nan")) for f in frame_ids]


def started(frame_id: str, worker: str = "w0") -> LabelStarted:
    return LabelStarted(t=0.0, worker=worker, frame_ids=(frame_id,))


def accepted(frame_id: str, worker: str = "w0", label_id: str = "f" * 32, audit: str = "") -> LabelAccepted:
    return LabelAccepted(t=0.0, frame_id=frame_id, label_id=label_id, worker=worker, wall_s=1.0, audit=audit)


def failed_gate(frame_id: str, worker: str = "w0") -> LabelFailedGate:
    return LabelFailedGate(t=0.0, frame_id=frame_id, worker=worker, findings=("odd",))


def audited(frame_id: str, worker: str = "w1", is_confirmed: bool = True, error: str = "") -> LabelAudited:
    return LabelAudited(
        t=0.0,
        frame_id=frame_id,
        worker=worker,
        reason=AuditReason.RANDOM,
        is_confirmed=is_confirmed,
        force_difference=0.0,
        force_mae=0.0,
        error=error,
    )


def checked(worker: str, is_sound: bool = True) -> ReferenceChecked:
    return ReferenceChecked(t=0.0, worker=worker, is_sound=is_sound, energy=1.0, forces=(0.5,))


def ledger_of(events: list[Event], **settings: Any) -> Ledger:
    values: dict[str, Any] = {"n_labels": 10, "first_at": 100, **settings}
    return Ledger.fold(policy_settings(**values), events)


def test_a_label_that_failed_the_gate_is_verified_by_another_labeler() -> None:
    ledger = ledger_of([OPENED, *proposed("a", "b"), started("a"), failed_gate("a")])
    assert ledger.is_balanced
    assert ledger.counts[Status.LABELLED] == 0
    commands = decide(ledger, 0.0, Idle(labelers=("w0", "w1")))
    assert LabelFrames("w1", ("a",), is_verification=True) in commands
    assert LabelFrames("w0", ("b",)) in commands


def test_a_label_that_failed_the_gate_waits_for_another_labeler_unless_there_is_none() -> None:
    base = [OPENED, *proposed("a", "b"), started("b", "w1"), started("a"), failed_gate("a")]
    assert decide(ledger_of(base), 0.0, Idle(labelers=("w0",), busy_labelers=("w1",))) == []
    alone = ledger_of([OPENED, *proposed("a"), started("a"), failed_gate("a")])
    assert decide(alone, 0.0, Idle(labelers=("w0",))) == [LabelFrames("w0", ("a",), is_verification=True)]


def test_a_labeler_that_comes_when_all_is_labelled_is_not_checked() -> None:
    """Where labelers come and go all the time the campaign would never end."""
    events = [OPENED, *proposed("a", "b"), started("a"), accepted("a")]
    new = Idle(labelers=("w7",))
    wanted = decide(ledger_of(events, n_labels=2, reference_every=100), 0.0, new)
    assert wanted == [CheckLabeler("w7")]
    done = decide(ledger_of(events, n_labels=1, reference_every=100), 0.0, new)
    assert not any(isinstance(command, CheckLabeler) for command in done)


def test_a_confirmed_label_is_data() -> None:
    ledger = ledger_of(
        [OPENED, *proposed("a"), started("a"), failed_gate("a"), started("a", "w1"), accepted("a", "w1")]
    )
    assert ledger.counts[Status.LABELLED] == 1
    assert ledger.is_balanced
    assert ledger.audits.to_verify == {}


def test_a_wrong_label_is_made_again_and_given_up_after_two() -> None:
    wrong: list[Event] = [started("a"), failed_gate("a"), started("a", "w1")]
    wrong.append(LabelNotReproduced(t=0.0, frame_id="a", worker="w1", force_difference=1.0))
    ledger = ledger_of([OPENED, *proposed("a"), *wrong])
    assert ledger.is_balanced
    assert decide(ledger, 0.0, Idle(labelers=("w0",))) == [LabelFrames("w0", ("a",))]
    for event in wrong:
        ledger.apply(event)
    assert ledger.is_balanced
    (command,) = decide(ledger, 0.0, Idle(labelers=("w0",)))
    assert command.event.failure is FailureKind.LABEL_NOT_REPRODUCED  # type: ignore[union-attr]


def test_a_rejected_frame_is_quarantined_at_once() -> None:
    failed = LabelFailed(t=0.0, frame_id="a", failure=FailureKind.LABEL_REJECTED, message="large", worker="w1")
    ledger = ledger_of([OPENED, *proposed("a"), started("a"), failed_gate("a"), started("a", "w1"), failed])
    assert ledger.is_balanced
    (command,) = decide(ledger, 0.0, Idle(labelers=("w0",)))
    assert command.event.failure is FailureKind.LABEL_REJECTED  # type: ignore[union-attr]


def test_a_lost_verification_is_done_again() -> None:
    lost = LabelFailed(t=0.0, frame_id="a", failure=FailureKind.TIMEOUT, message="slow", worker="w1")
    ledger = ledger_of([OPENED, *proposed("a"), started("a"), failed_gate("a"), started("a", "w1"), lost])
    assert ledger.is_balanced
    assert LabelFrames("w1", ("a",), is_verification=True) in decide(ledger, 0.0, Idle(labelers=("w0", "w1")))


def test_after_a_restart_an_unverified_frame_is_labelled_afresh() -> None:
    """Its first label was in the old driver's memory; the log does not say what was in flight."""
    ledger = ledger_of([OPENED, *proposed("a"), failed_gate("a"), OPENED])
    assert ledger.is_balanced
    assert decide(ledger, 0.0, Idle(labelers=("w0",))) == [LabelFrames("w0", ("a",))]


def test_verifying_stays_within_the_budget() -> None:
    events = [OPENED, *proposed("a", "b", "c"), started("a"), failed_gate("a"), started("b"), accepted("b")]
    ledger = ledger_of(events, n_labels=2)
    commands = decide(ledger, 0.0, Idle(labelers=("w0", "w1")))
    assert commands == [LabelFrames("w1", ("a",), is_verification=True)]


@pytest.mark.parametrize(("share", "label_id", "is_audited"), [(0.0, "0" * 32, False), (0.01, "0" * 32, True)])
def test_a_share_of_labels_is_audited_by_another_labeler(share: float, label_id: str, is_audited: bool) -> None:
    events = [OPENED, *proposed("a"), started("a"), accepted("a", label_id=label_id)]
    commands = decide(ledger_of(events, audit_share=share), 0.0, Idle(labelers=("w0", "w1")))
    assert (AuditLabel("w1", "a") in commands) is is_audited


def test_one_audit_at_a_time_and_again_if_it_is_lost() -> None:
    events = [OPENED, *proposed("a", "b"), started("a"), accepted("a", label_id="0" * 32)]
    ledger = ledger_of([*events, started("b"), accepted("b", label_id="0" * 31 + "1")], audit_share=0.01)
    ledger.apply(AuditStarted(t=0.0, worker="w1", frame_id="a"))
    idle = Idle(labelers=("w0", "w2"))
    assert not any(isinstance(c, AuditLabel) for c in decide(ledger, 0.0, idle))
    lost = WorkerLost(t=0.0, worker="w1", role="labelers", failure=FailureKind.WORKER_LOST)
    ledger.apply(lost)
    assert AuditLabel("w2", "b") in decide(ledger, 0.0, idle)
    ledger.apply(AuditStarted(t=0.0, worker="w2", frame_id="b"))
    ledger.apply(audited("b", "w2"))
    assert AuditLabel("w2", "a") in decide(ledger, 0.0, idle)
    ledger.apply(AuditStarted(t=0.0, worker="w2", frame_id="a"))
    ledger.apply(audited("a", "w2", error="timeout"))
    assert not any(isinstance(c, AuditLabel) for c in decide(ledger, 0.0, idle)), "two attempts are enough"
    assert ledger.audits.n_audited == 1


def test_a_flagged_label_is_audited_and_one_under_audit_not_twice() -> None:
    ledger = ledger_of([OPENED, *proposed("a"), started("a"), accepted("a")])
    flagged = LabelFlaggedByModel(t=0.0, frame_id="a", findings=("odd",))
    ledger.apply(flagged)
    assert AuditLabel("w0", "a") in decide(ledger, 0.0, Idle(labelers=("w0",)))
    ledger.apply(AuditStarted(t=0.0, worker="w0", frame_id="a"))
    ledger.apply(flagged)
    assert not ledger.audits.to_audit
    reopened = ledger_of([OPENED, *proposed("a"), accepted("a"), flagged, OPENED])
    assert list(reopened.audits.to_audit) == ["a"]


def test_labelers_begin_with_the_reference_frame_and_see_it_again() -> None:
    ledger = ledger_of([OPENED, *proposed("a", "b", "c")], reference_every=2)
    idle = Idle(labelers=("w0",))
    assert decide(ledger, 0.0, idle) == [CheckLabeler("w0")]
    ledger.apply(ReferenceCheckStarted(t=0.0, worker="w0"))
    ledger.apply(checked("w0"))
    assert ledger.audits.reference is not None
    assert ledger.audits.reference.forces == (0.5,)
    for frame_id in ("a", "b"):
        assert decide(ledger, 0.0, idle) == [LabelFrames("w0", (frame_id,))]
        ledger.apply(started(frame_id))
        ledger.apply(accepted(frame_id))
    assert decide(ledger, 0.0, idle) == [CheckLabeler("w0")]
    ledger.apply(WorkerLost(t=0.0, worker="w0", role="labelers", failure=FailureKind.WORKER_LOST))
    assert decide(ledger, 0.0, idle) == [CheckLabeler("w0")], "a new incarnation is checked"


def test_labels_since_the_last_sound_check_are_audited_when_one_fails() -> None:
    events: list[Event] = [OPENED, *proposed("a", "b"), checked("w0"), started("a"), accepted("a")]
    ledger = ledger_of([*events, checked("w0", is_sound=False)], reference_every=5)
    ledger.apply(checked("w1"))
    assert [audit.reason for audit in ledger.audits.to_audit.values()] == [AuditReason.REFERENCE]
    assert AuditLabel("w1", "a") in decide(ledger, 0.0, Idle(labelers=("w1",)))


QUICK = {"prefetch_below_s": 0.2, "n_labels": 500}


def quick_campaign(n_labelers: int = 2, **settings: Any) -> Ledger:
    """Labels of a hundredth of a second, and labelers that each have a call."""
    events: list[Event] = [OPENED, *proposed(*(f"p{i}" for i in range(200)), "a")]
    for i in range(20):
        label = accepted(f"p{i}", worker="w1")
        events += [LabelAccepted(t=0.0, frame_id=f"p{i}", label_id=label.label_id, worker="w1", wall_s=0.01)]
    events += [started("a"), failed_gate("a")]
    events += [started(f"p{30 + k}", f"w{k}") for k in range(n_labelers)]
    return ledger_of(events, **{**QUICK, **settings})


@pytest.mark.parametrize("work", ["verification", "audit", "reference check"])
def test_quick_labels_do_not_keep_what_must_be_checked_waiting(work: str) -> None:
    """Labelers that have a call get no further one ahead of a check that is due."""
    ledger = quick_campaign(reference_every=5 if work == "reference check" else 0)
    if work != "verification":
        ledger.apply(accepted("a"))
    if work == "audit":
        ledger.apply(LabelFlaggedByModel(t=0.0, frame_id="p3", findings=("odd",)))
    busy = Idle(busy_labelers=("w0", "w1"))
    assert decide(ledger, 0.0, busy) == []
    if work == "verification":
        ledger.apply(accepted("p31", "w1"))
        assert LabelFrames("w1", ("a",), is_verification=True) in decide(ledger, 0.0, Idle(labelers=("w1",)))


def test_calls_ahead_go_on_where_nothing_waits() -> None:
    ledger = quick_campaign()
    ledger.apply(accepted("a"))
    commands = decide(ledger, 0.0, Idle(busy_labelers=("w0", "w1")))
    assert {command.worker for command in commands if isinstance(command, LabelFrames)} == {"w0", "w1"}


def test_audits_run_in_parallel_on_half_of_the_labelers_and_on_all_of_them_at_the_end() -> None:
    workers = tuple(f"w{i}" for i in range(8))
    events: list[Event] = [OPENED, *proposed(*(f"p{i}" for i in range(30)))]
    events += [event for i in range(12) for event in (started(f"p{i}", "x"), accepted(f"p{i}", "x"))]
    events += [LabelFlaggedByModel(t=0.0, frame_id=f"p{i}", findings=("odd",)) for i in range(12)]
    during = decide(ledger_of(events, n_labels=30), 0.0, Idle(labelers=workers))
    assert sum(isinstance(command, AuditLabel) for command in during) == 4
    assert sum(isinstance(command, LabelFrames) for command in during) == 4
    after = decide(ledger_of(events, n_labels=12), 0.0, Idle(labelers=workers))
    assert sum(isinstance(command, AuditLabel) for command in after) == 8


def test_what_a_model_flags_is_audited_before_what_was_drawn() -> None:
    ledger = ledger_of([OPENED, *proposed("a", "b"), accepted("a", "x", audit="yes"), accepted("b", "x")])
    ledger.apply(LabelFlaggedByModel(t=0.0, frame_id="b", findings=("odd",)))
    assert next(c for c in decide(ledger, 0.0, Idle(labelers=("w0",))) if isinstance(c, AuditLabel)).frame_id == "b"


def test_the_log_says_which_labels_are_audited_whatever_the_share_is_now() -> None:
    events: list[Event] = [OPENED, *proposed("a", "b", "c")]
    events += [accepted("a", audit="yes", label_id="f" * 32), accepted("b", audit="no", label_id="0" * 32)]
    for share in (0.0, 0.01, 1.0):
        assert [audit.frame_id for audit in ledger_of(events).audits.waiting(share)] == ["a"]


def test_labels_of_an_older_log_are_drawn_once() -> None:
    """Their share is today's until a driver has opened the campaign, and what it has drawn from then on."""
    n = 2000
    frames = [f"{i:032x}" for i in range(n)]
    log: list[Event] = [OPENED, *proposed(*frames)]
    log += [accepted(f, label_id=hashlib.blake2b(f.encode(), digest_size=16).hexdigest()) for f in frames]
    shares = (0.0, 0.01, 0.1, 1.0)
    counts = [len(ledger_of(log).audits.waiting(share)) for share in shares]
    assert counts[0] == 0 < counts[1] < counts[2] < counts[3] == n
    drawn = [audit.frame_id for audit in ledger_of(log).audits.drawn(0.01)]
    done = next(f for f in frames if f not in drawn)
    log += [AuditsDrawn(t=1.0, frame_ids=tuple(drawn)), OPENED, audited(done)]
    for share in shares:
        assert [audit.frame_id for audit in ledger_of(log).audits.waiting(share)] == drawn


def test_verification_has_its_place_in_the_budget() -> None:
    """Their author is busy with something else than they need, so they wait; new labels leave them their room."""
    events = [OPENED, *proposed("a", "b", "c"), started("a"), failed_gate("a"), started("b", "w1")]
    assert decide(ledger_of(events, n_labels=2), 0.0, Idle(labelers=("w0",), busy_labelers=("w1",))) == []


def test_a_campaign_whose_frames_all_fail_ends() -> None:
    """Also one that has a model, and so never runs out of frames."""
    events: list[Event] = [OPENED, *proposed(*(f"p{i}" for i in range(60)))]
    failed = [
        FrameQuarantined(t=0.0, frame_id=f"p{i}", failure=FailureKind.SCF_NOT_CONVERGED, message="no")
        for i in range(40)
    ]
    idle = Idle(labelers=("w0",), explorers=("e",), trainers=("t",))
    (finish,) = decide(ledger_of([*events, *failed], n_labels=50), 0.0, idle)
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.is_final) == ("failed", False)
    assert "40 frames in a row gave no label, the last one: scf-not-converged: no" in finish.message
    one = [*failed[:30], started("p55"), accepted("p55"), *failed[30:]]
    assert any(isinstance(c, LabelFrames) for c in decide(ledger_of([*events, *one], n_labels=50), 0.0, idle))
    again = ledger_of([*events, *failed, OPENED], n_labels=50)
    assert any(isinstance(c, LabelFrames) for c in decide(again, 0.0, idle)), "the same command tries again"
