"""A child that hangs, crashes, is killed or eats memory is a value, and the next frame is labelled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.child import ChildProcess
from alsys.labels import Label, LabelFailure
from alsys.worker_process import descendants, tree_bytes

HYDROGEN = Frame.molecule([1], np.zeros((1, 3)))


HOARD = "x = b'x' * (700 * 2**20); import time; time.sleep(1000)"
HOARDS = {
    7: HOARD,
    8: f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {HOARD!r}], start_new_session=True)",
    9: "x = b'x' * (400 * 2**20); import os, time; os.fork(); y = b'y' * (250 * 2**20); time.sleep(1000)",
}
"""Programs that take too much: alone, after their parent has gone, and together with what they have forked."""


def start(program: str) -> None:
    subprocess.Popen([sys.executable, "-c", program])


class Misbehaving:
    """An engine that does what the charge of the frame says."""

    def __init__(self, settings: object) -> None:
        del settings

    def label(self, frame: Frame) -> Label | LabelFailure:
        if frame.charge == 1:
            time.sleep(1000)
        if frame.charge == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if frame.charge == 3:
            hoard = []
            while True:
                hoard.append(bytearray(50_000_000))
                hoard[-1][::4096] = b"x" * len(range(0, 50_000_000, 4096))  # touches every page, at a tenth of the cost
                time.sleep(0.02)
        if frame.charge == 4:
            raise ValueError("a bug")
        if frame.charge == 5:
            print("noise on stdout " * 100, flush=True)  # noqa: T201
            sys.stderr.write("last words\n")
            sys.stderr.flush()
            os._exit(3)
        if frame.charge == 6:
            at_once = bytearray(10 * 600 * 2**20)
            return LabelFailure(frame.frame_id, FailureKind.INTERNAL, f"got {len(at_once)} bytes")
        if frame.charge in (7, 8, 9):  # what it starts takes the memory: a child, an orphan of its own session, a fork
            start(HOARDS[frame.charge])
            time.sleep(1000)
        if frame.charge == 10:
            while not Path(__file__).with_name("go").exists():
                time.sleep(0.01)
        print("chatter", flush=True)  # noqa: T201
        return Label(frame.frame_id, "00" * 16, -13.6, np.zeros((1, 3)))


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    process = ChildProcess("tests_misbehaving:Misbehaving", None, timeout_s=3.0, memory_mb=600)
    yield process
    process.close()


@pytest.fixture(autouse=True)
def _importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child imports the engine by name, as it would one of alsys."""
    (tmp_path / "tests_misbehaving.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.parametrize(
    ("charge", "kind", "words"),
    [
        (1, FailureKind.TIMEOUT, "no result after 3 s"),
        (2, FailureKind.CRASHED, "SIGSEGV"),
        (3, FailureKind.OUT_OF_MEMORY, "600 MB allowed"),
        (4, FailureKind.INTERNAL, "ValueError: a bug"),
        (5, FailureKind.CRASHED, "last words"),
        (6, FailureKind.OUT_OF_MEMORY, "MemoryError"),
        (7, FailureKind.OUT_OF_MEMORY, "600 MB allowed"),
        (8, FailureKind.OUT_OF_MEMORY, "600 MB allowed"),
        (9, FailureKind.OUT_OF_MEMORY, "600 MB allowed"),
    ],
)
def test_misbehaviour_is_a_value_and_the_next_frame_is_labelled(charge: int, kind: FailureKind, words: str) -> None:
    patience = 3.0 if kind is FailureKind.TIMEOUT else 100.0  # a busy machine may need long to hand out 600 MB
    child = ChildProcess("tests_misbehaving:Misbehaving", None, timeout_s=patience, memory_mb=600)
    frame = Frame.molecule([26], np.zeros((1, 3)), charge=charge)
    outcome = child.label(frame)
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is kind
    assert words in outcome.message
    assert isinstance(child.label(HYDROGEN), Label)
    child.close()


def test_child_killed_in_the_middle(child: ChildProcess) -> None:
    assert isinstance(child.label(HYDROGEN), Label)
    pid = child.pid
    assert pid is not None
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    outcome = child.label(Frame.molecule([26], np.zeros((1, 3)), charge=1))
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.CRASHED
    assert "SIGKILL" in outcome.message


PARENT = """
import sys, time, numpy as np
from alsys.frames import Frame
from alsys.labeling.child import ChildProcess
from alsys.worker_process import descendants, tree_bytes
child = ChildProcess("tests_misbehaving:Misbehaving", None, timeout_s=1000, memory_mb=600)
child.label(Frame.molecule([1], np.zeros((1, 3))))
print(child.pid, flush=True)
child.label(Frame.molecule([26], np.zeros((1, 3)), charge=1))
"""


def test_child_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


STOPPED = """
import numpy as np
from alsys.frames import Frame
from alsys.labeling.child import ChildProcess
child = ChildProcess("tests_misbehaving:Misbehaving", None, timeout_s=4.0, memory_mb=600)
child.label(Frame.molecule([1], np.zeros((1, 3))))
print(child.pid, flush=True)
outcome = child.label(Frame.molecule([26], np.zeros((1, 3)), charge=10))
print(type(outcome).__name__, outcome.cost.wall_s, getattr(outcome, "message", ""), flush=True)
"""


def test_a_label_is_not_blamed_for_the_time_in_which_all_were_stopped(tmp_path: Path) -> None:
    """As a laptop that sleeps does, or a batch system that suspends a job."""
    parent = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(parent.pid, number)
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(5.0)
    (tmp_path / "go").touch()
    kind, wall_s, *message = parent.stdout.readline().split()
    parent.wait()
    parent.stdout.close()
    assert kind == "Label", " ".join(message)
    assert float(wall_s) < 4.0


def orphans_of(pid: int | None) -> list[psutil.Process]:
    """Processes that wait beside a child although whoever started them has gone."""
    found = []
    for process in descendants(pid) if pid else []:
        with contextlib.suppress(psutil.Error):
            if process.ppid() == pid and "time.sleep" in " ".join(process.cmdline()):
                found.append(process)
    return found


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_the_child_has_started_dies_with_it(is_killed: bool) -> None:
    """Also a process of its own session, and also where the child itself was killed from outside."""
    patience = 100.0 if is_killed else 10.0  # where nobody kills it, it is too slow
    child = ChildProcess("tests_misbehaving:Misbehaving", None, timeout_s=patience, memory_mb=4000)
    waiting = threading.Thread(target=child.label, args=(Frame.molecule([26], np.zeros((1, 3)), charge=8),))
    waiting.start()
    deadline = time.monotonic() + 60
    hoard: list[psutil.Process] = []
    while not hoard and time.monotonic() < deadline:
        time.sleep(0.2)
        hoard = orphans_of(child.pid)
    assert hoard, "the orphan stays in the tree"
    time.sleep(1.0)
    if is_killed:
        os.kill(int(child.pid or 0), signal.SIGKILL)
    waiting.join()
    while any(map(is_alive, hoard)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, hoard))


def test_a_fork_that_shares_its_memory_is_counted_once(child: ChildProcess) -> None:
    shared = "x = b'x' * (350 * 2**20); import os, time; os.fork(); time.sleep(1000)"
    parent = subprocess.Popen([sys.executable, "-c", shared])
    try:
        deadline = time.monotonic() + 30
        while not descendants(parent.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        started = descendants(parent.pid)
        assert len(started) == 1
        assert tree_bytes(parent.pid, started, 10**12) > 700 * 2**20, "far from the limit pages may count twice"
        assert 350 * 2**20 < tree_bytes(parent.pid, started, 600 * 2**20) < 450 * 2**20
    finally:
        for process in descendants(parent.pid):
            process.kill()
        parent.kill()
        parent.wait()
