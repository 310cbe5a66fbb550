"""Campaigns on nodes with their own disks: they end, with few nodes, late ones, and such that cannot work."""

from __future__ import annotations

import re

import pytest

from alsys.events import Heartbeat, LabelAccepted
from cluster.rig import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_toy(cluster: Cluster) -> None:
    cluster.start("one", "two", "three")
    driver = cluster.head.run("toy.yaml")
    driver.finishes(400.0)
    driver.check(100)


def test_xtb(cluster: Cluster) -> None:
    cluster.start("one", "two", "three")
    driver = cluster.head.run("xtb.yaml", "stop.labels=40", "stop.wall_s=3000", "training.budget_s=6")
    driver.finishes(600.0)
    driver.check(40)


def test_eight_workers_on_four_cpus_say_what_is_missing(cluster: Cluster) -> None:
    cluster.start("one", "two", cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling={kind: analytic, workers: 6, delay_s: 1.5}", "stop.labels=120")
    said = re.compile(r"asked 8, up 4: .*labeler-\d.* \{CPU: 1\}")
    driver.process.until(lambda: said.search(driver.text()), 150.0)
    asked = cluster.head.alsys("status", "campaign")
    assert asked.ends(60.0) == 0
    assert said.search(" ".join(asked.text().split())), asked.text()
    driver.finishes(400.0)
    driver.check(120)
    assert said.search((driver.campaign / "report.html").read_text())


def test_workers_without_a_place_take_that_of_a_node_that_joins_late(cluster: Cluster) -> None:
    cluster.start("one", cpus=2)  # trainer and explorer
    driver = cluster.head.run("toy.yaml")
    driver.process.until(lambda: cluster.names("TrainerActor") and cluster.names("ExplorerActor"), 240.0)
    assert not cluster.names("LabelerActor")
    cluster.node("late", cpus=2)
    driver.finishes(400.0)
    driver.check(100)


def test_a_node_without_alsys_is_avoided_and_said(cluster: Cluster) -> None:
    """It is the emptiest at first, so that Ray prefers it."""
    cluster.start("bare", cpus=4, has_alsys=False)
    cluster.start("one", "two", cpus=2)
    driver = cluster.head.run("toy.yaml")
    driver.finishes(400.0)
    driver.check(100)
    assert "No module named 'alsys" in driver.text()
    assert not driver.quarantined()


def test_a_node_without_alsys_that_joins_late_does_no_harm(cluster: Cluster) -> None:
    cluster.start("one", "two", cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling.workers=4", "labeling.delay_s=1.0", "stop.labels=60")
    driver.has_labels(10)
    cluster.node("bare", cpus=4, has_alsys=False)
    driver.finishes(400.0)
    driver.check(60)
    assert not driver.quarantined()


def test_another_token_is_refused_in_one_line(cluster: Cluster) -> None:
    cluster.start("one")
    (cluster.head.machine.home / ".ray" / "auth_token").write_text("0" * 64)
    driver = cluster.head.run("toy.yaml")
    assert driver.process.ends(240.0) == 3
    assert "auth_token" in driver.text().splitlines()[-1]


def test_labelers_come_while_frames_wait_and_groups_go_where_their_resources_are(cluster: Cluster) -> None:
    cluster.start("one", "two", cpus=2)
    cluster.start("large", cpus=2, resources={"large": 1})
    labeling = (
        "labeling={kind: analytic, workers: 3, min_workers: 1, idle_s: 600, delay_s: 1, "
        "groups: {big: {workers: 1, resources: {large: 1}}}}"
    )
    driver = cluster.head.run("toy.yaml", labeling, "stop.labels=60")
    driver.process.until(lambda: cluster["large"].actors("LabelerActor"), 150.0)
    driver.finishes(300.0)
    driver.check(60)
    events = list(driver.events())
    up = [event.workers["labelers"] for event in events if isinstance(event, Heartbeat)]
    assert max(up) == 4, "two kept, two that came"
    worked = {event.worker for event in events if isinstance(event, LabelAccepted)}
    assert worked == {"labeler-0", "labeler-1", "labeler-2", "labeler-big-0"}
