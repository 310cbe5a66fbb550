"""Placement: which actor runs what, with which resources.

Actors are never restarted by Ray itself (`max_restarts=0`, `max_task_retries=0`): the pool starts a new one, so that a
call is never silently executed twice.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from alsys.actors.nodes import Demand
from alsys.actors.shells import WorkerActor
from alsys.actors.worker_files import DENSITIES, FIT, START
from alsys.actors.workers import SeparateWorker, explorer_of, labeler_of, trainer_of
from alsys.config.schema import CampaignConfig
from alsys.control.ports import Role, Worker
from alsys.frames import Frame

MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker.

    Attributes:
        build: Makes the worker inside its process; is given the folder of its files where it has some.
        cpus: Ray CPUs; likewise custom `resources`.
        threads: Threads it may use.
        gpus: Ray GPUs; Ray shows the worker no others.
        memory_mb: Of its node, MiB; 0 asks for none.
        python: Interpreter of the environment that it runs in; None for that of the driver.
        files: Folders in the campaign's folder whose files it reads and writes (`alsys.actors.worker_files`).
        identity: What it must say that it computes; empty for anything.
        is_kept: It is there from the start; False for a labeler that comes when frames wait.
        idle_s: Seconds without a call after which one that is not kept ends.
    """

    role: Role
    build: Callable[..., Worker]
    cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    gpus: float = 0.0
    memory_mb: float = 0.0
    python: str | None = None
    files: tuple[str, ...] = ()
    identity: str = ""
    is_kept: bool = True
    idle_s: float = 0.0

    @property
    def demand(self) -> Demand:
        """Ray resources that it asks for."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_mb * MIB, **self.resources}
        return {name: amount for name, amount in asked.items() if amount > 0}

    def build_here(self, folder: Path) -> Worker:
        """The worker for a thread of this process, or what stands here for one in another environment.

        Args:
            folder: The campaign's.
        """
        build = partial(self.build, folder) if self.files else self.build
        return build() if self.python is None else SeparateWorker(build, self.python, self.threads)


def start_actor(name: str, spec: WorkerSpec, unusable: Sequence[str] = ()) -> Any:
    """Starts the actor of a worker and returns its handle at once.

    Args:
        name: Of the worker.
        spec: What it asks for.
        unusable: Nodes that must not hold it.
    """
    import ray  # which campaigns in one process do without

    titled = type(f"{spec.role.value[:-1].title()}Actor", (WorkerActor,), {})  # what `ps` shows
    actor_class: Any = ray.remote(titled)
    return actor_class.options(
        num_cpus=spec.cpus,
        num_gpus=spec.gpus,
        memory=spec.memory_mb * MIB or None,
        resources=dict(spec.resources) or None,
        label_selector={"ray.io/node-id": f"!in({','.join(unusable)})"} if unusable else None,
        max_restarts=0,
        max_task_retries=0,
        runtime_env=None if spec.python is None else {"py_executable": shlex.quote(spec.python)},
    ).remote(spec.build, spec.threads, name)


def worker_specs(
    config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], level_id: str = ""
) -> dict[str, WorkerSpec]:
    """All workers of a campaign, by name, in the order in which they are placed.

    A trainer, an explorer and a labeler come first, then the other trainers and explorers: where a cluster cannot hold
    all workers, labelers wait, and no campaign labels without end for a trainer that has no place.

    Args:
        config: The campaign.
        starts: Structures of each system.
        level_id: Identity of the level that all labelers must compute; empty for any.
    """
    groups = [_trainers(config), _explorers(config, starts), _labelers(config, level_id)]
    specs = {name: spec for group in groups for name, spec in group.items()}
    firsts = [name for group in groups for name in list(group)[:1]]
    return {name: specs[name] for name in dict.fromkeys([*firsts, *specs])}


def _trainers(config: CampaignConfig) -> dict[str, WorkerSpec]:
    training = config.training
    spec = WorkerSpec(
        Role.TRAINER,
        partial(trainer_of, config),
        training.cpus,
        training.resources,
        training.threads,
        training.gpus,
        training.ray_memory_mb or 0,
        config.runtime.python_of("trainers"),
        () if config.model.kind == "pair" else (START, FIT),
    )
    return {f"trainer-{i}": spec for i in range(training.workers)}


def _explorers(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]]) -> dict[str, WorkerSpec]:
    specs: dict[str, WorkerSpec] = {}
    for name, exploration in config.exploration.parts():
        part = config.model_copy(update={"exploration": exploration})
        for i in range(exploration.workers):
            specs[f"explorer-{name}{i}"] = WorkerSpec(
                Role.EXPLORER,
                partial(explorer_of, part, dict(starts), config.seed * 1000 + len(specs)),
                exploration.cpus,
                exploration.resources,
                exploration.threads,
                exploration.gpus,
                exploration.ray_memory_mb or 0,
                config.runtime.python_of("explorers"),
            )
    return specs


def _labelers(config: CampaignConfig, level_id: str) -> dict[str, WorkerSpec]:
    specs: dict[str, WorkerSpec] = {}
    for name, labeling in config.labeling.parts():
        part = config.model_copy(update={"labeling": labeling})
        for i in range(labeling.workers):
            specs[f"labeler-{name}{i}"] = WorkerSpec(
                Role.LABELER,
                partial(labeler_of, part),
                labeling.cpus,
                labeling.resources,
                getattr(labeling, "threads", 1),
                labeling.gpus,
                labeling.ray_memory_mb or 0,
                config.runtime.python_of("labelers"),
                (DENSITIES,) if getattr(labeling, "initial_guess", "default") != "default" else (),
                level_id,
                is_kept=labeling.min_workers is None or i < labeling.min_workers,
                idle_s=labeling.idle_s,
            )
    return specs
