"""How Ray is started or joined: addresses, the folder of its sockets, its token, a busy machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from alsys.actors import ray_start
from alsys.actors.access import check_reachable
from alsys.actors.cluster_check import look_at_cluster
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
    monkeypatch.setattr(ray_start.ray, "init", lambda **_: pytest.fail("Ray would try for ever"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    with pytest.raises(EnvironmentProblem, match=r"runtime\.address: nothing answers at .*start Ray there") as caught:
        ray_start.connect(RuntimeConfig(address=address), {"CPU": 1.0}, {"CPU": 1.0})
    assert address in str(caught.value)


def test_a_ray_that_auto_finds_and_nobody_answers_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr(ray_start.ray, "init", lambda **_: pytest.fail("Ray would try for ever"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port}")
    with pytest.raises(EnvironmentProblem, match=f"nothing answers at '.*:{free_port}'"):
        ray_start.connect(RuntimeConfig(address="auto"), {"CPU": 1.0}, {"CPU": 1.0})
    for address in ("auto", f"127.0.0.1:{free_port}"):
        with pytest.raises(EnvironmentProblem, match="nothing answers"):
            look_at_cluster(address)  # of `alsys doctor`


@pytest.mark.parametrize("address", ["127.0.0.1:no", "no-such-host.invalid:6379"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(EnvironmentProblem, match="nothing answers"):
        check_reachable(address)


def test_local_is_a_ray_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALSYS_RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    given: dict[str, object] = {}
    monkeypatch.setattr(ray_start.ray, "init", lambda **options: given.update(options))
    ray_start.connect(RuntimeConfig(address="local"), {"CPU": 1.0}, {"CPU": 1.0})
    assert given["_node_ip_address"] == "127.0.0.1"


def test_an_address_at_which_somebody_answers_is_left_to_ray() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        check_reachable(f"127.0.0.1:{listener.getsockname()[1]}")
    check_reachable("auto")


def test_the_usual_folder_is_kept_where_its_name_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start.tempfile, "gettempdir", lambda: "/tmp")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert ray_start.temporary_folder() == "/tmp/ray"


@pytest.mark.parametrize("name", ["x" * 90, "ü" * 40, "scratch/" + "y" * 60])
def test_sockets_go_where_their_names_are_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ray_start.tempfile, "gettempdir", lambda: f"/tmp/{name}")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = ray_start.temporary_folder(("/tmp",))
    socket_path = f"{folder}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    assert len(os.fsencode(socket_path)) <= 107


def test_where_no_folder_will_do_one_line_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(EnvironmentProblem, match="set RAY_TMPDIR") as caught:
        ray_start.temporary_folder(("/proc",))
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start.Path, "home", lambda: Path("/proc/nowhere"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "x")  # so that it is restored, whatever the code under test sets
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_token")
def test_a_ray_of_our_own_does_without_a_home() -> None:
    ray_start.prepare_token(is_local=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.usefixtures("no_token")
def test_a_cluster_of_others_does_not() -> None:
    with pytest.raises(EnvironmentProblem, match="cannot keep Ray's token"):
        ray_start.prepare_token(is_local=False)


def test_a_busy_machine_is_tried_again_and_the_number_of_tries_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[dict[str, object]] = []

    def init(**options: object) -> None:
        tries.append(options)
        if len(tries) < fails_for:
            raise RuntimeError("Timed out waiting for file /tmp/ray/session/gcs_server_port\nand more")

    monkeypatch.setattr(ray_start.ray, "init", init)
    monkeypatch.setattr(ray_start.ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setattr(ray_start.time, "sleep", lambda _: None)
    fails_for = 3
    assert ray_start.connect(RuntimeConfig(), {"CPU": 2.0}, {"CPU": 2.0})
    assert len(tries) == 3
    assert tries[0]["_node_ip_address"] == "127.0.0.1"
    assert tries[0]["address"] == "local", "and not another Ray of this machine"
    assert [r.message for r in caplog.records if "it is tried again" in r.message]
    tries.clear()
    fails_for = 99
    with pytest.raises(EnvironmentProblem, match="tried 3 times: Timed out waiting for file") as caught:
        ray_start.connect(RuntimeConfig(), {"CPU": 2.0}, {"CPU": 2.0})
    assert "\n" not in str(caught.value)
    tries.clear()
    with pytest.raises(EnvironmentProblem):
        ray_start.connect(RuntimeConfig(), {"CPU": 2.0}, {"CPU": 2.0}, lambda: True)
    assert len(tries) == 1, "who is to end does not try again"


def test_more_memory_than_this_machine_has_is_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start.ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.delenv("ALSYS_RAY_ADDRESS", raising=False)
    asked = {"CPU": 3.0, "memory": 1e6 * ray_start.psutil.virtual_memory().total}
    with pytest.raises(EnvironmentProblem, match=r"\(ray_memory_mb\), this machine has \d+; ask for less"):
        ray_start.connect(RuntimeConfig(), asked, asked)


def test_memory_of_all_workers_is_no_more_than_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(ray_start.ray, "init", lambda **options: given.update(options))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.delenv("ALSYS_RAY_ADDRESS", raising=False)
    ray_start.connect(RuntimeConfig(), {"memory": 3e14}, {"memory": 1e6})
    assert given["_memory"] == 10**14


def test_a_port_for_metrics_that_is_taken_is_left(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    runtime = RuntimeConfig(metrics_port=free_port)
    assert ray_start._free_metrics_port(runtime) == free_port
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port))
        listener.listen()
        assert ray_start._free_metrics_port(runtime) is None
    assert f"runtime.metrics_port {free_port}: Address already in use; another one is taken" in caplog.text


def test_metrics_are_collected_where_somebody_may_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALSYS_RAY_ADDRESS", raising=False)
    assert not ray_start.has_metrics(RuntimeConfig())
    assert ray_start.has_metrics(RuntimeConfig(metrics_port=9400))
    assert ray_start.has_metrics(RuntimeConfig(address="auto"))


def test_a_full_folder_of_ray_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_start, "temporary_folder", lambda: str(tmp_path))
    assert ray_start.full_folder(least=1) == ""
    assert ray_start.full_folder(least=2**62).startswith(f"; {tmp_path} has ")
    monkeypatch.setattr(ray_start, "temporary_folder", lambda: str(tmp_path / "gone"))
    assert ray_start.full_folder(least=2**62) == ""
