"""An S3 server on loopback, and a bad network in front of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from alsys.store.objects import Objects

BUCKET = "campaigns"
START_S = 60.0


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """moto's server in a process of its own; its URL."""
    port = _free_port()
    command = [
        os.environ.get("MOTO_SERVER_PYTHON", sys.executable),
        "-m",
        "moto.server",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            assert process.poll() is None, "moto's server ended"
            assert time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.1)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class BadNetwork:
    """A proxy that is slow, refuses some requests, and loses the answers to others after they were carried out.

    Args:
        server: Where requests go.
        seed: Of what happens to whom.

    Attributes:
        latency_s: Before each request.
        refused: Share of requests that get 503 and are not carried out.
        dropped: Share of requests that are carried out, and whose connection breaks before the answer.
        n_requests: So far.
        n_puts: Of them.
        seen: Told the verb and path of each request before it is carried out.
    """

    def __init__(self, server: str, seed: int = 0) -> None:
        self.latency_s = self.refused = self.dropped = 0.0
        self.n_requests = self.n_puts = 0
        self.seen: Callable[[str, str], None] = lambda verb, path: None
        target, random_ = server.rpartition("/")[2], random.Random(seed)
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                network.n_requests += 1
                network.n_puts += self.command == "PUT"
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                network.seen(self.command, self.path)
                time.sleep(network.latency_s)
                fate = random_.random()
                if fate < network.refused:
                    self._answer(503, {}, b"")
                    return
                connection = http.client.HTTPConnection(target)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                if fate < network.refused + network.dropped:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._answer(answer.status, dict(answer.getheaders()), content)

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                hop = ("content-length", "connection", "transfer-encoding")
                kept = {k: v for k, v in headers.items() if k.lower() not in hop}
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                for name, value in {**kept, "Content-Length": length}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        for verb in ("GET", "PUT", "HEAD", "DELETE", "POST"):
            setattr(Handler, f"do_{verb}", Handler.handle_any)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


def objects_at(endpoint: str, prefix: str, bucket: str = BUCKET) -> Objects:
    """Objects of the test's bucket, or of another one."""
    return Objects.at(
        f"s3://{bucket}/{prefix}",
        endpoint=endpoint,
        access_key_id="test",
        secret_access_key="test",
        region="us-east-1",
        client_options={"allow_http": True},
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
