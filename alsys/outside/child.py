"""Runs a reader of files in a process of its own, with limits; what goes wrong there is one `InputError` here.

The reader is a function of a module, called by name in a fork of a light process (`alsys.outside.server`), which is
started with the first file (half a second) and ends with this process. Later files cost some milliseconds. Results come
back as pickles between two processes of one user, all at once or one after another, never further ahead than
`AHEAD_BYTES`. The reader may open regular files only, writes nothing, starts nothing and unpickles nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, ParamSpec, TypeVar

from alsys.clock import RunningClock
from alsys.descriptors import readable
from alsys.errors import EnvironmentProblem, InputError
from alsys.outside.limits import ReadLimits
from alsys.outside.server import HEADER, STATUS

START_TIMEOUT_S: Final = 120.0
_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from alsys.outside import server; "
    "server.serve(int(sys.argv[1]))"
)
_WAIT_S: Final = 10.0
_POLL_S: Final = 0.5
AHEAD_BYTES: Final = 16 * 2**20
"""Of messages of a stream that wait for the caller; the last of them may go beyond."""
P = ParamSpec("P")
T = TypeVar("T")


class ReaderTraceback(Exception):
    """Where the reader was; the cause of an error that came out of its process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def read_in_child(function: Callable[P, T], limits: ReadLimits, *args: P.args, **kwargs: P.kwargs) -> T:
    """Result of a function that reads a file of somebody else.

    Args:
        function: Of a module that can be imported; its arguments and its result can be pickled.
        limits: What it may use.
        *args: Its arguments.
        **kwargs: Likewise.

    Raises:
        InputError: The function refused, failed, crashed, or went beyond a limit.
        EnvironmentProblem: Raised by the function, or no process can be started.
    """
    for kind, payload in _messages(function, limits, args, kwargs, is_stream=False):
        if kind == "done":
            result: T = payload
            return result
    raise AssertionError  # pragma: no cover


def stream_from_child(
    function: Callable[P, Iterator[T]], limits: ReadLimits, *args: P.args, **kwargs: P.kwargs
) -> Iterator[T]:
    """What a generator yields that reads a file of somebody else; closing this ends it.

    Args:
        function: As of `read_in_child`; what it yields can be pickled.
        limits: What it may use, from its start to its end.
        *args: Its arguments.
        **kwargs: Likewise.

    Raises:
        InputError: As of `read_in_child`.
        EnvironmentProblem: Likewise.
    """
    for kind, payload in _messages(function, limits, args, kwargs, is_stream=True):
        if kind == "item":
            yield payload


def _messages(
    function: Callable[..., Any], limits: ReadLimits, args: Any, kwargs: Any, *, is_stream: bool
) -> Iterator[tuple[str, Any]]:
    with contextlib.ExitStack() as stack:
        data, status = stack.enter_context(_SERVERS.reader(function.__module__))
        try:
            _send(data, (function, args, kwargs, limits, is_stream), limits.silence_s)
            receive = stack.enter_context(_received_ahead(data, limits.silence_s)) if is_stream else None
            while True:
                message = _receive(data, limits.silence_s) if receive is None else receive()
                kind, payload = pickle.loads(message)
                if kind == "done":
                    answer, caught = payload
                    for category, message in caught:
                        warnings.warn(message, category, stacklevel=4)
                    yield kind, answer
                    return
                if kind == "refused":
                    error, trace = payload
                    raise error from ReaderTraceback(trace)
                if kind == "memory":
                    raise _too_much_memory(limits)
                if kind == "failed":
                    message, trace = payload
                    raise InputError(f"cannot be read: {message}") from ReaderTraceback(trace)
                yield kind, payload
        except TimeoutError:
            raise InputError(
                f"cannot be read: no answer for {limits.silence_s:g} s",
                remedy="copy it to a local disk",
            ) from None
        except (EOFError, ConnectionError):
            raise _death(_code(status), limits) from None


@contextlib.contextmanager
def _received_ahead(data: socket.socket, timeout_s: float) -> Iterator[Callable[[], bytearray]]:
    """Messages of a stream, received by a thread while the caller works: `AHEAD_BYTES` of them at most wait.

    Beyond that the thread does not receive, the socket fills, and the reader waits: nothing is dropped. What ends the
    stream (`EOFError`, `TimeoutError`, `ConnectionError`) is raised behind the messages that came before it.
    """
    waiting: deque[bytearray | Exception] = deque()
    changed = threading.Condition()
    n_bytes, is_closed = 0, False

    def may_go_on() -> bool:
        return is_closed or n_bytes < AHEAD_BYTES

    def receive() -> None:
        nonlocal n_bytes
        found: bytearray | Exception = bytearray()
        while not isinstance(found, Exception):
            try:
                found = _receive(data, timeout_s)
            except (EOFError, OSError) as error:  # TimeoutError and ConnectionError are of the latter
                found = error
            with changed:
                waiting.append(found)
                n_bytes += 0 if isinstance(found, Exception) else len(found)
                changed.notify_all()
                changed.wait_for(may_go_on)
                if is_closed:
                    return

    def take() -> bytearray:
        nonlocal n_bytes
        with changed:
            changed.wait_for(lambda: waiting)
            found = waiting.popleft()
            if isinstance(found, Exception):
                raise found
            n_bytes -= len(found)
            changed.notify_all()
        return found

    thread = threading.Thread(target=receive, name="reader-of-files", daemon=True)
    thread.start()
    try:
        yield take
    finally:
        with changed:
            is_closed = True
            changed.notify_all()
        with contextlib.suppress(OSError):
            data.shutdown(socket.SHUT_RDWR)  # wakes the thread
        thread.join()


def _death(code: int | None, limits: ReadLimits) -> InputError:
    """Why a reader ended without an answer."""
    if code == -signal.SIGKILL:
        return InputError("cannot be read: its reader was killed", remedy="the memory of this machine may be short")
    if code == -signal.SIGXCPU:
        return InputError(
            f"takes more than {limits.cpu_s} s of processor time to be read", remedy="it is damaged, or should be split"
        )
    if code in (-signal.SIGABRT, 1):  # what C++ does where memory ends
        return InputError(
            f"cannot be read: its reader gives up, with {limits.memory_mb} MB of memory", remedy="it may be damaged"
        )
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return InputError(f"cannot be read: its reader crashes ({name})", remedy="it is damaged")
    return InputError("cannot be read: its reader ended", value=code, remedy="it may be damaged")


def _too_much_memory(limits: ReadLimits) -> InputError:
    return InputError(
        f"takes more than {limits.memory_mb} MB of memory to be read", remedy="it is damaged, or should be split"
    )


class _Servers:
    """The light process that forks readers: one for each process that reads, started when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def reader(self, module: str) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Data and status socket of a new reader."""
        data, theirs = socket.socketpair()
        status, theirs_too = socket.socketpair()
        with data, status:
            with theirs, theirs_too, self._lock:
                self._ask(module, [theirs.fileno(), theirs_too.fileno()])
            yield data, status

    def close(self) -> None:
        """Ends it."""
        if self._control is not None and self._owner == os.getpid():
            self._control.close()
        self._control = None
        if self._process is not None and self._owner == os.getpid():
            try:
                self._process.wait(timeout=_WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _ask(self, module: str, descriptors: list[int]) -> None:
        for attempt in (1, 2):
            if self._control is None or self._owner != os.getpid():
                self._start()
            assert self._control is not None
            try:
                socket.send_fds(self._control, [module.encode()], descriptors)
                return
            except OSError as error:  # somebody killed it
                if attempt == 2:
                    raise EnvironmentProblem(f"the process that reads files of others is gone: {error}") from error
                self.close()

    def _start(self) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with theirs, tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno()), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **threads},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the caller
            )
            theirs.close()
            control.settimeout(START_TIMEOUT_S)
            try:
                answer = control.recv(16)
            except OSError as error:
                answer = str(error).encode()
            if answer != b"ready":
                process.kill()
                process.wait()
                control.close()
                raise EnvironmentProblem(f"the process that reads files of others cannot be started: {_tail(log)}")
            control.settimeout(None)
        self._owner, self._control, self._process = os.getpid(), control, process


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


def _send(data: socket.socket, message: object, timeout_s: float) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    data.settimeout(timeout_s)
    data.sendall(HEADER.pack(len(content)) + content)


def _receive(data: socket.socket, timeout_s: float) -> bytearray:
    clock = RunningClock(longest_gap_s=2.0 * _POLL_S)
    (size,) = HEADER.unpack(_exactly(data, HEADER.size, clock, timeout_s))
    return _exactly(data, size, clock, timeout_s)


def _exactly(data: socket.socket, size: int, clock: RunningClock, timeout_s: float) -> bytearray:
    content = bytearray(size)
    view, n = memoryview(content), 0
    while n < size:
        left_s = timeout_s - clock()
        data.settimeout(min(_POLL_S, max(0.001, left_s)))
        try:
            part = data.recv_into(view[n:])
        except TimeoutError:
            if left_s <= _POLL_S and clock() >= timeout_s:
                raise
            continue
        if not part:
            raise EOFError
        n += part
    return content


def _code(status: socket.socket) -> int | None:
    """Exit code of a reader, negative for a signal; None where its watcher is gone too."""
    if not readable(status, timeout_s=_WAIT_S):
        return None
    content = status.recv(STATUS.size)
    return int(STATUS.unpack(content)[0]) if len(content) == STATUS.size else None


_SERVERS: Final = _Servers()
atexit.register(_SERVERS.close)
