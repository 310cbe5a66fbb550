"""A Ray that is silent is told, and the next one is asked afresh."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
import ray

from alsys.actors.cluster import Cluster
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
