"""Nodes are killed, drained, ended, cut off: a campaign ends, no frame is blamed, no label lost."""

from __future__ import annotations

import json
import random
import re
import time

import psutil
import pytest

from alsys.events import TrainingStarted, WorkerLost
from cluster.rig import Cluster, Driver

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

NODES = ("one", "two", "three")


def campaign(cluster: Cluster, *settings: str, n_labels: int = 60) -> Driver:
    """Three nodes of two CPUs, on which four workers have room when one is lost."""
    cluster.start(*NODES, cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling.delay_s=0.5", f"stop.labels={n_labels}", *settings)
    driver.has_labels(10)
    return driver


def ends_well(driver: Driver, n_labels: int = 60, timeout_s: float = 240.0) -> None:
    driver.finishes(timeout_s)
    driver.check(n_labels)
    assert not driver.quarantined()


@pytest.mark.parametrize("role", ["Labeler", "Trainer", "Explorer"])
def test_a_node_that_is_killed(cluster: Cluster, role: str) -> None:
    driver = campaign(cluster)
    cluster[cluster.names(f"{role}Actor")[0]].kill()
    ends_well(driver)
    assert any(isinstance(event, WorkerLost) for event in driver.events())


def test_a_node_that_is_drained(cluster: Cluster) -> None:
    """It gets no work after its notice, which is not held against workers or frames, and is gone at the deadline."""
    driver = campaign(cluster, n_labels=100)
    name = cluster.names("LabelerActor")[0]
    cluster[name].drain(20.0)
    time.sleep(20.0)
    cluster[name].kill()
    ends_well(driver, 100)


def test_a_node_that_is_told_to_end(cluster: Cluster) -> None:
    driver = campaign(cluster)
    cluster[cluster.names("LabelerActor")[0]].terminate()
    ends_well(driver)


def test_a_node_whose_cable_is_out(cluster: Cluster) -> None:
    """No connection ends: Ray has to miss it."""
    driver = campaign(cluster, n_labels=150)
    cluster[cluster.names("LabelerActor")[0]].machine.unplug()
    ends_well(driver, 150, timeout_s=400.0)


def test_both_labelers_nodes_are_lost_twice(cluster: Cluster) -> None:
    cluster.start("main", cpus=2)
    cluster.start("left", "right", resources={"labels": 1})
    delayed = "labeling={kind: analytic, workers: 2, delay_s: 4, resources: {labels: 1}}"
    driver = cluster.head.run("toy.yaml", delayed, "stop.labels=30")
    for n in (4, 8):
        driver.has_labels(n, 200.0)
        for name in ("left", "right"):
            cluster[name].kill()
        for name in ("left", "right"):
            cluster.node(name, resources={"labels": 1})
    ends_well(driver, 30, timeout_s=400.0)


def test_idle_workers_are_missed_before_they_are_needed(cluster: Cluster) -> None:
    driver = campaign(cluster, "training.first_at=80", "labeling.delay_s=1.0", n_labels=110)
    cluster[cluster.names("TrainerActor")[0]].kill()
    ends_well(driver, 110, timeout_s=400.0)
    events = list(driver.events())
    lost = [i for i, event in enumerate(events) if isinstance(event, WorkerLost) and event.worker == "trainer-0"]
    fits = [i for i, event in enumerate(events) if isinstance(event, TrainingStarted)]
    assert lost
    assert lost[0] < fits[0], "it was missed when a fit was due"


def test_an_unfinished_fit_goes_on_elsewhere(cluster: Cluster) -> None:
    """What the killed node had fitted is not fitted again: a part of it at least came along."""
    cluster.start(*NODES, cpus=2)
    settings = ("stop.labels=30", "stop.wall_s=600", "training.budget_s=60")
    driver = cluster.head.run("xtb.yaml", *settings)

    def spent_s(actors: list[psutil.Process]) -> float:
        times = [process.cpu_times() for actor in actors for process in (actor, *actor.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    driver.process.until(lambda: cluster.names("TrainerActor"), 120.0)
    node = cluster[cluster.names("TrainerActor")[0]]
    driver.has_labels(12)
    before_s = spent_s(node.actors("TrainerActor"))
    driver.process.until(lambda: spent_s(node.actors("TrainerActor")) > before_s + 45.0, 300.0)
    node.kill()
    driver.finishes(600.0)
    driver.check(30)
    assert not driver.quarantined()
    card = json.loads((driver.campaign / "models/v0001/card.json").read_text())
    assert card["metrics"]["resumed_s"] > 15.0


def test_half_of_the_nodes_are_killed_every_minute(cluster: Cluster) -> None:
    rng = random.Random(3)
    names = ["one", "two", "three", "four"]
    cluster.start(*names, cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling={kind: analytic, workers: 4, delay_s: 2}", "stop.labels=160")
    driver.has_labels(5)
    kills = 0
    while driver.process.poll() is None and kills < 8:
        victims = rng.sample(names, 2)
        for name in victims:
            cluster[name].kill()
        kills += 1
        for name in victims:
            cluster.node(name, cpus=2)
        next_at = time.monotonic() + 60.0
        while driver.process.poll() is None and time.monotonic() < next_at:
            time.sleep(0.5)
    ends_well(driver, 160)
    assert kills >= 3
    asked = cluster.head.alsys("status", "campaign", "--json")
    assert asked.ends(60.0) == 0
    assert json.loads(asked.text())["lost_work_s"] > 0.0
    assert re.search(r"^made: .*workers lost, and \d+ s of work", driver.text(), re.MULTILINE)


@pytest.mark.parametrize("is_machine_lost", [False, True])
def test_a_killed_driver_is_resumed_on_another_node(cluster: Cluster, is_machine_lost: bool) -> None:
    cluster.start(*NODES, cpus=2)
    settings = ("labeling.delay_s=0.5", "stop.labels=60")
    driver = cluster["one"].run("toy.yaml", *settings, directory="/shared/campaign")
    driver.has_labels(20)
    if is_machine_lost:
        cluster["one"].kill()
    else:
        driver.kill()
    again = cluster["two"].run("toy.yaml", *settings, directory="/shared/campaign")
    ends_well(again)
