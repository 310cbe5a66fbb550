"""Campaigns on four nodes with their own disks: they end, whatever is done to the nodes."""

from __future__ import annotations

import pytest

from cluster.rig import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_toy(cluster: Cluster) -> None:
    cluster.start("one", "two", "three")
    driver = cluster.head.run("toy.yaml")
    driver.finishes(120.0)
    driver.check(100)


def test_a_killed_node_costs_its_calls_only(cluster: Cluster) -> None:
    cluster.start("one", "two", "three", cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling.delay_s=0.5")
    driver.has_labels(10)
    victim = next(name for name in ("one", "two", "three") if cluster[name].actors("LabelerActor"))
    cluster[victim].kill()
    driver.finishes(200.0)
    driver.check(100)
    assert not driver.quarantined()
