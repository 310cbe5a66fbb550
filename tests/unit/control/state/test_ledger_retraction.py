"""What the ledger makes of retracted labels and of quarantined frames that are tried again."""

from __future__ import annotations

from typing import Any

from alsys.control.commands import Emit, Finish, Idle, LabelFrames, Train
from alsys.control.rules.decisions import decide
from alsys.control.rules.goals import target_reached
from alsys.control.rules.stopping import finish
from alsys.control.rules.training import train
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.control.status import headline, status_of
from alsys.errors import FailureKind
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    ErrorsObserved,
    Event,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    LabelAccepted,
    LabelFailed,
    LabelRetracted,
    LabelStarted,
    ModelPromoted,
    ModelPublished,
    TrainingStarted,
)
from alsys.frames import Arm
from alsys.metrics import Metrics
from alsys.testing.policies import policy_settings

OPENED = CampaignOpened(t=0.0, epoch=1, config_hash="", version="")


def labelled(frame_id: str, arm: Arm = Arm.INITIAL) -> list[Event]:
    return [
        FrameProposed(t=0.0, frame_id=frame_id, arm=arm, system="s", deviation=0.3, stratum="x"),
        LabelAccepted(t=0.0, frame_id=frame_id, label_id=f"l{frame_id}", worker="w", wall_s=1.0),
    ]


def retracted(frame_id: str) -> LabelRetracted:
    return LabelRetracted(t=1.0, frame_id=frame_id, label_id=f"l{frame_id}", reason="wrong sign", request="r1")


def published(version: int, n_train: int, n_retracted: int = 0) -> list[Event]:
    metrics = {"n_labels_train": float(n_train)}
    return [
        ModelPublished(
            t=1.0, version=version, parent=version - 1, seq=1, n_labels=n_train, wall_s=1.0, metrics=metrics,
            n_retracted=n_retracted,
        ),
        ModelPromoted(t=1.0, version=version, reason="good"),
    ]  # fmt: skip


def campaign(events: list[Event], **settings: Any) -> Ledger:
    return Ledger.fold(policy_settings(**{"n_labels": 10, "refit_every": 5, **settings}), [OPENED, *events])


def ten_labels() -> list[Event]:
    arms = [Arm.INITIAL] * 4 + [Arm.UNCERTAIN] * 4 + [Arm.RANDOM] * 2
    return [event for i, arm in enumerate(arms) for event in labelled(f"f{i}", arm)]


def test_a_finished_campaign_labels_another_frame_and_fits_again() -> None:
    ledger = campaign([*ten_labels(), *published(1, 8)])
    (finish,) = decide(ledger, 2.0, Idle())
    assert isinstance(finish, Finish)
    assert finish.reason == "labels"
    for event in (
        CampaignStopped(t=2.0, reason="labels"),
        retracted("f2"),
        OPENED,
        FrameProposed(t=3.0, frame_id="new", arm=Arm.UNCERTAIN, system="s", deviation=0.3, model_version=1),
    ):
        ledger.apply(event)
    assert (ledger.n_labels, ledger.n_train, ledger.counts[Status.RETRACTED]) == (9, 7, 1)
    assert ledger.strata == {"x": 9}
    assert decide(ledger, 4.0, Idle(labelers=("w",), trainers=("t",))) == [LabelFrames("w", ("new",))]
    ledger.apply(LabelStarted(t=4.0, worker="w", frame_ids=("new",)))
    ledger.apply(LabelAccepted(t=5.0, frame_id="new", label_id="lnew", worker="w", wall_s=1.0))
    (train,) = decide(ledger, 6.0, Idle(labelers=("w",), trainers=("t",)))
    assert isinstance(train, Train)
    assert train.n_labels == 10


def test_a_retraction_counts_like_a_new_label_towards_the_next_fit() -> None:
    events = [*ten_labels(), *published(1, 8), *(e for i in range(3) for e in labelled(f"g{i}"))]
    ledger = campaign(events, n_labels=100)
    assert train(ledger, ["t"]) is None
    for frame_id in ("f0", "f9"):  # one that was trained on, one of the random arm, which the error was measured on
        ledger.apply(retracted(frame_id))
    assert ledger.n_new == 5
    assert train(ledger, ["t"]) is not None
    ledger.apply(TrainingStarted(t=2.0, worker="t", version=2, n_labels=11))
    assert ledger.n_new == 0
    ledger.apply(retracted("g1"))  # while the fit runs: it knows nothing of it
    for event in published(2, 10, n_retracted=2):
        ledger.apply(event)
    assert ledger.n_new == 1


def test_after_many_retractions_a_fit_waits_for_as_many_labels_as_the_first_one_did() -> None:
    """All labels were set aside: a model of one label must not replace the champion."""
    ledger = campaign([*ten_labels(), *published(1, 8)], n_labels=100, first_at=8)
    for i in range(10):
        ledger.apply(retracted(f"f{i}"))
    for i in range(8):
        assert train(ledger, ["t"]) is None, f"after {i} labels"
        for event in labelled(f"g{i}"):
            ledger.apply(event)
    assert train(ledger, ["t"]) is not None


def test_without_any_label_left_nothing_is_fitted() -> None:
    ledger = campaign(
        [*labelled("f0"), *labelled("f1"), *published(1, 2)], n_labels=2, target_force_mae=0.1, versions_in_a_row=1
    )
    ledger.models[1].metrics |= Metrics({"n_random": 50.0, "force_mae_random_arm_high": 0.05})
    for frame_id in ("f0", "f1"):
        ledger.apply(retracted(frame_id))
    assert target_reached(ledger)
    assert train(ledger, ["t"]) is None
    assert isinstance(finish(ledger, 2.0), Finish)


def test_a_champion_is_compared_with_exactly_the_frames_it_was_not_trained_on() -> None:
    """Whether they were retracted before its snapshot or after it."""
    first = [event for i in range(6) for event in labelled(f"f{i}")]
    before, after = [retracted("f1")], [retracted("f3"), retracted("g0")]
    later = [event for i in range(3) for event in labelled(f"g{i}")]
    ledger = campaign([*first, *before, *later, *after, *published(1, 5, n_retracted=1)], n_labels=100)
    assert list(ledger.to_compare) == ["g1", "g2"]
    assert ledger.labelled == ["f0", "f2", "f4", "f5", "g1", "g2"]
    ledger.apply(retracted("g1"))
    assert list(ledger.to_compare) == ["g2"]


def test_what_a_retracted_label_taught_the_calibration_is_forgotten() -> None:
    events = [*ten_labels(), *published(1, 4)]

    def observed(frame_id: str, error: float) -> ErrorsObserved:
        return ErrorsObserved(
            t=2.0, model_version=1, frame_ids=(frame_id,), n_atoms=(1,), deviations=(0.1,), errors=(error,)
        )

    clean = campaign([*events, *(observed(f"f{i}", 0.1) for i in range(4, 9))])
    ledger = campaign([*events, *(observed(f"f{i}", 0.1) for i in range(4, 9)), observed("f9", 100.0)])
    ledger.apply(retracted("f9"))
    assert ledger.calibration.band == clean.calibration.band
    ledger.apply(observed("f9", 100.0))  # an explorer was comparing it meanwhile
    assert ledger.calibration.band == clean.calibration.band


def test_a_retracted_frame_is_never_labelled_again() -> None:
    ledger = campaign([*ten_labels(), retracted("f0")], n_labels=100)
    for event in (
        FrameRetried(t=2.0, frame_id="f0"),
        LabelAccepted(t=2.0, frame_id="f0", label_id="lf0", worker="w", wall_s=1.0),
        LabelFailed(t=2.0, frame_id="f0", failure=FailureKind.TIMEOUT),
        FrameProposed(t=2.0, frame_id="f0", arm=Arm.UNCERTAIN, system="s", deviation=1.0),
        retracted("f0"),
    ):
        ledger.apply(event)
        assert ledger.frames["f0"].status is Status.RETRACTED
        assert ledger.n_labels == 9
        assert ledger.is_balanced
    assert not len(ledger.pending)


def test_retracting_a_free_atom_leaves_the_budget_alone_and_asks_for_a_fit() -> None:
    ledger = campaign([*labelled("h", Arm.ATOM), *ten_labels(), *published(1, 8)])
    ledger.apply(retracted("h"))
    assert ledger.n_labels == 10
    assert isinstance(decide(ledger, 2.0, Idle(trainers=("t",)))[0], Train)


def test_a_retried_frame_is_pending_as_if_it_had_never_been_tried() -> None:
    failed = LabelFailed(t=1.0, frame_id="q", failure=FailureKind.WORKER_LOST, worker="w")
    ledger = campaign(
        [
            FrameProposed(t=0.0, frame_id="q", arm=Arm.INITIAL, system="s", deviation=0.0),
            LabelStarted(t=0.5, worker="w", frame_ids=("q",)),
            failed,
            LabelStarted(t=1.0, worker="w", frame_ids=("q",)),
            failed,
        ]
    )
    (emit,) = decide(ledger, 1.0, Idle(labelers=("w",)))
    assert isinstance(emit, Emit)
    assert isinstance(emit.event, FrameQuarantined)
    ledger.apply(emit.event)
    assert decide(ledger, 1.0, Idle(labelers=("w",))) == []
    ledger.apply(FrameRetried(t=2.0, frame_id="q", request="r2"))
    assert ledger.requests >= {"r2"}
    assert decide(ledger, 2.0, Idle(labelers=("w",))) == [LabelFrames("w", ("q",))]
    ledger.apply(LabelStarted(t=2.0, worker="w", frame_ids=("q",)))
    ledger.apply(failed)
    assert decide(ledger, 3.0, Idle(labelers=("w",))) == [LabelFrames("w", ("q",))], "it may kill two workers again"


def test_status_counts_them() -> None:
    ledger = campaign([*ten_labels(), retracted("f0")])
    status = status_of(ledger, state="running", head_seq=3)
    assert isinstance(status["labels"], dict)
    assert isinstance(status["candidates"], dict)
    assert (status["labels"]["accepted"], status["labels"]["retracted"]) == (9, 1)
    assert status["candidates"]["retracted"] == 1
    assert "1 retracted" in headline(status)
