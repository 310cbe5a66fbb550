"""What the ledger makes of observed errors: the trust band, alarms, and a random arm that grows with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alsys.control.commands import Emit, Explore, Idle, LabelFrames
from alsys.control.rules.decisions import decide
from alsys.control.rules.trust import method_shares, random_share
from alsys.control.state.feedback import MAX_WAITING
from alsys.control.state.ledger import Ledger
from alsys.control.status import coverage_text, status_of
from alsys.events import (
    AlarmCleared,
    AlarmRaised,
    CampaignOpened,
    ErrorsObserved,
    Event,
    ExplorationReported,
    FrameProposed,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
    TrainingStarted,
    decode,
    encode,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings

SPREAD = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2)
IDLE = Idle(explorers=("explorer-0",), trainers=("trainer-0",), labelers=("labeler-0",))


def campaign(n_random: int = 30, **settings: Any) -> tuple[Ledger, list[Event]]:
    """A campaign with a champion fitted to 10 frames, and `n_random` labelled frames of the random arm."""
    ledger = Ledger(policy_settings(**{"n_labels": 1000, "trust": (0.15, 1.0), "is_calibrated": True, **settings}))
    log: list[Event] = []

    def apply(event: Event) -> None:
        ledger.apply(event)
        log.append(event)

    apply(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
    for i in range(10 + n_random):
        arm = Arm.INITIAL if i < 10 else Arm.RANDOM
        apply(FrameProposed(t=0.0, frame_id=f"f{i}", arm=arm, system="s", deviation=0.0))
        apply(LabelAccepted(t=0.0, frame_id=f"f{i}", label_id=f"l{i}", worker="w", wall_s=1.0))
    apply(ModelPublished(t=1.0, version=1, parent=0, seq=1, n_labels=10, wall_s=1.0, metrics={"n_labels_train": 10.0}))
    apply(ModelPromoted(t=1.0, version=1, reason="first"))
    return ledger, log


def observed(frame_ids: list[str], error: float, version: int = 1) -> ErrorsObserved:
    return ErrorsObserved(
        t=2.0,
        model_version=version,
        frame_ids=tuple(frame_ids),
        n_atoms=(2,) * len(frame_ids),
        deviations=(0.1, 0.05) * len(frame_ids),
        errors=tuple(error * x for k in range(len(frame_ids)) for x in (SPREAD[k % 10], SPREAD[k % 10] / 2)),
    )


def explored(n_distinct: int, version: int = 1) -> ExplorationReported:
    return ExplorationReported(
        t=3.0, worker="explorer-0", model_version=version, n_steps=1, walker_steps=1, n_candidates=0, n_above=1,
        wall_s=0.1, n_members=4, n_distinct=n_distinct,
    )  # fmt: skip


def bookkeeping(ledger: Ledger) -> list[Event]:
    """Applies what the ledger wants recorded."""
    events = [c.event for c in decide(ledger, 5.0, Idle()) if isinstance(c, Emit)]
    for event in events:
        ledger.apply(event)
    return events


def test_a_new_champion_is_compared_with_all_it_was_not_trained_on() -> None:
    ledger, _ = campaign(n_random=30)
    assert set(ledger.to_compare) == {f"f{i}" for i in range(10, 40)}
    order = next(c for c in decide(ledger, 2.0, IDLE) if isinstance(c, Explore))
    assert order.compare == tuple(f"f{i}" for i in range(10, 40))
    ledger.apply(observed([f"f{i}" for i in range(10, 40)], 0.1))
    assert not ledger.to_compare
    ledger.apply(FrameProposed(t=3.0, frame_id="new", arm=Arm.UNCERTAIN, system="s", deviation=1.0))
    ledger.apply(LabelAccepted(t=3.0, frame_id="new", label_id="l", worker="w", wall_s=1.0))
    assert list(ledger.to_compare) == ["new"]


def test_the_trust_band_follows_the_errors() -> None:
    ledger, _ = campaign()
    assert ledger.trust_band == pytest.approx((0.075, 0.5))
    ledger.apply(observed([f"f{i}" for i in range(10, 40)], 0.4))
    low, high = ledger.trust_band
    assert low == pytest.approx(0.15 / 4, rel=0.3)
    assert high == pytest.approx(1.0 / 4, rel=0.3)
    order = next(c for c in decide(ledger, 2.0, IDLE) if isinstance(c, Explore))
    assert order.trust == (low, high)


def test_a_stated_band_stays_as_stated() -> None:
    ledger, _ = campaign(trust=(0.1, 0.6), is_calibrated=False)
    ledger.apply(observed([f"f{i}" for i in range(10, 40)], 0.4))
    assert ledger.trust_band == (0.1, 0.6)


def test_errors_of_a_version_that_is_no_longer_champion_are_ignored() -> None:
    ledger, _ = campaign()
    ledger.apply(observed(["f10"] * 30, 0.4, version=7))
    assert not ledger.calibration.is_fitted


def test_overconfidence_raises_an_alarm_and_doubles_the_random_arm_until_it_is_over() -> None:
    ledger, _ = campaign(random_share=0.2, n_random=340)
    names = [f"f{i}" for i in range(10, 350)]
    ledger.apply(observed(names[:30], 0.1))
    ledger.apply(observed(names[30:60], 0.1))
    assert not bookkeeping(ledger)
    assert random_share(ledger) == 0.2
    ledger.apply(observed(names[60:90], 2.0))
    (alarm,) = bookkeeping(ledger)
    assert isinstance(alarm, AlarmRaised)
    assert alarm.name == "calibration"
    assert random_share(ledger) == 0.4
    assert not bookkeeping(ledger), "an alarm is raised once"
    uncertainty = status_of(ledger, state="running", head_seq=1)["uncertainty"]
    assert isinstance(uncertainty, dict)
    assert "overconfident" in uncertainty["alarms"]["calibration"]
    for start in range(90, 330, 30):
        ledger.apply(observed(names[start : start + 30], 2.0))
    (over,) = bookkeeping(ledger)
    assert isinstance(over, AlarmCleared)
    assert random_share(ledger) == 0.2


def test_after_a_promotion_the_last_known_coverage_stays_with_its_version() -> None:
    ledger, _ = campaign()
    names = [f"u{i}" for i in range(40)]
    for name in names:
        ledger.apply(FrameProposed(t=2.0, frame_id=name, arm=Arm.UNCERTAIN, system="s", deviation=1.0))
        ledger.apply(LabelAccepted(t=2.0, frame_id=name, label_id=name, worker="w", wall_s=1.0))

    def uncertainty() -> tuple[object, object, object]:
        found = status_of(ledger, state="running", head_seq=1)["uncertainty"]
        assert isinstance(found, dict)
        return found["coverage"], found["coverage_frames"], found["coverage_version"]

    assert uncertainty() == (None, 0, None)
    assert coverage_text(ledger) == ""
    ledger.apply(observed(names[:10], 0.1))
    ledger.apply(observed(names[10:30], 0.1))
    before = uncertainty()
    assert before[1:] == (20, 1)
    ledger.apply(ModelPublished(t=4.0, version=2, parent=1, seq=2, n_labels=10, wall_s=1.0))
    ledger.apply(ModelPromoted(t=4.0, version=2, reason="better"))
    assert uncertainty() == before
    assert "of v0001 covers" in coverage_text(ledger)
    ledger.apply(observed(names[30:33], 50.0))  # of the version that was replaced
    assert uncertainty() == before
    ledger.apply(observed(names[33:36], 50.0, version=2))
    assert uncertainty() == (0.0, 3, 2)


def test_frames_compared_with_a_new_champion_again_say_nothing_of_coverage() -> None:
    ledger, _ = campaign()
    names = [f"f{i}" for i in range(10, 40)]
    ledger.apply(observed(names, 0.1))
    assert ledger.calibration.coverage.n_frames == 0, "the first pairs calibrate"
    ledger.apply(ModelPublished(t=4.0, version=2, parent=1, seq=2, n_labels=10, wall_s=1.0))
    ledger.apply(ModelPromoted(t=4.0, version=2, reason="better"))
    before = ledger.trust_band
    ledger.apply(observed(names, 2.0, version=2))
    assert ledger.calibration.coverage.n_frames == 0
    assert ledger.trust_band[0] < before[0], "but they calibrate"


def test_four_copies_of_one_model_raise_the_alarm_with_the_first_report() -> None:
    ledger, _ = campaign()
    ledger.apply(explored(n_distinct=1))
    (alarm,) = bookkeeping(ledger)
    assert isinstance(alarm, AlarmRaised)
    assert alarm.name == "copies"
    assert "of 4 members of the committee only 1 differ" in alarm.message
    ledger.apply(ModelPublished(t=4.0, version=2, parent=1, seq=2, n_labels=10, wall_s=1.0))
    ledger.apply(ModelPromoted(t=4.0, version=2, reason="better"))
    assert not bookkeeping(ledger), "nothing is known of the new committee"
    ledger.apply(explored(n_distinct=4, version=2))
    assert [type(event) for event in bookkeeping(ledger)] == [AlarmCleared]


def test_walks_that_break_before_they_find_anything_are_told_and_not_waited_for() -> None:
    ledger, _ = campaign()
    broken = replace(explored(n_distinct=4), walker_steps=5_000, n_candidates=0, n_above=9, stops={"too-hot": 1_000})
    for _ in range(2):
        assert not bookkeeping(ledger)
        ledger.apply(broken)
    (alarm,) = bookkeeping(ledger)
    assert isinstance(alarm, AlarmRaised)
    assert alarm.name == "stuck"
    assert "10000 walker-steps: walks of v0001 break after 5 steps" in alarm.message
    assert random_share(ledger) == 1.0
    ledger.apply(replace(broken, n_candidates=1))
    assert [type(event) for event in bookkeeping(ledger)] == [AlarmCleared]
    assert random_share(ledger) < 1.0
    for stops in ({"failed": 1_000}, {}, {"too-hot": 10}):  # of a model that knows what it does not know, or enough
        for _ in range(10):
            ledger.apply(replace(broken, stops=stops))
        assert not bookkeeping(ledger)
        ledger.apply(replace(broken, n_candidates=1))


def test_members_that_err_alike_raise_the_alarm_until_a_champion_whose_members_differ() -> None:
    ledger, _ = campaign()
    for version, correlation in ((2, 0.95), (3, 0.6)):
        metrics = {"error_correlation": correlation}
        ledger.apply(ModelPublished(t=4.0, version=version, parent=1, seq=2, n_labels=10, wall_s=1.0, metrics=metrics))
        ledger.apply(ModelPromoted(t=4.0, version=version, reason="better"))
        (event,) = bookkeeping(ledger)
        if version == 2:
            assert isinstance(event, AlarmRaised)
            assert event.name == "alike"
            assert "0.95" in event.message
            assert random_share(ledger) == 0.4
            ledger.settings = replace(ledger.settings, has_target=True)
            assert random_share(ledger) == 0.2, "test frames cannot mend it"
        else:
            assert isinstance(event, AlarmCleared)


def test_the_random_arm_never_takes_more_than_half() -> None:
    ledger, _ = campaign(random_share=0.4)
    ledger.apply(explored(n_distinct=1))
    bookkeeping(ledger)
    assert random_share(ledger) == 0.5


def test_frames_that_wait_to_be_compared_are_bounded() -> None:
    ledger, _ = campaign()
    for i in range(MAX_WAITING + 50):
        ledger.apply(FrameProposed(t=2.0, frame_id=f"u{i}", arm=Arm.UNCERTAIN, system="s", deviation=1.0))
        ledger.apply(LabelAccepted(t=2.0, frame_id=f"u{i}", label_id=f"l{i}", worker="w", wall_s=1.0))
    assert len(ledger.to_compare) == MAX_WAITING
    assert f"u{MAX_WAITING + 49}" in ledger.to_compare


def test_a_restart_knows_the_band_and_the_alarms() -> None:
    ledger, log = campaign()
    for event in (observed([f"f{i}" for i in range(10, 40)], 0.4), explored(n_distinct=1)):
        ledger.apply(event)
        log.append(event)
    log += bookkeeping(ledger)
    again = Ledger.fold(ledger.settings, log)
    assert again.trust_band == ledger.trust_band
    assert again.alarms == ledger.alarms


def test_methods_earn_walkers_with_labels_that_taught_something() -> None:
    ledger, _ = campaign(methods=("plain", "udd"), method_floor=0.2)
    assert method_shares(ledger) == {"plain": 0.5, "udd": 0.5}
    for i in range(40):
        method = ("plain", "udd")[i % 2]
        name = f"{method}{i}"
        ledger.apply(FrameProposed(t=2.0, frame_id=name, arm=Arm.UNCERTAIN, system="s", deviation=1.0, method=method))
        ledger.apply(LabelAccepted(t=2.0, frame_id=name, label_id=name, worker="w", wall_s=1.0))
        ledger.apply(observed([name], 4.0 if method == "udd" else 0.01))
        ledger.apply(
            ExplorationReported(
                t=3.0, worker="explorer-0", model_version=1, n_steps=1, walker_steps=1, n_candidates=0, n_above=1,
                wall_s=1.0, method_steps={"plain": 10, "udd": 10},
            )
        )  # fmt: skip
    assert method_shares(ledger) == {"plain": 0.5, "udd": 0.5}, "walkers are left alone until the next champion"
    before = dict(ledger.tallies)
    ledger.apply(observed(["udd1"], 4.0))
    assert ledger.tallies == before, "a label pays once"
    ledger.apply(ModelPublished(t=4.0, version=2, parent=1, seq=2, n_labels=10, wall_s=1.0))
    ledger.apply(ModelPromoted(t=4.0, version=2, reason="better"))
    assert method_shares(ledger)["udd"] > 0.8
    assert method_shares(ledger)["plain"] >= 0.1
    order = next(c for c in decide(ledger, 5.0, IDLE) if isinstance(c, Explore))
    assert order.shares == method_shares(ledger)


def test_labels_wait_for_the_model_that_is_being_fitted_where_that_is_asked_for() -> None:
    ledger, _ = campaign(max_ahead=3)
    for i in range(8):
        ledger.apply(FrameProposed(t=2.0, frame_id=f"u{i}", arm=Arm.UNCERTAIN, system="s", deviation=1.0))

    def n_sent() -> int:
        return sum(len(c.frame_ids) for c in decide(ledger, 3.0, IDLE) if isinstance(c, LabelFrames))

    ledger.apply(TrainingStarted(t=2.0, worker="trainer-0", version=2, n_labels=10))
    assert n_sent() == 1
    for i in range(3):
        ledger.apply(LabelAccepted(t=2.0, frame_id=f"u{i}", label_id=f"l{i}", worker="w", wall_s=1.0))
    assert n_sent() == 0
    ledger.apply(ModelPublished(t=4.0, version=2, parent=1, seq=2, n_labels=10, wall_s=1.0))
    bookkeeping(ledger)
    assert n_sent() == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_error_that_is_not_a_number_is_survived_also_by_a_restart(bad: float) -> None:
    ledger, log = campaign(methods=("plain", "udd"))
    events: list[Event] = [
        FrameProposed(t=2.0, frame_id="u", arm=Arm.UNCERTAIN, system="s", deviation=1.0, method="udd"),
        LabelAccepted(t=2.0, frame_id="u", label_id="u", worker="w", wall_s=1.0),
        ErrorsObserved(
            t=2.0, model_version=1, frame_ids=("u",), n_atoms=(2,), deviations=(bad, 0.1), errors=(bad, 0.1)
        ),
    ]
    for event in events:
        ledger.apply(event)
    assert ledger.tallies["udd"].reward == 1.0, "as wrong as can be"
    again = Ledger.fold(ledger.settings, [decode(encode(event)) for event in (*log, *events)])
    assert again.tallies == ledger.tallies
    assert again.calibration.band == ledger.calibration.band
