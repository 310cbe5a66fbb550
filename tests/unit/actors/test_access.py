"""Whether a port asks for a token, and what follows for a driver."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from alsys.actors import access
from alsys.actors.access import Access, access_by_http, access_of_cluster, check_access, is_loopback, take_mode
from alsys.errors import EnvironmentProblem


class Answers(grpc.GenericRpcHandler):
    """All methods end with one status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def service(self, handler_call_details: Any) -> Any:
        def answer(_: bytes, context: Any) -> bytes:
            if self._code is not grpc.StatusCode.OK:
                context.abort(self._code, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def grpc_server(code: grpc.StatusCode) -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Answers(code)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Access.REFUSED),
        (grpc.StatusCode.OK, Access.OPEN),
        (grpc.StatusCode.INVALID_ARGUMENT, Access.OPEN),
        (grpc.StatusCode.UNIMPLEMENTED, Access.UNKNOWN),
    ],
)
def test_what_a_cluster_answers_to_somebody_without_a_token(form: str, code: grpc.StatusCode, expected: Access) -> None:
    with grpc_server(code) as address:
        assert access_of_cluster(form.format(address)) is expected


def test_what_is_no_ray_is_not_known_to_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ANSWER_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert access_of_cluster(f"127.0.0.1:{silent.getsockname()[1]}") is Access.UNKNOWN


@pytest.mark.parametrize(("status", "expected"), [(401, Access.REFUSED), (200, Access.OPEN), (404, Access.OPEN)])
def test_what_a_page_answers_to_somebody_without_a_token(status: int, expected: Access) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server asks for
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert access_by_http("127.0.0.1", server.server_port) is expected
        server.shutdown()


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "[2001:db8::1]:6379", "ray://10.0.0.1:10001"])
def test_an_open_cluster_that_others_reach_is_refused(address: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"asks for no token.*start it with RAY_AUTH_MODE=token") as caught:
        check_access(address, ask=lambda _: Access.OPEN)
    assert address in str(caught.value)
    assert check_access(address, is_allowed=True, ask=lambda _: Access.OPEN) is Access.OPEN


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379", "ray://127.0.0.1:10001"])
def test_an_open_cluster_that_this_machine_alone_reaches_will_do(address: str) -> None:
    assert is_loopback(address)
    assert check_access(address, ask=lambda _: Access.OPEN) is Access.OPEN


@pytest.mark.parametrize("found", [Access.REFUSED, Access.UNKNOWN])
def test_a_cluster_that_asks_or_speaks_tls_is_left_to_ray(found: Access) -> None:
    assert check_access("10.0.0.1:6379", ask=lambda _: found) is found


def test_ray_in_this_process_asks_where_the_other_side_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(access, "GIVEN_MODE", "token")
    try:
        take_mode(Access.OPEN)
        assert os.environ["RAY_AUTH_MODE"] == "disabled", "workers get it from here"
        assert not is_token_auth_enabled()
    finally:
        take_mode(Access.REFUSED)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert is_token_auth_enabled()
