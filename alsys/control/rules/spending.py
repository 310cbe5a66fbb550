"""What a campaign has spent of node-hours and of money, what is left of its budgets, and when that ends it.

Labels end while there is enough left for the fit after them, `KEPT` of the budget at most; that they have ended is in
the log, so it holds although machines that go home make the rest last longer. What is used up ends everything. Both
grow with the heartbeats of drivers: machines that are up while none runs are counted by nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from alsys.control.state.campaign import CampaignState
from alsys.events import BudgetReserved, BudgetWarned
from alsys.units import HOUR_S

WARN_AT: Final = 0.8
"""Share of a budget at which there is a warning."""
KEPT: Final = 0.2
"""Share of a budget that is kept for the last fit, at most."""
FIT_SHARE: Final = 0.75
"""Of the time that a budget lasts, what a fit gets; the tests after it take the rest."""
LEAST_REST_S: Final = 30.0
"""Seconds that are kept at least: what is spent is known every few seconds, and a fit has its tests."""
LEAST_LABELS: Final = 3
"""Labels before there is a guess at the end."""
NODE_HOURS: Final = "node-hours"
COST: Final = "cost"


@dataclass(frozen=True, slots=True)
class Spending:
    """What a campaign has spent of one thing.

    Attributes:
        name: ``node-hours`` or ``cost``, the money.
        spent: In all runs.
        limit: What may be spent; None for any.
        an_hour: What an hour takes of it at present.
    """

    name: str
    spent: float
    limit: float | None
    an_hour: float

    @property
    def used(self) -> float | None:
        """Share of the limit; None where there is none."""
        return None if self.limit is None else self.spent / self.limit

    @property
    def left_s(self) -> float:
        """Seconds that the rest lasts at present."""
        if self.limit is None or self.an_hour <= 0.0:
            return math.inf
        return max(self.limit - self.spent, 0.0) / self.an_hour * HOUR_S

    @property
    def kept_s(self) -> float:
        """Seconds that the part of it lasts which may be kept for the last fit."""
        return math.inf if self.limit is None or self.an_hour <= 0.0 else KEPT * self.limit / self.an_hour * HOUR_S

    def __str__(self) -> str:
        spent = f"{self.spent:.4g}" if self.limit is None else f"{self.spent:.4g} of {self.limit:g}"
        return f"{spent} {self.name}" if self.name == NODE_HOURS else f"{self.name} {spent}"


def spendings(state: CampaignState) -> tuple[Spending, Spending]:
    """Node-hours and money."""
    totals, settings = state.totals, state.settings
    return (
        Spending(NODE_HOURS, totals.node_s / HOUR_S, settings.node_hours, float(totals.n_nodes)),
        Spending(COST, totals.cost, settings.cost, totals.cost_an_hour),
    )


def used_up(state: CampaignState) -> Spending | None:
    """A budget of which nothing is left; None where there is none."""
    return next((one for one in _limited(state) if one.spent >= (one.limit or 0.0)), None)


def reserved(state: CampaignState) -> Spending | None:
    """A budget whose rest is for the last fit; None where there is none. One that was raised since is not."""
    return next((one for one in _limited(state) if state.reserved.get(one.name, -1.0) >= (one.limit or 0.0)), None)


def allows_labels(state: CampaignState) -> bool:
    """Whether no budget asks for the end."""
    return used_up(state) is None and reserved(state) is None


def left_s(state: CampaignState) -> float:
    """Seconds that the budgets last at present."""
    return min((one.left_s for one in _limited(state)), default=math.inf)


def fit_budget(state: CampaignState, wanted: float) -> float:
    """CPU seconds of a fit, as many as are wanted where the budgets last so long."""
    return min(wanted, max(FIT_SHARE * left_s(state), 1.0))


def to_note(state: CampaignState, now: float) -> list[BudgetWarned | BudgetReserved]:
    """What is to be said of budgets, once for each and each limit of it."""
    noted: list[BudgetWarned | BudgetReserved] = []
    for one in _limited(state):
        limit = one.limit or 0.0
        if one.spent >= WARN_AT * limit and state.warned.get(one.name, -1.0) < limit:
            noted.append(BudgetWarned(t=now, budget=one.name, spent=one.spent, limit=limit))
        is_known = state.reserved.get(one.name, -1.0) >= limit
        if not is_known and state.n_train and 0.0 < one.left_s <= min(last_work_s(state), one.kept_s):
            noted.append(BudgetReserved(t=now, budget=one.name, spent=one.spent, limit=limit))
    return noted


def noted_text(event: BudgetWarned | BudgetReserved) -> str:
    """For people."""
    spending = Spending(event.budget, event.spent, event.limit, 0.0)
    field = f"stop.{event.budget.replace('-', '_')}"
    if isinstance(event, BudgetWarned):
        return f"{event.spent / event.limit:.0%} of {field} is spent: {spending}"
    return f"no more labels: {spending} is spent, and the rest of {field} is for the last fit"


def last_work_s(state: CampaignState) -> float:
    """Seconds that what is begun and the last fit take, whose CPU seconds are taken for seconds."""
    running = state.fit_s if state.training is not None else 0.0
    return max((state.label_times.mean or 0.0) + running + (state.final_budget or state.fit_s), LEAST_REST_S)


def projected(state: CampaignState, one: Spending) -> float | None:
    """What will have been spent once all labels are there and fitted, limit or not; None where nobody can tell yet."""
    if state.stopped is not None:
        return one.spent
    n, n_left = state.n_labels, max(state.settings.n_labels - state.n_labels, 0)
    if n < LEAST_LABELS or one.an_hour <= 0.0:
        return None
    return one.spent + one.an_hour / HOUR_S * (state.totals.wall_s / n * n_left + last_work_s(state))


def _limited(state: CampaignState) -> list[Spending]:
    settings = state.settings
    if settings.node_hours is None and settings.cost is None:
        return []
    return [one for one in spendings(state) if one.limit is not None]
