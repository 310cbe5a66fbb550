"""The stop criterion: both targets, with confidence, for versions in a row; and one line on what is missing."""

from __future__ import annotations

import math

import pytest

from alsys.control.rules import convergence as rules
from alsys.control.rules.convergence import Convergence
from alsys.control.rules.goals import converged, target_reached, wants_labels
from alsys.control.settings import Targets
from alsys.control.state.ledger import Ledger
from alsys.events import ModelPromoted, ModelPublished, ModelRejected
from alsys.metrics import Metrics
from alsys.testing.policies import policy_settings

GOOD = {"n_random": 80.0, "force_mae_random_arm_high": 0.03, "blind_spots": 0.0, "blind_spots_high": 0.037}
TARGETS = Targets(force_mae=0.04, blind_spots=0.05, min_random=20, in_a_row=2)


def convergence(versions: list[tuple[int, dict[str, float]]], champion: int, targets: Targets) -> Convergence:
    return rules.convergence([(version, Metrics.read(metrics)) for version, metrics in versions], champion, targets)


def test_two_versions_in_a_row_reach_it() -> None:
    once = convergence([(1, GOOD)], 1, TARGETS)
    assert not once.is_reached
    assert once.text == "reached by the champion and by 1 of 2 versions in a row"
    twice = convergence([(1, GOOD), (2, GOOD)], 2, TARGETS)
    assert twice.is_reached
    assert twice.text == (
        "reached: force MAE on the random arm is at most 30.0 meV/Angstrom (95 %) and at most 3.7% of frames are blind "
        "spots (95 %)"
    )
    interrupted = convergence([(1, GOOD), (2, {**GOOD, "n_random": 10.0}), (3, GOOD)], 3, TARGETS)
    assert interrupted.n_in_a_row == 1


def test_a_challenger_that_falls_behind_begins_the_count_anew() -> None:
    late = {**GOOD, "force_mae_random_arm_high": 0.06}
    found = convergence([(1, GOOD), (2, GOOD), (3, late)], 2, TARGETS)
    assert not found.is_reached
    assert found.text == (
        "reached by the champion and by 0 of 2 versions in a row; latest v0003: force MAE may be 60.0 (95 %), target "
        "40.0 meV/Angstrom"
    )


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"n_random": 8.0}, "8 of at least 20 random-arm frames"),
        ({"force_mae_random_arm_high": 0.0412}, "force MAE may be 41.2 (95 %), target 40.0 meV/Angstrom"),
        ({"blind_spots": 0.1, "blind_spots_high": 0.17}, "blind spots may be 17.0% of frames (95 %), target 5.0%"),
        ({"blind_spots_high": math.nan}, "blind spots are not known yet, target 5.0% of frames"),
        (
            {"n_random": 40.0, "blind_spots_high": 0.072},
            "blind spots may be 7.2% of frames (95 %), target 5.0%; none was seen, 59 random-arm frames would prove "
            "it, there are 40",
        ),
    ],
)
def test_what_is_missing_is_said(metrics: dict[str, float], text: str) -> None:
    assert rules.missing(Metrics.read({**GOOD, **metrics}), TARGETS) == [text]
    found = convergence([(1, {**GOOD, **metrics})], 1, TARGETS)
    assert found.text == f"champion v0001: {text}"


def test_either_target_alone_will_do_and_none_is_never_reached() -> None:
    versions = [(1, GOOD), (2, GOOD)]
    assert convergence(versions, 2, Targets(force_mae=0.04)).is_reached
    assert convergence(versions, 2, Targets(blind_spots=0.04)).is_reached
    assert not convergence(versions, 2, Targets(blind_spots=0.03)).is_reached
    nothing = convergence(versions, 2, Targets())
    assert not nothing.is_reached
    assert "no target is set" in nothing.text
    assert convergence([], 0, TARGETS).text == "no model yet"


def test_the_campaign_stops_asking_for_labels() -> None:
    ledger = Ledger(policy_settings(target_force_mae=0.04, target_blind_spots=0.05))
    for version in (1, 2):
        assert not target_reached(ledger)
        assert wants_labels(ledger)
        ledger.apply(ModelPublished(t=1.0, version=version, parent=0, seq=1, n_labels=9, wall_s=1.0, metrics=GOOD))
        ledger.apply(
            ModelPromoted(t=1.0, version=version, reason="")
            if version == 1
            else ModelRejected(t=1.0, version=version, reason="worse, and good enough")
        )
    assert target_reached(ledger)
    assert not wants_labels(ledger)
    assert converged(ledger).n_in_a_row == 2
