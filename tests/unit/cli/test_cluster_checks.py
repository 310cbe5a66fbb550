"""What `alsys doctor --address` says of a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alsys.actors.access import Access
from alsys.actors.cluster_check import ClusterReport, NodeLook, NodeReport
from alsys.actors.greeting import versions
from alsys.cli.checks import Check
from alsys.cli.cluster_checks import checks_of_report

GB = 2**30
LOOK = NodeLook(versions(), disk=40 * GB, shared_memory=8 * GB)
NODE = NodeReport(
    "10.0.0.1",
    object_store=4.0 * GB,
    ports={"raylet 10.0.0.1:4000": Access.REFUSED, "metrics 10.0.0.1:8080": Access.OPEN},
    look=LOOK,
)
CLUSTER = ClusterReport("10.0.0.1:6379", Access.REFUSED, {"CPU": 8.0}, (NODE,), {"10.0.0.1:8265": Access.REFUSED})


def checks(report: ClusterReport) -> dict[str, Check]:
    return {check.name: check for check in checks_of_report(report)}


def test_a_cluster_that_is_as_it_should_be() -> None:
    found = checks(CLUSTER)
    assert [check for check in found.values() if check.is_ok is False] == []
    assert found["cluster"].detail == "1 nodes, 8 CPU"
    assert found["ports"].is_ok is None
    assert "metrics ask for none: metrics 10.0.0.1:8080" in found["ports"].detail


def test_a_cluster_without_authentication_is_refused_with_the_remedy_and_nothing_more_is_said_of_it() -> None:
    (check,) = checks_of_report(ClusterReport("10.0.0.1:6379", Access.OPEN))
    assert check.is_ok is False
    assert "10.0.0.1:6379 asks for no token" in check.detail
    assert "start it with RAY_AUTH_MODE=token" in check.detail


def test_on_a_private_machine_it_is_only_told_of() -> None:
    found = checks(
        replace(CLUSTER, address="127.0.0.1:6379", access=Access.OPEN, dashboard={"127.0.0.1:8265": Access.OPEN})
    )
    assert [check for check in found.values() if check.is_ok is False] == []
    assert found["authentication"].is_ok is None


@pytest.mark.parametrize(
    ("report", "name", "said"),
    [
        (replace(CLUSTER, dashboard={"10.0.0.1:8265": Access.OPEN}), "dashboard", "10.0.0.1:8265 asks for no token"),
        (
            replace(CLUSTER, nodes=(replace(NODE, ports={"raylet 10.0.0.1:4000": Access.OPEN}),)),
            "ports",
            "ask for no token: raylet 10.0.0.1:4000",
        ),
        (
            replace(CLUSTER, nodes=(replace(NODE, look=replace(LOOK, versions={**LOOK.versions, "torch": "1.0"})),)),
            "versions",
            "torch 1.0 on 1 of 1 nodes",
        ),
        (
            replace(CLUSTER, nodes=(replace(NODE, look=None, problem="No module named 'alsys'"),)),
            "versions",
            "10.0.0.1: No module named 'alsys'",
        ),
        (
            replace(CLUSTER, nodes=(replace(NODE, look=replace(LOOK, disk=GB)),)),
            "disk of nodes",
            "1 GB free (10.0.0.1)",
        ),
        (replace(CLUSTER, nodes=(), problem="version mismatch"), "cluster", "version mismatch"),
    ],
)
def test_what_a_campaign_cannot_do_with_is_refused(report: ClusterReport, name: str, said: str) -> None:
    check = checks(report)[name]
    assert check.is_ok is False
    assert said in check.detail


def test_a_small_shared_memory_is_told_of() -> None:
    check = checks(replace(CLUSTER, nodes=(replace(NODE, look=replace(LOOK, shared_memory=64 * 2**20)),)))[
        "/dev/shm of nodes"
    ]
    assert check.is_ok is None
    assert "10.0.0.1 0.1 of 4.0 GB" in check.detail
