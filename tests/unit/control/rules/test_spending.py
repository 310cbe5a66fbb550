"""Budgets of node-hours and money: what is counted, when labels end for the last fit, when all ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from alsys.clock import RunningClock
from alsys.config.prices import cost_an_hour
from alsys.control.campaign_metrics import samples
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import PoolState
from alsys.control.rules import spending
from alsys.control.rules.goals import view_of
from alsys.control.rules.stopping import how_to_go_on
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Durations
from alsys.control.status import budgets_of, budgets_text
from alsys.events import (
    BudgetReserved,
    BudgetWarned,
    CampaignOpened,
    Event,
    Heartbeat,
    LabelAccepted,
    ModelPublished,
    TrainingStarted,
    decode,
    encode,
)
from alsys.store.memory import open_reader
from alsys.testing.policies import policy_settings
from support.campaigns import FakeCampaign

TICKS_S = 0.25
FOUR = {"head": 1, "labelers": 2, "labelers spot": 1}
PRICES = {"node": 1.0, "labelers": 10.0}


def beat(hours: float, nodes: Mapping[str, int], cost: float = 0.0) -> Heartbeat:
    return Heartbeat(t=0.0, wall_s=3600.0 * hours, busy_s={}, workers={}, nodes=nodes, cost=cost)


def fast_clock() -> RunningClock:
    """Time passes with each look at it, as fast as the machine is."""
    ticks = itertools.count()
    return RunningClock(lambda: TICKS_S * next(ticks))


class FourNodes(InProcessPool):
    """Is on a cluster, as far as it says."""

    def state(self) -> PoolState:
        return replace(super().state(), nodes=FOUR)


def log_of(campaign: FakeCampaign) -> list[Event]:
    return list(open_reader(campaign.disk).events())


def test_a_spot_machine_without_a_price_of_its_own_costs_what_others_of_its_kind_do() -> None:
    assert cost_an_hour(FOUR, PRICES) == 1.0 + 2 * 10.0 + 10.0
    assert cost_an_hour(FOUR, {**PRICES, "labelers spot": 3.0}) == 1.0 + 2 * 10.0 + 3.0
    assert cost_an_hour(FOUR, {"labelers": 10.0}) == 0.0, "nobody has said what the others cost"


def test_machines_are_counted_as_they_come_and_go_and_older_logs_had_one() -> None:
    ledger = Ledger(policy_settings())
    older = decode(b'{"kind":"heartbeat","t":0.0,"wall_s":7200.0,"busy_s":{},"workers":{"labelers":9}}')
    for event in (older, beat(1.0, FOUR, cost=31.0), beat(0.5, {"node": 2})):
        ledger.apply(decode(encode(event)))
    hours, money = spending.spendings(ledger)
    assert hours.spent == pytest.approx(2.0 + 4.0 + 1.0)
    assert (money.spent, money.an_hour, hours.an_hour) == (31.0, 0.0, 2.0)
    assert "cost 31, without 3 node-hours that had no price" in budgets_text(budgets_of(ledger))


def test_a_warning_comes_once_for_each_limit() -> None:
    ledger = Ledger(policy_settings(node_hours=10.0, cost=100.0))
    ledger.apply(beat(2.0, FOUR, cost=62.0))
    [warned] = spending.to_note(ledger, 5.0)
    assert warned == BudgetWarned(t=5.0, budget="node-hours", spent=8.0, limit=10.0)
    assert spending.noted_text(warned) == "80% of stop.node_hours is spent: 8 of 10 node-hours"
    ledger.apply(decode(encode(warned)))
    assert spending.to_note(ledger, 5.0) == []
    ledger.settings = replace(ledger.settings, node_hours=9.0)
    assert spending.to_note(ledger, 5.0) == [], "it knows that there is little left"
    ledger.settings = replace(ledger.settings, node_hours=20.0)
    ledger.apply(beat(2.0, FOUR))
    assert [event.limit for event in spending.to_note(ledger, 5.0)] == [20.0]


@pytest.mark.parametrize(("name", "limit"), [("node_hours", 0.5), ("cost", 4.0)])
def test_labels_end_early_enough_for_the_last_fit(name: str, limit: float) -> None:
    """All of it in one run: warning, end of the labels, last fit of all of them, and no more than was allowed."""
    prices = PRICES if name == "cost" else {}
    campaign = FakeCampaign(n_labels=100_000, refit_every=200, fit_s=60.0, prices=prices, **{name: limit})
    stopped = campaign.run(pool=FourNodes, running=fast_clock())
    budget, ledger, events = name.replace("_", "-"), campaign.ledger, log_of(campaign)
    assert (stopped.reason, stopped.is_final) == (budget, True), stopped.message
    noted = [event for event in events if isinstance(event, BudgetWarned | BudgetReserved)]
    assert sorted(event.kind for event in noted) == ["budget-reserved", "budget-warned"]
    kept = events.index(next(event for event in noted if isinstance(event, BudgetReserved)))
    assert any(isinstance(event, TrainingStarted | ModelPublished) for event in events[kept:])
    n_after = sum(isinstance(event, LabelAccepted) for event in events[kept:])
    assert n_after <= 8, "those in flight"
    latest = ledger.models[max(ledger.models)]
    assert latest.n_labels == ledger.n_labels, "all of them are learned"
    spent = next(one for one in spending.spendings(ledger) if one.name == budget)
    assert (1.0 - spending.KEPT) * limit <= spent.spent <= 1.01 * limit
    assert sorted(campaign.acknowledged.label_ids) == sorted(
        event.label_id for event in events if isinstance(event, LabelAccepted)
    )
    assert f"raise stop.{name}" in how_to_go_on(ledger)


def test_a_campaign_goes_on_with_more_and_counts_on() -> None:
    campaign = FakeCampaign(n_labels=100_000, refit_every=200, fit_s=60.0, node_hours=0.2)
    assert campaign.run(pool=FourNodes, running=fast_clock()).reason == "node-hours"
    first, n_labels = campaign.ledger.totals.node_s, campaign.ledger.n_labels
    assert campaign.run(pool=FourNodes, running=fast_clock()).reason == "node-hours"
    assert campaign.ledger.n_labels == n_labels, "nothing is left to spend"
    campaign.settings = replace(campaign.settings, node_hours=0.6)
    assert campaign.run(pool=FourNodes, running=fast_clock()).reason == "node-hours"
    assert campaign.ledger.n_labels > n_labels
    assert first < 0.2 * 3600.0 < campaign.ledger.totals.node_s <= 1.01 * 0.6 * 3600.0
    assert sum(isinstance(event, CampaignOpened) for event in log_of(campaign)) == 3


def test_what_a_killed_driver_spent_is_in_the_log_up_to_its_last_heartbeat() -> None:
    class Killed(Exception):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, LabelAccepted) and campaign.ledger.totals.wall_s > 100.0:
            raise Killed

    campaign = FakeCampaign(n_labels=100_000, node_hours=1000.0)
    with pytest.raises(Killed):
        campaign.run(pool=FourNodes, running=fast_clock(), on_event=kill)
    before = Ledger.fold(campaign.settings, log_of(campaign)).totals
    assert before.node_s == pytest.approx(4 * before.wall_s)
    assert before.wall_s > 75.0, "two heartbeats of 5 s and what a commit takes, of which this clock makes much"
    campaign.settings = replace(campaign.settings, node_hours=before.node_s / 3600.0 + 0.1)
    assert campaign.run(pool=FourNodes, running=fast_clock()).reason == "node-hours"
    assert campaign.ledger.totals.node_s > before.node_s


def test_a_budget_that_is_gone_before_there_is_a_model_ends_all_at_once() -> None:
    campaign = FakeCampaign(n_labels=100_000, first_at=5000, node_hours=1e-9)
    assert campaign.run(running=fast_clock()).reason == "node-hours"
    assert not campaign.ledger.champion


def test_a_fit_gets_no_more_time_than_is_left() -> None:
    ledger = Ledger(policy_settings(node_hours=10.0))
    assert spending.fit_budget(ledger, 1e6) == 1e6, "nobody knows yet how fast it goes"
    ledger.apply(beat(2.0, FOUR))
    assert spending.fit_budget(ledger, 1e6) == pytest.approx(0.75 * 1800.0)
    assert spending.fit_budget(ledger, 60.0) == 60.0
    assert math.isinf(spending.left_s(Ledger(policy_settings())))


def test_the_end_is_projected_from_the_labels_so_far() -> None:
    campaign = FakeCampaign(n_labels=60, fit_s=60.0)
    campaign.run(pool=FourNodes, running=fast_clock())
    ledger = campaign.ledger
    [hours, _] = spending.spendings(ledger)
    assert spending.projected(ledger, hours) == hours.spent, "it has ended"
    ledger.stopped, ledger.settings = None, replace(ledger.settings, n_labels=120)
    end = spending.projected(ledger, hours)
    assert end is not None
    assert 2.0 * hours.spent <= end <= 2.0 * hours.spent + 4 * spending.last_work_s(ledger) / 3600.0 + 1e-9


def test_stop_rules_of_other_packages_see_what_is_spent() -> None:
    campaign = FakeCampaign(n_labels=60, prices=PRICES)
    campaign.run(pool=FourNodes, running=fast_clock())
    view, totals = view_of(campaign.ledger), campaign.ledger.totals
    assert view.node_hours == pytest.approx(4 * totals.wall_s / 3600.0)
    assert view.cost == pytest.approx(31.0 * totals.wall_s / 3600.0)


def test_metrics_tell_of_budgets_that_there_are() -> None:
    ledger = Ledger(policy_settings(cost=62.0))
    ledger.apply(beat(1.0, FOUR, cost=31.0))
    told = {
        (one.name, *one.labels): one.value for one in samples(ledger, PoolState(), {}, Durations(()), is_refused=False)
    }
    assert told["alsys_budget_fraction", "cost"] == 0.5
    assert ("alsys_budget_fraction", "node-hours") not in told
    assert (told["alsys_node_seconds_total",], told["alsys_cost_total",]) == (4 * 3600.0, 31.0)
