"""When a committee is fitted, what it goes on from, and whether it becomes champion."""

from __future__ import annotations

from collections.abc import Sequence

from alsys.control.commands import Train
from alsys.control.rules import pace, promotion, spending
from alsys.control.rules.goals import target_reached, wants_labels
from alsys.control.state.campaign import CampaignState
from alsys.control.state.models import MAX_TRAINING_FAILURES
from alsys.control.state.records import ModelRecord
from alsys.events import ModelPromoted, ModelRejected
from alsys.frames import Arm

LEAST_GAIN = 0.01
"""Share of the error that a fit on unchanged data must take away for another to be worth its time."""


def train(state: CampaignState, trainers: Sequence[str]) -> Train | None:
    """The next fit: at `first_at` training labels, then after `refit_every` more, and the final one at the end.

    In between, and after the end, a trainer that has nothing to do goes on with the data it has (`train_on`).
    A retracted label counts like a new one, and a fit after it waits for `first_at` labels as the first did. While no
    version was any good, a fit goes on from the latest, as long as that makes them better, and else begins anew.
    """
    if not trainers or state.training is not None or not (fit_is_due(state) or trains_on(state)):
        return None
    is_final = wants_final_fit(state)
    return Train(
        worker=trainers[0],
        version=state.next_version,
        parent=state.champion or _latest_that_learns(state),
        champion=state.champion,
        n_labels=state.n_labels,
        budget_s=spending.fit_budget(state, state.final_budget if is_final else state.fit_budget),
        is_final=is_final,
    )


def judge(state: CampaignState, model: ModelRecord, now: float) -> ModelPromoted | ModelRejected:
    """Whether a version becomes champion; see `alsys.control.rules.promotion`.

    One that was fitted from a champion which the user has taken back since does not bring it back. One that saw nothing
    that the champion has not must be better, not only no worse: a row of such fits would wander otherwise.
    """
    if state.champion and model.parent != state.champion:
        reason = f"was fitted from v{model.parent:04d} and compared with it; v{state.champion:04d} is champion now"
        return ModelRejected(t=now, version=model.version, reason=reason, reasons=(reason,))
    if state.champion:
        parent = state.models[state.champion]
        gain = _gain(state, model)
        if model.n_changes == parent.n_changes and not parent.is_probation and gain < 0:
            reason = f"was fitted to the same data as v{parent.version:04d}, and its error is {-gain:.1%} larger"
            return ModelRejected(t=now, version=model.version, reason=reason, reasons=(reason,))
    return promotion.judge(
        model.version,
        model.metrics,
        state.champion,
        [state.models[version].metrics for version in state.champions],
        state.settings.promotion,
        state.settings.probability,
        now,
    )


def trains_on(state: CampaignState) -> bool:
    """Whether another fit on unchanged data is worth its time: the last one was, or it would be the first."""
    settings = state.settings
    if not settings.train_on or settings.is_rounds or state.n_new or state.training_failures:
        return False
    same = _on_same_data(state)
    if not same or same[-1].version != state.champion or same[-1].is_final or target_reached(state):
        return False
    n_done = len(same) - 1
    return n_done < settings.train_on and (not n_done or _gain(state, same[-1]) >= LEAST_GAIN)


def extra_fits(state: CampaignState) -> int:
    """Versions after the first on the data there are now."""
    return max(len(_on_same_data(state)) - 1, 0)


def fit_is_due(state: CampaignState) -> bool:
    """Whether there are enough new labels for the next fit."""
    settings = state.settings
    if settings.is_rounds and (state.in_flight or state.exploring):
        return False
    if wants_final_fit(state):
        return True
    if state.final_budget and state.champion and not wants_labels(state):
        return False  # what is in flight is learned by the final fit
    new = state.n_new
    if new <= 0 or (state.training_failures >= MAX_TRAINING_FAILURES and new < settings.refit_every):
        return False
    if state.pending.count(Arm.ATOM) or state.in_flight_by_arm[Arm.ATOM]:
        return False
    if wants_last_fit(state):
        return True
    if not state.champion:
        starved = not len(state.pending) and not state.in_flight
        if starved and state.n_train >= 2:
            return True
        return state.n_train >= settings.first_at and not pace.first_fit_waits(state)
    if state.retracted and state.n_train < settings.first_at:
        return False  # little is left: the champion leads until others are labelled in their place
    return new >= pace.next_batch(settings, state.n_train_at_fit)


def wants_last_fit(state: CampaignState) -> bool:
    """Whether the last labels are still to be learned from."""
    return (
        not wants_labels(state)
        and not (state.in_flight or state.hessians.is_busy)
        and state.n_new > 0
        and state.n_train > 0
        and state.training_failures < MAX_TRAINING_FAILURES
    )


def wants_final_fit(state: CampaignState) -> bool:
    """Whether the final fit is still to be done: everything is labelled, and none has learned from all of it."""
    wall_s = state.settings.wall_s
    return (
        state.final_budget > 0.0
        and state.champion > 0
        and (wall_s is None or state.totals.wall_s < wall_s)
        and spending.used_up(state) is None
        and not wants_labels(state)
        and not (state.in_flight or state.hessians.is_busy)
        and state.n_train > 0
        and state.training_failures < MAX_TRAINING_FAILURES
        and (state.fit_requested > 0.0 or not _has_final_fit(state))
    )


def lacks_final_fit(state: CampaignState) -> bool:
    """Whether all is labelled and the final fit did not come to its end, for want of running time."""
    is_labelled = state.n_labels >= state.settings.n_labels
    return state.final_budget > 0.0 and state.champion > 0 and is_labelled and not _has_final_fit(state)


def _has_final_fit(state: CampaignState) -> bool:
    return any(model.is_final and not model.is_lost for model in _on_same_data(state))


def _latest_that_learns(state: CampaignState) -> int:
    """The newest version, unless it went on from another and explains no more of the forces than that did; else 0."""
    version = max((v for v, model in state.models.items() if not model.is_lost), default=0)
    if not version:
        return 0
    own = state.models[version]
    before = state.models[own.parent].metrics.get("holdout_skill") if own.parent in state.models else None
    after = own.metrics.get("holdout_skill")
    return 0 if before is not None and after is not None and after <= before else version


def _on_same_data(state: CampaignState) -> list[ModelRecord]:
    return [model for model in state.models.values() if model.n_changes == state.n_changes]


def _gain(state: CampaignState, model: ModelRecord) -> float:
    """Share of its parent's error that a version takes away: on the random arm, or on what both were trained on."""
    new, old = model.metrics.get("force_mae_random_arm"), model.metrics.get("champion_force_mae_random_arm")
    if new is None or old is None:
        parent = state.models.get(model.parent)
        new = model.metrics.get("force_mae_train")
        old = parent.metrics.get("force_mae_train") if parent is not None else None
    return 1.0 - new / old if new is not None and old else 0.0
