"""`ray up`: a cluster of Ray on AWS or GCP that grows and shrinks with the campaign's workers.

One machine on demand runs the driver and Ray's head, and keeps the campaign's disk. Each group of workers has a type of
node, which Ray starts because workers ask for the group's custom resource, and gives back when none are left. Machines
are reached by SSH alone, from addresses that the campaign's file names; Ray asks for a token.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Final

from alsys.errors import InputError
from alsys.launch.cost import Rented
from alsys.launch.engine import Command
from alsys.launch.fleet import Group, Machine
from alsys.launch.installing import ENVIRONMENT, check_source, install_commands, source_mounts
from alsys.launch.kinds import kind_for, machine_of, per_machine
from alsys.launch.packing import fits
from alsys.launch.prices import known_prices
from alsys.launch.ray_cloud import CLOUDS, prepare_script
from alsys.launch.request import CAMPAIGN, LaunchRequest
from alsys.launch.text import as_yaml

CLUSTER: Final = "cluster.yaml"
PREPARE: Final = "prepare.sh"
HOME: Final = "/home/ubuntu"
HEAD: Final = "head"
HEAD_GROUP: Final = "driver"
"""The head's name among `launch.ray.machines`."""
PORT: Final = 6379
SYSTEM_GB: Final = 30
GPU_GB: Final = 50
"""Disk of a machine, beside its workers': for the system and alsys, and for CUDA."""
BOTO: Final = {"aws": "boto3>=1.34", "gcp": "google-api-python-client>=2.100"}
"""With what the head starts machines."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """Machines for a group of workers.

    Attributes:
        kind: In the cloud's words.
        machine: What each has for workers.
        n_workers: Workers that each holds.
        least: Machines that the workers need which are always there.
        most: Machines for all workers.
    """

    group: Group
    kind: str
    machine: Machine
    n_workers: int
    least: int
    most: int


class RayUp:
    """Clusters of Ray's own launcher."""

    name = "ray"
    programs = ("ray",)

    def check(self, request: LaunchRequest) -> None:
        """Refuses what could not be started, or would be open to strangers."""
        source, ray = str(request.path), request.settings.ray
        if request.settings.image is not None:
            raise InputError(
                "is not for --on ray, which installs alsys on machines", source=source, field="launch.image",
                value=request.settings.image, remedy="leave it out; launch.ray.image names a machine's image",
            )  # fmt: skip
        check_source(request)
        pattern, example = CLOUDS[ray.cloud].region
        if not pattern.fullmatch(ray.region):
            raise InputError(
                f"is no region of {ray.cloud.upper()}", source=source, field="launch.ray.region", value=ray.region,
                remedy=f"give one as {example}",
            )  # fmt: skip
        needed = {"ssh_from": "your address, as 203.0.113.7/32", **CLOUDS[ray.cloud].needed}
        if any(group.machine.gpus for group in request.fleet.groups):
            needed["gpu_image"] = CLOUDS[ray.cloud].gpu_image
        for field, remedy in needed.items():
            if getattr(ray, field) is None:
                message = "is needed for --on ray"
                told = remedy.format(region=ray.region)
                raise InputError(message, source=source, field=f"launch.ray.{field}", remedy=f"give {told}")
        if (address := str(ray.ssh_from)).endswith("/0"):
            message = "lets the whole internet in"
            raise InputError(message, source=source, field="launch.ray.ssh_from", value=address, remedy="give your own")
        known = {HEAD_GROUP, *(group.name for group in request.fleet.groups)}
        for name in sorted(ray.machines.keys() - known):
            raise InputError(
                "is no group of this campaign", source=source, field="launch.ray.machines", value=name,
                remedy=f"one of {', '.join(sorted(known))}",
            )  # fmt: skip
        node_types(request)
        driver_kind(request)

    def render(self, request: LaunchRequest) -> dict[str, str]:
        """The cluster, and a script for what must be there before it."""
        head = [
            f"A cluster of Ray for the campaign {request.config.name}, written by `alsys launch`: `ray up {CLUSTER}`.",
            "Change the campaign's file and launch again rather than this one.",
        ]
        return {CLUSTER: as_yaml(_cluster(request), head), PREPARE: prepare_script(request)}

    def machines(self, request: LaunchRequest) -> tuple[Rented, ...]:
        """The driver's, and those of each group."""
        ray = request.settings.ray

        def rented(what: str, kind: str, machine: Machine, least: int, most: int, is_spot: bool = False) -> Rented:
            return Rented(what, kind, least, most, is_spot, known_prices(kind, machine.cpus, ray.cloud, ray.region))

        return (
            rented(HEAD_GROUP, *driver_kind(request), 1, 1),
            *(
                rented(node.group.name, node.kind, node.machine, node.least, node.most, node.group.is_interruptible)
                for node in node_types(request)
            ),
        )

    def submit(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Starts the cluster, which a second time changes nothing, and the driver on its head."""
        _, settings = request.fleet.placed()
        run = shlex.join(request.run(f"{HOME}/campaigns/{request.config.name}", settings))
        return (
            Command(("bash", PREPARE)),
            Command(("ray", "up", "--yes", "--no-config-cache", CLUSTER)),
            Command(("ray", "exec", "--tmux", CLUSTER, run)),
        )

    def look(self, request: LaunchRequest) -> tuple[Command, ...]:
        """Watch, stop, fetch, end."""
        folder = f"campaigns/{request.config.name}"
        stays = {
            "aws": "ends spot machines, stops all others, whose disks stay and cost until they are terminated",
            "gcp": "ends all machines; the driver's disk stays, and costs until it is deleted",
        }[request.settings.ray.cloud]
        fetch = ("ray", "rsync-down", CLUSTER, f"{HOME}/{folder}", ".")
        return (
            Command(("ray", "exec", CLUSTER, f"alsys status ~/{folder}"), "what the campaign does"),
            Command(("ray", "attach", "--tmux", CLUSTER), "the driver's terminal"),
            Command(("ray", "exec", CLUSTER, f"alsys stop ~/{folder} --drain"), "ends it; the same launch resumes"),
            Command(fetch, "copies the campaign here"),
            Command(("ray", "down", "--yes", CLUSTER), stays),
        )


def node_types(request: LaunchRequest) -> tuple[NodeType, ...]:
    """Machines for each group of workers.

    Raises:
        InputError: A group's machines are of no known kind, or too small for one worker.
    """
    ray, source = request.settings.ray, str(request.path)
    found: list[NodeType] = []
    for group in request.fleet.placed()[0].groups:
        field = f"launch.ray.machines.{group.name}"
        kind = ray.machines.get(group.name) or kind_for(group, ray.cloud)
        asked = group.machine
        needs = f"{asked.cpus:g} cores, {asked.gpus:g} GPUs and {asked.memory_mb} MiB"
        if kind is None:
            message = f"no kind of machine that alsys knows holds one of them: {needs}"
            raise InputError(
                message, source=source, field=field, remedy="name one, and describe it in launch.ray.kinds"
            )
        machine = machine_of(kind, ray.cloud, ray.kinds, source, field)
        if not fits(asked, machine):
            message = f"is too small for one of the {group.name}, which takes {needs}"
            raise InputError(message, source=source, field=field, value=kind, remedy="name a larger one")
        n_workers = per_machine(group, machine)
        found.append(
            NodeType(group, kind, machine, n_workers, -(-group.least // n_workers), -(-group.most // n_workers))
        )
    return tuple(found)


def driver_kind(request: LaunchRequest) -> tuple[str, Machine]:
    """The driver's machine.

    Raises:
        InputError: It is of no known kind, or too small.
    """
    ray, source, driver = request.settings.ray, str(request.path), request.fleet.driver
    field = f"launch.ray.machines.{HEAD_GROUP}"
    asked = Machine(driver.cpus, int(driver.memory_mb * 0.9))
    kind = ray.machines.get(HEAD_GROUP) or kind_for(
        Group(HEAD_GROUP, "trainers", "launch.driver", asked, 1, 1), ray.cloud
    )
    if kind is None:
        message = "is more than any kind of machine that alsys knows has"
        raise InputError(
            message, source=source, field="launch.driver.cpus", value=driver.cpus, remedy=f"name one: {field}"
        )
    machine = machine_of(kind, ray.cloud, ray.kinds, source, field)
    if not fits(asked, machine):
        message = f"is too small for launch.driver: {driver.cpus:g} cores and {driver.memory_mb} MiB"
        raise InputError(message, source=source, field=field, value=kind, remedy="name a larger one")
    return kind, machine


def _cluster(request: LaunchRequest) -> dict[str, Any]:
    settings, ray = request.settings, request.settings.ray
    cloud, types = CLOUDS[ray.cloud], node_types(request)
    has_gpu = any(node.machine.gpus for node in types)
    kind, _ = driver_kind(request)
    disk_gb = settings.driver.disk_gb
    nodes: dict[str, Any] = {
        HEAD: {
            "min_workers": 0,
            "max_workers": 0,
            "resources": {"CPU": 0},
            "node_config": cloud.node_config(request, kind, disk_gb, is_driver=True),
        }
    }
    for node in types:
        nodes[node.group.kind] = {"min_workers": 0, "max_workers": node.most, **_node(request, node)}
    source, start = f"{HOME}/alsys", f"ulimit -n 65536; {_exports(request)}; "
    return {
        "cluster_name": request.name,
        "max_workers": sum(node.most for node in types),
        "upscaling_speed": 8.0,
        "idle_timeout_minutes": ray.idle_minutes,
        "provider": cloud.provider(request),
        "auth": {"ssh_user": "ubuntu"},
        "available_node_types": nodes,
        "head_node_type": HEAD,
        "file_mounts": {
            f"{HOME}/.ray/auth_token": "~/.ray/auth_token",
            f"{HOME}/{CAMPAIGN}": f"./{CAMPAIGN}",
            **source_mounts(request, source),
        },
        "rsync_exclude": ["**/__pycache__"],
        "rsync_filter": [],
        "initialization_commands": ["cloud-init status --wait > /dev/null || true"],
        "setup_commands": [
            "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token",
            *install_commands(request, has_gpu, source="~/alsys"),
            f"grep -q RAY_AUTH_MODE ~/.bashrc || echo '{_exports(request)}' >> ~/.bashrc",
        ],
        "head_setup_commands": [
            f"~/uv/bin/uv pip install -q --python ~/venv/bin/python '{BOTO[ray.cloud]}'",
            "mkdir -p ~/campaigns",
            "~/venv/bin/alsys doctor",
        ],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            "~/venv/bin/ray stop",
            f"{start}ray start --head --port={PORT} --dashboard-host=127.0.0.1 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "~/venv/bin/ray stop",
            f"{start}ray start --address=$RAY_HEAD_IP:{PORT}",
            f"{start}nohup flock --nonblock ~/watch-node.lock alsys watch-node --cloud {ray.cloud} "
            f"--address=$RAY_HEAD_IP:{PORT} > ~/watch-node.log 2>&1 < /dev/null &",
        ],
    }


def _exports(request: LaunchRequest) -> str:
    """The environment of all processes; the region is that of the mirror's bucket."""
    ray = request.settings.ray
    variables = {**ENVIRONMENT, **({"AWS_REGION": ray.region} if ray.cloud == "aws" else {})}
    return " ".join(["export PATH=$HOME/venv/bin:$PATH", *(f"{name}={value}" for name, value in variables.items())])


def _node(request: LaunchRequest, node: NodeType) -> dict[str, Any]:
    """Resources, which Ray counts in whole numbers, and the machine."""
    group, launch = node.group, request.settings
    resources = {"CPU": int(node.machine.cpus)}
    if node.machine.gpus:
        resources["GPU"] = int(node.machine.gpus)
    for name, amount in group.resources.items():
        resources[name] = max(int(node.n_workers * amount), 1)
    disk_gb = SYSTEM_GB + (GPU_GB if node.machine.gpus else 0) + node.n_workers * launch.worker_disk_gb
    config = CLOUDS[launch.ray.cloud].node_config(
        request, node.kind, disk_gb, has_gpu=bool(node.machine.gpus), is_spot=group.is_interruptible
    )
    return {"resources": resources, "node_config": config}


ENGINE: Final = RayUp()
