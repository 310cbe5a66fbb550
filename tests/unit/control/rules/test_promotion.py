"""Which versions become champion, with all the reasons; one that is no model is fitted again; and roll-back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from alsys.config.promotion import PromotionConfig
from alsys.control.rules.promotion import judge, worse_systems
from alsys.control.rules.requests import RollBack, carry_out, from_record, to_record
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.errors import InputError
from alsys.events import Event, ModelLost, ModelPromoted, ModelPublished, ModelRejected, decode, encode
from alsys.metrics import Metrics
from alsys.store.memory import open_reader
from alsys.testing.fakes import FakeTrainer
from alsys.testing.policies import policy_settings
from alsys.tracking.summary import summarise
from support.campaigns import FakeCampaign

SOUND = {
    "holdout_skill": 0.97, "holdout_skill_high": 0.98, "stability_survival": 1.0, "stability_hot_survival": 1.0,
    "stability_drift": 0.004, "stability_drift_low": 0.003, "stability_walkers": 8.0, "stability_ps": 0.25,
    "stability_hot_temperature": 625.0,
}  # fmt: skip
BETTER = {"difference_low": -0.02, "difference_high": -0.01}
EXPLODES = {"stability_hot_survival": 0.25, "stability_lost/too-close": 4.0, "stability_lost/not-finite": 2.0}


def verdict(
    metrics: Mapping[str, float], champion: Mapping[str, float] | None = SOUND, **limits: Any
) -> ModelPromoted | ModelRejected:
    version = 0 if champion is None else 3
    champions = [] if champion is None else [champion]
    return decision(metrics, version, champions, **limits)


def decision(
    metrics: Mapping[str, float], version: int, champions: Sequence[Mapping[str, float]], **limits: Any
) -> ModelPromoted | ModelRejected:
    read = [Metrics.read(champion) for champion in champions]
    return judge(4, Metrics.read(metrics), version, read, PromotionConfig(**limits), 0.9, 5.0)


def test_a_good_challenger_is_promoted_and_the_reason_says_by_how_much() -> None:
    event = verdict({**SOUND, **BETTER})
    assert event == ModelPromoted(
        t=5.0, version=4, reason="better: [-20.0, -10.0] meV/Angstrom against v0003 on the random arm"
    )


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"difference_low": 0.01, "difference_high": 0.02}, "worse: [+10.0, +20.0] meV/Angstrom against v0003"),
        ({"holdout_skill": -0.3, "holdout_skill_high": 0.05}, "next to nothing: it explains 0% of the variance"),
        (EXPLODES, "lost 6 of 8 walkers at 625 K within 250 fs (4 too-close, 2 not-finite)"),
        (
            {"stability_survival": 0.5, "stability_lost/too-hot": 4.0},
            "lost 4 of 8 walkers at constant energy within 250 fs",
        ),
        (
            {"stability_drift": 0.4, "stability_drift_low": 0.3},
            "total energy drifts by 400 meV per atom and ps (limit 20)",
        ),
        (
            {"holdout_coverage": 0.5, "holdout_coverage_high": 0.6, "holdout_champion_coverage": 0.91},
            "overconfident: the 90% band covers 50% of atoms",
        ),
    ],
)
def test_each_shortcoming_keeps_a_challenger_out_with_its_reason(metrics: dict[str, float], reason: str) -> None:
    event = verdict({**SOUND, **BETTER, **metrics})
    assert isinstance(event, ModelRejected)
    assert reason in event.reason
    assert event.reasons == (event.reason,)


def test_all_reasons_are_given_together() -> None:
    event = verdict({**SOUND, **EXPLODES, "difference_low": 0.01, "difference_high": 0.02, "stability_drift_low": 1.0})
    assert isinstance(event, ModelRejected)
    assert [reason.split()[0] for reason in event.reasons] == ["worse:", "lost", "total"]
    assert event.reason == "; ".join(event.reasons)
    assert decode(encode(event)) == event


def test_better_on_average_but_worse_on_one_system_stays_challenger() -> None:
    systems = {
        "p_worse/water": 0.9, "n_random/water": 30.0, "p_worse/ethanol": 0.001, "n_random/ethanol": 12.0,
        "difference_low/ethanol": 0.03, "difference_high/ethanol": 0.05,
    }  # fmt: skip
    event = verdict({**SOUND, **BETTER, **systems})
    assert isinstance(event, ModelRejected)
    assert event.reasons == ("worse on ethanol: [+30.0, +50.0] meV/Angstrom over 12 random-arm frames",)


def test_holm_holds_the_chance_of_a_false_alarm_for_all_systems_together() -> None:
    """With p-values of no effect, at most 5 % of versions are rejected, however many systems there are."""
    rng = np.random.default_rng(0)
    for n_systems in (1, 5, 40):
        alarms = [
            bool(worse_systems(Metrics.read({f"p_worse/s{k}": float(p) for k, p in enumerate(rng.random(n_systems))})))
            for _ in range(2000)
        ]
        assert 0.03 < np.mean(alarms) < 0.065
    # Holm, Scand. J. Stat. 6, 65 (1979), p. 66: step by step, each against alpha over what is left
    p_values = {"p_worse/a": 0.01, "p_worse/b": 0.04, "p_worse/c": 0.024, "p_worse/d": 0.9}
    assert worse_systems(Metrics.read(p_values)) == ["a"]
    assert worse_systems(Metrics.read({**p_values, "p_worse/c": 0.016})) == ["a", "c"]


def test_small_samples_say_that_they_are_small() -> None:
    event = verdict({**SOUND, **BETTER, "n_random/water": 2.0, "n_random/ethanol": 20.0, "p_worse/ethanol": 0.5})
    assert isinstance(event, ModelPromoted)
    assert event.reason.endswith("too few frames to tell for water (2)")


def test_a_first_version_that_explodes_is_on_probation_and_one_that_learned_nothing_is_none() -> None:
    event = verdict({**SOUND, **EXPLODES}, champion=None)
    assert isinstance(event, ModelPromoted)
    assert event.is_probation
    assert event.reason.startswith("first version; on probation: lost 6 of 8 walkers at 625 K")
    assert isinstance(verdict({**EXPLODES, "holdout_skill_high": 0.02}, champion=None), ModelRejected)


def test_a_champion_on_probation_is_replaced_by_what_is_no_worse() -> None:
    """Or a campaign at temperatures where every early model fails would keep its first one for ever."""
    event = verdict({**SOUND, **BETTER, **EXPLODES}, champion={**SOUND, **EXPLODES})
    assert isinstance(event, ModelPromoted)
    assert event.is_probation
    assert isinstance(verdict({**SOUND, **EXPLODES}, {**SOUND, "stability_hot_survival": 0.6}), ModelRejected)
    assert isinstance(
        verdict({**SOUND, "stability_drift_low": 0.3}, {**SOUND, "stability_drift_low": 0.2}), ModelPromoted
    )
    assert isinstance(
        verdict({**SOUND, "stability_drift_low": 0.5}, {**SOUND, "stability_drift_low": 0.2}), ModelRejected
    )
    overconfident = {"holdout_coverage": 0.5, "holdout_coverage_high": 0.6}
    assert isinstance(verdict({**SOUND, **overconfident, "holdout_champion_coverage": 0.4}), ModelPromoted)


def test_a_row_of_versions_each_a_little_worse_does_not_go_down_for_ever() -> None:
    for name, values in (
        ("stability_hot_survival", [0.875, 0.625, 0.375, 0.125]),
        ("stability_survival", [0.8, 0.6, 0.4, 0.2]),
        ("stability_drift_low", [0.021, 0.042, 0.084, 0.168]),
    ):
        line: list[Mapping[str, float]] = [{**SOUND, name: values[0]}]
        verdicts = []
        for value in values[1:]:
            event = decision({**SOUND, **BETTER, name: value}, 3, line)
            verdicts.append(isinstance(event, ModelPromoted))
            line.append({**SOUND, name: value})
        assert verdicts == [True, False, False], name
    elsewhere = {**SOUND, "stability_hot_survival": 0.875, "stability_hot_temperature": 300.0}
    line = [elsewhere, {**SOUND, "stability_hot_survival": 0.5}]
    event = decision({**SOUND, **BETTER, "stability_hot_survival": 0.4}, 3, line)
    assert isinstance(event, ModelPromoted), "examined at another temperature, the first says nothing"


@pytest.mark.parametrize("champion", [None, SOUND])
def test_dynamics_that_were_too_short_leave_a_version_on_probation(champion: Mapping[str, float] | None) -> None:
    short = {
        name: value
        for name, value in SOUND.items()
        if not name.startswith(("stability_s", "stability_hot", "stability_d"))
    }
    event = verdict({**short, **BETTER, "stability_steps": 6.0, "stability_ps": 0.003}, champion)
    assert isinstance(event, ModelPromoted)
    assert event.is_probation
    [reason] = event.reasons
    assert reason.startswith("dynamics not examined: time for 3 fs only (raise promotion.budget_s, and ")


def test_energies_that_are_far_worse_keep_a_challenger_out() -> None:
    def energies(new: float, old: float, low: float, suffix: str = "") -> dict[str, float]:
        return {
            f"holdout_energy_mae{suffix}": new, f"holdout_champion_energy_mae{suffix}": old,
            f"holdout_energy_loss_low{suffix}": low,
        }  # fmt: skip

    event = verdict({**SOUND, **BETTER, **energies(0.02, 0.004, 0.01)})
    assert isinstance(event, ModelRejected)
    assert event.reason == "energy error more than doubled: 20.0 meV per atom against 4.0 of v0003 on the random arm"
    event = verdict({**SOUND, **BETTER, **energies(0.004, 0.004, -0.01), **energies(5.0, 0.001, 4.0, "/so2")})
    assert isinstance(event, ModelRejected)
    assert event.reason.startswith("energy error more than doubled on so2: 5000.0 meV per atom against 1.0 of v0003")
    assert isinstance(verdict({**SOUND, **BETTER, **energies(0.004, 0.001, 0.001)}), ModelPromoted), "small enough"
    assert isinstance(verdict({**SOUND, **BETTER, **energies(0.02, 0.009, -0.001)}), ModelPromoted), "not certain"
    stresses = {"holdout_stress_mae": 0.01, "holdout_champion_stress_mae": 0.002, "holdout_stress_loss_low": 0.004}
    event = verdict({**SOUND, **BETTER, **stresses})
    assert isinstance(event, ModelRejected)
    assert event.reason == (
        "stress error more than doubled: 10.0 meV/Angstrom^3 against 2.0 of v0003 on the random arm"
    )


def test_campaigns_from_before_examinations_go_on_as_they_did() -> None:
    old = {"difference_low": -0.02, "difference_high": 0.01}
    event = decision(old, 3, [{}])
    assert event == ModelPromoted(
        t=5.0, version=4, reason="not worse: [-20.0, +10.0] meV/Angstrom against v0003 on the random arm"
    )
    assert isinstance(verdict({**SOUND, **EXPLODES}, champion={}), ModelPromoted), (
        "what the champion would do is unknown"
    )
    line = b'{"kind":"model-rejected","t":1.0,"version":2,"reason":"worse"}'
    assert decode(line) == ModelRejected(t=1.0, version=2, reason="worse")
    line = b'{"kind":"model-promoted","t":1.0,"version":2,"reason":"better"}'
    assert decode(line) == ModelPromoted(t=1.0, version=2, reason="better")


# --- in the loop


def examined(*bad: int, **metrics: float) -> Callable[[], FakeTrainer]:
    """A trainer whose versions are sound, but for some."""
    return lambda: FakeTrainer(model_tests=lambda version: {**SOUND, **(metrics if version in bad else {})})


def decisions(campaign: FakeCampaign) -> list[ModelPromoted | ModelRejected]:
    events = open_reader(campaign.disk).events()
    return [event for event in events if isinstance(event, ModelPromoted | ModelRejected)]


def test_a_challenger_that_explodes_is_not_promoted_and_the_campaign_goes_on() -> None:
    campaign = FakeCampaign(n_labels=120, refit_every=10, max_ahead=12)
    assert campaign.run(trainer=examined(2, **EXPLODES)).reason == "labels"
    by_version = {event.version: event for event in decisions(campaign)}
    assert isinstance(by_version[2], ModelRejected)
    assert len(by_version) > 3
    assert campaign.ledger.champion == max(by_version) != 2
    assert 2 not in campaign.registry.promoted
    assert campaign.registry.rejected == {2: by_version[2].reason}
    assert "lost 6 of 8 walkers" in by_version[2].reason
    published = [e for e in open_reader(campaign.disk).events() if isinstance(e, ModelPublished)]
    assert {e.version: e.parent for e in published}[3] == 1, "the next fit starts from the champion"


def test_a_first_version_that_learned_nothing_is_fitted_again() -> None:
    campaign = FakeCampaign()
    assert campaign.run(trainer=examined(1, 2, holdout_skill=0.0, holdout_skill_high=0.01)).reason == "labels"
    assert [type(event) for event in decisions(campaign)[:3]] == [ModelRejected, ModelRejected, ModelPromoted]
    assert campaign.ledger.champion >= 3
    published = [e for e in open_reader(campaign.disk).events() if isinstance(e, ModelPublished)]
    assert [e.parent for e in published[:3]] == [0, 1, 0], "to go on has not helped: the third begins anew"


def test_fits_go_on_from_versions_that_were_not_good_enough_while_that_helps() -> None:
    def model_tests(version: int) -> Mapping[str, float]:
        skill = 0.03 * version - 0.05
        return {"holdout_skill": skill, "holdout_skill_high": skill + 0.01} if version < 3 else {}

    campaign = FakeCampaign()
    assert campaign.run(trainer=lambda: FakeTrainer(model_tests=model_tests)).reason == "labels"
    published = [e for e in open_reader(campaign.disk).events() if isinstance(e, ModelPublished)]
    assert [e.parent for e in published[:3]] == [0, 1, 2]


def test_where_every_version_learned_nothing_the_campaign_fails_and_says_why() -> None:
    campaign = FakeCampaign()
    stopped = campaign.run(trainer=examined(*range(1, 100), holdout_skill=0.0, holdout_skill_high=0.01))
    assert stopped.reason == "failed"
    assert "because it has learned next to nothing" in stopped.message
    assert len(decisions(campaign)) == 3
    again = campaign.run(trainer=examined())
    assert again.reason == "labels", "a later run tries again"


# --- lost bundles


def test_a_lost_champion_makes_way_and_what_it_had_learned_counts_as_new() -> None:
    ledger = Ledger(policy_settings())
    log = published(ledger, 3)
    lost = ModelLost(t=2.0, version=3, reason="its bundle cannot be read")
    assert decode(encode(lost)) == lost
    ledger.apply(lost)
    assert (ledger.champion, ledger.champions) == (2, [1, 2])
    assert ledger.models[3].is_lost
    assert ledger.next_version == 4
    restored = Ledger.fold(policy_settings(), [*log, lost])
    events, answer = carry_out(restored, RollBack(3), "r1", 2.5, is_running=False)
    assert answer.is_accepted
    for event in events:
        restored.apply(event)
    assert (restored.champion, restored.models[3].is_lost) == (3, False), "its bundle was restored"
    for version in (2, 1):
        log.append(ModelLost(t=3.0, version=version, reason="gone"))
        ledger.apply(log[-1])
    assert (ledger.champion, ledger.n_train_at_fit) == (0, 0)
    summary = summarise([*log[:6], lost], policy_settings())
    assert summary.champion == 2
    assert summary.timeline[-1].text == "v0003 is lost: its bundle cannot be read"


# --- roll-back


def published(ledger: Ledger, n: int) -> list[Event]:
    events: list[Event] = []
    for version in range(1, n + 1):
        published = ModelPublished(t=1.0, version=version, parent=version - 1, seq=1, n_labels=10, wall_s=1.0)
        events += [published, ModelPromoted(t=1.0, version=version, reason="better")]
    for event in events:
        ledger.apply(event)
    return events


def test_roll_back_makes_the_champion_before_this_one_champion_again() -> None:
    ledger = Ledger(policy_settings())
    log = published(ledger, 3)
    request = RollBack()
    assert from_record(to_record(request)) == request
    events, answer = carry_out(ledger, request, "r1", 2.0, is_running=False)
    assert events == [ModelPromoted(t=2.0, version=2, reason="rolled back by the user from v0003", request="r1")]
    assert answer.is_accepted
    assert "v0002 is champion, v0003 was" in answer.message
    for event in events:
        ledger.apply(event)
        log.append(decode(encode(event)))
    folded = Ledger.fold(policy_settings(), log)
    assert (folded.champion, folded.champions) == (ledger.champion, ledger.champions) == (2, [1, 2, 3, 2])
    assert carry_out(folded, request, "r1", 3.0, is_running=False)[0] == [], "once"
    second, _ = carry_out(folded, request, "r2", 3.0, is_running=True)
    assert [event.version for event in second if isinstance(event, ModelPromoted)] == [3], "a second one undoes it"
    assert status_of(folded, state="stopped", head_seq=1)["champion"] == 2


@pytest.mark.parametrize(
    ("version", "words"), [(9, "no such version (got 9); there are: v0001, v0002"), (2, "is champion already (got 2)")]
)
def test_roll_back_to_what_is_not_there_is_refused(version: int, words: str) -> None:
    ledger = Ledger(policy_settings())
    published(ledger, 2)
    with pytest.raises(InputError) as caught:
        carry_out(ledger, RollBack(version), "r", 2.0, is_running=True)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="its bundle cannot be read"):
        carry_out(ledger, RollBack(1), "r", 2.0, is_running=True, has_model=lambda _: False)


def test_without_an_earlier_champion_there_is_no_way_back() -> None:
    ledger = Ledger(policy_settings())
    published(ledger, 1)
    with pytest.raises(InputError, match="there was no champion before this one"):
        carry_out(ledger, RollBack(), "r", 2.0, is_running=True)
