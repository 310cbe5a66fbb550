"""Labels keep pace with models: what runs ahead, what the plan says, and that it holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from simulated_time import Durations, SimulatedCampaign

from alsys.control.commands import Idle, LabelFrames, Train
from alsys.control.rules.decisions import decide
from alsys.control.rules.exploration import exploration_is_paused
from alsys.control.rules.pace import label_plan, most_ahead, random_kept
from alsys.control.rules.trust import random_share
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import RunningTimes
from alsys.control.status import random_note, status_of
from alsys.events import (
    CampaignOpened,
    Event,
    ExplorationReported,
    FrameProposed,
    FramesRescored,
    LabelAccepted,
    LabelRetracted,
    LabelStarted,
    ModelPromoted,
    ModelPublished,
    TrainingStarted,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings

IDLE = Idle(explorers=("e",), labelers=("w",), trainers=("t",))


def simulated(label_s: float, n_labelers: int = 1, **settings: Any) -> SimulatedCampaign:
    campaign = SimulatedCampaign(
        policy_settings(**{"n_labels": 60, "max_ahead": "auto", **settings}), Durations(label_s), n_labelers
    )
    assert campaign.run().reason == "labels"
    return campaign


def plan_of(campaign: SimulatedCampaign) -> Any:
    return label_plan(
        campaign.settings,
        n_initial=campaign.n_initial,
        n_initial_random=campaign.n_initial_random,
        n_labelers=campaign.n_labelers,
        label_s=campaign.durations.label_s,
    )


def proposed(frame_id: str, arm: Arm = Arm.UNCERTAIN, version: int = 1, deviation: float = 0.3) -> FrameProposed:
    return FrameProposed(t=0.0, frame_id=frame_id, arm=arm, system="s", deviation=deviation, model_version=version)


def accepted(frame_id: str, wall_s: float = 0.01, chosen_by: int = -1) -> LabelAccepted:
    return LabelAccepted(
        t=0.0, frame_id=frame_id, label_id="f" * 32, worker="w", wall_s=wall_s, chosen_by=chosen_by
    )  # fmt: skip


def led_by_a_model(n_pending: int = 30, label_s: float = 0.01, **settings: Any) -> Ledger:
    """Twelve labels, a first model, uncertain frames that it has chosen."""
    events: list[Event] = [CampaignOpened(t=0.0, epoch=1, config_hash="", version="")]
    for i in range(12):
        events += [proposed(f"i{i}", Arm.INITIAL, 0), accepted(f"i{i}", label_s)]
    events += [TrainingStarted(t=0.0, worker="t", version=1, n_labels=12), published(1, 12), promoted(1)]
    events += [proposed(f"u{i:02d}") for i in range(n_pending)]
    values: dict[str, Any] = {"max_ahead": "auto", "random_share": 0.0, **settings}
    return Ledger.fold(policy_settings(**values), events)


def published(version: int, n_train: int) -> ModelPublished:
    return ModelPublished(
        t=0.0, version=version, parent=version - 1, seq=1, n_labels=n_train, wall_s=60.0,
        metrics={"n_labels_train": float(n_train)},
    )  # fmt: skip


def promoted(version: int) -> ModelPromoted:
    return ModelPromoted(t=0.0, version=version, reason="better")


def sent(ledger: Ledger, idle: Idle = IDLE) -> list[str]:
    return [f for c in decide(ledger, 0.0, idle) if isinstance(c, LabelFrames) for f in c.frame_ids]


def carry_on(ledger: Ledger, n: int) -> None:
    """Labels `n` frames, one call after another."""
    for _ in range(n):
        (frame_id, *_) = sent(ledger)
        ledger.apply(LabelStarted(t=0.0, worker="w", frame_ids=(frame_id,)))
        ledger.apply(accepted(frame_id))


def test_by_default_quick_labels_come_from_several_models() -> None:
    """Today: 44 of 60 labels from the first model."""
    campaign = simulated(0.005)
    assert campaign.fits_before_last >= 4
    assert max(n for version, n in campaign.labels_by_model.items() if version) <= 13
    assert campaign.ledger.accepted[Arm.RANDOM] == 12
    free = simulated(0.005, max_ahead=None)
    assert free.labels_by_model == {0: 16, 1: 44}


@pytest.mark.parametrize(
    ("n_labels", "n_initial", "share"), [(60, 13, 0.2), (100, 13, 0.2), (80, 30, 0.25), (45, 8, 0.1)]
)
def test_the_plan_holds_for_quick_labels(n_labels: int, n_initial: int, share: float) -> None:
    settings = policy_settings(n_labels=n_labels, max_ahead="auto", random_share=share)
    campaign = SimulatedCampaign(settings, Durations(0.01), n_initial=n_initial)
    assert campaign.run().reason == "labels"
    plan = plan_of(campaign)
    done = {
        version: (sum(counts.values()) - counts.get(Arm.RANDOM, 0), counts.get(Arm.RANDOM, 0))
        for version, counts in campaign.ledger.chosen.items()
    }
    assert done == {part.version: (part.n_training, part.n_random) for part in plan.chosen}
    assert len(campaign.ledger.models) == plan.n_fits
    assert campaign.fits_before_last == plan.n_fits_before


@pytest.mark.parametrize(("label_s", "n_labelers", "n_labels"), [(1.0, 1, 100), (30.0, 4, 200), (300.0, 16, 400)])
def test_the_plan_is_near_for_slow_labels(label_s: float, n_labelers: int, n_labels: int) -> None:
    campaign = simulated(label_s, n_labelers, n_labels=n_labels)
    plan = plan_of(campaign)
    assert abs(len(campaign.ledger.models) - plan.n_fits) <= 2
    assert abs(campaign.fits_before_last - plan.n_fits_before) <= 2
    assert campaign.ledger.accepted[Arm.RANDOM] == plan.n_random
    first = plan.chosen[1]
    assert abs(campaign.labels_by_model[1] - first.n_training - first.n_random) <= 5


@pytest.mark.parametrize(("label_s", "n_labelers"), [(30.0, 1), (300.0, 4), (300.0, 16), (2000.0, 16)])
def test_slow_labels_lose_next_to_nothing(label_s: float, n_labelers: int) -> None:
    bound = simulated(label_s, n_labelers, n_labels=200)
    free = simulated(label_s, n_labelers, n_labels=200, max_ahead=None)
    assert bound.labels_ended_s < 1.05 * free.labels_ended_s


def test_the_plan_without_a_bound_says_what_happens() -> None:
    campaign = simulated(0.005, max_ahead=None)
    plan = plan_of(campaign)
    assert [part.n_training for part in plan.chosen] == [13, 35]
    assert plan.n_fits_before == campaign.fits_before_last == 1


def test_the_plan_of_a_hundred_million_labels_is_made_at_once() -> None:
    settings = policy_settings(n_labels=100_000_000, refit_every=10)
    plan = label_plan(settings, n_initial=16, n_initial_random=4, n_labelers=2, label_s=0.1)
    assert plan.n_random == 20_000_000
    assert sum(part.n_training + part.n_random for part in plan.chosen) == 100_000_000
    assert plan.n_fits > 7_000_000
    assert len(plan.chosen) < 20_000


def test_quick_labels_wait_for_the_fit() -> None:
    ledger = led_by_a_model()
    carry_on(ledger, 10)
    train = next(c for c in decide(ledger, 0.0, IDLE) if isinstance(c, Train))
    assert sent(ledger) == [], "the fit begins in the same decision"
    ledger.apply(TrainingStarted(t=0.0, worker="t", version=train.version, n_labels=22))
    assert sent(ledger) == []
    ledger.apply(published(2, 22))
    ledger.apply(promoted(2))
    ledger.apply(FramesRescored(t=0.0, model_version=2, deviations=dict.fromkeys(ledger.to_rescore, 0.2)))
    assert sent(ledger)


def test_a_batch_is_not_exceeded_by_many_labelers_or_long_calls() -> None:
    ledger = led_by_a_model(label_s=0.0005)
    many = Idle(explorers=("e",), labelers=tuple(f"w{i}" for i in range(40)), trainers=("t",))
    assert len(sent(ledger, many)) == 10
    assert len(sent(ledger)) == 10, "one call of sixty-four at most, were there no bound"


def test_slow_labels_run_ahead_by_half_a_batch_and_one_a_labeler() -> None:
    settings = policy_settings(max_ahead="auto")
    assert most_ahead(settings, 10, 4, 300.0, 60.0) == 9
    assert most_ahead(settings, 10, 4, 0.01, 60.0) == 0
    assert most_ahead(settings, 10, 4, None, 60.0) == 9
    assert most_ahead(dataclasses.replace(settings, max_ahead=14), 10, 4, 0.01, 60.0) == 14
    assert most_ahead(dataclasses.replace(settings, max_ahead=None), 10, 4, 0.01, 60.0) is None


def test_quick_labels_wait_until_the_champion_has_seen_their_frames() -> None:
    ledger = led_by_a_model()
    for event in (published(2, 12), promoted(2)):
        ledger.apply(event)
    ledger.apply(ExplorationReported(t=0.0, worker="e", model_version=2, n_steps=1, walker_steps=1, n_candidates=0,
                                     n_above=0, wall_s=5.0))  # fmt: skip
    assert sent(ledger) == []
    ledger.apply(FramesRescored(t=0.0, model_version=2, deviations={"u07": 0.4}))
    assert sent(ledger) == ["u07"]
    assert sent(ledger, Idle(labelers=("w",), trainers=("t",))), "nobody is there who could look at them"


def test_the_random_arm_keeps_its_place_in_the_budget() -> None:
    ledger = led_by_a_model(n_labels=20, random_share=0.4)
    assert len(sent(ledger)) == 0, "eight of twenty labels are the random arm's, twelve are there"
    ledger.apply(proposed("r", Arm.RANDOM))
    assert sent(ledger) == ["r"]


def test_labels_are_counted_by_the_model_that_chose_them() -> None:
    ledger = led_by_a_model()
    ledger.apply(LabelStarted(t=0.0, worker="w", frame_ids=("u00",)))
    assert ledger.frames["u00"].chosen_by == 1
    ledger.apply(published(2, 12))
    ledger.apply(promoted(2))
    ledger.apply(accepted("u00", chosen_by=ledger.frames["u00"].chosen_by))
    ledger.apply(proposed("r", Arm.RANDOM, 1))
    ledger.apply(LabelStarted(t=0.0, worker="w", frame_ids=("r",)))
    ledger.apply(accepted("r", chosen_by=ledger.frames["r"].chosen_by))
    ledger.apply(accepted("u01"))  # of an older log
    chosen = status_of(ledger, state="running", head_seq=0)["labels"]["chosen_by"]  # type: ignore[index]
    assert chosen == {
        "0": {"training": 12, "random_arm": 0},
        "1": {"training": 2, "random_arm": 0},
        "2": {"training": 0, "random_arm": 1},
    }
    ledger.apply(LabelRetracted(t=0.0, frame_id="u00", label_id="f" * 32, reason="wrong"))
    assert ledger.chosen[1][Arm.UNCERTAIN] == 1


def test_a_small_random_arm_is_said() -> None:
    assert "9 frames, fewer than 10" in random_note(9)
    assert random_note(10) == ""


def test_a_cold_start_does_not_count_for_long() -> None:
    times = RunningTimes()
    for seconds in (3.0, *[0.01] * 19):
        times.add(seconds)
    assert times.mean is not None
    assert times.mean < 0.2


def test_a_committee_of_copies_does_not_stop_the_campaign() -> None:
    """By copies nothing is uncertain: after a while the random arm gets what is left of the budget."""
    ledger = Ledger(policy_settings(n_labels=20, chunk_steps=50, random_share=0.2))
    ledger.alarms["copies"] = "of 2 members of the committee only 1 differ"
    ledger.exploration.n_members, ledger.exploration.n_distinct = 2, 1
    ledger.exploration.steps_since_above = 200 * 50 - 1
    assert random_share(ledger) == 0.4
    ledger.exploration.steps_since_above += 1
    assert random_share(ledger) == 1.0
    ledger.exploration.n_distinct = 2
    assert random_share(ledger) == 0.4


@pytest.mark.parametrize(("max_ahead", "has_target", "kept"), [("auto", False, 4), (14, False, 0), (14, True, 4)])
def test_the_place_of_test_frames_that_come_late_is_kept_at_any_pace(
    max_ahead: Any, has_target: bool, kept: int
) -> None:
    settings = policy_settings(n_labels=20, first_at=2, max_ahead=max_ahead, has_target=has_target, random_share=0.2)
    ledger = Ledger(settings)
    for k in range(8):
        ledger.apply(proposed(f"f{k}", Arm.INITIAL, 0))
        ledger.apply(accepted(f"f{k}"))
    assert random_kept(ledger, settings.random_share) == kept


@pytest.mark.parametrize(("has_target", "is_paused"), [(False, True), (True, False)])
def test_explorers_go_on_for_test_frames_whose_place_is_kept(has_target: bool, is_paused: bool) -> None:
    """The candidate set is full, and none of it may be labelled in their place: a pause would be for ever."""
    settings = policy_settings(n_labels=20, max_ahead=14, has_target=has_target, max_pending=4)
    ledger = Ledger(settings)
    for k in range(8):
        ledger.apply(proposed(f"f{k}", Arm.INITIAL, 0))
        ledger.apply(accepted(f"f{k}"))
    for event in (published(1, 8), promoted(1), *(proposed(f"u{k}") for k in range(4))):
        ledger.apply(event)
    assert exploration_is_paused(ledger) is is_paused
