"""Who verifies, audits and checks labels, before anybody makes new ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from alsys.control.commands import AuditLabel, CheckLabeler, Command, Idle, LabelFrames
from alsys.control.rules.goals import wants_labels
from alsys.control.rules.labels import has_frames
from alsys.control.state.campaign import CampaignState


def plan_audits(campaign: CampaignState, idle: Idle) -> tuple[list[Command], Idle, int]:
    """Work that comes before new labels, the workers that are left after it, and how many labelers there are.

    Reference checks first; then verification, by another labeler than the one that gave the label where there is
    one; then audits: on half of the labelers at most while labels are wanted, on all of them after that. While any of
    this waits for a labeler, none gets a call ahead, or quick labels would keep all of them busy for ever. Where there
    is nothing to do nobody is checked, or a campaign whose labelers come and go would never end.
    """
    state, settings, n_labelers = campaign.audits, campaign.settings, idle.n_labelers
    is_alone = n_labelers <= 1
    if not (
        has_frames(campaign) or state.to_verify or campaign.hessians.waiting or state.waiting(settings.audit_share)
    ):
        return [], replace(idle, labelers=(), busy_labelers=()), n_labelers
    wants = wants_labels(campaign)
    commands: list[Command] = []
    free: list[str] = []
    for worker in idle.labelers:
        if worker in state.checking or worker in state.auditing:
            continue  # still being judged
        if state.needs_check(worker, settings.reference_every):
            commands.append(CheckLabeler(worker))
        else:
            free.append(worker)
    room = settings.n_labels - campaign.n_labels - campaign.n_in_flight if wants else 0
    is_waiting = False
    for frame_id, author in itertools.islice(state.to_verify.items(), max(room, 0)):
        taker = _other(free, author, is_alone)
        if taker is None:
            is_waiting = True
            continue
        commands.append(LabelFrames(taker, (frame_id,), is_verification=True))
        free.remove(taker)
    places = (max(1, n_labelers // 2) if wants else n_labelers) - len(state.auditing)
    for audit in state.waiting(settings.audit_share) if places > 0 else ():
        taker = _other(free, audit.author, is_alone)
        if taker is None:
            is_waiting = True
            if not free:
                break
            continue
        commands.append(AuditLabel(taker, audit.frame_id))
        free.remove(taker)
        places -= 1
        if places <= 0:
            break
    left = replace(idle, labelers=tuple(free), busy_labelers=() if is_waiting else idle.busy_labelers)
    return commands, left, n_labelers


def _other(free: Sequence[str], author: str, is_alone: bool) -> str | None:
    """A free labeler, not the author of a label unless there is no other."""
    other = next((worker for worker in free if worker != author), None)
    if other is not None:
        return other
    return author if is_alone and author in free else None
