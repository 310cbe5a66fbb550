"""When a campaign ends, and why."""

from __future__ import annotations

from alsys.control.commands import Finish, Idle
from alsys.control.rules import spending
from alsys.control.rules.goals import converged, is_hopeless, is_quiet, target_reached, wants_labels, why_stop
from alsys.control.rules.labels import wants_labelers
from alsys.control.rules.training import lacks_final_fit, trains_on, wants_final_fit, wants_last_fit
from alsys.control.state.campaign import CampaignState
from alsys.errors import AGAIN


def finish(state: CampaignState, now: float) -> Finish | None:
    """The end of the campaign, once nothing is in flight and everything labelled has been learned from."""
    if state.stop_requested is not None:
        at_labels = state.in_flight or state.audits.is_busy or state.hessians.computing
        at_work = at_labels or state.training or state.exploring
        if state.stop_requested.drain and at_work:
            return None
        return Finish("user", f"stopped on request; {AGAIN} goes on", is_final=False)
    if is_hopeless(state) and wants_labels(state):
        if state.in_flight or state.training or state.audits.to_verify or state.audits.is_busy:
            return None
        remedy = f"see the quarantine table of the report; {AGAIN} tries again"
        lost = f"{state.lost_in_a_row} frames in a row gave no label, the last one: {state.last_loss}"
        return Finish("failed", f"{lost}; {remedy}", is_final=False)
    if wants_labels(state):
        return None
    settings = state.settings
    if settings.wall_s is not None and state.totals.wall_s >= settings.wall_s:
        return Finish("wall-time", f"{settings.wall_s:.0f} s of running time are used up")
    if (used := spending.used_up(state)) is not None:
        return Finish(used.name, f"{used} is used up")
    if state.in_flight or state.training is not None or state.hessians.is_busy:
        return None
    if wants_final_fit(state) or wants_last_fit(state) or trains_on(state):
        return None
    if state.champion and (state.audits.is_busy or state.audits.waiting(settings.audit_share)):
        return None
    if not state.champion:
        message = f"there are labels but no model: every fit failed{_last_rejection(state)}"
        return Finish("failed", message, is_final=False)
    if target_reached(state):
        return Finish("target-reached", converged(state).text.removeprefix("reached: "))
    if is_quiet(state):
        return Finish("nothing-uncertain", f"{settings.quiet_steps} walker-steps without an uncertain frame")
    if reason := why_stop(state):
        return Finish("rule", reason)
    if state.n_labels < settings.n_labels and (kept := spending.reserved(state)) is not None:
        return Finish(kept.name, f"{kept} is spent, with what was kept of it for the last fit")
    if settings.is_part:
        return Finish("labels", f"{state.n_labels} labels, as asked of this run; the next one goes on", is_final=False)
    return Finish("labels", f"{state.n_labels} labels")


TO_GO_ON = {
    "wall-time": "raise stop.wall_s (seconds of all runs together)",
    spending.NODE_HOURS: "raise stop.node_hours (of all runs together)",
    spending.COST: "raise stop.cost (of all runs together)",
    "labels": "raise stop.labels",
    "target-reached": "lower its targets (stop.target_force_mae, stop.target_blind_spots)",
    "nothing-uncertain": "raise stop.quiet_steps",
    "rule": "change stop.rules",
}
"""By the reason for which a campaign has ended."""


def how_to_go_on(state: CampaignState) -> str:
    """What to change in the file of a campaign that has ended, and what its last model has not learned."""
    assert state.stopped is not None
    unlearned = f"; {state.n_new} labels are in no model yet" if state.n_new > 0 else ""
    if (fit := state.training) is not None:
        unlearned = f"; the fit of v{fit.version:04d} to {fit.n_labels} labels was cut off"
    final = "; the final fit is still to be done" if lacks_final_fit(state) else ""
    return f"{TO_GO_ON.get(state.stopped.reason, 'raise a stop criterion')} to go on{unlearned}{final}"


def is_stuck(state: CampaignState, idle: Idle) -> bool:
    """True where nothing is in flight, nothing can be started although all workers are there, and nothing will come."""
    at_labels = state.in_flight or state.audits.is_busy or state.hessians.computing
    is_working = at_labels or state.exploring or state.training is not None
    has_labelers = not idle.n_others and bool(idle.labelers or not wants_labelers(state))
    return not is_working and has_labelers and bool(idle.explorers and idle.trainers)


def stuck_message(state: CampaignState) -> str:
    """What a user should do about a campaign that cannot go on."""
    if not state.champion:
        quarantined = sum(record.status == "quarantined" for record in state.frames.values())
        return (
            f"only {state.n_train} frames could be labelled, {quarantined} are quarantined and no model "
            f"could be fitted{_last_rejection(state)}; see the quarantine table of the report"
        )
    return "nothing is left to label, explore or train; see the report"


def _last_rejection(state: CampaignState) -> str:
    """Why the latest version was no model; empty where there is none."""
    latest = state.models.get(max(state.models, default=0))
    if latest is None:
        return ""
    remedy = "check the labels, or give fits more time (training.budget_s)"
    return f" or was rejected, v{latest.version:04d} because it {latest.reason}; {remedy}"
