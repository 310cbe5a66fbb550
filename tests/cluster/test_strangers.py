"""Somebody without a token on the network of a cluster, and clusters that ask for none."""

from __future__ import annotations

import json
import sys
import time

import pytest

from cluster.machines import REPOSITORY, Machine
from cluster.rig import Cluster
from support.strangers import FOR_EVERYBODY, Answers, Listener

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = str(REPOSITORY / "tests/support/strangers.py")
METRICS = {"monitor.py": 44217, "dashboard.py": 44227, "ray::DashboardAgent": 0}
"""Who tells anybody Ray's own counts, by program, and where Ray lets one choose no other port."""
SETTLED_S = 60.0
HEADS = {
    "seen by its own machine": ["--dashboard-host=127.0.0.1"],
    "seen by the network": ["--dashboard-host=0.0.0.0", "--metrics-export-port=8080"],
}
"""How the ways in `alsys launch` start a head: without and with a dashboard that others reach."""


def listening(machine: Machine, cluster: Cluster) -> list[Listener]:
    output = cluster.logs / f"{machine.name}-listening-{time.monotonic()}.txt"
    process = machine.popen([sys.executable, PROGRAM], output)
    assert process.ends(60.0) == 0, process.text()
    return [Listener(**each) for each in json.loads(process.text())]


def settled(machine: Machine, cluster: Cluster) -> list[Listener]:
    """What listens once nothing new has come for some seconds: Ray's agents start after Ray."""
    before: list[Listener] = []
    deadline = time.monotonic() + SETTLED_S
    while (now := listening(machine, cluster)) != before or len(now) < 5:
        assert time.monotonic() < deadline, now
        before = now
        time.sleep(3.0)
    return now


def asked(stranger: Machine, machine: Machine, ports: list[int], cluster: Cluster) -> dict[int, Answers]:
    output = cluster.logs / f"strangers-at-{machine.name}.txt"
    process = stranger.popen([sys.executable, PROGRAM, *(f"{machine.ip}:{port}" for port in ports)], output)
    assert process.ends(300.0) == 0, process.text()
    return {int(target.rpartition(":")[2]): Answers(**each) for target, each in json.loads(process.text()).items()}


@pytest.mark.parametrize("head", HEADS)
def test_a_stranger_gets_metrics_and_nothing_else_at_all_ports_of_a_cluster(cluster: Cluster, head: str) -> None:
    del cluster.environment["RAY_enable_metrics_collection"]
    cluster.head_options = HEADS[head]
    cluster.start("one", cpus=3)
    driver = cluster.head.run("toy.yaml", "stop.labels=100000", "labeling.workers=1")
    driver.has_labels(10)
    stranger = cluster.stranger()
    n_asking = 0
    for node in (cluster.head, cluster["one"]):
        found = settled(node.machine, cluster)
        programs = {each.port: each.program for each in found}
        answers = asked(stranger, node.machine, sorted(programs), cluster)
        for port, answer in answers.items():
            program = programs[port]
            assert set(answer.open_methods) <= set(FOR_EVERYBODY), (program, port, answer)
            if all(each.is_loopback for each in found if each.port == port):
                assert not answer.is_reached, (program, port)
            elif program in METRICS and answer.open_pages and METRICS[program] in (0, port):
                assert set(answer.pages.values()) == {200}, "a server of metrics gives them at any path"
                assert not answer.n_refused
            elif port == 8265:
                assert answer.open_pages == ["/"], "the page that asks for the token"
                assert answer.pages["/api/jobs/"] == 401
            else:
                n_asking += 1
                assert answer.n_refused or 401 in answer.pages.values(), (program, port, answer)
                assert not answer.open_pages, (program, port, answer)
    assert n_asking >= 13, "GCS, client server, driver; raylet, object manager, three agents on each; an actor"
    assert not driver.process.poll()


def test_a_cluster_that_asks_for_no_token_is_refused_and_joined_only_where_that_is_allowed(cluster: Cluster) -> None:
    cluster.environment["RAY_AUTH_MODE"] = "disabled"
    cluster.start("one", cpus=3)
    driver = cluster.head.run("toy.yaml", "stop.labels=10")
    assert driver.process.ends(120.0) == 3, driver.text()
    line = driver.text().splitlines()[-1]
    assert cluster.address in line
    assert "asks for no token" in line
    assert "runtime.allow_unauthenticated" in line
    doctor = cluster.head.alsys("doctor", "--address", cluster.address)
    assert doctor.ends(120.0) == 3, doctor.text()
    (line,) = [line for line in doctor.text().splitlines() if line.startswith("MISSING")]
    assert "asks for no token: whoever reaches it runs any code on it; start it with RAY_AUTH_MODE=token" in line
    driver = cluster.head.run("toy.yaml", "stop.labels=20", "runtime.allow_unauthenticated=true")
    driver.finishes(240.0)
    driver.check(20)
    assert "asks for no token" in (driver.campaign / "logs/campaign.log").read_text()


def test_doctor_tells_of_a_cluster_and_its_nodes(cluster: Cluster) -> None:
    cluster.start("one")
    doctor = cluster.head.alsys("doctor", "--address", cluster.address, "--json")
    assert doctor.ends(240.0) == 0, doctor.text()
    checks = {check["name"]: check for check in json.loads(doctor.text().splitlines()[-1])["checks"]}
    assert checks["authentication"]["is_ok"]
    assert checks["cluster"]["detail"].startswith("2 nodes, 1 CPU")
    assert checks["versions"]["is_ok"]
    assert "6 ask for a token" in checks["ports"]["detail"]
    cluster.node("bare", has_alsys=False).is_up(240.0)
    doctor = cluster.head.alsys("doctor", "--address", cluster.address)
    assert doctor.ends(240.0) == 3, doctor.text()
    (line,) = [line for line in doctor.text().splitlines() if line.startswith("MISSING")]
    assert "No module named 'alsys" in line
