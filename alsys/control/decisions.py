"""Decisions: everything that follows from the state of a campaign, in the order in which it must happen.

`decide` asks the policies and returns commands; it changes nothing, and the same ledger gives the same commands. The
bookkeeping comes first, alone: what it emits must be in the ledger before work is handed out. Then comes the end of the
campaign, then work for trainers, labelers (verifying what is suspect before anything new) and explorers.
"""

from __future__ import annotations

from alsys.control import policies
from alsys.control.assurance import assure
from alsys.control.commands import Command, Emit, Finish, Idle
from alsys.control.ledger import Ledger
from alsys.events import FrameDropped, FrameQuarantined


def decide(ledger: Ledger, now: float, idle: Idle) -> list[Command]:
    """What to do next. Bookkeeping first: its effect must be applied before work is handed out."""
    if ledger.stopped is not None:
        return []
    emits = _bookkeeping(ledger, now)
    if emits:
        return emits
    finish = policies.finish(ledger, now)
    if finish is not None:
        return [finish]
    if ledger.stop_requested is not None:
        return []
    commands: list[Command] = []
    train = policies.train(ledger, idle.trainers)
    if train is not None:
        commands.append(train)
    urgent, left, n_labelers = assure(ledger, idle)
    commands += urgent
    commands += policies.label(ledger, left, n_labelers)
    commands += policies.explore(ledger, idle.explorers)
    if not commands and policies.is_stuck(ledger, idle):
        return [Finish("failed", policies.stuck_message(ledger), is_final=False)]
    return commands


def _bookkeeping(ledger: Ledger, now: float) -> list[Command]:
    emits: list[Command] = [
        Emit(FrameQuarantined(t=now, frame_id=frame_id, failure=failure, message=message))
        for frame_id, (failure, message) in policies.to_quarantine(ledger).items()
    ]
    if emits:
        return emits  # they are still candidates, and must not be dropped too
    emits += [
        Emit(FrameDropped(t=now, frame_id=frame_id, reason="easy"))
        for frame_id in ledger.easy
        if frame_id in ledger.pending
    ]
    emits += [Emit(FrameDropped(t=now, frame_id=f, reason="evicted")) for f in policies.evict(ledger)]
    emits += [Emit(policies.judge(ledger, ledger.models[version], now)) for version in ledger.undecided]
    emits += [Emit(event) for event in policies.alarms(ledger, now)]
    return emits
