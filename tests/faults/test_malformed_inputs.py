"""Malformed files of every kind: one line, exit code 2, soon, in little memory, and no code of theirs is run.

The cases are made at a fixed seed (`malformed_inputs`) and run by two processes that stay (`run_cases`). What hangs or
kills one is told, and another takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from malformed_inputs import Case, make_cases

MAX_CPU_S = 5.0
MAX_WALL_S = 40.0
"""Of one case on a busy machine: what waits for ever."""
MAX_MB = 1024.0
N_RUNNERS = 2


@dataclass
class Runner:
    """A process that runs cases, and the largest memory of it and of the processes it starts.

    Attributes:
        folder: Where it runs.
    """

    folder: Path
    process: subprocess.Popen[str] | None = None
    peak_mb: float = 0.0
    base_mb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, case: Case) -> dict[str, Any]:
        """How a case ended."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        started = time.monotonic()
        self.process.stdin.write(json.dumps(list(case.argv)) + "\n")
        self.process.stdin.flush()
        readers_mb = 0.0
        while time.monotonic() - started < MAX_WALL_S:
            if select.select([self.process.stdout], [], [], 0.05)[0]:
                line = self.process.stdout.readline()
                if not line:
                    return {"died": self.process.wait(), "wall_s": time.monotonic() - started}
                answer: dict[str, Any] = json.loads(line)
                self.base_mb = self.base_mb or answer["peak_mb"]
                return {**answer, "readers_mb": readers_mb}
            readers_mb = max(readers_mb, _readers_mb(self.process.pid))
        self.close()
        return {"hung": True, "wall_s": time.monotonic() - started, "readers_mb": readers_mb}

    def close(self) -> None:
        """Ends it and what it started."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for child in psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else ():
            child.kill()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None

    def _start(self) -> None:
        self.close()
        self.base_mb = 0.0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "run_cases.py")],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline()) == {"ready": True}  # imports take a while on a busy machine
        assert _children_of(self.process.pid), "this kernel does not list the children of a process"


def _readers_mb(pid: int) -> float:
    """Largest resident memory of the processes below one; `psutil` would read all processes of the machine."""
    largest = 0.0
    with contextlib.suppress(OSError):  # one that ends meanwhile
        for listed in _children_of(pid):
            for child in listed.read_text().split():
                size = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                largest = max(largest, size, _readers_mb(int(child)))
    return largest


def _children_of(pid: int) -> list[Path]:
    """Files that list them, one of each thread."""
    return list(Path(f"/proc/{pid}/task").glob("*/children"))


def problem(case: Case, answer: dict[str, Any]) -> str:
    """What is wrong with an answer; empty for nothing."""
    if "died" in answer:
        return f"the process died ({answer['died']})"
    if "hung" in answer:
        return f"no end after {answer['wall_s']:.0f} s"
    if answer["trace"]:
        return answer["trace"].strip().splitlines()[-1][:300]
    if answer["code"] not in case.codes:
        return f"exit code {answer['code']}: {answer['err'][-300:]}"
    lines = answer["err"].splitlines()
    n_lines = answer["err"].count("\n")
    if case.name.startswith("request:") and n_lines == 2 and "is set aside in" in answer["err"]:
        n_lines = 1  # and what became of the request that was made
    if answer["code"] and n_lines != 1:
        return f"{answer['err'].count(chr(10))} lines: {answer['err'][:300]!r}"
    if "Traceback" in answer["err"]:
        return "a traceback"
    if (longest := max(map(len, lines), default=0)) > 2000:
        return f"a line of {longest} characters"
    if answer["forbidden"]:
        return f"ran code: {answer['forbidden']}"
    if answer["cpu_s"] > MAX_CPU_S:
        return f"{answer['cpu_s']:.1f} s of processor time"
    if answer["growth_mb"] > MAX_MB or answer["readers_mb"] > MAX_MB:
        return f"{answer['growth_mb']:.0f} MB, readers {answer['readers_mb']:.0f} MB"
    return ""


def run_all(cases: list[Case], folder: Path) -> list[tuple[Case, dict[str, Any], str]]:
    """All cases on some runners."""
    waiting: Iterator[Case] = iter(cases)
    lock = threading.Lock()
    found: list[tuple[Case, dict[str, Any], str]] = []

    def work() -> None:
        runner = Runner(folder)
        while True:
            with lock:
                case = next(waiting, None)
            if case is None:
                break
            answer = runner.run(case)
            if "peak_mb" in answer:
                answer["growth_mb"] = answer["peak_mb"] - runner.base_mb
            found.append((case, answer, problem(case, answer)))
        runner.close()

    threads = [threading.Thread(target=work) for _ in range(N_RUNNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def summary(found: list[tuple[Case, dict[str, Any], str]]) -> str:
    """Counts, and the worst."""
    codes = Counter(str(answer.get("code", "none")) for _, answer, _ in found)

    def worst(*names: str) -> tuple[str, float]:
        return max(((case.name, max(float(answer.get(name, 0.0)) for name in names)) for case, answer, _ in found),
                   key=lambda item: item[1])  # fmt: skip

    cpu, wall, memory = worst("cpu_s"), worst("wall_s"), worst("growth_mb", "readers_mb")
    return (
        f"{len(found)} cases, exit codes {dict(codes)}; most processor time {cpu[1]:.2f} s ({cpu[0]}), longest "
        f"{wall[1]:.2f} s ({wall[0]}), most memory {memory[1]:.0f} MB ({memory[0]})"
    )


@pytest.mark.timeout(600)
def test_malformed_files_are_one_line(tmp_path: Path) -> None:
    cases = make_cases(tmp_path)
    assert len(cases) >= 300
    run_in = tmp_path / "cwd"
    run_in.mkdir()
    found = run_all(cases, run_in)
    sys.stdout.write(summary(found) + "\n")
    wrong = [f"{case.name}: {what}  [{' '.join(case.argv)[-120:]}]" for case, _, what in found if what]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(found)}:", *sorted(wrong)])
    assert len(found) == len(cases)
    assert not list(tmp_path.rglob("owned*"))
    refused = sum(answer["code"] == 2 for _, answer, _ in found)
    assert refused > 0.5 * len(found)
    valid = [
        (case.name, answer["err"])
        for case, answer, _ in found
        if "valid " in case.name and answer["code"] and "takes molecules only" not in answer["err"]
    ]  # crystals are read, and then not labelled by a pair potential
    assert not valid
