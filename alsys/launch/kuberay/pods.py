"""Pods that hold a campaign's workers: several workers in each, so that Ray runs once for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alsys.launch.fleet import Fleet, Group
from alsys.launch.packing import EPSILON

RAY_MB: Final = 2000
"""MiB of a pod for Ray's own processes."""
OBJECT_STORE_MB: Final = 1000
"""MiB of a pod for what travels through Ray: snapshots and weights."""
RAY_DISK_GB: Final = 5
"""GB of a pod for logs and spilled objects."""


@dataclass(frozen=True, slots=True)
class PodGroup:
    """Equal pods for workers of one kind.

    Attributes:
        name: Of the kind, as ``labelers-gpu``.
        workers: How many share a pod.
        cpus: Cores of a pod.
        memory_mb: MiB of a pod.
        gpus: GPUs of a pod.
        disk_gb: GB of a pod's own disk.
        least: How many pods there are all the time.
        most: How many there are at most.
        is_interruptible: They may run on nodes which a cloud takes back.
        resources: Custom resources that Ray is told a pod has.
        node_labels: Labels of the nodes for them.
    """

    name: str
    workers: int
    cpus: int
    memory_mb: int
    gpus: int
    disk_gb: int
    least: int
    most: int
    is_interruptible: bool
    resources: Mapping[str, int]
    node_labels: Mapping[str, str]


def pod_groups(fleet: Fleet, pod_cpus: int, nodes: Mapping[str, Mapping[str, str]]) -> tuple[PodGroup, ...]:
    """Pods for all workers of a fleet, each kind in pods of its own.

    Args:
        fleet: Whose groups ask for a custom resource each.
        pod_cpus: Cores that workers without GPUs may share.
        nodes: Labels of nodes, by the name of a group.
    """
    return tuple(_pods(group, pod_cpus, nodes.get(group.name, {})) for group in fleet.groups)


def _pods(group: Group, pod_cpus: int, node_labels: Mapping[str, str]) -> PodGroup:
    machine, workers = group.machine, _workers_of_a_pod(group, pod_cpus)
    return PodGroup(
        name=group.name,
        workers=workers,
        cpus=math.ceil(workers * machine.cpus - EPSILON),
        memory_mb=workers * machine.memory_mb + RAY_MB + OBJECT_STORE_MB,
        gpus=math.ceil(workers * machine.gpus - EPSILON),
        disk_gb=workers * machine.disk_gb + RAY_DISK_GB,
        least=math.ceil(group.least / workers),
        most=math.ceil(group.most / workers),
        is_interruptible=group.is_interruptible,
        resources={name: math.ceil(workers * amount - EPSILON) for name, amount in group.resources.items()},
        node_labels=node_labels,
    )


def _workers_of_a_pod(group: Group, pod_cpus: int) -> int:
    """Those that share a GPU, or some cores; one where a worker has them for itself."""
    machine = group.machine
    share = 1 / machine.gpus if machine.gpus else pod_cpus / machine.cpus
    return max(1, min(int(share + EPSILON), group.most))
