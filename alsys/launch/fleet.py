"""What a campaign asks machines for: its driver, and one group of workers for each kind that its config has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from alsys.config import CampaignConfig
from alsys.config.groups import Grouped
from alsys.config.launch import LaunchedRole

LABELER_MB: Final = 1000
"""MiB of a labeler beyond the limit of a label, for its own process."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a worker, or a machine, has.

    Attributes:
        cpus: Cores; of a worker also a part of one.
        memory_mb: MiB.
        gpus: Whole ones, or the part of one that a worker takes.
        disk_gb: GB.
    """

    cpus: float
    memory_mb: int
    gpus: float = 0.0
    disk_gb: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Workers of one kind.

    Attributes:
        name: ``labelers``, or ``labelers-gpu`` for those of `labeling.groups.gpu`.
        section: Their section of the config, as ``labeling.groups.gpu``.
        machine: What one of them takes.
        least: How many are kept for as long as the campaign runs.
        most: How many there are at most.
        is_interruptible: Whether a cloud may take their machines back.
        resources: Custom resources that one of them asks Ray for.
    """

    name: str
    role: LaunchedRole
    section: str
    machine: Machine
    least: int
    most: int
    is_interruptible: bool = False
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Name of a custom resource for them alone: ``labeler``, ``labeler_gpu``."""
        role, _, group = self.name.partition("-")
        return "_".join(part for part in (role.removesuffix("s"), group) if part)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a campaign asks machines for.

    Attributes:
        name: Of the campaign.
        driver: The driver's machine.
        groups: All kinds of workers.
    """

    name: str
    driver: Machine
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, config: CampaignConfig) -> Fleet:
        """What a campaign asks for."""
        driver = config.launch.driver
        machine = Machine(driver.cpus, driver.memory_mb, 0.0, driver.disk_gb)
        return cls(config.name, machine, tuple(_groups(config)))

    def placed(self) -> tuple[Fleet, tuple[str, ...]]:
        """The same with a custom resource for each group that asks for none, so that engines can tell them apart.

        Returns:
            The fleet, and the settings (``KEY=VALUE``) with which its workers ask for these resources.
        """
        groups = tuple(g if g.resources else replace(g, resources={g.kind: 1.0}) for g in self.groups)
        settings = tuple(
            f"{new.section}.resources={{{new.kind}: 1}}"
            for old, new in zip(self.groups, groups, strict=True)
            if not old.resources
        )
        return replace(self, groups=groups), settings


def _groups(config: CampaignConfig) -> Iterator[Group]:
    yield from _of(config, "labelers", "labeling", config.labeling)
    yield from _of(config, "explorers", "exploration", config.exploration)
    training = config.training
    yield _group(config, "trainers", "trainers", "training", training, training.workers)


def _of(config: CampaignConfig, role: LaunchedRole, section: str, grouped: Grouped) -> Iterator[Group]:
    for prefix, part in grouped.parts():
        name = prefix.removesuffix("-")
        least = getattr(part, "min_workers", None)
        yield _group(
            config,
            role,
            f"{role}-{name}" if name else role,
            f"{section}.groups.{name}" if name else section,
            part,
            part.workers if least is None else least,
        )


def _group(config: CampaignConfig, role: LaunchedRole, name: str, section: str, part: Any, least: int) -> Group:
    launch = config.launch
    memory = part.memory_mb + LABELER_MB if role == "labelers" else launch.worker_memory_mb
    return Group(
        name,
        role,
        section,
        Machine(part.cpus, part.ray_memory_mb or memory, part.gpus, launch.worker_disk_gb),
        least,
        part.workers,
        role in launch.interruptible,
        dict(part.resources),
    )
