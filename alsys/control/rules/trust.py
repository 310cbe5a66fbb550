"""Whether uncertainties can be believed: alarms, the share of the random arm, the shares of exploration methods."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from alsys.control.state.campaign import CampaignState
from alsys.events import AlarmCleared, AlarmRaised
from alsys.exploration import bandit
from alsys.frames import Arm

BLIND_CHUNKS = 200
"""Chunks of one walker without an uncertain frame, after which a committee of copies is not waited for."""
ALARM_SHARE = 0.5
"""Most that the random arm grows to while uncertainties cannot be believed."""
ALIKE = 0.9
"""Correlation of members' errors above which there is an alarm."""


def alarms(state: CampaignState, now: float) -> list[AlarmRaised | AlarmCleared]:
    """What changed about whether uncertainties can be believed."""
    current: dict[str, str] = {}
    message = state.calibration.alarm
    if message is not None:
        current["calibration"] = message
    seen = state.exploration
    if seen.n_distinct < seen.n_members:
        current["copies"] = f"of {seen.n_members} members of the committee only {seen.n_distinct} differ"
    elif not seen.n_members and "copies" in state.alarms:
        current["copies"] = state.alarms["copies"]  # the new champion has not been seen yet
    if is_stuck(state):
        steps, broken = seen.steps_since_candidate, seen.broken_since_candidate
        current["stuck"] = (
            f"no frame to label in {steps} walker-steps: walks of v{state.champion:04d} break after {steps // broken} "
            "steps on average; check start structures, labels and the model's size"
        )
    correlation = state.models[state.champion].metrics.get("error_correlation") if state.champion else None
    if correlation is not None and correlation > ALIKE:
        current["alike"] = (
            f"errors of two members of v{state.champion:04d} have a correlation of {correlation:.2f}: "
            f"above {ALIKE} their spread says little about them"
        )
    new = [name for name in current if name not in state.alarms]
    raised = [AlarmRaised(t=now, name=name, message=current[name]) for name in new]
    return [*raised, *(AlarmCleared(t=now, name=name) for name in state.alarms if name not in current)]


def is_stuck(state: CampaignState) -> bool:
    """Whether walks break so early, and have for so long, that no frame to label is found."""
    seen, chunk = state.exploration, state.settings.chunk_steps
    steps, broken = seen.steps_since_candidate, seen.broken_since_candidate
    return steps >= BLIND_CHUNKS * chunk and broken * chunk >= steps and not state.pending.count(Arm.UNCERTAIN)


def random_share(state: CampaignState) -> float:
    """Share of labels that the random arm gets: twice what was asked for, at most half, while there is an alarm.

    With a target ensemble not where members err alike, which test frames show already and cannot mend. All of them once
    members that are copies of one another have found nothing for long, or walks break before they find anything: the
    campaign would stand still.
    """
    share = state.settings.random_share
    is_blind = "copies" in state.alarms and state.exploration.n_distinct == 1
    if is_blind and state.exploration.steps_since_above >= BLIND_CHUNKS * state.settings.chunk_steps:
        return 1.0
    if is_stuck(state):
        return 1.0
    is_doubtful = bool(state.alarms.keys() - ({"alike"} if state.settings.has_target else set()))
    return max(share, min(2.0 * share, ALARM_SHARE)) if is_doubtful else share


def method_shares(state: CampaignState) -> dict[str, float]:
    """Share of the walkers for each exploration method, from what each had earned when the champion began to lead.

    The same until the next champion, so that walkers are left alone.
    """
    if len(state.tallies_then) < 2:
        return {}
    seed = state.settings.seed + state.champion
    return dict(_shares(tuple(state.tallies_then.items()), state.settings.method_floor, seed))


@functools.lru_cache(maxsize=8)
def _shares(tallies: tuple[tuple[str, bandit.Tally], ...], floor: float, seed: int) -> Mapping[str, float]:
    return bandit.shares(dict(tallies), floor, seed)
