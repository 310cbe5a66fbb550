"""Whoever has no token at the ports of a Ray: what listens, and what each port lets a stranger do.

A port is open when one of Ray's gRPC methods does anything but ask for a token, or when an HTTP path gives an answer.
As a program (`python strangers.py HOST:PORT ...`) it asks from where it runs and prints JSON; without arguments it
prints what listens on its machine.
"""

from __future__ import annotations

import http.client
import importlib
import json
import pkgutil
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Final

import grpc
import psutil

ANSWER_S: Final = 5.0
PATHS: Final = ("/", "/metrics", "/api/version", "/api/jobs/", "/nodes?view=summary", "/logs", "/get_runtime_envs_info")
MORE_METHODS: Final = (
    "/ray.rpc.ObjectManagerService/Push",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ObjectManagerService/FreeObjects",
)
"""Of services whose definitions Ray's Python package does not have."""
FOR_EVERYBODY: Final = (
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
"""Whether a server is up, and what its services are called: Ray asks nobody for a token for these."""
REFUSED: Final = ("UNAUTHENTICATED", "UNIMPLEMENTED")


@dataclass(frozen=True)
class Listener:
    """A listening socket."""

    host: str
    port: int
    program: str

    @property
    def is_loopback(self) -> bool:
        """Whether only its own machine reaches it."""
        return self.host in ("127.0.0.1", "::1")


@dataclass
class Answers:
    """What a stranger gets at a port.

    Attributes:
        is_reached: Whether a connection is accepted.
        open_methods: gRPC methods that did not ask for a token, with what they answered.
        n_refused: gRPC methods that asked for one.
        pages: Status of each HTTP path that gave an answer.
    """

    is_reached: bool = False
    open_methods: dict[str, str] = field(default_factory=dict)
    n_refused: int = 0
    pages: dict[str, int] = field(default_factory=dict)

    @property
    def open_pages(self) -> list[str]:
        """Paths that were given."""
        return [path for path, status in self.pages.items() if status == http.HTTPStatus.OK]

    @property
    def asks(self) -> bool:
        """Whether it is one of Ray's that asks for a token, and lets strangers do nothing."""
        is_asking = self.n_refused > 0 or http.HTTPStatus.UNAUTHORIZED in self.pages.values()
        return is_asking and not self.open_methods and not self.open_pages


def listeners(processes: Iterable[psutil.Process]) -> list[Listener]:
    """TCP sockets at which processes listen."""
    found = []
    for process in processes:
        try:
            connections, words = process.net_connections("tcp"), process.cmdline()
        except psutil.Error:
            continue  # it has ended
        scripts = [word.rpartition("/")[2] for word in words if word.endswith(".py")]
        program = scripts[0] if scripts else (words or [""])[0].rpartition("/")[2]
        found += [
            Listener(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port, program)
            for c in connections
            if c.status == psutil.CONN_LISTEN
        ]
    return sorted(set(found), key=lambda each: (each.port, each.host))


@cache
def methods() -> list[str]:
    """All gRPC methods of Ray, `/service/method`."""
    import ray.core.generated as generated

    found = [*MORE_METHODS, *FOR_EVERYBODY]
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            services = importlib.import_module(f"{generated.__name__}.{module.name}").DESCRIPTOR.services_by_name
            found += [f"/{each.full_name}/{method.name}" for each in services.values() for method in each.methods]
    return found


def ask(host: str, port: int) -> Answers:
    """What a stranger gets there; each gRPC method is sent an empty message."""
    answers = Answers()
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except OSError:
        return answers
    answers.is_reached = True
    for path in PATHS:
        if status := _status(host, port, path):
            answers.pages[path] = status
    if not answers.pages:
        _ask_by_grpc(f"{host}:{port}", answers)
    return answers


def _status(host: str, port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _ask_by_grpc(target: str, answers: Answers) -> None:
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        except grpc.FutureTimeoutError:
            return
        for method in methods():
            call: Any = channel.unary_unary(method)
            try:
                call(b"", timeout=ANSWER_S)
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
            if code == "UNAUTHENTICATED":
                answers.n_refused += 1
            elif code not in REFUSED:
                answers.open_methods[method] = code


def main(targets: Sequence[str]) -> None:
    """Asks at `host:port`s, or says what listens here."""
    if not targets:
        sys.stdout.write(json.dumps([asdict(each) for each in listeners(psutil.process_iter())]))
        return
    found = {}
    for target in targets:
        host, _, port = target.rpartition(":")
        found[target] = asdict(ask(host, int(port)))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
