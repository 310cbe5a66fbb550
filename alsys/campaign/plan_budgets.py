"""Lines of a plan about node-hours and money: what is spent, what more it will be, and whether the budgets last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from alsys.config.prices import ANY, cost_an_hour
from alsys.control.rules.spending import COST, NODE_HOURS, spendings
from alsys.control.status import budgets_of, budgets_text
from alsys.units import HOUR_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alsys.config import CampaignConfig
    from alsys.control.state.ledger import Ledger

FIELDS: Final = {NODE_HOURS: "stop.node_hours", COST: "stop.cost"}


def budget_lines(config: CampaignConfig, ledger: Ledger | None, wall_s: tuple[float, float]) -> list[str]:
    """What a campaign will spend.

    Args:
        config: It.
        ledger: Its state; None where it has not begun.
        wall_s: Shortest and longest time that it still takes.
    """
    lines = [] if ledger is None else [f"spent: {budgets_text(budgets_of(ledger))}"]
    if not wall_s[1]:
        return lines
    nodes, where = _machines(config, ledger)
    rates = {NODE_HOURS: float(sum(nodes.values())), COST: cost_an_hour(nodes, config.launch.prices)}
    limits = {NODE_HOURS: config.stop.node_hours, COST: config.stop.cost}
    spent = {} if ledger is None else {one.name: one.spent for one in spendings(ledger)}
    for name, an_hour in rates.items():
        limit = limits[name]
        if limit is None and (name == NODE_HOURS or not an_hour):
            continue
        low, high = (seconds * an_hour / HOUR_S for seconds in wall_s)
        at_most = "" if limit is None else f"; {FIELDS[name]} is {limit:g} in all"
        lines.append(f"{name}{' left' if ledger else ''}: about {_range(low, high)}, {where}{at_most}")
        if limit is not None and spent.get(name, 0.0) + low > limit:
            lines.append(f"{FIELDS[name]} ends it before all is labelled and fitted; raise it to get what is planned")
    return lines


def _machines(config: CampaignConfig, ledger: Ledger | None) -> tuple[Mapping[str, int], str]:
    """Machines by kind, and whose they are."""
    if config.runtime.kind != "ray" or not (config.runtime.address or os.environ.get("ALSYS_RAY_ADDRESS")):
        return {ANY: 1}, "on this machine"
    if ledger is not None and ledger.totals.nodes:
        return ledger.totals.nodes, f"on the {ledger.totals.n_nodes} nodes that the cluster had last"
    return {ANY: 1}, "for each node of the cluster, all of which are counted"


def _range(low: float, high: float) -> str:
    first, last = f"{low:.2g}", f"{high:.2g}"
    return first if first == last else f"{first} to {last}"
