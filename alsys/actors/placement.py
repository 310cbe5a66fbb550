"""Placement: which actor runs what, with which resources, and how Ray comes up.

Actors are never restarted by Ray itself (`max_restarts=0`, `max_task_retries=0`): the pool starts a new one, so that a
call is never silently executed twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from alsys.actors.shells import ExplorerActor, LabelerActor, TrainerActor
from alsys.config.schema import CampaignConfig, RuntimeConfig
from alsys.control.ports import Role
from alsys.errors import EnvironmentProblem
from alsys.exploration.base import Explorer
from alsys.frames import Frame
from alsys.labeling.base import LabelWorker
from alsys.training.base import Trainer

SHELLS: Mapping[Role, type] = {
    Role.LABELER: LabelerActor,
    Role.EXPLORER: ExplorerActor,
    Role.TRAINER: TrainerActor,
}
LOCAL_OBJECT_STORE_BYTES = 512 * 1024 * 1024
REACH_S = 10.0
"""Seconds in which the port of a cluster must answer."""


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
    build: Callable[[], LabelWorker | Explorer | Trainer]
    cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    gpus: float = 0.0


def start_actor(name: str, spec: WorkerSpec) -> Any:
    """Starts the actor of a worker and returns its handle at once."""
    actor_class: Any = ray.remote(SHELLS[spec.role])
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


def connect(runtime: RuntimeConfig, specs: Mapping[str, WorkerSpec]) -> bool:
    """Starts Ray here or joins a cluster; returns whether this process started it.

    A cluster of our own has at least as many Ray CPUs as the workers ask for, so that a small machine runs them all;
    threads are limited by each worker.

    Raises:
        EnvironmentProblem: Ray does not come up.
    """
    if ray.is_initialized():
        return False
    _prepare_token()
    logging.getLogger("ray").setLevel(logging.ERROR)
    needed = sum(spec.cpus for spec in specs.values())
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    address = runtime.address or os.environ.get("ALSYS_RAY_ADDRESS")
    if address:
        options["address"] = address
    else:
        options |= {
            "num_cpus": runtime.num_cpus or max(os.cpu_count() or 1, int(needed + 0.999)),
            "include_dashboard": False,
            "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
        }
    if address:
        _check_reachable(address)
    try:
        ray.init(**options)
    except Exception as error:
        where = f"the Ray cluster at {address!r}" if address else "Ray on this machine"
        raise EnvironmentProblem(f"cannot start or reach {where}: {str(error).splitlines()[0]}") from error
    if not address and runtime.num_cpus is not None and needed > runtime.num_cpus:
        ray.shutdown()
        raise EnvironmentProblem(
            f"workers ask for {needed:g} CPUs, runtime.num_cpus is {runtime.num_cpus}; raise it or ask for fewer"
        )
    return True


def _check_reachable(address: str) -> None:
    """Refuses an address at which nobody answers: Ray would try for ever, deaf to signals.

    Raises:
        EnvironmentProblem: No such host, or nothing listens there.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:  # `auto` and `local`: Ray looks for itself
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH_S):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EnvironmentProblem(
            f"runtime.address: nothing answers at {address!r}: {reason}; start Ray there"
        ) from error


def _prepare_token() -> None:
    """Makes Ray's authentication token where there is none, readable by its owner only.

    Ray 2.60 makes one by itself only while `RAY_AUTH_MODE` is unset, and leaves it readable by all.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        if stat.S_IMODE(path.stat().st_mode) != 0o600:
            path.chmod(0o600)
    except OSError as error:
        raise EnvironmentProblem(f"cannot keep Ray's token in {path}: {error.strerror}") from error


def _build_labeler(config: CampaignConfig) -> LabelWorker:
    from alsys.labeling.factory import build_station

    folder = Path(config.directory or Path("campaigns") / config.name) / "densities"
    return build_station(config.labeling, needs_baseline=config.training.delta is not None, densities=folder)


def _build_explorer(config: CampaignConfig, starts: Mapping[str, Sequence[Frame]], seed: int) -> Explorer:
    from alsys.exploration.factory import build_explorer

    return build_explorer(config, starts, seed)


def _build_trainer(config: CampaignConfig) -> Trainer:
    from alsys.training.factory import build_trainer

    folder = Path(config.directory or Path("campaigns") / config.name)
    return build_trainer(config, folder / "start", folder / "fit")
