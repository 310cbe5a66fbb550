"""A Ray that is silent is told, and the next one is asked afresh."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from alsys.actors.cluster import Cluster
from alsys.config.runtime import RuntimeConfig


def test_a_ray_that_is_silent_is_told_and_the_next_one_is_asked_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question to the Ray that is gone hangs for ever."""
    now = 0.0
    release = threading.Event()

    def hangs() -> list[dict[str, Any]]:
        release.wait(60.0)
        return []

    def node(is_alive: bool) -> list[dict[str, Any]]:
        return [{"NodeID": "n0", "Alive": is_alive, "Resources": {"CPU": 2.0}}]

    answers: list[Callable[[], list[dict[str, Any]]]] = [hangs]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n0"))
    monkeypatch.setattr(ray, "nodes", lambda: answers[-1]())

    async def run() -> None:
        nonlocal now
        cluster = Cluster(RuntimeConfig(address="auto", ray_timeout_s=20), 1.0, lambda: now)
        await cluster.start()
        for _ in range(20):
            now += 1.0
            assert cluster.failure() is None
        now += 1.0
        assert cluster.failure() == "Ray has not answered for 21 s"
        answers.append(lambda: node(is_alive=True))
        await cluster.renew()
        for _ in range(60):
            now += 1.0
            assert cluster.failure() is None
            await asyncio.sleep(0.01)
        assert cluster.resources() == [{"CPU": 2.0}]
        answers.append(lambda: node(is_alive=False))
        now += 6.0
        cluster.failure()
        await asyncio.sleep(0.1)
        assert cluster.failure() == "the node of this process is dead to Ray"
        release.set()
        await cluster.stop()

    asyncio.run(run())
