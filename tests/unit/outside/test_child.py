"""Reading processes: answers come back, and whatever goes wrong is one `InputError`, soon."""

from __future__ import annotations

import builtins
import ctypes
import io
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from alsys.errors import InputError
from alsys.outside import child
from alsys.outside.child import read_in_child, stream_from_child
from alsys.outside.limits import STRUCTURE, ReadLimits

pytestmark = pytest.mark.thorough

LIMITS = ReadLimits(memory_mb=600, cpu_s=1, silence_s=30.0)


def refusal(function: Callable[..., Any], *args: Any, limits: ReadLimits = LIMITS) -> str:
    with pytest.raises(InputError) as caught:
        read_in_child(function, limits, *args)
    text = str(caught.value)
    assert text == " ".join(text.split())
    return text


def test_a_structure_comes_back_whole_and_soon(tmp_path: Path) -> None:
    path = tmp_path / "water.xyz"
    atoms = Atoms("OHH", positions=[[0, 0, 0], [0, 0, 1], [0, 1, 0]], info={"charge": 1})
    ase.io.write(path, atoms, format="extxyz")
    read_in_child(ase.io.read, STRUCTURE.for_(path), str(path))  # starts the process that forks
    started = time.monotonic()
    found = read_in_child(ase.io.read, STRUCTURE.for_(path), str(path), format="extxyz")
    assert time.monotonic() - started < 2.0
    assert found == atoms
    assert found.info["charge"] == 1


def test_results_come_one_after_another_and_never_far_ahead() -> None:
    stream = stream_from_child(itertools.count, LIMITS, 5)  # endless: a reader that ran ahead would meet its limits
    assert [next(stream) for _ in range(1000)] == list(range(5, 1005))
    stream.close()


def test_a_reader_runs_ahead_of_a_busy_caller_and_no_further_than_its_bound() -> None:
    stream = stream_from_child(_timed_megabytes, LIMITS)
    next(stream)
    time.sleep(1.0)
    taken = time.monotonic()
    made = [when for when, _ in itertools.islice(stream, 40)]
    stream.close()
    assert made[child.AHEAD_BYTES // 2**20 // 2] < taken, "it waited for the caller"
    assert made[-1] > taken, "it ran ahead without a bound"


def test_large_results_pass() -> None:
    array = read_in_child(np.ones, LIMITS, 10**7)
    assert array.shape == (10**7,)
    assert array.all()


@pytest.mark.parametrize(
    ("function", "argument", "words"),
    [
        (np.ones, 10**9, "more than 600 MB of memory"),
        (sum, itertools.repeat(1), "more than 1 s of processor time"),
        (ctypes.string_at, 0, "crashes (SIGSEGV)"),
        (os._exit, 3, "ended (got 3)"),
        (int, "no number", "ValueError: invalid literal"),
        (os.system, "touch owned", "run code (os.system)"),
        (pickle.loads, b"cos\nsystem\n(S'touch owned'\ntR.", "run code (pickle.find_class)"),
        (os.remove, "owned", "run code (os.remove)"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(function: Callable[..., Any], argument: Any, words: str, tmp_path: Path) -> None:
    started = time.monotonic()
    assert words in refusal(function, argument)
    assert time.monotonic() - started < 20.0
    assert not Path("owned").exists()
    assert read_in_child(len, LIMITS, "others are still read") == 21


def test_aborts_and_silence_are_told() -> None:
    assert "gives up" in refusal(os.abort)
    assert "no answer for 0.5 s" in refusal(time.sleep, 100, limits=ReadLimits(600, 1, 0.5))


def test_special_files_are_not_opened_and_none_is_written(tmp_path: Path) -> None:
    fifo, target = tmp_path / "fifo", tmp_path / "new"
    os.mkfifo(fifo)
    assert "no regular file" in refusal(builtins.open, str(fifo))
    assert "no regular file" in refusal(io.open, "/dev/zero", "rb")
    assert "would write" in refusal(np.save, str(target), np.zeros(3))
    assert not target.with_suffix(".npy").exists()


def test_threads_read_at_the_same_time() -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(read_in_child(len, LIMITS, "four"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4] * 8


def test_a_killed_process_is_started_anew() -> None:
    assert read_in_child(len, LIMITS, "a") == 1
    process = child._SERVERS._process
    assert process is not None
    process.kill()
    process.wait()
    assert read_in_child(len, LIMITS, "ab") == 2
    assert child._SERVERS._process is not process


def test_refusals_keep_their_fields() -> None:
    error = InputError("is wrong", source="a.xyz", field="frame 3", value=5, remedy="mend it")
    with pytest.raises(InputError) as caught:
        read_in_child(_raise, LIMITS, error)
    assert str(caught.value) == str(error)
    assert isinstance(caught.value.__cause__, child.ReaderTraceback)


def test_readers_end_with_their_stream() -> None:
    stream = stream_from_child(itertools.count, ReadLimits(600, 60), 0)
    next(stream)
    assert child._SERVERS._process is not None
    pid = child._SERVERS._process.pid
    stream.close()
    deadline = time.monotonic() + 10.0
    while _children(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _children(pid)


def _timed_megabytes() -> Iterator[tuple[float, bytes]]:
    while True:
        yield time.monotonic(), bytes(2**20)


def _raise(error: Exception) -> None:
    raise error


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()
