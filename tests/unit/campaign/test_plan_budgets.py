"""What a plan says of node-hours and money, before a campaign begins and in the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alsys.campaign.plan_budgets import budget_lines
from alsys.config import CampaignConfig, parse_config
from alsys.config.load import read_yaml
from alsys.config.overrides import apply_overrides
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.errors import InputError
from alsys.events import Heartbeat

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"
PRICES = "launch.prices={node: 2, labelers: 0.5}"
HOURS = (3600.0, 7200.0)


def toy(*overrides: str) -> CampaignConfig:
    return parse_config(apply_overrides(read_yaml(str(TOY)), list(overrides)), source=str(TOY))


def test_a_plan_without_budgets_and_prices_speaks_of_neither() -> None:
    assert budget_lines(toy(), None, HOURS) == []


def test_one_machine_costs_what_any_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALSYS_RAY_ADDRESS", raising=False)
    lines = budget_lines(toy(PRICES, "stop.node_hours=5", "stop.cost=1.5"), None, HOURS)
    assert lines == [
        "node-hours: about 1 to 2, on this machine; stop.node_hours is 5 in all",
        "cost: about 2 to 4, on this machine; stop.cost is 1.5 in all",
        "stop.cost ends it before all is labelled and fitted; raise it to get what is planned",
    ]


def test_a_cluster_is_as_large_as_it_was_last_and_unknown_before() -> None:
    config = toy(PRICES, "stop.node_hours=10", "runtime.kind=ray", "runtime.address=10.0.0.1:6379")
    before = budget_lines(config, None, HOURS)
    assert before[0].startswith("node-hours: about 1 to 2, for each node of the cluster, all of which are counted")
    ledger = Ledger(PolicySettings.of(config))
    nodes = {"head": 1, "labelers": 3}
    ledger.apply(Heartbeat(t=0.0, wall_s=7200.0, busy_s={}, workers={}, nodes=nodes, cost=7.0))
    lines = budget_lines(config, ledger, HOURS)
    assert lines == [
        "spent: node-hours 8 of 10 (80%); cost 7",
        "node-hours left: about 4 to 8, on the 4 nodes that the cluster had last; stop.node_hours is 10 in all",
        "stop.node_hours ends it before all is labelled and fitted; raise it to get what is planned",
        "cost left: about 3.5 to 7, on the 4 nodes that the cluster had last",
    ]
    assert budget_lines(config, ledger, (0.0, 0.0)) == lines[:1], "nothing is left to do"


def test_money_needs_prices() -> None:
    with pytest.raises(InputError, match=r"stop.cost: needs the price .* has no node \(got '5'\); add launch"):
        toy("stop.cost=5", "launch.prices={labelers: 0.5}")
