"""Placement: which actor runs what, with which resources.

Actors are never restarted by Ray itself (`max_restarts=0`, `max_task_retries=0`): the pool starts a new one, so that a
call is never silently executed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from alsys.actors.shells import WorkerActor
from alsys.config.schema import CampaignConfig
from alsys.control.ports import Role, Worker
from alsys.exploration.base import Explorer
from alsys.frames import Frame
from alsys.labeling.base import LabelWorker
from alsys.training.base import Trainer


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker.

    Attributes:
        build: Makes the worker inside its process.
        cpus: Ray CPUs; likewise custom `resources`.
        threads: Threads it may use.
        gpus: Ray GPUs; Ray shows the worker no others.
    """

    role: Role
    build: Callable[[], Worker]
    cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    gpus: float = 0.0


def start_actor(name: str, spec: WorkerSpec) -> Any:
    """Starts the actor of a worker and returns its handle at once."""
    titled = type(f"{spec.role.value[:-1].title()}Actor", (WorkerActor,), {})  # what `ps` shows
    actor_class: Any = ray.remote(titled)
    return actor_class.options(
        num_cpus=spec.cpus,
        num_gpus=spec.gpus,
        resources=dict(spec.resources) or None,
        max_restarts=0,
        max_task_retries=0,
    ).remote(spec.build, spec.threads)


def worker_specs(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]]) -> dict[str, WorkerSpec]:
    """All workers of a campaign, by name; `starts` are the structures of each system."""
    labeling, exploration, training = config.labeling, config.exploration, config.training
    label_threads = getattr(labeling, "threads", 1)
    specs = {
        f"labeler-{i}": WorkerSpec(
            Role.LABELER,
            partial(_build_labeler, config),
            labeling.cpus,
            labeling.resources,
            label_threads,
            labeling.gpus,
        )
        for i in range(labeling.workers)
    }
    for i in range(exploration.workers):
        specs[f"explorer-{i}"] = WorkerSpec(
            Role.EXPLORER,
            partial(_build_explorer, config, dict(starts), config.seed * 1000 + i),
            exploration.cpus,
            exploration.resources,
            exploration.threads,
        )
    specs["trainer-0"] = WorkerSpec(
        Role.TRAINER,
        partial(_build_trainer, config),
        training.cpus,
        training.resources,
        training.threads,
    )
    return specs


def _build_labeler(config: CampaignConfig) -> LabelWorker:
    from alsys.labeling.factory import build_worker

    folder = Path(config.directory or Path("campaigns") / config.name) / "densities"
    return build_worker(config.labeling, needs_baseline=config.training.delta is not None, densities=folder)


def _build_explorer(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], seed: int) -> Explorer:
    from alsys.exploration.factory import build_explorer

    return build_explorer(config, starts, seed)


def _build_trainer(config: CampaignConfig) -> Trainer:
    from alsys.training.factory import build_trainer

    folder = Path(config.directory or Path("campaigns") / config.name)
    return build_trainer(config, folder / "start", folder / "fit")
