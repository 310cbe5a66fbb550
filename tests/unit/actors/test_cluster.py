"""A Ray that is silent is told, and the next one is asked afresh."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

import pytest

from alsys.actors import cluster
from alsys.config.runtime import RuntimeConfig


def test_a_ray_that_is_silent_is_told_and_the_next_one_is_asked_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question to the Ray that is gone hangs for ever."""
    now = 0.0
    release = threading.Event()
    answers: list[Callable[[], tuple[str, list[Mapping[str, float]]]]] = [lambda: (str(release.wait(60.0)), [])]

    def ask() -> tuple[str, list[Mapping[str, float]]]:
        return answers[-1]()

    monkeypatch.setattr(cluster, "_ask", ask)
    monkeypatch.setattr(cluster, "connect", lambda *_: True)
    monkeypatch.setattr(cluster, "_node_processes", dict)
    monkeypatch.setattr(cluster.Cluster, "_children", lambda _: [])
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)

    async def run() -> None:
        nonlocal now
        ray = cluster.Cluster(RuntimeConfig(ray_timeout_s=20), 1.0, lambda: now)
        await ray.start()
        for _ in range(20):
            now += 1.0
            assert ray.failure() is None
        now += 1.0
        assert ray.failure() == "Ray has not answered for 21 s"
        answers.append(lambda: ("", [{"CPU": 2.0}]))
        await ray.renew()
        for _ in range(60):
            now += 1.0
            assert ray.failure() is None
            await asyncio.sleep(0.01)
        assert ray.resources() == [{"CPU": 2.0}]
        answers.append(lambda: ("the node of this process is dead to Ray", []))
        now += 6.0
        ray.failure()
        await asyncio.sleep(0.1)
        assert ray.failure() == "the node of this process is dead to Ray"
        release.set()
        await ray.stop()

    asyncio.run(run())
