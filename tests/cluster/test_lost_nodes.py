"""Nodes are killed, drained, ended, cut off: a campaign ends, no frame is blamed, no label lost."""

from __future__ import annotations

import json
import random
import re
import time

import pytest

from alsys.errors import FailureKind
from alsys.events import LabelAccepted, LabelFailed, WorkerLost
from cluster.rig import Cluster, Driver

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

NODES = ("one", "two", "three")


def campaign(cluster: Cluster, *settings: str, n_labels: int = 60) -> Driver:
    """Three nodes of two CPUs, on which four workers have room when one is lost."""
    cluster.start(*NODES, cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling.delay_s=0.5", f"stop.labels={n_labels}", *settings)
    driver.has_labels(10)
    return driver


def ends_well(driver: Driver, n_labels: int = 60, timeout_s: float = 400.0) -> None:
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
    failed = [event for event in driver.events() if isinstance(event, LabelFailed)]
    assert not failed, "a label was begun there that could not end"
    lost = {event.failure for event in driver.events() if isinstance(event, WorkerLost)}
    assert lost <= {FailureKind.WORKER_PREEMPTED}


def test_a_node_that_is_told_to_end(cluster: Cluster) -> None:
    driver = campaign(cluster)
    cluster[cluster.names("LabelerActor")[0]].terminate()
    ends_well(driver)


def test_a_node_whose_cable_is_out(cluster: Cluster) -> None:
    """No connection ends: Ray has to miss it."""
    driver = campaign(cluster, n_labels=150)
    cluster[cluster.names("LabelerActor")[0]].machine.unplug()
    ends_well(driver, 150)


def test_both_labelers_nodes_are_lost_twice_with_the_same_frames(cluster: Cluster) -> None:
    """There are no others yet: two workers died over each frame, and none is to blame."""
    cluster.start("main", cpus=2, resources={"rest": 2})
    cluster.start("left", "right", resources={"labels": 1})
    settings = (
        "labeling={kind: analytic, workers: 2, delay_s: 5, resources: {labels: 1}, quality: {reference_every: 0}}",
        "initial={method: rattle, frames: 2, stdev: 0.04}",
        "training={first_at: 2, refit_every: 10, validation_share: 0, resources: {rest: 1}}",
        "exploration.resources={rest: 1}",
        "selection.random_share=0.1",
        "stop.labels=20",
    )
    driver = cluster.head.run("toy.yaml", *settings)
    for _ in range(2):
        driver.process.until(lambda: cluster.names("LabelerActor.run") == ["left", "right"], 240.0)
        for name in ("left", "right"):
            cluster[name].kill()
        for name in ("left", "right"):
            cluster.node(name, resources={"labels": 1})
        assert not driver.n_labels()
    ends_well(driver, 20)


def test_idle_workers_are_missed_before_they_are_needed(cluster: Cluster) -> None:
    """The trainer has nothing to do before forty frames have been labelled."""
    settings = ("initial={method: rattle, frames: 40, stdev: 0.04}", "training.first_at=30", "labeling.delay_s=2")
    driver = campaign(cluster, *settings, n_labels=60)
    cluster[cluster.names("TrainerActor")[0]].kill()
    ends_well(driver)
    events = list(driver.events())
    lost = [i for i, event in enumerate(events) if isinstance(event, WorkerLost) and event.worker == "trainer-0"]
    assert lost
    labels = sum(isinstance(event, LabelAccepted) for event in events[: lost[0]])
    assert labels < 40, "it was missed when a fit was due"


def test_half_of_the_nodes_are_killed_every_minute(cluster: Cluster) -> None:
    rng = random.Random(3)
    names = ["one", "two", "three", "four"]
    cluster.start(*names, cpus=2)
    driver = cluster.head.run("toy.yaml", "labeling={kind: analytic, workers: 4, delay_s: 2}", "stop.labels=300")
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
    ends_well(driver, 300, timeout_s=600.0)
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
