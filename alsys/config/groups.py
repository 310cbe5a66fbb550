"""Groups of workers: some of a role with resources of their own, beside the others.

A group changes operational settings of its section and nothing else, so that all labelers compute the same level and
all explorers walk alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from alsys.config.accelerations import Accelerate
from alsys.config.section import RAY_MEMORY, Device, Problem, Resources, Section, operational

GROUP_NAME: Final = r"^[a-z][a-z0-9_]{0,30}$"
GroupName = Annotated[str, Field(pattern=GROUP_NAME)]


OF_RAY: Final = {
    "CPU": "set cpus",
    "GPU": "set gpus",
    "memory": "set ray_memory_mb",
    "object_store_memory": "leave it out",
}
"""Names that are no custom resources to Ray, and what to do instead."""
LEAST_AMOUNT: Final = 1e-4
"""Ray counts in steps of it."""


def resource_problems(section: Section, name: str) -> Iterator[Problem]:
    """What Ray would refuse of what workers ask for, when they start.

    Args:
        section: With `cpus`, `gpus` and `resources`, any of which may be None.
        name: Of the section.
    """
    asked = {key: getattr(section, key) for key in ("cpus", "gpus")}
    gpus, resources = asked["gpus"], getattr(section, "resources", None) or {}
    if gpus is not None and gpus > 1 and not float(gpus).is_integer():
        yield Problem("must be a whole number above 1", f"{name}.gpus", f"{gpus:g}", "give a share of one, or 1, 2")
    for key in [key for key in OF_RAY if key in resources]:
        yield Problem("is no custom resource of Ray", f"{name}.resources.{key}", f"{resources[key]:g}", OF_RAY[key])
    for key, amount in [*asked.items(), *((f"resources.{key}", amount) for key, amount in resources.items())]:
        if amount is not None and 0 < amount < LEAST_AMOUNT:
            yield Problem(f"must be at least {LEAST_AMOUNT}", f"{name}.{key}", f"{amount:g}", "raise it")


class WorkerGroup(Section):
    """Workers of one role with resources of their own; what is left out is as in the section around it."""

    workers: int = operational(ge=1, le=4096, description="How many.")
    cpus: float | None = operational(None, gt=0, le=4096, description="Ray CPUs of one.")
    gpus: float | None = operational(None, ge=0, le=16, description="Ray GPUs of one.")
    resources: Resources | None = operational(None, description="Custom Ray resources of one.")
    threads: int | None = operational(None, ge=1, le=256, description="Threads of one.")
    ray_memory_mb: int | None = operational(None, ge=64, description=RAY_MEMORY)

    def changes(self) -> dict[str, Any]:
        """The settings that differ, by their names in the section."""
        return {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}


class ExplorerGroup(WorkerGroup):
    """Further explorers."""

    device: Device | None = operational(None, description="As `exploration.device`.")
    accelerate: Accelerate | None = operational(None, description="As `exploration.accelerate`.")


class LabelerGroup(WorkerGroup):
    """Further labelers."""

    min_workers: int | None = operational(
        None, ge=0, description="How many are kept where nothing waits to be labelled; default: all."
    )
    device: Literal["auto", "cpu", "gpu"] | None = operational(None, description="As `labeling.device`.")
    memory_mb: int | None = operational(None, ge=64, description="As `labeling.memory_mb`.")
    gpu_memory_mb: int | None = operational(None, ge=256, description="As `labeling.gpu_memory_mb`.")


class Grouped(Section):
    """A section whose workers come in groups."""

    workers: int
    groups: Mapping[str, WorkerGroup]

    def parts(self) -> list[tuple[str, Self]]:
        """The section once for its own workers, and once for each of its groups, whose settings it then has.

        The first part of a pair goes before the number in a worker's name: nothing, or ``gpu-``.
        """
        alone: dict[str, Any] = (
            {"groups": {}, "min_workers": None} if "min_workers" in type(self).model_fields else {"groups": {}}
        )
        groups = ((f"{name}-", {**alone, **group.changes()}) for name, group in self.groups.items())
        return [("", self), *((prefix, self.model_copy(update=changes)) for prefix, changes in groups)]

    @property
    def n_workers(self) -> int:
        """Workers of all groups, at most."""
        return self.workers + sum(group.workers for group in self.groups.values())

    def group_problems(self, name: str) -> Iterator[Problem]:
        """What does not fit in the groups.

        Args:
            name: Of the section.
        """
        places: dict[str, Section] = {name: self}
        for group, settings in self.groups.items():
            places[f"{name}.groups.{group}"] = settings
            for key, value in settings.changes().items():
                if key not in type(self).model_fields:
                    message = f"there is no such setting in {name} of this kind"
                    yield Problem(message, f"{name}.groups.{group}.{key}", str(value), "leave it out")
        for where, part in places.items():
            most, least = part.model_dump().get("workers"), part.model_dump().get("min_workers")
            if most is not None and least is not None and least > most:
                yield Problem(f"must be at most `workers`, {most}", f"{where}.min_workers", str(least), "lower it")
