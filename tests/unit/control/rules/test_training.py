"""A trainer with nothing new to learn trains on while that helps, stops when it does not, and holds nothing up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from alsys.control.rules.requests import TrainLonger, carry_out
from alsys.control.rules.stopping import how_to_go_on
from alsys.control.state.ledger import Ledger
from alsys.control.status import headline, status_of
from alsys.errors import FailureKind, InputError
from alsys.events import FitRequested, FrameProposed, LabelAccepted, ModelPromoted, ModelPublished, TrainingStarted
from alsys.frames import Arm
from alsys.store.memory import open_reader, open_writer
from alsys.testing.fakes import FakeLabeler, FakeTrainer, LognormalDuration
from alsys.testing.policies import policy_settings
from support.campaigns import FakeCampaign

GOOD = {"difference_low": -0.02, "difference_high": -0.01}


def halves(version: int) -> Mapping[str, float]:
    """Each version takes away half of its parent's error."""
    error = 0.5**version
    return {**GOOD, "force_mae_random_arm": error, "champion_force_mae_random_arm": 2 * error, "force_mae_train": error}


def last_fits(ledger: Ledger) -> list[int]:
    """Versions that saw the same data as the last one."""
    latest = ledger.models[max(ledger.models)].n_changes
    return [model.version for model in ledger.models.values() if model.n_changes == latest]


def is_extra(campaign: FakeCampaign) -> bool:
    """Whether the fit that runs has nothing to learn from that the champion has not seen."""
    ledger = campaign.ledger
    return bool(ledger.champion) and ledger.models[ledger.champion].n_changes == ledger.n_changes


def run(
    train_on: int,
    metrics: Callable[[int], Mapping[str, float]] = halves,
    campaign: FakeCampaign | None = None,
    **settings: object,
) -> FakeCampaign:
    campaign = campaign or FakeCampaign(train_on=train_on, **settings)
    assert campaign.run(trainer=lambda: FakeTrainer(model_tests=metrics)).reason in ("labels", "target-reached")
    return campaign


def test_no_more_fits_than_asked_for() -> None:
    assert len(last_fits(run(0).ledger)) == 1
    ledger = run(3).ledger
    assert len(last_fits(ledger)) == 4
    assert ledger.champion == max(ledger.models)
    assert ledger.n_labels == 60


def test_it_ends_where_a_fit_gains_too_little() -> None:
    def flattens(version: int) -> Mapping[str, float]:
        return {**GOOD, "force_mae_random_arm": 0.1, "champion_force_mae_random_arm": 0.1005}

    assert len(last_fits(run(9, flattens).ledger)) == 2


def test_without_a_random_arm_the_training_error_decides() -> None:
    def falls(version: int) -> Mapping[str, float]:
        return {"force_mae_train": {1: 1.0, 2: 0.9}.get(version, 0.899)}

    ledger = run(9, falls, random_share=0.0, n_labels=12, first_at=12).ledger
    assert last_fits(ledger)[-1] == max(ledger.models) == 3


def test_a_rejected_fit_is_the_last_on_its_data_and_the_champion_stays() -> None:
    campaign = FakeCampaign(train_on=9)

    def spoils(version: int) -> Mapping[str, float]:
        worse = {"difference_low": 0.01, "difference_high": 0.02}
        return {**halves(version), **(worse if is_extra(campaign) else {})}

    ledger = run(9, spoils, campaign).ledger
    assert last_fits(ledger) == [ledger.champion, ledger.champion + 1]


def test_a_fit_on_the_same_data_that_is_a_little_worse_is_not_promoted() -> None:
    campaign = FakeCampaign(train_on=9)

    def wanders(version: int) -> Mapping[str, float]:
        undecided = {"difference_low": -0.01, "difference_high": 0.01}
        error = 0.1004 if is_extra(campaign) else 0.1
        return {**undecided, "force_mae_random_arm": error, "champion_force_mae_random_arm": 0.1}

    ledger = run(9, wanders, campaign).ledger
    first = ledger.champion
    assert last_fits(ledger)[0] == first
    assert ledger.models[first + 1].reasons == (
        f"was fitted to the same data as v{first:04d}, and its error is 0.4% larger",
    )


def test_a_champion_on_probation_may_be_followed_by_a_larger_error() -> None:
    campaign = FakeCampaign(train_on=9)

    def recovers(version: int) -> Mapping[str, float]:
        undecided = {"difference_low": -0.01, "difference_high": 0.01}
        survival = 1.0 if is_extra(campaign) else 0.5
        error = 0.1004 if is_extra(campaign) else 0.1
        compared = {"force_mae_random_arm": error, "champion_force_mae_random_arm": 0.1}
        return {**undecided, **compared, "stability_survival": survival}

    ledger = run(9, recovers, campaign).ledger
    assert ledger.champion == last_fits(ledger)[0] + 1


def test_a_fit_that_fails_ends_it_and_not_the_campaign() -> None:
    campaign = FakeCampaign(train_on=9, n_labels=20, first_at=15, refit_every=50)

    def failure(version: int) -> FailureKind | None:
        return FailureKind.INTERNAL if is_extra(campaign) else None

    stopped = campaign.run(trainer=lambda: FakeTrainer(model_tests=halves, failure=failure))
    assert stopped.reason == "labels"
    assert last_fits(campaign.ledger) == [campaign.ledger.champion]


def test_a_reached_target_needs_no_further_fit() -> None:
    def reached(version: int) -> Mapping[str, float]:
        return {**halves(version), "force_mae_random_arm_high": 1e-9, "n_random": 50.0}

    campaign = run(50, reached, target_force_mae=0.5, min_random=1, versions_in_a_row=1)
    assert campaign.ledger.models[campaign.ledger.champion].version == max(campaign.ledger.models)
    assert len(last_fits(campaign.ledger)) == 1


def test_rounds_are_left_alone() -> None:
    assert len(last_fits(run(5, is_rounds=True).ledger)) == 1


def test_a_restart_neither_repeats_nor_forgets_them() -> None:
    campaign = run(2)
    versions = dict(campaign.ledger.models)
    folded = Ledger.fold(campaign.settings, open_reader(campaign.disk).events())
    assert last_fits(folded) == last_fits(campaign.ledger)
    assert campaign.run(trainer=lambda: FakeTrainer(model_tests=halves)).reason == "labels"
    assert sorted(campaign.ledger.models) == sorted(versions)


def test_an_idle_trainer_goes_on_while_labels_are_slow() -> None:
    campaign = FakeCampaign(train_on=4, n_labels=12, first_at=4, refit_every=50)
    duration = LognormalDuration(0.2, 1.0)  # in threads, so that a fit takes no time beside a label
    campaign.run(
        trainer=lambda: FakeTrainer(model_tests=halves), labeler=lambda: FakeLabeler(duration), use_threads=True
    )
    first = campaign.ledger.models[1].n_changes
    assert sum(model.n_changes == first for model in campaign.ledger.models.values()) > 1
    assert campaign.ledger.n_labels == 12


def test_the_status_says_that_it_trains_on() -> None:
    campaign = run(2)
    reader = open_reader(campaign.disk)
    published = [i for i, event in enumerate(reader.events()) if isinstance(event, ModelPromoted)]
    before = Ledger.fold(campaign.settings, reader.events()[: published[-2] + 1])
    status = status_of(before, state="running", head_seq=1)
    assert status["training_on"] == {"is_due": True, "fits_done": 1, "fits_at_most": 2, "is_last": True}
    assert "training on (fit 2 of at most 2 on the same data)" in headline(status)
    done = status_of(campaign.ledger, state="finished", head_seq=1)
    assert done["training_on"] == {"is_due": False, "fits_done": 2, "fits_at_most": 2, "is_last": True}
    assert "training on" not in headline(done)


@pytest.mark.parametrize("train_on", [0, 4])
def test_all_labels_are_learned_from(train_on: int) -> None:
    ledger = run(train_on).ledger
    assert ledger.models[max(ledger.models)].n_labels == ledger.n_labels == 60


def test_the_last_fit_is_the_final_one_and_comes_once() -> None:
    campaign = run(0, final_fit_s=500.0)
    models = campaign.ledger.models
    assert [model.is_final for model in models.values()] == [False] * (len(models) - 1) + [True]
    assert models[max(models)].n_labels == campaign.ledger.n_labels == 60


def test_a_final_fit_that_time_cuts_off_is_told_of() -> None:
    campaign = run(0, final_fit_s=500.0)
    ledger = campaign.ledger
    assert "final fit" not in how_to_go_on(ledger)
    last = max(ledger.models)
    ledger.models[last] = replace(ledger.models[last], is_final=False)
    assert how_to_go_on(ledger).endswith("; the final fit is still to be done")
    ledger.apply(TrainingStarted(t=0.0, worker="w", version=last + 1, n_labels=60))
    assert f"; the fit of v{last + 1:04d} to 60 labels was cut off" in how_to_go_on(ledger)


def test_a_final_fit_that_is_worse_ends_the_campaign_with_the_champion_before() -> None:
    def worse(version: int) -> Mapping[str, float]:
        if not final:
            return halves(version)
        return {
            "force_mae_random_arm": 9.0,
            "champion_force_mae_random_arm": 1.0,
            "difference_low": 7.0,
            "difference_high": 9.0,
        }

    final: list[int] = []
    campaign = FakeCampaign(final_fit_s=500.0)

    class Trainer(FakeTrainer):
        def run(self, order):  # type: ignore[no-untyped-def]
            if order.is_final:
                final.append(order.version)
                assert order.budget_s == 500.0
            return super().run(order)

    assert campaign.run(trainer=lambda: Trainer(model_tests=worse)).reason == "labels"
    assert final == [max(campaign.ledger.models)]
    assert campaign.ledger.champion == final[0] - 1


def test_more_labels_after_a_final_fit_end_with_another_one() -> None:
    campaign = run(0, final_fit_s=500.0)
    first = max(campaign.ledger.models)
    campaign.settings = replace(campaign.settings, n_labels=80)
    run(0, campaign=campaign)
    finals = [model.version for model in campaign.ledger.models.values() if model.is_final]
    assert finals == [first, max(campaign.ledger.models)]


@pytest.mark.parametrize(
    ("fit_s", "final_fit_s", "given"),
    [(60.0, 0.0, (60.0, 0.0)), (60.0, None, (60.0, 0.0)), (None, None, (400.0, 1600.0)), (None, 30.0, (400.0, 30.0))],
)
def test_what_fits_are_given(fit_s: float | None, final_fit_s: float | None, given: tuple[float, float]) -> None:
    """As long as the labels that they learn from took; the final one four times that."""
    settings = policy_settings(fit_s=fit_s, final_fit_s=final_fit_s)
    assert (settings.fit_budget(40, 10.0), settings.final_budget(40, 10.0)) == given
    assert settings.fit_budget(40, None) == 60.0
    assert policy_settings(fit_s=None, final_fit_s=None, is_part=True).final_budget(40, 10.0) == 0.0


def test_a_user_may_have_another_final_fit_of_the_same_data() -> None:
    """Of a campaign that has ended, with the seconds of the request, once; then it has ended again."""
    campaign = run(0)
    ended, models = campaign.ledger, set(campaign.ledger.models)
    events, answer = carry_out(ended, TrainLonger(900.0), "r1", 9.0, is_running=False)
    assert answer.message == "the final fit of at most 900 CPU s comes now"
    store = open_writer(campaign.disk)
    store.stage(events)
    store.commit()
    store.close()
    run(0, campaign=campaign)
    (new,) = set(campaign.ledger.models) - models
    model = campaign.ledger.models[new]
    assert (model.is_final, model.parent, campaign.ledger.fit_requested) == (True, ended.champion, 0.0)
    given = [event.budget_s for event in open_reader(campaign.disk).events() if isinstance(event, FitRequested)]
    assert given == [900.0]
    run(0, campaign=campaign)
    assert max(campaign.ledger.models) == new
    assert carry_out(campaign.ledger, TrainLonger(900.0), "r1", 9.0, is_running=False)[0] == []


def test_a_request_for_a_fit_waits_for_the_last_label_and_needs_a_model() -> None:
    ledger = Ledger(policy_settings())
    with pytest.raises(InputError, match="no model to go on from"):
        carry_out(ledger, TrainLonger(900.0), "r1", 9.0, is_running=True)
    ledger.apply(ModelPublished(t=1.0, version=1, parent=0, seq=1, n_labels=9, wall_s=1.0))
    ledger.apply(ModelPromoted(t=1.0, version=1, reason="first"))
    _, answer = carry_out(ledger, TrainLonger(900.0), "r1", 9.0, is_running=True)
    assert answer.message == "the final fit of at most 900 CPU s comes once the last label is there"


@pytest.mark.parametrize(("cpu_s", "given"), [(20.0, 400.0), (0.0, 2000.0)])
def test_labels_that_waited_for_a_busy_machine_give_a_fit_no_more_time(cpu_s: float, given: float) -> None:
    ledger = Ledger(policy_settings(fit_s=None, final_fit_s=None))
    for i in range(20):
        ledger.apply(FrameProposed(t=0.0, frame_id=f"f{i}", arm=Arm.INITIAL, system="s", deviation=0.0))
        ledger.apply(LabelAccepted(t=0.0, frame_id=f"f{i}", label_id=f"l{i}", worker="w", wall_s=100.0, cpu_s=cpu_s))
    assert ledger.fit_budget == given
    assert ledger.label_times.mean == 100.0
