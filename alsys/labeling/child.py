"""A labeler in a child process that can be killed: wall time and memory are limits, a crash is a value.

The child is started once and labels one frame after another; it is killed and replaced after a timeout, too much
memory, or a crash, so quantum chemistry codes may hang, abort or leak without harm. What it starts belongs to it:
memory is that of the whole tree of processes, and the tree is killed as a whole. It dies with its parent
(PR_SET_PDEATHSIG, and end of file on its input). Messages are length-prefixed pickles over private pipes between two
processes of one user; whatever the engine prints goes to a log file, whose tail explains a crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from alsys.clock import RunningClock
from alsys.errors import FailureKind, InputError
from alsys.frames import Frame
from alsys.labeling.checks import check_alone
from alsys.labels import Label, LabelCost, LabelFailure, LevelOfTheory

START_TIMEOUT_S = 180.0
POLL_S = 0.1
LONGEST_GAP_S = 1.0
"""Longest time between two polls that counts in full: of one in which this process was stopped, no more than that."""
TREE_S = 0.5
"""Between two looks at what a child has started."""
HAS_LISTS = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()
"""Whether this kernel lists the children of a process."""
_HEADER = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Engine(Protocol):
    """What runs inside the child."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces of a frame."""
        ...


class ChildProcess:
    """Labels frames in a killable child.

    Args:
        factory: ``module:function`` of alsys that makes the engine inside the child.
        settings: Its argument, picklable.
        timeout_s: Wall time of one label, without that in which this process was stopped.
        memory_mb: Resident memory of the child and all that it starts, pages that they share counted once.
        threads: Threads that numerical libraries may use.
        has_gpu: Whether it may use a GPU: CUDA maps far more memory than it uses, so only resident memory is limited.
    """

    def __init__(
        self,
        factory: str,
        settings: object,
        *,
        timeout_s: float,
        memory_mb: int,
        threads: int = 1,
        has_gpu: bool = False,
    ) -> None:
        self._factory = factory
        self._settings = settings
        self._timeout_s = timeout_s
        self._memory_bytes = memory_mb * 1024 * 1024
        self._threads = threads
        self._has_gpu = has_gpu
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._started: list[psutil.Process] = []
        self._clock = RunningClock(longest_gap_s=LONGEST_GAP_S)

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return None if self._process is None else self._process.pid

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Labels a frame; never raises for what happens to the child."""
        self._clock = RunningClock(longest_gap_s=LONGEST_GAP_S)
        failure = self._start() if self._process is None else None
        outcome = self._ask(frame) if failure is None else failure
        wall_s = self._clock()
        if isinstance(outcome, Label | LabelFailure):
            return replace(outcome, cost=replace(outcome.cost, wall_s=wall_s, host=_host(outcome.cost.host)))
        kind, message = outcome
        self.close()
        return LabelFailure(frame.frame_id, kind, message, LabelCost(wall_s=wall_s, host=_host("")))

    def close(self) -> None:
        """Kills the child and all it started."""
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

    def _start(self) -> tuple[FailureKind, str] | None:
        threads = str(self._threads)
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._log.close)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alsys.labeling.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        settings = {"factory": self._factory, "settings": self._settings, "memory_bytes": self._memory_bytes}
        settings["has_gpu"] = self._has_gpu
        answer = self._exchange(settings, START_TIMEOUT_S)
        if isinstance(answer, tuple):
            return answer[0], f"while starting: {answer[1]}"
        return None

    def _ask(self, frame: Frame) -> Label | LabelFailure | tuple[FailureKind, str]:
        answer: Label | LabelFailure | tuple[FailureKind, str] = self._exchange(frame, self._timeout_s)
        return answer

    def _exchange(self, message: object, timeout_s: float) -> Any:
        """Sends a message and waits for the answer; a pair (kind, text) says what went wrong."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline, look_again = self._clock() + timeout_s, 0.0
        try:
            _send(process.stdin, message)
            while not select.select([process.stdout], [], [], POLL_S)[0]:
                now = self._clock()
                if now > deadline:
                    return FailureKind.TIMEOUT, f"no result after {timeout_s:g} s"
                if now > look_again:
                    self._started, look_again = descendants(process.pid), now + TREE_S
                used = tree_bytes(process.pid, self._started, self._memory_bytes)
                if used > self._memory_bytes:
                    limit = self._memory_bytes // 2**20
                    return FailureKind.OUT_OF_MEMORY, f"{used // 2**20} MB used, {limit} MB allowed"
            return _receive(process.stdout)
        except (BrokenPipeError, EOFError, ConnectionError):
            process.wait(timeout=10)
            return FailureKind.CRASHED, f"the labelling process died ({_exit_text(process.returncode)}){self._tail()}"

    def _tail(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""


class ChildLabeler:
    """A labeler whose engine runs in a child process; what it can treat is said by who derives from it.

    A frame in point charges is a failure, unless `sees_charges` says that the engine knows them.

    Args:
        level: The level of theory.
        child: Runs the engine.
    """

    def __init__(self, level: LevelOfTheory, child: ChildProcess) -> None:
        self._level = level
        self._child = child

    @property
    def level(self) -> LevelOfTheory:
        """All settings that decide the values."""
        return self._level

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return self._child.pid

    @property
    def sees_charges(self) -> bool:
        """Whether point charges around a frame are part of the calculation."""
        return False

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy, forces and whatever else the engine gives."""
        try:
            if not self.sees_charges:
                check_alone(frame)
        except InputError as error:
            return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, str(error))
        return self._child.label(frame)

    def close(self) -> None:
        """Ends the child."""
        self._child.close()


def serve() -> None:
    """The child: reads frames, writes results, until its input ends."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of what the engine starts stay in this tree
    if os.getppid() == 1:
        return
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever the engine prints must not get between messages
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    start = _receive(requests)
    if not start["has_gpu"]:
        backstop = 2 * start["memory_bytes"] + 4 * 2**30
        resource.setrlimit(resource.RLIMIT_DATA, (backstop, backstop))
    module, name = start["factory"].split(":")
    engine: Engine = getattr(importlib.import_module(module), name)(start["settings"])
    _send(output, "ready")
    while True:
        try:
            frame: Frame = _receive(requests)
        except EOFError:
            return
        cpu = time.process_time()
        try:
            outcome = engine.label(frame)
        except MemoryError as error:
            outcome = LabelFailure(frame.frame_id, FailureKind.OUT_OF_MEMORY, f"MemoryError: {error}")
        except Exception as error:
            outcome = LabelFailure(frame.frame_id, FailureKind.INTERNAL, f"{type(error).__name__}: {error}"[:500])
        _send(output, replace(outcome, cost=replace(outcome.cost, cpu_s=time.process_time() - cpu)))


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


def _host(device: str) -> str:
    """Host name, and the device where the engine names one: `node7/gpu`."""
    return f"{os.uname().nodename[: 31 - len(device)]}/{device}" if device else os.uname().nodename[:32]


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
    from alsys.labeling import child  # so that pickled classes have one identity

    child.serve()
