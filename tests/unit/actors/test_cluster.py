"""A Ray that is silent is told, and the next one is asked afresh."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import ray

from alsys.actors import ray_start
from alsys.actors.access import Access
from alsys.actors.cluster import Cluster, told_apart
from alsys.actors.nodes import Look, Node
from alsys.config.runtime import RuntimeConfig


def test_a_ray_that_is_silent_is_told_and_the_next_one_is_asked_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question to the Ray that is gone hangs for ever."""
    now = 0.0
    release = threading.Event()

    def hangs(now: float) -> Look:
        release.wait(60.0)
        return Look(now)

    nodes = {"n0": Node("10.0.0.1", {"CPU": 2.0})}
    answers: list[Callable[[float], Look]] = [hangs]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_start, "found_address", str)
    monkeypatch.setattr(ray_start, "check_access", lambda *_, **__: Access.REFUSED)

    async def run() -> None:
        nonlocal now
        cluster = Cluster(
            RuntimeConfig(address="auto", ray_timeout_s=20),
            {"CPU": 1.0},
            {"CPU": 1.0},
            lambda: now,
            lambda t, *_: answers[-1](t),
        )
        await cluster.start()
        for _ in range(20):
            now += 1.0
            assert cluster.failure() is None
        now += 1.0
        assert cluster.failure() == "Ray has not answered for 21 s"
        answers.append(lambda t: Look(t, nodes))
        await cluster.renew()
        for _ in range(60):
            now += 1.0
            assert cluster.failure() is None
            await asyncio.sleep(0.01)
        assert cluster.look().nodes == nodes
        answers.append(lambda t: Look(t, nodes, problem="the node of this process is dead to Ray"))
        now += 6.0
        cluster.failure()
        await asyncio.sleep(0.1)
        assert cluster.failure() == "the node of this process is dead to Ray"
        release.set()
        await cluster.stop()

    asyncio.run(run())


def test_where_workers_were_is_not_forgotten_with_the_next_answer() -> None:
    """Two answers may come between two looks of the pool."""
    now = 0.0
    cluster = Cluster(
        RuntimeConfig(address="auto"),
        {},
        {},
        lambda: now,
        lambda t, _, about: Look(t, places=dict.fromkeys(about, "n0")),
    )
    cluster.is_up = True

    def asked(*names: str) -> None:
        nonlocal now
        for name in names:
            cluster.ask_about(name)
        for _ in range(3):
            now += 0.1
            assert cluster.failure() is None
            time.sleep(0.05)

    asked("labeler-0")
    asked("labeler-1")
    assert cluster.look().places == {"labeler-0": "n0", "labeler-1": "n0"}


NO_INTERPRETER = """
import asyncio
from alsys.actors.cluster import Cluster
from alsys.actors.placement import WorkerSpec
from alsys.config.runtime import RuntimeConfig
from alsys.control.ports import Role

SPECS = {
    "hangs": WorkerSpec(Role.LABELER, dict, cpus=1.5, memory_mb=100, python="/no/such/python"),
    "waits": WorkerSpec(Role.LABELER, dict, cpus=0.75, memory_mb=64),
}

async def main():
    cluster = Cluster(RuntimeConfig(num_cpus=2), {"CPU": 2.0}, {"CPU": 1.0})
    await cluster.start()
    actors = [cluster.start_actor(name, spec, []) for name, spec in SPECS.items()]
    for _ in range(60):
        await asyncio.sleep(0.5)
        assert cluster.failure() is None
        if cluster.look().unplaced == {"waits"}:
            break
    print(sorted(cluster.look().unplaced), len(actors), flush=True)
    await cluster.stop()

asyncio.run(main())
"""


@pytest.mark.ray
def test_a_worker_whose_interpreter_is_missing_does_not_look_as_if_it_waited_for_a_place() -> None:
    """On a real Ray, which reserves its CPUs and tries to start its process for ever."""
    done = subprocess.run(
        [sys.executable, "-c", NO_INTERPRETER], capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.splitlines()[-1] == "['waits'] 2"


@pytest.mark.parametrize(
    ("queued", "unplaced", "hanging"),
    [
        ([], {"a", "b", "c"}, set()),  # Ray has not told yet
        ([({"CPU": 1.0}, 0), ({"CPU": 2.0}, 1)], {"c"}, set()),
        ([({"CPU": 1.0}, 1), ({"CPU": 2.0}, 1)], {"a", "b", "c"}, {"a", "b"}),
        ([({"CPU": 1.0}, 7), ({"CPU": 2.0}, 3)], {"a", "b", "c"}, set()),  # others wait too
    ],
)
def test_who_has_a_place_and_no_process_is_told_from_those_that_wait(
    queued: list[tuple[dict[str, float], int]], unplaced: set[str], hanging: set[str]
) -> None:
    lacking = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}, "c": {"CPU": 2.0}}
    assert told_apart(lacking, queued) == (unplaced, hanging)
