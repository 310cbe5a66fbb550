"""Who computes Hessians: on half of the labelers at most, before new labels, since the first models need them most."""

from __future__ import annotations

from dataclasses import replace

from alsys.control.commands import Command, ComputeHessian, Idle
from alsys.control.state.campaign import CampaignState


def plan_hessians(state: CampaignState, idle: Idle, n_labelers: int) -> tuple[list[Command], Idle]:
    """Steps towards Hessians, and the workers that are left after them.

    Args:
        state: The campaign.
        idle: Workers that are free.
        n_labelers: Labelers that there are, busy or not.
    """
    computing = state.hessians.computing
    n_free = max(0, max(1, n_labelers // 2) - len(computing))
    commands: list[Command] = [
        ComputeHessian(worker, name)
        for worker, name in zip(idle.labelers[:n_free], state.hessians.waiting, strict=False)
    ]
    left = idle.labelers[len(commands) :]
    return commands, replace(idle, labelers=left)
