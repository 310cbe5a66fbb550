"""Kinds of machine of AWS and GCP: what they have, in the clouds' own words.

Figures are those that the vendors name (cores, memory, GPUs); of m7a, three were held against a catalog of prices, the
others against nothing. All cores of those without GPUs are whole: m7a of
AWS and t2d of GCP run one thread on each. Cores of those with GPUs are threads, two a core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from alsys.config.launch_ray import MachineKind
from alsys.errors import InputError
from alsys.launch.fleet import Group, Machine
from alsys.launch.packing import EPSILON, fits

MEMORY_SHARE: Final = 0.9
"""Part of a machine's memory that workers may have; the rest is the system's and Ray's."""
MIB_PER_GB: Final = 1024
USUAL_CPUS: Final = 16
"""Cores of a machine of which there may be several."""
_AWS: Final = {
    **{f"m7a.{size}": (n, 4 * n, 0) for size, n in (("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16))},
    **{f"m7a.{n // 4}xlarge": (n, 4 * n, 0) for n in (32, 64, 128, 192)},
    **{f"g6.{size}": (n, 4 * n, 1) for size, n in (("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32))},
    "g6.12xlarge": (48, 192, 4),
    "g6.48xlarge": (192, 768, 8),
}
_GCP: Final = {
    **{f"t2d-standard-{n}": (n, 4 * n, 0) for n in (2, 4, 8, 16, 32, 48, 60)},
    **{f"g2-standard-{n}": (n, 4 * n, gpus) for n, gpus in ((4, 1), (8, 1), (16, 1), (32, 1), (48, 4), (96, 8))},
}
KNOWN: Final[Mapping[str, Mapping[str, tuple[int, int, int]]]] = {"aws": _AWS, "gcp": _GCP}
"""Of each cloud, the kinds from the smallest on: cores, GiB, GPUs."""


def machine_of(kind: str, cloud: str, own: Mapping[str, MachineKind], source: str, field: str) -> Machine:
    """What workers may have of a kind of machine.

    Args:
        kind: In the cloud's words.
        cloud: ``aws`` or ``gcp``.
        own: Kinds that the user describes, which go before those known.
        source: The campaign's file.
        field: What names the kind there.

    Raises:
        InputError: Nobody knows it.
    """
    if kind in own:
        return _machine(own[kind].cpus, own[kind].memory_gb, own[kind].gpus)
    if kind not in KNOWN[cloud]:
        raise InputError(
            "is no kind of machine that alsys knows", source=source, field=field, value=kind,
            remedy=f"write launch.ray.kinds: {{{kind}: {{cpus: N, memory_gb: N, gpus: N}}}}, or one of "
            f"{', '.join(KNOWN[cloud])}",
        )  # fmt: skip
    return _machine(*KNOWN[cloud][kind])


def kind_for(group: Group, cloud: str) -> str | None:
    """The known kind of which a group's workers need the fewest cores in all; None where none holds one of them.

    Kinds of more than `USUAL_CPUS` cores are taken only where no smaller one will do.
    """
    has_gpu = group.machine.gpus > 0
    known = {kind: _machine(*has) for kind, has in KNOWN[cloud].items() if bool(has[2]) == has_gpu}
    able = {kind: machine for kind, machine in known.items() if fits(group.machine, machine)}
    usual = {kind: machine for kind, machine in able.items() if machine.cpus <= USUAL_CPUS}
    if not usual:
        return next(iter(able), None)

    def cores(kind: str) -> tuple[float, float]:
        machine = usual[kind]
        return math.ceil(group.most / per_machine(group, machine)) * machine.cpus, -machine.cpus

    return min(usual, key=cores)


def per_machine(group: Group, machine: Machine) -> int:
    """Workers of a group that one machine holds."""
    asked = group.machine
    counts = [machine.cpus / asked.cpus, machine.memory_mb / asked.memory_mb]
    if asked.gpus >= 1:
        counts.append(machine.gpus / asked.gpus)
    elif asked.gpus > 0:
        counts.append(machine.gpus * int(1 / asked.gpus + EPSILON))
    return int(min(counts) + EPSILON)


def _machine(cpus: float, memory_gb: float, gpus: float) -> Machine:
    return Machine(cpus, int(memory_gb * MIB_PER_GB * MEMORY_SHARE), gpus)
