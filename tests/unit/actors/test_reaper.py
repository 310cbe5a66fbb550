"""What Ray leaves behind ends with the driver, however that ends; other processes do not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from alsys.actors.reaper import Reaper

pytestmark = pytest.mark.thorough

SLEEPS = [sys.executable, "-S", "-c", "import time; time.sleep(120)"]


def test_a_closed_reaper_ends_those_that_it_was_told_of() -> None:
    ours, others = (subprocess.Popen(SLEEPS) for _ in range(2))
    try:
        reaper = Reaper()
        reaper.add([psutil.Process(ours.pid)])
        reaper.add([psutil.Process(ours.pid)])
        reaper.close()
        assert ours.wait(10.0) == -9
        assert others.poll() is None
    finally:
        for process in (ours, others):
            process.kill()
            process.wait()


def test_a_killed_driver_leaves_nobody(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, subprocess, sys, psutil
        from alsys.actors.reaper import Reaper
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(120)"], start_new_session=True)
        Reaper_ = Reaper()
        Reaper_.add([psutil.Process(child.pid)])
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=10.0)
        assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
