from __future__ import annotations

import dataclasses
import math

import pytest

from alsys.errors import FailureKind
from alsys.events import (
    AuditReason,
    CampaignOpened,
    CampaignStopped,
    DropReason,
    Event,
    ExplorationReported,
    FrameDropped,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    Heartbeat,
    LabelAccepted,
    LabelAudited,
    LabelFailed,
    LabelFailedGate,
    LabelNotReproduced,
    LabelRepeated,
    LabelRetracted,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    ReferenceChecked,
    TrainingFailed,
    WorkerLost,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings
from alsys.tracking import report_plots as plots
from alsys.tracking.summary import MAX_TIMELINE, summarise


def opened(t: float) -> CampaignOpened:
    return CampaignOpened(t=t, epoch=1, config_hash="0" * 32, version="0.1.0", host="here")


def labelled(t: float, name: str, arm: Arm) -> list[Event]:
    return [
        FrameProposed(t=t, frame_id=name, arm=arm, system="water", deviation=0.2),
        LabelAccepted(t=t + 1, frame_id=name, label_id=name, worker="labeler-0", wall_s=1.0),
    ]


def published(t: float, version: int, mae: float) -> ModelPublished:
    metrics = {"force_mae_random_arm": mae, "force_mae_random_arm_low": mae - 0.01}
    return ModelPublished(t=t, version=version, parent=0, seq=3, n_labels=10, wall_s=2.0, metrics=metrics)


def test_an_empty_log_is_an_empty_summary() -> None:
    summary = summarise([], policy_settings())
    assert (summary.n_labels, summary.champion, summary.running_s, summary.utilisation) == (0, 0, 0.0, {})


def test_the_night_between_a_kill_and_a_resume_is_no_running_time() -> None:
    events = [
        opened(1000.0),
        *labelled(1010.0, "a", Arm.INITIAL),
        opened(90_000.0),
        *labelled(90_005.0, "b", Arm.RANDOM),
    ]
    summary = summarise(events, policy_settings())
    assert summary.restarts == [11.0]
    assert [label.time for label in summary.labels] == [11.0, 17.0]
    assert summary.running_s == 17.0
    assert "after an interruption" in summary.timeline[-1].text


def test_a_clock_that_was_set_back_never_runs_backwards() -> None:
    events = [opened(1000.0), *labelled(1010.0, "a", Arm.INITIAL), *labelled(900.0, "b", Arm.INITIAL)]
    times = [label.time for label in summarise(events, policy_settings()).labels]
    assert times == sorted(times) == [11.0, 11.0]


def test_free_atoms_are_data_but_no_labels_of_the_budget() -> None:
    arms = (Arm.ATOM, Arm.INITIAL, Arm.RANDOM, Arm.UNCERTAIN)
    summary = summarise([e for i, arm in enumerate(arms) for e in labelled(float(i), str(arm), arm)], policy_settings())
    assert summary.n_labels == 3
    assert summary.n_of(Arm.INITIAL, Arm.UNCERTAIN) == 2
    assert summary.first_frames == {"water": "initial"}


def test_models_carry_their_verdict_and_the_last_promoted_is_champion() -> None:
    summary = summarise(
        [
            published(1.0, 1, 0.3),
            ModelPromoted(t=1.0, version=1, reason="first version"),
            published(2.0, 2, 0.4),
            ModelRejected(t=2.0, version=2, reason="worse"),
            published(3.0, 3, 0.2),
        ],
        policy_settings(),
    )
    assert [(m.version, m.promoted, m.reason) for m in summary.models] == [
        (1, True, "first version"),
        (2, False, "worse"),
        (3, None, ""),
    ]
    assert summary.champion_model is summary.models[0]
    mae, low, high = summary.models[0].error
    assert (mae, low) == (0.3, pytest.approx(0.29))
    assert high != high  # no upper bound was measured


def test_utilisation_is_busy_over_available_worker_seconds() -> None:
    beats = [
        Heartbeat(
            t=5.0, wall_s=5.0, busy_s={"labelers": 10.0, "explorers": 0.0}, workers={"labelers": 2, "explorers": 1}
        ),
        Heartbeat(
            t=15.0, wall_s=10.0, busy_s={"labelers": 10.0, "explorers": 5.0}, workers={"labelers": 4, "explorers": 1}
        ),
    ]
    assert summarise(beats, policy_settings()).utilisation == {
        "explorers": pytest.approx(5 / 15),
        "labelers": pytest.approx(20 / 50),
    }


def test_a_mean_deviation_is_weighted_by_walker_steps() -> None:
    report = ExplorationReported(
        t=1.0,
        worker="explorer-0",
        model_version=1,
        n_steps=50,
        walker_steps=100,
        n_candidates=1,
        n_above=2,
        wall_s=1.0,
        stops={"too-hot": 2},
        deviation_max=0.5,
        deviation_mean=0.1,
    )
    longer = dataclasses.replace(report, walker_steps=300, deviation_mean=0.3, deviation_max=0.4, stops={"failed": 1})
    summary = summarise([report, longer, dataclasses.replace(report, model_version=2)], policy_settings())
    first = summary.exploration[1]
    assert first.deviation_mean == pytest.approx(0.25)
    assert first.deviation_max == 0.5
    assert summary.stops == {"too-hot": 4, "failed": 1}


def test_what_went_wrong_is_kept_with_its_reason() -> None:
    failure = FailureKind.SCF_NOT_CONVERGED
    events: list[Event] = [
        FrameProposed(t=0.0, frame_id="a", arm=Arm.UNCERTAIN, system="water", deviation=0.2),
        FrameProposed(t=0.0, frame_id="b", arm=Arm.UNCERTAIN, system="water", deviation=0.2),
        LabelFailed(t=1.0, frame_id="a", failure=failure, message="no convergence", worker="labeler-0"),
        FrameQuarantined(t=1.0, frame_id="a", failure=failure, message="no convergence"),
        FrameDropped(t=1.0, frame_id="b", reason=DropReason.BELOW_TRUST),
        WorkerLost(t=2.0, worker="labeler-0", role="labelers", failure=FailureKind.WORKER_LOST, message=""),
        TrainingFailed(t=3.0, version=1, failure=FailureKind.OUT_OF_MEMORY, message="too large"),
        LabelRepeated(t=4.0, frame_id="a", worker="x", is_conflict=True, energy_difference=1.0, force_difference=2.0),
        LabelRepeated(t=4.0, frame_id="a", worker="x", is_conflict=False, energy_difference=0.0, force_difference=0.0),
        CampaignStopped(t=5.0, reason="failed", message="every fit failed", is_final=False),
    ]
    summary = summarise(events, policy_settings())
    assert [(q.frame_id, q.system, q.failure, q.message) for q in summary.quarantined] == [
        ("a", "water", failure, "no convergence")
    ]
    assert summary.dropped == {"below-trust": 1}
    assert (summary.n_workers_lost, summary.n_repeated, summary.n_conflicts) == (1, 2, 1)
    assert [entry.tone for entry in summary.timeline] == ["bad"] * 4
    assert summary.stopped is not None


def test_a_flood_of_lost_workers_is_counted_and_hides_no_model() -> None:
    lost = WorkerLost(t=0.0, worker="labeler-0", role="labelers", failure=FailureKind.WORKER_LOST)
    summary = summarise([*[lost] * (MAX_TIMELINE + 50), published(1.0, 1, 0.2)], policy_settings())
    assert summary.n_untold == 50
    assert "v0001 published" in summary.timeline[-1].text


def test_a_resumed_campaign_is_not_stopped() -> None:
    stopped = CampaignStopped(t=1.0, reason="user", is_final=False)
    assert summarise([opened(0.0), stopped, opened(2.0)], policy_settings()).stopped is None


def test_a_retracted_label_is_no_label_and_is_told_with_its_reason() -> None:
    tombstone = LabelRetracted(t=9.0, frame_id="a", label_id="a", reason="wrong sign")
    events = [*labelled(1.0, "a", Arm.RANDOM), *labelled(2.0, "b", Arm.INITIAL), tombstone, tombstone]
    summary = summarise(events, policy_settings())
    assert (summary.n_labels, summary.n_of(Arm.RANDOM)) == (1, 0)
    assert [(r.frame_id, r.label_id, r.reason, r.time) for r in summary.retracted] == [("a", "a", "wrong sign", 8.0)]
    assert [entry.text for entry in summary.timeline] == ["the label of a was retracted: wrong sign"]


def test_a_retried_frame_is_in_quarantine_no_more() -> None:
    failure = FailureKind.TIMEOUT
    events: list[Event] = []
    for name in ("a", "b"):
        events.append(FrameProposed(t=0.0, frame_id=name, arm=Arm.UNCERTAIN, system="water", deviation=0.2))
        events.append(FrameQuarantined(t=1.0, frame_id=name, failure=failure, message="late"))
    summary = summarise([*events, FrameRetried(t=2.0, frame_id="a")], policy_settings())
    assert [frame.frame_id for frame in summary.quarantined] == ["b"]


def test_what_was_done_about_wrong_labels_is_counted_and_told() -> None:
    log = [
        opened(0.0),
        *labelled(1.0, "a", Arm.INITIAL),
        LabelFailedGate(t=2.0, frame_id="a", worker="w0", findings=("odd",)),
        LabelNotReproduced(t=3.0, frame_id="a", worker="w1", force_difference=0.5),
        LabelAudited(
            t=4.0, frame_id="a", worker="w1", reason=AuditReason.RANDOM, is_confirmed=False,
            force_difference=0.2, force_mae=0.1,
        ),
        LabelAudited(
            t=4.0, frame_id="a", worker="w1", reason=AuditReason.RANDOM, is_confirmed=True, force_difference=math.nan,
            force_mae=math.nan, error="timeout",
        ),
        ReferenceChecked(t=5.0, worker="w0", is_sound=False, message="reference frame 1 (limit 0.002)"),
    ]  # fmt: skip
    summary = summarise(log, policy_settings())
    assert summary.label_checks == {
        "failed_gate": 1, "not_reproduced": 1, "reference_checks": 1, "reference_checks_failed": 1,
    }  # fmt: skip
    assert [audit.is_confirmed for audit in summary.audits] == [False], "an audit that failed says nothing"
    told = " ".join(entry.text for entry in summary.timeline)
    assert "was wrong by 0.5 eV" in told
    assert "w0 labels wrongly: reference frame 1" in told
    drawing = plots.audits(summary)
    assert "rejected" in drawing
    assert "200.00 meV" in drawing
    assert plots.audits(summarise([opened(0.0)], policy_settings())) == ""


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0])
def test_a_clock_that_is_set_by_hours_draws_no_gap(jump_s: float) -> None:
    events: list[Event] = [opened(100.0)]
    for i in range(1, 21):
        t = 100.0 + 5.0 * i + (jump_s if i > 10 else 0.0)
        events += labelled(t - 2.0, f"f{i}", Arm.INITIAL)
        events.append(Heartbeat(t=t, wall_s=5.0, busy_s={}, workers={"labelers": 1}))
    summary = summarise(events, policy_settings())
    times = [label.time for label in summary.labels]
    assert times == sorted(times)
    assert summary.running_s == pytest.approx(100.0, abs=60.0)
    assert times[-1] - times[0] == pytest.approx(95.0, abs=65.0)
