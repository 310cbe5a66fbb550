"""Campaigns whose mirror is on an S3 server: drivers that are killed, lose their machine, or are two."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alsys.store.encoding import to_hex
from alsys.store.zarr import open_reader
from services.s3 import BUCKET, BadNetwork

PATIENCE_S = 120.0
TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """No driver outlives its test."""
    yield
    while STARTED:
        driver = STARTED.pop()
        if driver.poll() is None:
            driver.kill()
            driver.communicate()


class Machines:
    """Drivers of one campaign, each in a folder of its own choice."""

    def __init__(self, endpoint: str, name: str, tmp_path: Path) -> None:
        self.url, self.tmp_path, self.acknowledged = f"s3://{BUCKET}/{name}", tmp_path, tmp_path / "acknowledged"
        self.environment = os.environ | {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def start(self, machine: str, *settings: str, takes_over: bool = False) -> subprocess.Popen[str]:
        given = [f"directory={self.tmp_path / machine}", f"mirror={self.url}", "tracking.enabled=false", *settings]
        sets = [part for setting in given for part in ("--set", setting)]
        command = [
            sys.executable,
            "-m",
            "alsys.cli",
            "run",
            str(TOY),
            "--quiet",
            "--ack-log",
            str(self.acknowledged),
            *(["--take-over"] if takes_over else []),
            *sets,
        ]
        STARTED.append(
            subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.tmp_path,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return STARTED[-1]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | {"XDG_CACHE_HOME": str(self.tmp_path / "cache")}
        command = [sys.executable, "-m", "alsys.cli", *words]
        return subprocess.run(
            command, env=environment, cwd=self.tmp_path, text=True, capture_output=True, check=False, timeout=300
        )

    def fetch(self, folder: str) -> subprocess.CompletedProcess[str]:
        return self.command("fetch", self.url, str(self.tmp_path / folder))

    def wait_for_labels(self, driver: subprocess.Popen[str], n: int) -> None:
        """Until so many are acknowledged."""
        deadline = time.monotonic() + PATIENCE_S
        while self.n_acknowledged() < n:
            assert time.monotonic() < deadline
            assert driver.poll() is None, driver.communicate()[0]
            time.sleep(0.05)

    def n_acknowledged(self) -> int:
        return self.acknowledged.read_text().count("\n") if self.acknowledged.exists() else 0

    def stored(self, machine: str) -> set[str]:
        reader = open_reader(self.tmp_path / machine / "store.zarr")
        assert reader.verify().problems == []
        return set(to_hex(reader.column("labels/label_id")))

    def kill_after(self, driver: subprocess.Popen[str], n_labels: int) -> None:
        """Once so many more labels are acknowledged."""
        wanted, deadline = self.n_acknowledged() + n_labels, time.monotonic() + PATIENCE_S
        while self.n_acknowledged() < wanted and driver.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            driver.send_signal(signal.SIGKILL)
        driver.communicate()


@pytest.fixture
def network(server: str) -> Iterator[BadNetwork]:
    network = BadNetwork(server)
    yield network
    network.close()


@pytest.mark.timeout(900)
def test_ten_kills_and_four_lost_machines_cost_no_acknowledged_label(network: BadNetwork, tmp_path: Path) -> None:
    """On a network that refuses a tenth of the requests and loses a tenth of the answers."""
    machines = Machines(network.url, "killed", tmp_path)
    network.refused = network.dropped = 0.1
    for life in range(10):
        driver = machines.start("lost" if life % 3 == 2 else "kept")
        machines.kill_after(driver, 1 + life % 5)
        if life % 3 == 2:
            subprocess.run(["rm", "-r", str(tmp_path / "lost")], check=True)
    last = machines.start("last")
    said, _ = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, said
    acknowledged = set(machines.acknowledged.read_text().split())
    assert len(acknowledged) >= 80, "a driver that is killed between a commit and its promise never makes it"
    assert acknowledged <= machines.stored("last")
    assert len(machines.stored("last")) >= 100
    fetched = machines.fetch("view")
    assert fetched.returncode == 0, fetched.stderr
    assert machines.stored("view") == machines.stored("last")
    for name in ("campaign.json", "report.html"):
        assert (tmp_path / "view" / name).read_bytes() == (tmp_path / "last" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "view/models").iterdir()) == sorted(
        p.name for p in (tmp_path / "last/models").iterdir()
    )


@pytest.mark.timeout(600)
def test_a_second_driver_is_refused_or_where_it_is_meant_fences_the_first(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "two", tmp_path)
    first = machines.start("a", "stop.labels=400")
    machines.wait_for_labels(first, 1)
    mistaken = machines.start("b")
    said, _ = mistaken.communicate(timeout=PATIENCE_S)
    assert mistaken.returncode == 2
    assert f"process {first.pid} on " in said
    assert "--take-over" in said
    assert first.poll() is None
    second = machines.start("b", takes_over=True)
    said, _ = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 3
    assert "another driver took over" in said
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, said
    assert set(machines.acknowledged.read_text().split()) <= machines.stored("b")


def test_a_mirror_of_another_campaign_is_refused_before_anything_starts(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "mine", tmp_path)
    driver = machines.start("a", "stop.labels=20")
    driver.communicate(timeout=PATIENCE_S)
    (tmp_path / "other").mkdir()
    other = machines.start("other/b", "stop.labels=20", "seed=5")
    said, _ = other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 2
    assert "seed" in said
    view = machines.fetch("view")
    assert view.returncode == 0
    assert not machines.stored("view") - machines.stored("a")


@pytest.mark.timeout(600)
def test_a_driver_is_stopped_from_elsewhere(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "stopped", tmp_path)
    stop = ("stop", machines.url, "--timeout", "120")
    refused = machines.command(*stop)
    assert refused.returncode == 2
    assert "holds no campaign, so nothing was stopped" in refused.stderr, "a mistyped URL is no campaign that has ended"
    driver = machines.start("a", "stop.labels=100000")
    machines.wait_for_labels(driver, 60)
    assert "has stopped" in machines.command(*stop).stdout
    output, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, output
    assert "nothing to stop" in machines.command(*stop).stdout
    again = machines.start("b", "stop.labels=20")
    output, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, output
    assert machines.stored("a") <= machines.stored("b")


READER = """
import sys
from ase import Atoms
from alsys import load_calculator, open_dataset
dataset = open_dataset(sys.argv[1])
atoms = dataset.select("initial").to_ase()[0]
atoms.calc = load_calculator(sys.argv[1])
print(len(dataset), atoms.get_potential_energy())
"""


@pytest.mark.timeout(600)
def test_a_campaign_is_read_and_asked_through_its_bucket_while_it_runs(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "asked", tmp_path)
    driver = machines.start("a", "stop.labels=100000")
    machines.wait_for_labels(driver, 40)
    status = json.loads(machines.command("status", machines.url, "--json").stdout)
    assert status["state"] == "running"
    assert status["labels"]["accepted"] >= 40
    assert status["champion"]
    assert machines.command("report", machines.url).returncode == 0
    assert (tmp_path / "report.html").is_file()
    for words in (("info", "--json"), ("verify", "--json")):
        assert machines.command("data", words[0], machines.url, *words[1:]).returncode == 0
    environment = machines.environment | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = [sys.executable, "-c", READER, machines.url]
    read = subprocess.run(code, env=environment, text=True, capture_output=True, check=False)
    assert read.returncode == 0, read.stderr
    assert int(read.stdout.split()[0]) >= 40
    label_id = machines.acknowledged.read_text().split()[3]
    said = machines.command("data", "retract", machines.url, "--label", label_id, "--reason", "a test")
    assert said.stdout.startswith("1 label is no longer data; the campaign labels others"), said.stderr
    assert (
        "was retracted before"
        in machines.command("data", "retract", machines.url, "--label", label_id, "--reason", "again").stderr
    )
    assert "champion" in machines.command("rollback", machines.url).stdout
    assert "has stopped" in machines.command("stop", machines.url, "--timeout", "120").stdout
    said = machines.command(
        "data",
        "retract",
        machines.url,
        "--label",
        machines.acknowledged.read_text().split()[5],
        "--reason",
        "nobody drives it",
    )
    assert "the next `alsys run` labels others" in said.stdout, said.stderr
    driver.communicate(timeout=PATIENCE_S)
    status = json.loads(machines.command("status", machines.url, "--json").stdout)
    assert (status["state"], status["labels"]["retracted"]) == ("stopped", 2)


@pytest.mark.timeout(900)
def test_a_mirror_that_dies_in_the_middle_stops_nothing_and_gets_what_it_lacks(
    network: BadNetwork, tmp_path: Path
) -> None:
    """It comes back once while the driver lives, and once after that was killed."""
    machines = Machines(network.url, "outage", tmp_path)
    log = tmp_path / "a" / "logs" / "campaign.log"

    def wait_for_log(text: str, n: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while log.read_text().count(text) < n:
            assert time.monotonic() < deadline
            assert driver.poll() is None
            time.sleep(0.2)

    driver = machines.start("a", "stop.labels=100000", "runtime.kind=in-process")
    machines.wait_for_labels(driver, 30)
    network.refused = 1.0
    wait_for_log("does not answer", 1)
    n_acknowledged, n_stored = machines.n_acknowledged(), len(machines.stored("a"))
    deadline = time.monotonic() + PATIENCE_S
    while len(machines.stored("a")) < n_stored + 30:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert machines.n_acknowledged() == n_acknowledged, "nothing is promised meanwhile"
    network.refused = 0.0
    machines.wait_for_labels(driver, n_stored + 30)
    network.refused = 1.0
    wait_for_log("the campaign goes on", 2)
    time.sleep(3.0)
    driver.kill()
    driver.communicate()
    network.refused = 0.0
    here = machines.stored("a")
    assert set(machines.acknowledged.read_text().split()) <= here
    last = machines.start("a", "stop.labels=40", "runtime.kind=in-process")
    said, _ = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, said
    assert machines.fetch("view").returncode == 0
    assert here <= machines.stored("view") == machines.stored("a")


def test_a_mirror_that_is_dead_at_the_start_is_told_of_in_one_line(tmp_path: Path) -> None:
    machines = Machines("http://127.0.0.1:9", "dead", tmp_path)
    driver = machines.start("a")
    said, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 3
    assert said.count("\n") == 1, said
    for part in (str(TOY), "mirror", machines.url, "AWS_ENDPOINT_URL", "leave `mirror` out"):
        assert part in said
    assert not (tmp_path / "a" / "store.zarr").exists()


@pytest.mark.timeout(600)
def test_a_full_disk_ends_a_copy_in_one_line_and_the_next_try_goes_on(server: str, tmp_path: Path) -> None:
    machines = Machines(server, "full", tmp_path)
    driver = machines.start("a", "stop.labels=60", "runtime.kind=in-process")
    said, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, said
    (tmp_path / "disk").mkdir()
    fetch = f"{sys.executable} -m alsys.cli fetch {machines.url} {tmp_path}/disk/copy"
    grow = f"mount -o remount,size=64m {tmp_path}/disk"
    assert machines.fetch("whole").returncode == 0
    whole_kb = int(
        subprocess.run(["du", "-sk", tmp_path / "whole"], text=True, capture_output=True, check=True).stdout.split()[0]
    )
    for size in (f"{int(share * whole_kb)}k" for share in (0.1, 0.2, 0.4)):
        mount = f"mount -t tmpfs -o size={size} none {tmp_path}/disk"
        script = (
            f"{mount} && {fetch}; echo code $? >&2; {grow} && {fetch} && cp -r {tmp_path}/disk/copy {tmp_path}/{size}"
        )
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script], env=machines.environment, text=True, capture_output=True, check=False
        )
        if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr:
            pytest.skip("file systems cannot be mounted here")
        first, code, *rest = done.stderr.splitlines()
        assert "No space left on device" in first, done.stderr
        assert "make space and repeat the command" in first
        assert (code, rest, done.returncode) == ("code 3", [], 0)
        assert machines.stored(size) == machines.stored("a")


@pytest.mark.parametrize("words", [("--dry-run",), ()], ids=["planned", "run"])
def test_a_bucket_that_is_not_there_is_refused_before_anything_starts(
    server: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    machines = Machines(server, "none", tmp_path)
    sets = (
        "--set",
        f"directory={tmp_path / 'a'}",
        "--set",
        "mirror=s3://not-there/a",
        "--set",
        "tracking.enabled=false",
    )
    refused = machines.command("run", str(TOY), *words, *sets)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"alsys: {TOY}: mirror: there is no such bucket")
    assert "s3://not-there/a" in line
    assert not (tmp_path / "a" / "store.zarr").exists()
