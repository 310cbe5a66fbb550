"""Whether labels are still wanted: the stop criteria, and how far a campaign is from its targets."""

from __future__ import annotations

from alsys.control.rules import spending
from alsys.control.rules.convergence import Convergence, convergence
from alsys.control.state.campaign import CampaignState
from alsys.control.state.records import Status
from alsys.control.stop_rules import CampaignView, VersionView
from alsys.frames import Arm
from alsys.units import HOUR_S

MOST_LOST_IN_A_ROW = 40
"""Quarantined frames one after another, without a label between, after which a campaign is given up."""


def converged(state: CampaignState) -> Convergence:
    """How far the campaign is from its targets."""
    versions = [(model.version, model.metrics) for model in state.models.values()]
    return convergence(versions, state.champion, state.settings.targets)


def target_reached(state: CampaignState) -> bool:
    """The champion and the latest versions in a row keep the user's targets, with confidence."""
    return state.settings.targets.are_set and converged(state).is_reached


def wants_labels(state: CampaignState) -> bool:
    """False once a stop criterion asks for no further labels; a last fit may still follow."""
    settings = state.settings
    if state.n_labels >= settings.n_labels or target_reached(state) or is_quiet(state) or why_stop(state):
        return False
    if not spending.allows_labels(state):
        return False
    return settings.wall_s is None or state.totals.wall_s < settings.wall_s


def is_quiet(state: CampaignState) -> bool:
    """So many walker-steps without an uncertain frame that the campaign may end."""
    limit = state.settings.quiet_steps
    if limit is None or state.pending.count(Arm.UNCERTAIN, Arm.INITIAL):
        return False
    return state.exploration.steps_since_above >= limit


def why_stop(state: CampaignState) -> str | None:
    """Why a stop rule of another package wants the campaign to end; None where none does, or there is no champion."""
    rules = state.settings.stop_rules
    return rules.why_stop(view_of(state)) if rules and state.champion else None


def view_of(state: CampaignState) -> CampaignView:
    """What a stop rule sees of a campaign that has a champion."""
    versions = {m.version: VersionView(m.version, m.n_labels, m.promoted, m.metrics) for m in state.models.values()}
    coverage = state.calibration.coverage
    return CampaignView(
        n_labels=state.n_labels,
        n_train=state.n_train,
        n_random=state.accepted[Arm.RANDOM],
        n_pending=len(state.pending),
        n_quarantined=state.counts[Status.QUARANTINED],
        walker_steps=state.totals.walker_steps,
        wall_s=state.totals.wall_s,
        node_hours=state.totals.node_s / HOUR_S,
        cost=state.totals.cost,
        champion=versions[state.champion],
        versions=tuple(versions.values()),
        coverage=coverage.share if coverage.n_frames else None,
        coverage_frames=coverage.n_frames,
    )


def is_hopeless(state: CampaignState) -> bool:
    """So many frames in a row were quarantined that labelling itself must be at fault."""
    return state.lost_in_a_row >= MOST_LOST_IN_A_ROW
