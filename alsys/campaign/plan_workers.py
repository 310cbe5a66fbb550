"""Lines of a plan about workers: how many there will be, what they ask Ray for, and what a plan does not look at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from alsys.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from alsys.config import CampaignConfig


def gpus_here() -> int:
    """GPUs of this machine that PyTorch sees."""
    import torch

    return torch.cuda.device_count()


def state_of_mirror(url: str) -> str:
    """What is in a mirror, or why nobody can tell, in a few words."""
    from alsys.campaign.mirror import Mirror

    try:
        mirror = Mirror.at(url, Path(), is_patient=False)
        mirror.check_place()
        if not mirror.is_begun():
            return "nothing in it yet"
        driver = mirror.driver()
        return "holds a campaign" + ("" if driver is None else f", which has a driver that lives: {driver}")
    except EnvironmentProblem as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def worker_lines(
    config: CampaignConfig, n_here: Callable[[], int] = gpus_here, mirror: Callable[[str], str] = state_of_mirror
) -> list[str]:
    """Workers of a campaign, and what they ask of whom.

    Args:
        config: Of the campaign.
        n_here: GPUs of this machine; asked where workers here want some.
        mirror: What is in a mirror; asked where there is one.
    """
    exploration, n_trainers = config.exploration, config.training.workers
    lines = [
        f"workers: {_labelers(config)}, {_count(exploration.n_workers, 'explorer')} of {exploration.walkers} walkers, "
        f"{_count(n_trainers, 'trainer')}; runtime {config.runtime.kind}"
    ]
    if config.runtime.kind == "ray":
        lines += _asked(config, n_here)
    if config.mirror is not None:
        lines.append(f"mirror: {config.mirror}; {mirror(config.mirror)}")
    return lines


def check_memory(config: CampaignConfig, here_mb: float | None = None) -> None:
    """Refuses a worker that asks a Ray of this machine for more memory than the machine has.

    Args:
        config: Of the campaign.
        here_mb: Memory of this machine, MiB; None asks it.

    Raises:
        InputError: There is one.
    """
    is_elsewhere = config.runtime.address or os.environ.get("ALSYS_RAY_ADDRESS")
    if config.runtime.kind != "ray" or is_elsewhere:
        return
    total_mb = psutil.virtual_memory().total / 2**20 if here_mb is None else here_mb
    sections = (("labeling", config.labeling.parts()), ("exploration", config.exploration.parts()))
    asked = [(f"{name}.groups.{prefix[:-1]}" if prefix else name, part) for name, ps in sections for prefix, part in ps]
    for field, part in (*asked, ("training", config.training)):
        if (part.ray_memory_mb or 0) > total_mb:
            raise InputError(
                f"is more than the {total_mb:.0f} MiB of this machine", field=f"{field}.ray_memory_mb",
                value=str(part.ray_memory_mb), remedy="ask for less, or name a cluster (runtime.address)",
            )  # fmt: skip


def _asked(config: CampaignConfig, n_here: Callable[[], int]) -> list[str]:
    """What all workers together ask Ray for, and who has it."""
    parts = [part for _, part in (*config.labeling.parts(), *config.exploration.parts())]
    cpus = sum(part.workers * part.cpus for part in (*parts, config.training))
    gpus = sum(part.workers * part.gpus for part in (*parts, config.training))
    address = config.runtime.address
    asked = f"they ask Ray for {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "") + " when all are up"
    if address is not None:
        return [f"{asked}; the cluster at {address}, its nodes and packages are looked at when the campaign starts"]
    n_gpus = n_here() if gpus else 0
    if gpus <= n_gpus:
        return [asked]
    return [
        f"{asked}, and this machine has {_count(n_gpus, 'GPU')}: workers that get none never start; lower gpus or "
        "the number of workers, or name a cluster (runtime.address)"
    ]


def _labelers(config: CampaignConfig) -> str:
    parts = [part for _, part in config.labeling.parts()]
    least = sum(part.workers if part.min_workers is None else part.min_workers for part in parts)
    most = config.labeling.n_workers
    return _count(most, "labeler") if least == most else f"{least} to {most} labelers"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
