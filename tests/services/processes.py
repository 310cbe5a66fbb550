"""Servers of tests: each a process on a free port of the loopback interface, which ends with the test."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

START_S = 120.0
STOP_S = 30.0
UNPRIVILEGED = ("postgres", "nobody")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Service:
    """A server that can be stopped and started again where it was.

    Args:
        name: For messages.
        command: Its program and arguments.
        port: At which it listens.
        log: File that gets what it says.
        path: Asked by HTTP to see whether it is up; empty where it speaks something else.
        env: Beside this process's environment.
        user: Under which it runs; empty for this one's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        log: Path,
        path: str = "",
        env: Mapping[str, str] | None = None,
        user: str = "",
    ) -> None:
        self.name, self.port, self.log = name, port, log
        self._command, self._path, self._user = list(command), path, user
        self._env = os.environ | dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """By which it is reached."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._env, start_new_session=True,
                user=self._user or None, group=None if not self._user else pwd.getpwnam(self._user).pw_gid,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self.is_up():
            assert self._process.poll() is None, f"{self.name} ended: {self.text()}"
            assert time.monotonic() < deadline, f"{self.name} did not start: {self.text()}"
            time.sleep(0.1)

    def is_up(self) -> bool:
        """Whether it answers."""
        if not self._path:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return True
            return False
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5.0)
        try:
            connection.request("GET", self._path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def text(self) -> str:
        """The last that it said."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and its children, with this signal first; what it stored stays."""
        process, self._process = self._process, None
        if process is None:
            return
        group = process.pid  # a session of its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number) if number is signal.SIGKILL else process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def running(service: Service) -> Iterator[Service]:
    """A server while the block runs."""
    try:
        service.start()
        yield service
    finally:
        service.stop()


def unprivileged_user() -> str:
    """Whom a server runs as that refuses root; empty where this process is somebody else already."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in known)
