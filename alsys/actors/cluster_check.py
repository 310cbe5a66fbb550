"""What `alsys doctor --address` finds out about a cluster before a campaign does.

Ports are asked from here without a token; disks, shared memory and versions are looked at on the nodes, by a task of
Ray on each that takes no CPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from alsys.actors.access import (
    CLIENT,
    RAYLET_CALL,
    Access,
    access_by_grpc,
    access_by_http,
    access_of_cluster,
    check_reachable,
    found_address,
    is_loopback,
    take_mode,
)
from alsys.actors.greeting import PACKAGES, versions
from alsys.actors.ray_start import prepare_token

LOOK_S: Final = 90.0
"""Seconds for a node to look at itself: a process of Ray has to start there."""
ASKED_AT_ONCE: Final = 16
HTTP_PORTS: Final = {
    "metrics": ("MetricsExportPort", "/metrics"),
    "environment agent": ("RuntimeEnvAgentPort", "/"),
    "dashboard agent": ("DashboardAgentListenPort", "/"),
}
"""Of a node: what Ray calls them, and a path to ask for."""
SHARED_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class NodeLook:
    """What a node says of itself.

    Attributes:
        versions: Of Python and of the packages that results depend on.
        disk: Bytes that are free where Ray keeps its files.
        shared_memory: Bytes of /dev/shm in all; 0 where there is none.
    """

    versions: Mapping[str, str]
    disk: int
    shared_memory: int


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node of a cluster.

    Attributes:
        address: Of its machine.
        object_store: Bytes that Ray's object store may take there.
        ports: What somebody without a token gets at each, as `raylet 10.0.0.1:40001`.
        look: What it says of itself; None where it could not be asked.
        problem: Why not.
    """

    address: str
    object_store: float
    ports: Mapping[str, Access]
    look: NodeLook | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """A cluster, as far as it may be joined.

    Attributes:
        address: `host:port`, or `ray://host:port`.
        access: Whether it asks for a token.
        resources: Of all nodes together.
        nodes: Those that are alive.
        dashboard: What somebody without a token gets at the dashboard, by its address; empty where there is none.
        problem: Why it could not be joined.
    """

    address: str
    access: Access
    resources: Mapping[str, float] = field(default_factory=dict)
    nodes: tuple[NodeReport, ...] = ()
    dashboard: Mapping[str, Access] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.address)


def look_at_cluster(address: str) -> ClusterReport:
    """Asks a cluster, and all its nodes unless anybody gets in who reaches it.

    Args:
        address: As in `runtime.address`.

    Raises:
        EnvironmentProblem: There is none, or it does not answer.
    """
    check_reachable(address)
    found = found_address(address)
    check_reachable(found)
    access = access_of_cluster(found)
    if access is Access.OPEN and not is_loopback(found):
        return ClusterReport(found, access)
    prepare_token(is_local=False)
    take_mode(access)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        context = ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:  # whatever Ray says
        return ClusterReport(found, access, problem=f"{type(error).__name__}: {error}".splitlines()[0][:300])
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        dashboard = "" if found.startswith(CLIENT) else context.dashboard_url or ""
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            ports = list(pool.map(_ports_of, alive))
            asked = {dashboard: _access_of_dashboard(dashboard)} if dashboard else {}
        looks = _looks_of([str(node["NodeID"]) for node in alive])
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()
    nodes = (
        NodeReport(
            address=node["NodeManagerAddress"],
            object_store=node["Resources"].get("object_store_memory", 0.0),
            ports=asked_ports,
            look=look if isinstance(look, NodeLook) else None,
            problem="" if isinstance(look, NodeLook) else look,
        )
        for node, asked_ports, look in zip(alive, ports, looks, strict=True)
    )
    totals: dict[str, float] = {}
    for node in alive:
        for name, amount in node["Resources"].items():
            totals[name] = totals.get(name, 0.0) + amount
    return ClusterReport(found, access, totals, tuple(nodes), asked)


def _access_of_dashboard(address: str) -> Access:
    host, _, port = address.rpartition(":")
    return access_by_http(host.strip("[]"), int(port), "/api/version")


def _ports_of(node: Mapping[str, Any]) -> dict[str, Access]:
    return dict(_asked_ports(node))


def _asked_ports(node: Mapping[str, Any]) -> Iterator[tuple[str, Access]]:
    """What somebody without a token gets at the ports that Ray names of a node."""
    host = node["NodeManagerAddress"]
    target = f"{host}:{node['NodeManagerPort']}"
    yield f"raylet {target}", access_by_grpc(target, RAYLET_CALL)
    for name, (key, path) in HTTP_PORTS.items():
        port = node.get(key) or 0
        if port > 0:
            yield f"{name} {host}:{port}", access_by_http(host, port, path)


def _looks_of(nodes: Sequence[str]) -> list[NodeLook | str]:
    """What each node says of itself, or why it does not."""
    look = ray.remote(num_cpus=0, max_retries=0)(look_here)
    calls = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=LOOK_S)
    return [_answer(call) if call in ready else f"no answer in {LOOK_S:.0f} s" for call in calls]


def _answer(call: Any) -> NodeLook | str:
    try:
        look: NodeLook = ray.get(call)
        return look
    except Exception as error:  # alsys is not there, or the node is gone
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else type(error).__name__


def look_here() -> NodeLook:
    """This node."""
    shared = os.statvfs(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    return NodeLook(
        versions=versions(PACKAGES),
        disk=shutil.disk_usage(tempfile.gettempdir()).free,
        shared_memory=0 if shared is None else shared.f_blocks * shared.f_frsize,
    )
