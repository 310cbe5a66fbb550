"""How many machines hold some workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from alsys.launch.fleet import Group, Machine

EPSILON: Final = 1e-6
"""Shares of a core or GPU are counted to this."""


def fits(asked: Machine, free: Machine) -> bool:
    """Whether a worker has a place in what is free of a machine; disks are not counted."""
    return asked.cpus <= free.cpus + EPSILON and asked.gpus <= free.gpus + EPSILON and asked.memory_mb <= free.memory_mb


def without(free: Machine, taken: Machine) -> Machine:
    """What is left."""
    return Machine(free.cpus - taken.cpus, free.memory_mb - taken.memory_mb, free.gpus - taken.gpus, free.disk_gb)


def machines_for(groups: Iterable[Group], machine: Machine, taken: Sequence[Machine] = ()) -> int:
    """How many equal machines hold all workers of some groups: the largest first, each where it fits first.

    Args:
        groups: Each of whose workers fits on one machine.
        machine: What each has for workers.
        taken: What is taken of the first ones already, by something that fits there, as a driver.

    Returns:
        Their number, those at `taken` among them.
    """
    free = [without(machine, each) for each in taken]
    ordered = sorted(groups, key=lambda g: (g.machine.gpus, g.machine.cpus, g.machine.memory_mb), reverse=True)
    for group in ordered:
        first = 0
        for _ in range(group.most):
            while first < len(free) and not fits(group.machine, free[first]):
                first += 1
            if first == len(free):
                free.append(machine)
            free[first] = without(free[first], group.machine)
    return len(free)
