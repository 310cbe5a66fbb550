"""Signals are obeyed in every state, and what Ray has to say reaches no terminal; Ray dies, stops, cannot place."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.events import CampaignOpened, CampaignStopped, WorkerLost
from alsys.store.zarr import open_reader

CONFIGS = Path(__file__).parents[2] / "configs"
LINE = re.compile(
    r"^(\d\d:\d\d:\d\d |alsys: |finished|stopped|failed|(no )?report: |made: |champion: |bundle: |use it: |nothing was)"
)
"""What alsys prints itself."""


class Run:
    """`alsys run` of the toy campaign."""

    def __init__(self, folder: Path, *overrides: str, is_under_nohup: bool = False) -> None:
        self.campaign = folder / "campaign"
        self.output = folder / "output.txt"
        command = [sys.executable, "-m", "alsys.cli", "run", str(CONFIGS / "toy.yaml"), "--quiet"]
        for override in (f"directory={self.campaign}", "tracking.enabled=false", *overrides):
            command += ["--set", override]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=folder,
                preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_IGN if is_under_nohup else signal.SIG_DFL),
            )

    def until(self, is_so: Callable[[], bool], timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def has_begun(self) -> bool:
        return bool(re.search(r" [1-9]\d*/\d+ labels", self.output.read_text()))

    def child(self, name: str) -> psutil.Process:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.name() == name or name in " ".join(child.cmdline()):
                return child
        raise AssertionError(f"no {name}")

    def ends(self, timeout_s: float) -> int:
        return self.process.wait(timeout_s)

    def lines(self) -> list[str]:
        """All that was printed; nothing of it is anybody else's."""
        lines = self.output.read_text().splitlines()
        foreign = [line for line in lines if line and not LINE.match(line)]
        assert not foreign, foreign
        return lines

    def stopped(self) -> CampaignStopped:
        """How the last run ended; a model that was being written then is recorded after it."""
        events = open_reader(CampaignFolder(self.campaign).store).events()
        turns = [event for event in events if isinstance(event, CampaignOpened | CampaignStopped)]
        assert isinstance(turns[-1], CampaignStopped)
        return turns[-1]


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Those that a test started; none of them, and no child of theirs, outlives it."""
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_a_campaign_that_goes_on_later(tmp_path: Path, runs: list[Run], number: signal.Signals) -> None:
    run = Run(tmp_path, "runtime.kind=in-process", "labeling.delay_s=0.3")
    runs.append(run)
    run.until(run.has_begun)
    run.process.send_signal(number)
    assert run.ends(30.0) in (0, 4)  # 4 where there is no model yet
    assert run.stopped().reason == "user"
    run.lines()


def test_a_request_to_a_stopped_driver_says_that_it_hears_nothing(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "runtime.kind=in-process", "labeling.delay_s=0.3")
    runs.append(run)
    run.until(run.has_begun)
    run.process.send_signal(signal.SIGSTOP)
    command = [sys.executable, "-m", "alsys.cli", "stop", str(run.campaign)]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 3
    assert f"kill -CONT {run.process.pid}" in asked.stderr
    assert asked.stderr.count("\n") == 1
    run.process.send_signal(signal.SIGCONT)
    assert run.ends(30.0) in (0, 4)  # the request stayed
    assert run.stopped().reason == "user"


def test_first_frames_that_take_long_are_left_behind(tmp_path: Path, runs: list[Run]) -> None:
    """xTB dynamics of ten thousand first frames would take an hour."""
    overrides = ("initial={method: xtb-md, frames: 10000, temperature: 300}", "runtime.kind=in-process")
    run = Run(tmp_path, *overrides)
    runs.append(run)
    run.until(lambda: "0/100 labels" in run.output.read_text())
    time.sleep(1.0)
    run.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    run.ends(30.0)
    assert time.monotonic() - started < 20.0
    assert run.stopped().reason == "user"


def test_the_second_interrupt_ends_at_once_although_a_labeler_hangs(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "runtime.kind=in-process", "labeling.delay_s=600")
    runs.append(run)
    run.until(lambda: "0/100 labels" in run.output.read_text())
    time.sleep(1.0)
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    run.process.send_signal(signal.SIGINT)
    assert run.ends(5.0) == 130


def test_one_signal_is_enough_although_a_labeler_hangs(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "runtime.kind=in-process", "labeling.delay_s=600")
    runs.append(run)
    run.until(lambda: "0/100 labels" in run.output.read_text())
    time.sleep(1.0)
    run.process.send_signal(signal.SIGTERM)
    run.ends(40.0)
    assert run.stopped().reason == "user"


def test_nohup_is_obeyed(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "runtime.kind=in-process", "stop.labels=20", is_under_nohup=True)
    runs.append(run)
    run.until(lambda: "0/20 labels" in run.output.read_text())
    run.process.send_signal(signal.SIGHUP)
    assert run.ends(60.0) == 0
    assert run.stopped().reason == "labels"


@pytest.mark.ray
def test_a_ray_of_one_machine_listens_on_loopback_only(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "labeling.delay_s=0.5")
    runs.append(run)
    run.until(run.has_begun)
    processes = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
    addresses = set()
    for process in processes:
        try:
            addresses |= {c.laddr.ip for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN}
        except psutil.NoSuchProcess:
            continue
    assert addresses, "Ray listens somewhere"
    assert all(address.removeprefix("::ffff:").startswith("127.") or address == "::1" for address in addresses), (
        addresses
    )
    run.process.send_signal(signal.SIGTERM)
    assert run.ends(60.0) in (0, 4)
    assert run.stopped().reason == "user"
    run.lines()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_dead_ray_is_brought_up_anew(tmp_path: Path, runs: list[Run], name: str) -> None:
    run = Run(tmp_path, "labeling.delay_s=0.5", "stop.labels=40")
    runs.append(run)
    run.until(run.has_begun)
    run.child(name).kill()
    assert run.ends(240.0) == 0
    text = "\n".join(run.lines())
    assert f"Ray's {name} died; it is brought up anew, with all workers" in text
    assert run.stopped().reason == "labels"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_dies_while_it_comes_up_ends_no_campaign(tmp_path: Path, runs: list[Run], name: str) -> None:
    """Ray itself waits ten minutes for a GCS that is gone, in a call that cannot be ended."""
    run = Run(tmp_path, "stop.labels=30")
    runs.append(run)
    driver = psutil.Process(run.process.pid)

    def is_killed() -> bool:
        for child in driver.children():
            if child.name() == name:
                child.kill()
                return True
        return False

    run.until(is_killed)
    assert run.ends(120.0) == 0
    assert run.stopped().reason == "labels"
    run.lines()


@pytest.mark.ray
@pytest.mark.slow
def test_a_stopped_explorer_is_replaced(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "labeling.delay_s=0.5", "stop.labels=60", "runtime.stopped_timeout_s=15")
    runs.append(run)
    run.until(run.has_begun)
    explorer = run.child("ray::ExplorerActor")
    explorer.suspend()
    run.until(lambda: f"explorer-0 (process {explorer.pid}) is stopped" in run.output.read_text(), 60.0)
    assert run.ends(240.0) == 0
    run.lines()
    events = open_reader(CampaignFolder(run.campaign).store).events()
    assert any(isinstance(event, WorkerLost) and "was stopped" in event.message for event in events)


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_no_node_can_hold_ends_the_run(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "labeling.resources={quantum: 1}")
    runs.append(run)
    started = time.monotonic()
    assert run.ends(150.0) == 3
    assert time.monotonic() - started < 120.0
    assert "alsys: labeler-" in run.lines()[-1]
    assert "cannot be placed: no node has what it asks for: 1 quantum" in run.lines()[-1]


@pytest.mark.ray
@pytest.mark.slow
def test_no_child_outlives_a_killed_driver_not_even_a_stopped_one(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "labeling.delay_s=0.5")
    runs.append(run)
    run.until(run.has_begun)
    children = psutil.Process(run.process.pid).children(recursive=True)
    run.child("ray::ExplorerActor").suspend()
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(10.0)
    _, alive = psutil.wait_procs(children, timeout=30.0)
    assert not alive, alive
