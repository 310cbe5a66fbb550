"""Slurm: the campaign as one job over whole nodes, drained and requeued before its walltime until it is done.

Nodes of several kinds are the components of a heterogeneous job, which start together and share one Ray. The script is
`slurm.sbatch` beside this module, with other ``#SBATCH`` lines and with the campaign's settings; by hand it is
submitted as it is (cluster/README.md). Nothing travels: nodes see the file system on which `alsys launch` runs.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from alsys.config.launch_slurm import SlurmNodes
from alsys.errors import InputError
from alsys.launch.cost import DAY_H, Rented
from alsys.launch.engine import Command
from alsys.launch.fleet import Group, Machine
from alsys.launch.packing import EPSILON, fits, machines_for
from alsys.launch.request import CAMPAIGN, CAMPAIGN_FILE, LaunchRequest

SCRIPT: Final = "campaign.sbatch"
TEMPLATE: Final = Path(__file__).with_name("slurm.sbatch")
SETTINGS: Final = "# Settings:\n"
"""Line of the template that a campaign's settings follow."""
LEAVE_S: Final = 120
"""Seconds between the end of a drain and the walltime."""
GIVEN: Final = ("directory", "runtime.address")
"""Settings that the template gives to `alsys run`."""
ENOUGH_MB: Final = 10**9
WHOLE: Final = ("requeue", "open-mode", "output")
"""Options of the template that stand once for all components of a job."""


class Slurm:
    """A job of Slurm."""

    name = "slurm"
    programs = ("sbatch",)

    def check(self, request: LaunchRequest) -> None:
        """Refuses workers that have no place on any node, and nodes that are too few for those that are kept."""
        settings = request.settings.slurm
        if settings.hours * 3600 < 2 * (settings.drain_s + LEAVE_S):
            raise InputError(
                f"is too short: {settings.drain_s + LEAVE_S} s of it are kept for the drain and the end",
                source=str(request.path), field="launch.slurm.hours", value=settings.hours,
                remedy="raise it, or lower launch.slurm.drain_s",
            )  # fmt: skip
        for kind, groups in placed(request).items():
            nodes = settings.nodes[kind]
            if nodes.count is not None and (least := _count(groups, nodes, "least")) > nodes.count:
                named = ", ".join(group.name for group in groups)
                raise InputError(
                    f"is too small: {named} take {least} nodes, even as few as are kept",
                    source=str(request.path), field=f"launch.slurm.nodes.{kind}.count", value=nodes.count,
                    remedy="raise it, leave it out, or ask for fewer workers",
                )  # fmt: skip

    def render(self, request: LaunchRequest) -> dict[str, str]:
        """The script."""
        head, _, body = TEMPLATE.read_text(encoding="utf-8").partition("\nset -euo pipefail\n")
        default = _directives(head)
        lines = [
            "#!/bin/bash",
            f"# The campaign {request.config.name} over all nodes of a Slurm job, written by `alsys launch`.",
            "# Change the campaign's file and launch again rather than this one.",
            "#",
        ]
        for i, kind in enumerate(request.settings.slurm.nodes):
            lines += ["#SBATCH hetjob"] if i else []
            lines += [f"#SBATCH {option}" for option in _options(request, kind, default, is_first=i == 0)]
        text = "\n".join([*lines, "", "set -euo pipefail", ""]) + body
        return {SCRIPT: text.replace(SETTINGS, SETTINGS + _settings(request), 1)}

    def machines(self, request: LaunchRequest) -> tuple[Rented, ...]:
        """All nodes, for as long as the job runs."""
        counts = {kind: count(request, kind) for kind in request.settings.slurm.nodes}
        return tuple(Rented(f"nodes, {n * DAY_H:g} node-hours a day", kind, n, n) for kind, n in counts.items())

    def submit(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Submits the job. It waits for one of its name that runs already, unless it has nodes of several kinds."""
        return (Command(("sbatch", SCRIPT)),)

    def look(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Watch, stop, fetch, end."""
        directory = directory_of(request)
        fetch = () if request.config.mirror is None else (
            Command(("alsys", "fetch", request.config.mirror, "copy"), "the campaign, elsewhere, also while it runs"),
        )  # fmt: skip
        return (
            Command(("squeue", "--me", f"--name={request.name}"), "what Slurm does with it"),
            Command(("alsys", "status", directory, "--watch"), "what the campaign does"),
            *fetch,
            Command(("alsys", "stop", directory, "--drain"), "ends it; the same sbatch resumes"),
            Command(("scancel", f"--name={request.name}"), "ends it at once; nothing acknowledged is lost"),
        )


def directory_of(request: LaunchRequest) -> str:
    """The campaign's folder, absolute: the job runs in the folder of the launch."""
    directory = request.config.directory or f"campaigns/{request.config.name}"
    return str(Path(directory).absolute())


def placed(request: LaunchRequest) -> dict[str, list[Group]]:
    """Which workers are counted on which kind of node: the first where one fits, without GPUs if it needs none.

    Raises:
        InputError: One fits on none.
    """
    kinds = request.settings.slurm.nodes
    found: dict[str, list[Group]] = {kind: [] for kind in kinds}
    for group in request.fleet.groups:
        able = [kind for kind, nodes in kinds.items() if _holds(nodes, group)]
        if not able:
            asked = group.machine
            more = "".join(f", {amount:g} {name}" for name, amount in group.resources.items())
            raise InputError(
                f"has no nodes for one of the {group.name}, which takes {asked.cpus:g} cores, {asked.gpus:g} GPUs and "
                f"{asked.memory_mb} MiB{more}", source=str(request.path), field="launch.slurm.nodes",
                value=", ".join(kinds), remedy=f"give nodes that do, as {{gpu: {{cpus: 16, gpus: 4}}}}, or change "
                f"{group.section}",
            )  # fmt: skip
        found[min(able, key=lambda kind: kinds[kind].gpus > 0) if not group.machine.gpus else able[0]].append(group)
    return found


def count(request: LaunchRequest, kind: str) -> int:
    """How many nodes of a kind the job has."""
    nodes = request.settings.slurm.nodes[kind]
    return nodes.count or max(1, _count(placed(request)[kind], nodes, "most"))


def _holds(nodes: SlurmNodes, group: Group) -> bool:
    return fits(group.machine, _machine(nodes)) and all(
        amount <= nodes.resources.get(name, 0.0) for name, amount in group.resources.items()
    )


def _machine(nodes: SlurmNodes) -> Machine:
    return Machine(nodes.cpus, nodes.memory_mb or ENOUGH_MB, nodes.gpus)


def _count(groups: Iterable[Group], nodes: SlurmNodes, which: Literal["least", "most"]) -> int:
    """How many nodes hold the least, or the most, workers of some groups."""
    sized = [replace(group, most=getattr(group, which)) for group in groups]
    n = machines_for(sized, _machine(nodes))
    for name, amount in nodes.resources.items():
        asked = sum(group.most * group.resources.get(name, 0.0) for group in sized)
        n = max(n, math.ceil(asked / amount - EPSILON) if amount else 0)
    return n


def _directives(head: str) -> dict[str, str]:
    """Options in ``#SBATCH`` lines."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", head, re.MULTILINE))


def _options(request: LaunchRequest, kind: str, default: Mapping[str, str], is_first: bool) -> Iterator[str]:
    """Options of sbatch for a component of the job; those that are the whole job's stand in the first."""
    settings, nodes = request.settings.slurm, request.settings.slurm.nodes[kind]
    minutes = round(settings.hours * 60)
    whole = {
        "job-name": request.name,
        # Components of one job have one name: they would wait for each other.
        "dependency": "singleton" if len(settings.nodes) == 1 else None,
        "signal": f"B:USR1@{settings.drain_s + LEAVE_S}",
        **{name: default[name] for name in WHOLE},
    }
    own = {
        **{name: value for name, value in default.items() if name not in whole},
        "nodes": f"{count(request, kind)}",
        "cpus-per-task": f"{nodes.cpus}",
        "time": f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        "gres": nodes.gres or (f"gpu:{nodes.gpus}" if nodes.gpus else None),
        "partition": nodes.partition,
        "constraint": nodes.constraint,
        "account": settings.account,
        "qos": settings.qos,
    }
    for name, value in {**(whole if is_first else {}), **own}.items():
        if value is not None:
            yield f"--{name}={value}" if value else f"--{name}"
    yield from settings.options


def _settings(request: LaunchRequest) -> str:
    """Lines of shell that hold a campaign's settings."""
    slurm = request.settings.slurm
    lines = [
        *slurm.setup,
        _assigned("ALSYS_VENV", str(Path(slurm.venv or sys.prefix).expanduser())),
        f"ALSYS_DRAIN_S={slurm.drain_s}",
    ]
    for i, nodes in enumerate(slurm.nodes.values()):
        options = [f"--num-gpus={nodes.gpus}"] if nodes.gpus else []
        if nodes.resources:
            options.append(f"--resources={json.dumps(nodes.resources, separators=(',', ':'))}")
        if options:
            lines.append(_assigned(f"ALSYS_RAY_OPTIONS_{i}", " ".join(options)))
    kept = [text for text in request.overrides if text.partition("=")[0].strip() not in GIVEN]
    words = [f"{CAMPAIGN}/{CAMPAIGN_FILE}", directory_of(request), *(w for text in kept for w in ("--set", text))]
    return "\n".join([*lines, f"set -- {shlex.join(words)}", ""])


def _assigned(name: str, value: str) -> str:
    return f"{name}={shlex.quote(value)}"


ENGINE: Final = Slurm()
