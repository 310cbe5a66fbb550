"""The part of `alsys doctor --address` that is about a cluster: who gets in, and what its nodes have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from alsys.cli.checks import MIN_FREE_GB, Check
from alsys.errors import AlsysError

if TYPE_CHECKING:
    from alsys.actors.cluster_check import ClusterReport, NodeReport

MAX_SHOWN: Final = 5
"""Nodes or ports of one line."""


def checks_of_cluster(address: str) -> Iterator[Check]:
    """What a cluster at an address is fit for.

    Args:
        address: As in `runtime.address`.
    """
    from alsys.actors.cluster_check import look_at_cluster

    try:
        report = look_at_cluster(address)
    except AlsysError as error:
        yield Check("cluster", False, str(error))
        return
    yield from checks_of_report(report)


def checks_of_report(report: ClusterReport) -> Iterator[Check]:
    """A line for each thing that a campaign needs of a cluster."""
    from alsys.actors.access import Access

    is_private = report.is_private
    if report.access is Access.OPEN:
        reach = "only this machine reaches it" if is_private else "whoever reaches it runs any code on it"
        remedy = "" if is_private else "; start it with RAY_AUTH_MODE=token (docs/security.md)"
        yield Check(
            "authentication", None if is_private else False, f"{report.address} asks for no token: {reach}{remedy}"
        )
    else:
        yield Check("authentication", report.access is Access.REFUSED or None, f"{report.address} {report.access}")
    if report.problem:
        yield Check("cluster", False, f"{report.address}: {report.problem}")
    if not report.nodes:
        return
    amounts = ", ".join(f"{amount:g} {name}" for name, amount in report.resources.items() if name in ("CPU", "GPU"))
    yield Check("cluster", True, f"{len(report.nodes)} nodes, {amounts or 'no CPUs'}")
    for where, access in report.dashboard.items():
        yield Check("dashboard", access is not Access.OPEN or is_private or False, f"{where} {access}")
    yield _ports(report)
    yield _versions(report)
    yield _disks(report)
    yield _shared_memory(report)


def _ports(report: ClusterReport) -> Check:
    from alsys.actors.access import Access

    asked = {where: access for node in report.nodes for where, access in node.ports.items()}
    opened = [where for where, access in asked.items() if access is Access.OPEN]
    metrics = [where for where in opened if where.startswith("metrics ")]
    n_closed = sum(access is Access.REFUSED for access in asked.values())
    bad = [where for where in opened if where not in metrics]
    if bad and not report.is_private:
        return Check("ports", False, f"ask for no token: {_some(bad)}; start their nodes with RAY_AUTH_MODE=token")
    said = f"{n_closed} ask for a token"
    if metrics:
        said += f"; Ray's metrics ask for none: {_some(metrics)}; let nobody but Prometheus reach them"
    return Check("ports", None if opened else True, said)


def _versions(report: ClusterReport) -> Check:
    from alsys.actors.greeting import versions

    here = versions()
    differing = Counter(
        f"{name} {node.look.versions[name]}"
        for node in report.nodes
        if node.look is not None
        for name in here
        if name in node.look.versions and _public(node.look.versions[name]) != _public(here[name])
    )
    blind = [node for node in report.nodes if node.look is None]
    problems = [f"{what} on {n} of {len(report.nodes)} nodes" for what, n in differing.items()]
    problems += [f"{node.address}: {node.problem}" for node in blind[:MAX_SHOWN]]
    if problems:
        ours = ", ".join(f"{name} {version}" for name, version in here.items())
        return Check("versions", False, f"{'; '.join(problems)}; install there what is here: {ours}")
    return Check("versions", True, f"the same as here on {len(report.nodes)} nodes")


def _public(version: str) -> str:
    return version.partition("+")[0]


def _disks(report: ClusterReport) -> Check:
    free = {node.address: node.look.disk / 2**30 for node in report.nodes if node.look is not None}
    if not free:
        return Check("disk of nodes", None, "not known")
    least = min(free, key=free.__getitem__)
    return Check("disk of nodes", free[least] >= MIN_FREE_GB, f"at least {free[least]:.0f} GB free ({least})")


def _shared_memory(report: ClusterReport) -> Check:
    small = [node for node in report.nodes if node.look is not None and node.look.shared_memory < node.object_store]
    if not small:
        return Check("/dev/shm of nodes", True, "holds Ray's object store")
    return Check(
        "/dev/shm of nodes", None, f"smaller than Ray's object store, which lies on the disk then: "
        f"{_some([_shared(node) for node in small])}; give it more (--shm-size, an emptyDir of medium Memory)",
    )  # fmt: skip


def _shared(node: NodeReport) -> str:
    shared = 0 if node.look is None else node.look.shared_memory
    return f"{node.address} {shared / 2**30:.1f} of {node.object_store / 2**30:.1f} GB"


def _some(what: list[str]) -> str:
    more = f" and {len(what) - MAX_SHOWN} more" if len(what) > MAX_SHOWN else ""
    return ", ".join(what[:MAX_SHOWN]) + more
