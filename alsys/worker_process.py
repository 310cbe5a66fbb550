"""A worker in a process of its own that can be killed, of this Python or another one: what goes wrong is one error.

The process is started once and answers one call after another. It is killed, and replaced with the next call, after a
timeout, too much memory, or a crash, so what runs in it may hang, abort or leak without harm. What it starts belongs to
it: memory is that of the whole tree of processes, and the tree is killed as a whole. It dies with its parent
(PR_SET_PDEATHSIG, and end of file on its input). Messages are length-prefixed pickles over private pipes between two
processes of one user; whatever the worker prints goes to a log file, whose tail explains a crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil

from alsys.clock import RunningClock
from alsys.descriptors import readable
from alsys.errors import AlsysError, FailureKind, WorkerUnfit

START_TIMEOUT_S: Final = 180.0
POLL_S: Final = 0.1
LONGEST_GAP_S: Final = 1.0
"""Longest time between two polls that counts in full: of one in which this process was stopped, no more than that."""
TREE_S: Final = 0.5
"""Between two looks at what a process has started."""
HAS_LISTS: Final = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()
"""Whether this kernel lists the children of a process."""
_HEADER: Final = struct.Struct("<Q")
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_NOT_OF_OTHERS: Final = ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__")
"""Variables that would bring packages of this Python into another one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave.

    Attributes:
        value: Its result.
        wall_s: Seconds of wall time, without those in which this process was stopped, with a start of the process.
        cpu_s: CPU seconds of the process.
    """

    value: Any
    wall_s: float
    cpu_s: float


class WorkerFailed(Exception):
    """A call gave no result.

    Attributes:
        kind: Why.
        message: One line.
        wall_s: As of `Answer`.
        cpu_s: Likewise, where the process is still there.
    """

    def __init__(self, kind: FailureKind, message: str, wall_s: float, cpu_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.message, self.wall_s, self.cpu_s = kind, message, wall_s, cpu_s


class WorkerProcess:
    """Calls methods of an object in a process of its own.

    Args:
        build: Makes the object inside the process; picklable, as all arguments and results.
        python: Interpreter of another environment; None for this one. alsys must be installed there.
        threads: Threads that numerical libraries may use.
        memory_mb: Resident memory of the process and all that it starts, pages that they share counted once; None for
            any.
        has_gpu: Whether it may use a GPU: CUDA maps far more memory than it uses, so only resident memory is limited.
    """

    def __init__(
        self,
        build: Callable[[], object],
        *,
        python: str | None = None,
        threads: int = 1,
        memory_mb: int | None = None,
        has_gpu: bool = False,
    ) -> None:
        self._build = build
        self._python = python
        self._threads = threads
        self._memory_bytes = None if memory_mb is None else memory_mb * 2**20
        self._has_gpu = has_gpu
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._started: list[psutil.Process] = []

    @property
    def pid(self) -> int | None:
        """Process id; None where there is no process."""
        return None if self._process is None else self._process.pid

    def call(self, method: str, argument: object, timeout_s: float | None = None) -> Answer:
        """What a method of the object returns.

        Args:
            method: Its name.
            argument: Its only argument.
            timeout_s: Wall time, without that in which this process was stopped; None for any.

        Raises:
            WorkerFailed: It raised, and the process is still there; or the process died or went beyond a limit.
            WorkerUnfit: The object cannot be made there, for want of a package or a setting.
        """
        clock = RunningClock(longest_gap_s=LONGEST_GAP_S)
        if self._process is None:
            self._start(clock)
        kind, value, cpu_s = self._exchange((method, argument), clock, timeout_s)
        if kind is not None:
            raise WorkerFailed(kind, value, clock(), cpu_s)
        return Answer(value, clock(), cpu_s)

    def close(self) -> None:
        """Kills the process and all it started."""
        if self._process is not None:
            self._started += descendants(self._process.pid)  # known by their parents, which are about to die
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
            for process in self._started:  # those that have left the group; psutil knows a process by its start too
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._started = []
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def __del__(self) -> None:
        self.close()

    def _start(self, clock: RunningClock) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self._threads))
        left_out = () if self._python is None else _NOT_OF_OTHERS
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._log.close)
        self._process = subprocess.Popen(
            [self._python or sys.executable, "-P", "-m", "alsys.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**{name: value for name, value in os.environ.items() if name not in left_out}, **threads},
            start_new_session=True,
            bufsize=0,
        )
        try:
            problem = self._exchange((self._build, self._memory_bytes, self._has_gpu), clock, START_TIMEOUT_S)
        except WorkerFailed as error:
            raise WorkerFailed(error.kind, f"while starting: {error.message}", error.wall_s) from error
        if problem:
            self.close()
            raise unfit(problem, self._python)

    def _exchange(self, message: object, clock: RunningClock, timeout_s: float | None) -> Any:
        """Sends a message and waits for the answer; the process is ended where there is none."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline, look_again = math.inf if timeout_s is None else clock() + timeout_s, 0.0
        try:
            _send(process.stdin, message)
            while not readable(process.stdout, timeout_s=POLL_S):
                now = clock()
                if now > deadline:
                    raise WorkerFailed(FailureKind.TIMEOUT, f"no result after {timeout_s:g} s", now)
                if self._memory_bytes is None:
                    continue
                if now > look_again:
                    self._started, look_again = descendants(process.pid), now + TREE_S
                used = tree_bytes(process.pid, self._started, self._memory_bytes)
                if used > self._memory_bytes:
                    limit = self._memory_bytes // 2**20
                    message = f"{used // 2**20} MB used, {limit} MB allowed"
                    raise WorkerFailed(FailureKind.OUT_OF_MEMORY, message, now)
            return _receive(process.stdout)
        except (BrokenPipeError, EOFError, ConnectionError):
            process.wait(timeout=10)
            died = f"its process died ({_exit_text(process.returncode)}){self._tail()}"
            self.close()
            raise WorkerFailed(FailureKind.CRASHED, died, clock()) from None
        except WorkerFailed:
            self.close()
            raise

    def _tail(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""


def serve() -> None:
    """The process: builds its object, answers calls, until its input ends."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of what the worker starts stay in this tree
    if os.getppid() == 1:
        return
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever the worker prints must not get between messages
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        build, memory_bytes, has_gpu = _receive(requests)
        if memory_bytes is not None and not has_gpu:
            backstop = 2 * memory_bytes + 4 * 2**30
            resource.setrlimit(resource.RLIMIT_DATA, (backstop, backstop))
        worker = build()
    except UNFIT as error:
        _send(output, reason_of(error))
        return
    _send(output, "")
    while True:
        try:
            method, argument = _receive(requests)
        except EOFError:
            return
        cpu = time.process_time()
        kind: FailureKind | None = None
        try:
            value = getattr(worker, method)(argument)
        except MemoryError as error:
            kind, value = FailureKind.OUT_OF_MEMORY, f"MemoryError: {error}"
        except Exception as error:
            kind, value = FailureKind.INTERNAL, f"{type(error).__name__}: {error}"[:500]
        _send(output, (kind, value, time.process_time() - cpu))


UNFIT: Final = (ImportError, AlsysError)
"""What is raised where a worker cannot be made, now or later."""


def reason_of(error: Exception) -> str:
    """Such an error as one line."""
    return str(error) if isinstance(error, AlsysError) else f"{type(error).__name__}: {error}"


def unfit(reason: str, python: str | None) -> WorkerUnfit:
    """The error of a worker that cannot be made.

    Args:
        reason: As of `reason_of`.
        python: Interpreter of another environment; None for this one.
    """
    return WorkerUnfit(
        f"a worker cannot start: {reason}; install what is missing for {python or sys.executable}: workers see the "
        "packages that are installed there, not the modules of a folder"
    )


def _send(pipe: IO[bytes], message: object) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    view = memoryview(_HEADER.pack(len(content)) + content)
    while len(view):
        view = view[pipe.write(view) :]


def _receive(pipe: IO[bytes]) -> Any:
    (size,) = _HEADER.unpack(_read(pipe, _HEADER.size))
    return pickle.loads(_read(pipe, size))


def _read(pipe: IO[bytes], size: int) -> bytes:
    parts = []
    while size:
        part = pipe.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def descendants(pid: int) -> list[psutil.Process]:
    """All that a process has started, directly or not, and that is still there.

    Read from the kernel's lists of children where it has them: a search through all processes of a machine costs more.
    """
    if not HAS_LISTS:
        with contextlib.suppress(psutil.Error):
            return list(psutil.Process(pid).children(recursive=True))
        return []
    found: list[psutil.Process] = []
    parents = [pid]
    while parents:
        parent = parents.pop()
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError, psutil.Error):
                for child in map(int, path.read_text().split()):
                    found.append(psutil.Process(child))
                    parents.append(child)
    return found


def tree_bytes(pid: int, started: Sequence[psutil.Process], limit: int) -> int:
    """Resident memory of a process and what it has started.

    Pages that several of them share are counted once where that may decide: reading that takes milliseconds a process,
    so it is done only where the plain sum is above the limit.
    """
    try:
        tree = [psutil.Process(pid), *started]
    except psutil.Error:
        return 0
    total = sum(_resident_bytes(process, is_shared_once=False) for process in tree)
    if total <= limit or len(tree) == 1:
        return total
    return sum(_resident_bytes(process, is_shared_once=True) for process in tree)


def _resident_bytes(process: psutil.Process, *, is_shared_once: bool) -> int:
    try:
        if is_shared_once:
            with contextlib.suppress(psutil.AccessDenied):
                return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


if __name__ == "__main__":
    from alsys import worker_process  # so that pickled classes have one identity

    worker_process.serve()
