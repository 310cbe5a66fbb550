"""Notices of clouds, from loopback servers that speak each dialect as it is documented."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alsys.actors import notices
from alsys.actors.notices import GCP_S, Aws, Azure, Gcp, Notice, Notices, Source
from alsys.actors.watch_node import watch
from alsys.errors import EnvironmentProblem

NOW = 1_505_722_800.0  # 2017-09-18T08:20:00Z
SECRET = "a-token=="
AWS_NOTICE = json.dumps({"action": "terminate", "time": "2017-09-18T08:22:00Z"})
PREEMPT = {
    "EventId": "C7061BAC",
    "EventType": "Preempt",
    "ResourceType": "VirtualMachine",
    "Resources": ["labeler_3"],
    "EventStatus": "Scheduled",
    "NotBefore": "Mon, 18 Sep 2017 08:20:30 GMT",
}
GARBAGE = (
    "",
    "TRUE?",
    "true",
    "null",
    "[]",
    "7",
    "<html>log in</html>",
    '{"action": "terminate"}',
    '{"action": "terminate", "time": "soon"}',
    '{"action": "terminate", "time": 7}',
    '{"action": "none", "time": "2017-09-18T08:22:00Z"}',
    '{"action": ["stop"], "time": "2017-09-18T08:22:00Z"}',
    '{"Events": 7}',
    '{"Events": [7, {"EventType": "Preempt"}]}',
    "[" * 50_000,
    "\x00\xff",
)


@dataclass
class Answers:
    """What the servers say: a body, or a status for none."""

    aws: str | int = 404
    gcp: str | int = "FALSE"
    azure: str | int = '{"DocumentIncarnation": 1, "Events": []}'
    clouds: tuple[str, ...] = ("aws", "gcp", "azure")
    asked: list[str] = field(default_factory=list)

    def to(self, method: str, path: str, headers: Any) -> str | int:
        self.asked.append(path)
        if path == "/latest/api/token" and "aws" in self.clouds:
            return SECRET if method == "PUT" and headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400
        if path.startswith("/latest/meta-data/") and "aws" in self.clouds:
            if headers["X-aws-ec2-metadata-token"] != SECRET:
                return 401
            return "i-1234567898abcdef0" if path.endswith("/instance-id") else self.aws
        if path.startswith("/computeMetadata/v1/") and "gcp" in self.clouds:
            return self.gcp if headers["Metadata-Flavor"] == "Google" else 403
        if path.startswith("/metadata/") and "azure" in self.clouds:
            if headers["Metadata"] != "true":
                return 400
            return self.azure if "/scheduledevents?api-version=2020-07-01" in path else '{"name": "labeler_3"}'
        return 404


def served(answer: Callable[[str, str, Any], str | int]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = answer(self.command, self.path, self.headers)
            body = told.encode("latin-1") if isinstance(told, str) else b"no such thing"
            self.send_response(told if isinstance(told, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    return server


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def base(answers: Answers) -> Iterator[str]:
    server = served(answers.to)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def sources(base: str) -> list[Source]:
    return [Aws(base, lambda: NOW), Gcp(base), Azure(base, lambda: NOW)]


def test_no_notice(base: str) -> None:
    assert all(source.is_there() for source in sources(base))
    assert [source.notice() for source in sources(base)] == [None, None, None]


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_aws(base: str, answers: Answers, action: str) -> None:
    answers.aws = AWS_NOTICE.replace("terminate", action)
    assert Aws(base, lambda: NOW).notice() == Notice(f"AWS: {action} at 2017-09-18T08:22:00Z", 120.0)
    assert Aws(base, lambda: NOW + 500.0).notice() == Notice(f"AWS: {action} at 2017-09-18T08:22:00Z", 0.0)


def test_gcp(base: str, answers: Answers) -> None:
    answers.gcp = "TRUE\n"
    assert Gcp(base).notice() == Notice("GCP: preempted", GCP_S)


@pytest.mark.parametrize("event", ["Preempt", "Terminate"])
def test_azure(base: str, answers: Answers, event: str) -> None:
    answers.azure = json.dumps({"Events": [{**PREEMPT, "EventType": event}]})
    assert Azure(base, lambda: NOW).notice() == Notice(f"Azure: {event} at {PREEMPT['NotBefore']}", 30.0)


def test_azure_event_that_has_begun(base: str, answers: Answers) -> None:
    answers.azure = json.dumps({"Events": [{**PREEMPT, "EventStatus": "Started", "NotBefore": ""}]})
    assert Azure(base, lambda: NOW).notice() == Notice("Azure: Preempt", 0.0)


@pytest.mark.parametrize(
    "other", [{"EventType": "Reboot"}, {"EventType": "Freeze"}, {"Resources": ["labeler_33"]}, {"Resources": None}]
)
def test_azure_events_that_do_not_end_this_machine(base: str, answers: Answers, other: dict[str, Any]) -> None:
    """Machines of a scale set see each other's."""
    answers.azure = json.dumps({"Events": [{**PREEMPT, **other}]})
    assert Azure(base, lambda: NOW).notice() is None


@pytest.mark.parametrize("status", [301, 401, 429, 500, 503])
def test_a_service_that_refuses(base: str, answers: Answers, status: int) -> None:
    answers.aws = answers.gcp = answers.azure = status
    assert [source.notice() for source in sources(base)] == [None, None, None]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_no_notice(base: str, answers: Answers, text: str) -> None:
    answers.aws = answers.gcp = answers.azure = text
    assert [source.notice() for source in sources(base)] == [None, None, None]


@pytest.mark.parametrize("text", [*GARBAGE, AWS_NOTICE, "two\r\nlines"])
def test_a_server_that_says_the_same_to_everything(text: str) -> None:
    """As the page of a network that asks for a login does."""
    server = served(lambda *_: text)
    base = f"http://127.0.0.1:{server.server_address[1]}"
    assert not any(source.is_there() for source in sources(base))
    assert Notices(sources(base)).look() is None
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nTR"])
def test_no_http_at_all(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(says)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert [source.notice() for source in sources(base)] == [None, None, None]
        assert not any(source.is_there() for source in sources(base))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts, nobody answers
        base = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert [source.notice() for source in sources(base)] == [None, None, None]
        assert Notices(sources(base)).look() is None


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        base = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert [source.notice() for source in sources(base)] == [None, None, None]
    assert Notices(sources(base)).look() is None


def test_nothing_is_asked_through_a_proxy(base: str, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answers.gcp = "TRUE"
    assert Gcp(base).notice() is not None


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_the_cloud_that_answers_is_asked_from_then_on(base: str, answers: Answers, cloud: str) -> None:
    answers.clouds = ()
    looked = Notices(sources(base))
    assert looked.look() is None
    answers.clouds = (cloud,)  # a service that is not up yet is found later
    assert looked.look() is None
    assert looked.source is not None
    assert looked.source.name == cloud
    answers.asked.clear()
    answers.clouds = ("aws", "gcp", "azure")
    answers.aws, answers.gcp, answers.azure = AWS_NOTICE, "TRUE", json.dumps({"Events": [PREEMPT]})
    told = looked.look()
    assert told is not None
    assert told.text.lower().startswith(cloud)
    first = {"aws": "/latest/", "gcp": "/computeMetadata/", "azure": "/metadata/"}[cloud]
    assert all(path.startswith(first) for path in answers.asked)


class Ray:
    """Stands for the node: what was drained, and how often it refuses first; the test ends once it was drained."""

    def __init__(self, ended: threading.Event, n_refusals: int = 0, n_busy: int = 0) -> None:
        self.drained: list[tuple[str, float]] = []
        self.ended, self.n_refusals, self.n_busy = ended, n_refusals, n_busy

    def drain(self, text: str, in_s: float) -> int:
        if self.n_refusals:
            self.n_refusals -= 1
            raise EnvironmentProblem("Ray does not answer")
        self.drained.append((text, in_s))
        self.ended.set()
        return 1

    def is_busy(self) -> bool:
        self.n_busy -= 1
        return self.n_busy >= 0


def test_a_notice_drains_the_node_once_and_failing_drains_are_tried_again(base: str, answers: Answers) -> None:
    answers.gcp = "TRUE"
    ended, said = threading.Event(), list[str]()
    ray = Ray(ended, n_refusals=2)
    watch(Notices([Gcp(base)]), ray, ended, 5.0, said.append, poll_s=0.0)
    assert ray.drained == [("GCP: preempted", GCP_S)]
    assert said[:2] == ["watches this node", "watches for notices of gcp"]
    assert [line for line in said if "tried again" in line] == said[2:4]
    assert said[4:] == ["GCP: preempted: the node is drained, 30 s are left"]


def test_the_end_drains_a_node_without_a_notice_and_waits_for_its_workers() -> None:
    ended, said = threading.Event(), list[str]()
    ended.set()
    ray = Ray(ended, n_busy=1)
    watch(Notices([]), ray, ended, 5.0, said.append, poll_s=0.0)
    assert ray.drained == [("told to end", 5.0)]
    assert ray.n_busy == -1, "asked until nothing was left"


def test_no_longer_than_its_grace() -> None:
    ended, said = threading.Event(), list[str]()
    ended.set()
    ray = Ray(ended, n_busy=10**9)
    watch(Notices([]), ray, ended, 0.0, said.append, poll_s=0.0)
    assert ray.drained == [("told to end", 0.0)]


def test_a_drain_that_fails_at_the_end_is_told_of() -> None:
    ended = threading.Event()
    ended.set()
    with pytest.raises(EnvironmentProblem, match="does not answer"):
        watch(Notices([]), Ray(ended, n_refusals=1), ended, 0.0, list[str]().append, poll_s=0.0)
