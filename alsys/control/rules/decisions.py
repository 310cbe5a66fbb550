"""Decisions: everything that follows from the state of a campaign, in the order in which it must happen.

`decide` asks the rules and returns commands; it changes nothing, and the same state gives the same commands. The
bookkeeping comes first, alone: what it emits must be in the state before work is handed out. Then comes the end of the
campaign, then work for trainers, labelers (verifying what failed the gate before anything new) and explorers.
"""

from __future__ import annotations

from alsys.control.commands import Command, Emit, Finish, Idle
from alsys.control.rules import exploration, labels, spending, stopping, training, trust
from alsys.control.rules.audits import plan_audits
from alsys.control.rules.hessians import plan_hessians
from alsys.control.state.campaign import CampaignState
from alsys.events import DropReason, FrameDropped, FrameQuarantined


def decide(state: CampaignState, now: float, idle: Idle) -> list[Command]:
    """What to do next. Bookkeeping first: its effect must be applied before work is handed out."""
    if state.stopped is not None:
        return []
    emits = _bookkeeping(state, now)
    if emits:
        return emits
    finish = stopping.finish(state, now)
    if finish is not None:
        return [finish]
    if state.stop_requested is not None:
        return []
    commands: list[Command] = []
    fit = training.train(state, idle.trainers)
    if fit is not None:
        commands.append(fit)
    urgent, left, n_labelers = plan_audits(state, idle)
    curvature, left = plan_hessians(state, left, n_labelers)
    commands += urgent + curvature
    commands += labels.label(state, left, n_labelers)
    commands += exploration.explore(state, idle.explorers)
    if not commands and stopping.is_stuck(state, idle):
        return [Finish("failed", stopping.stuck_message(state), is_final=False)]
    return commands


def _bookkeeping(state: CampaignState, now: float) -> list[Command]:
    emits: list[Command] = [
        Emit(FrameQuarantined(t=now, frame_id=frame_id, failure=failure, message=message))
        for frame_id, (failure, message) in labels.to_quarantine(state).items()
    ]
    if emits:
        return emits  # they are still candidates, and must not be dropped too
    emits += [
        Emit(FrameDropped(t=now, frame_id=frame_id, reason=DropReason.BELOW_TRUST))
        for frame_id in state.below_trust
        if frame_id in state.pending
    ]
    emits += [Emit(FrameDropped(t=now, frame_id=f, reason=DropReason.EVICTED)) for f in labels.evict(state)]
    emits += [Emit(training.judge(state, state.models[version], now)) for version in state.undecided]
    emits += [Emit(event) for event in trust.alarms(state, now)]
    emits += [Emit(event) for event in spending.to_note(state, now)]
    return emits
