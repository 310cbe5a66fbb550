"""Addresses of clusters are looked at before Ray is asked to join them."""

from __future__ import annotations

import socket

import pytest

from alsys.actors import cluster
from alsys.config.schema import RuntimeConfig
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
