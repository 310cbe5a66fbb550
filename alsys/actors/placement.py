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
from typing import Any

from alsys.actors.shells import WorkerActor
from alsys.actors.worker_files import DENSITIES, FIT, START
from alsys.actors.workers import SeparateWorker, explorer_of, labeler_of, trainer_of
from alsys.config.schema import CampaignConfig
from alsys.control.ports import Role, Worker
from alsys.frames import Frame


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker.

    Attributes:
        build: Makes the worker inside its process; is given the folder of its files where it has some.
        cpus: Ray CPUs; likewise custom `resources`.
        threads: Threads it may use.
        gpus: Ray GPUs; Ray shows the worker no others.
        python: Interpreter of the environment that it runs in; None for that of the driver.
        files: Folders in the campaign's folder whose files it reads and writes (`alsys.actors.worker_files`).
    """

    role: Role
    build: Callable[..., Worker]
    cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    gpus: float = 0.0
    python: str | None = None
    files: tuple[str, ...] = ()

    def build_here(self, folder: Path) -> Worker:
        """The worker for a thread of this process, or what stands here for one in another environment.

        Args:
            folder: The campaign's.
        """
        build = partial(self.build, folder) if self.files else self.build
        return build() if self.python is None else SeparateWorker(build, self.python, self.threads)


def start_actor(name: str, spec: WorkerSpec) -> Any:
    """Starts the actor of a worker and returns its handle at once."""
    import ray  # which campaigns in one process do without

    titled = type(f"{spec.role.value[:-1].title()}Actor", (WorkerActor,), {})  # what `ps` shows
    actor_class: Any = ray.remote(titled)
    return actor_class.options(
        num_cpus=spec.cpus,
        num_gpus=spec.gpus,
        resources=dict(spec.resources) or None,
        max_restarts=0,
        max_task_retries=0,
        runtime_env=None if spec.python is None else {"py_executable": shlex.quote(spec.python)},
    ).remote(spec.build, spec.threads)


def worker_specs(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]]) -> dict[str, WorkerSpec]:
    """All workers of a campaign, by name, in the order in which they are placed.

    The trainer and the explorers come first: where a cluster cannot hold all workers, labelers wait, and no campaign
    labels without end for a trainer that has no place.

    Args:
        config: The campaign.
        starts: Structures of each system.
    """
    labeling, exploration, training = config.labeling, config.exploration, config.training
    specs = {
        "trainer-0": WorkerSpec(
            Role.TRAINER,
            partial(trainer_of, config),
            training.cpus,
            training.resources,
            training.threads,
            training.gpus,
            config.runtime.python_of("trainers"),
            () if config.model.kind == "pair" else (START, FIT),
        )
    }
    for i in range(exploration.workers):
        specs[f"explorer-{i}"] = WorkerSpec(
            Role.EXPLORER,
            partial(explorer_of, config, dict(starts), config.seed * 1000 + i),
            exploration.cpus,
            exploration.resources,
            exploration.threads,
            exploration.gpus,
            config.runtime.python_of("explorers"),
        )
    for i in range(labeling.workers):
        specs[f"labeler-{i}"] = WorkerSpec(
            Role.LABELER,
            partial(labeler_of, config),
            labeling.cpus,
            labeling.resources,
            getattr(labeling, "threads", 1),
            labeling.gpus,
            config.runtime.python_of("labelers"),
            (DENSITIES,) if getattr(labeling, "initial_guess", "default") != "default" else (),
        )
    return specs
