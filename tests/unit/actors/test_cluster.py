"""Addresses of clusters are looked at before Ray is asked to join them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from alsys.actors import cluster
from alsys.config.runtime import RuntimeConfig
from alsys.errors import EnvironmentProblem


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_an_address_at_which_nobody_answers_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, free_port: int, form: str
) -> None:
    address = form.format(free_port)
    monkeypatch.setattr(cluster.ray, "init", lambda **_: pytest.fail("Ray would try for ever"))
    monkeypatch.setattr(cluster, "_prepare_token", lambda **_: None)
    with pytest.raises(EnvironmentProblem, match=r"runtime\.address: nothing answers at .*start Ray there") as caught:
        cluster.connect(RuntimeConfig(address=address), 1.0)
    assert address in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:no", "no-such-host.invalid:6379"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(EnvironmentProblem, match="nothing answers"):
        cluster._check_reachable(address)


def test_an_address_at_which_somebody_answers_is_left_to_ray() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        cluster._check_reachable(f"127.0.0.1:{listener.getsockname()[1]}")
    cluster._check_reachable("auto")


def test_the_usual_folder_is_kept_where_its_name_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: "/tmp")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert cluster.temporary_folder() == "/tmp/ray"


@pytest.mark.parametrize("name", ["x" * 90, "ü" * 40, "scratch/" + "y" * 60])
def test_sockets_go_where_their_names_are_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: f"/tmp/{name}")
    monkeypatch.setattr(cluster, "SHORT_FOLDERS", ("/tmp",))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = cluster.temporary_folder()
    socket_path = f"{folder}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    assert len(os.fsencode(socket_path)) <= 107


def test_where_no_folder_will_do_one_line_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    monkeypatch.setattr(cluster, "SHORT_FOLDERS", ("/proc",))
    with pytest.raises(EnvironmentProblem, match="set RAY_TMPDIR") as caught:
        cluster.temporary_folder()
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.Path, "home", lambda: Path("/proc/nowhere"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "x")  # so that it is restored, whatever the code under test sets
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_token")
def test_a_ray_of_our_own_does_without_a_home() -> None:
    cluster._prepare_token(is_local=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.usefixtures("no_token")
def test_a_cluster_of_others_does_not() -> None:
    with pytest.raises(EnvironmentProblem, match="cannot keep Ray's token"):
        cluster._prepare_token(is_local=False)


def test_a_busy_machine_is_tried_again_and_the_number_of_tries_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[dict[str, object]] = []

    def init(**options: object) -> None:
        tries.append(options)
        if len(tries) < fails_for:
            raise RuntimeError("Timed out waiting for file /tmp/ray/session/gcs_server_port\nand more")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "_prepare_token", lambda **_: None)
    monkeypatch.setattr(cluster, "PAUSE_S", 0.0)
    fails_for = 3
    assert cluster.connect(RuntimeConfig(), 2.0)
    assert len(tries) == 3
    assert tries[0]["_node_ip_address"] == "127.0.0.1"
    assert [r.message for r in caplog.records if "it is tried again" in r.message]
    tries.clear()
    fails_for = 99
    with pytest.raises(EnvironmentProblem, match="tried 3 times: Timed out waiting for file") as caught:
        cluster.connect(RuntimeConfig(), 2.0)
    assert "\n" not in str(caught.value)
    tries.clear()
    with pytest.raises(EnvironmentProblem):
        cluster.connect(RuntimeConfig(), 2.0, lambda: True)
    assert len(tries) == 1, "who is to end does not try again"


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
