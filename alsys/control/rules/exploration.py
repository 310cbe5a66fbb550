"""What explorers do next, and when they pause."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

from alsys.control.commands import Command, Explore
from alsys.control.rules import pace
from alsys.control.rules.goals import wants_labels
from alsys.control.rules.training import fit_is_due
from alsys.control.rules.trust import method_shares, random_share
from alsys.control.state.campaign import CampaignState
from alsys.frames import Arm

N_SEEDS = 16
RESCORE_CHUNK = 256
COMPARE_CHUNK = 32


def explore(state: CampaignState, explorers: Sequence[str]) -> list[Command]:
    """Chunks for idle explorers, unless exploration is paused."""
    if not explorers or not state.champion or not wants_labels(state) or exploration_is_paused(state):
        return []
    settings = state.settings
    busy = state.exploring.values()
    wanted = _random_wanted(state) - sum(order.n_random for order in busy)
    being_rescored = {frame_id for order in busy for frame_id in order.rescored}
    stale = (frame_id for frame_id in state.to_rescore if frame_id not in being_rescored)
    to_rescore = list(itertools.islice(stale, RESCORE_CHUNK * len(explorers)))
    unseen = list(itertools.islice(state.to_compare, COMPARE_CHUNK * len(explorers)))
    trust, shares = state.trust_band, method_shares(state)
    commands: list[Command] = []
    for k, worker in enumerate(explorers):
        n_random = min(max(0, math.ceil(wanted / (len(explorers) - k))), 4)
        wanted -= n_random
        rescore, to_rescore = to_rescore[:RESCORE_CHUNK], to_rescore[RESCORE_CHUNK:]
        compare, unseen = unseen[:COMPARE_CHUNK], unseen[COMPARE_CHUNK:]
        commands.append(
            Explore(
                worker=worker,
                version=state.champion,
                n_steps=settings.chunk_steps,
                n_random=n_random,
                max_candidates=settings.max_candidates,
                seeds=_seeds(state, worker),
                rescore=tuple(rescore),
                compare=tuple(compare),
                trust=trust,
                shares=shares,
            )
        )
    return commands


def exploration_is_paused(state: CampaignState) -> bool:
    """Pause while the candidate set is full of frames that the champion has seen, and the pool has been searched."""
    settings = state.settings
    if settings.is_rounds and (state.training is not None or state.in_flight or not round_is_gathering(state)):
        return True
    if state.pending.count(Arm.UNCERTAIN) < settings.max_pending:
        return False
    # each model searches for itself, and a random arm that lags is served
    is_paced = settings.max_ahead == "auto" or settings.has_target
    if is_paced and _random_wanted(state) and not state.pending.count(Arm.RANDOM):
        return False
    if (is_paced or settings.pool > 1.0) and state.exploration.n_candidates < settings.pool * settings.max_pending:
        return False
    return not state.to_rescore


def round_is_gathering(state: CampaignState) -> bool:
    """Rounds: True while frames are gathered, False while the gathered ones are labelled."""
    if state.in_flight or state.pending.count(Arm.ATOM, Arm.INITIAL):
        return False
    if state.exploring:
        return True
    room = state.settings.n_labels - state.n_labels
    if state.n_new and not fit_is_due(state):
        return len(state.pending) == 0
    return len(state.pending) < min(state.settings.refit_every, room)


def _random_wanted(state: CampaignState) -> int:
    """Random-arm frames to gather, so that a few always wait for a labeler."""
    settings, share = state.settings, random_share(state)
    if share <= 0:
        return 0
    stock = max(1, math.ceil(share * min(settings.max_pending, settings.refit_every)))
    have = state.pending.count(Arm.RANDOM)
    done = state.accepted[Arm.RANDOM] + state.in_flight_by_arm[Arm.RANDOM]
    if settings.max_ahead == "auto":
        stock = max(stock, math.ceil(share * (state.n_labels + state.n_in_flight)) - done)
    missing = pace.random_total(settings, share) - done - have
    return max(0, min(stock - have, missing))


def _seeds(state: CampaignState, worker: str) -> tuple[str, ...]:
    """Labelled frames for walkers to start from: the newest half, the rest drawn from all."""
    labelled = state.labelled
    if len(labelled) <= N_SEEDS:
        return tuple(labelled)
    rng = random.Random(f"{state.settings.seed}/{worker}/{state.totals.walker_steps}/{len(labelled)}")
    newest = labelled[-N_SEEDS // 2 :]
    older = rng.sample(range(len(labelled) - len(newest)), N_SEEDS - len(newest))
    return tuple([labelled[i] for i in older] + newest)
