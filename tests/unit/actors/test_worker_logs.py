"""What workers write is with the campaign: a file each, bounded, whatever kills them; and `alsys logs` prints it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alsys.actors.worker_logs import FOLDER, MAX_BYTES, MAX_LINE, WorkerLogs
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import load_config
from alsys.control.ports import WorkerDown
from alsys.store.zarr import open_writer
from support.rays import Bench

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"


def batch(*lines: str, name: str | None = "labeler-0", pid: object = 7) -> dict[str, Any]:
    """As Ray's log monitor makes them."""
    return {"ip": "10.0.0.2", "pid": pid, "job": "01000000", "is_err": True, "lines": lines, "actor_name": name}


def logs_in(folder: Path) -> WorkerLogs:
    return WorkerLogs(folder, ["labeler-0", "labeler-1"], clock=lambda: 0.0)


def test_each_worker_has_a_file_which_says_where_a_process_begins(tmp_path: Path) -> None:
    logs = logs_in(tmp_path)
    assert logs.beside("labeler-0", "died") == "died", "there is nothing to see"
    logs.take(batch("one"))
    logs.take(batch("two"))
    logs.take(batch(pid=9))
    logs.take(batch("three", pid=8))
    logs.take(batch("no memory", name=None, pid="raylet"))
    logs.take(batch("resources: 3 CPU", name=None, pid="autoscaler"))
    logs.take(batch("before it is built", name="LabelerActor"))
    first = "--- process {} on 10.0.0.2, 1970-01-01 00:00:00 UTC ---\n"
    assert (tmp_path / FOLDER / "labeler-0.log").read_text() == f"{first.format(7)}one\ntwo\n{first.format(8)}three\n"
    others = (tmp_path / FOLDER / "others.log").read_text()
    assert others == f"{first.format('raylet')}no memory\n{first.format(7)}before it is built\n"
    assert logs.beside("labeler-0", "died") == "died; see logs/workers/labeler-0.log"
    assert logs.beside("labeler-1", "died") == "died"


def test_a_worker_that_writes_without_end_fills_two_files_at_most(tmp_path: Path) -> None:
    logs = logs_in(tmp_path)
    logs.take(batch("x" * 10 * MAX_LINE))
    n_lines = 4 * MAX_BYTES // 10_000 * 100
    for i in range(0, n_lines, 100):
        logs.take(batch(*(f"{k:099d}" for k in range(i, i + 100))))
    names = sorted(path.name for path in (tmp_path / FOLDER).iterdir())
    assert names == ["labeler-0.log", "labeler-0.log.1"]
    now, aside = ((tmp_path / FOLDER / name).read_text() for name in names)
    assert len(now) + len(aside) <= 2.1 * MAX_BYTES
    kept = [int(line) for line in (aside + now).splitlines()]
    assert kept == list(range(kept[0], n_lines)), "the newest, without a gap"


def test_a_disk_that_refuses_costs_lines_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logs = logs_in(tmp_path)
    (tmp_path / "logs").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        logs.take(batch("one"))
        logs.take(batch("two"))
    assert [record.message.split(": ")[-1] for record in caplog.records] == [os.strerror(errno.ENOTDIR)]
    (tmp_path / "logs").unlink()
    logs.take(batch("three"))
    assert "three" in (tmp_path / FOLDER / "labeler-0.log").read_text()


def test_the_death_of_a_worker_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def run() -> list[str]:
        bench = Bench()
        await bench.pool.start()
        await bench.after(1)
        logs_in(tmp_path).take(batch("its last words"))
        bench.pool.restart("labeler-0", "hangs")
        bench.pool.restart("labeler-1", "hangs")
        events = await bench.after(1)
        await bench.pool.close()
        return [event.message for event in events if isinstance(event, WorkerDown)]

    assert asyncio.run(run()) == ["hangs; see logs/workers/labeler-0.log", "hangs"]


ON_RAY = """
import asyncio, logging, os, signal, sys, time
from functools import partial
from pathlib import Path
from alsys.actors.placement import WorkerSpec
from alsys.actors.pool import RayPool
from alsys.config.runtime import RuntimeConfig
from alsys.control.ports import Role, WorkerDown, WorkerUp
from alsys.labeling.base import LabelingOrder

class Talks:
    def run(self, order):
        logging.getLogger("engine").info("begins the label")
        print("printed too", flush=True)
        print("on stderr", file=sys.stderr, flush=True)
        time.sleep(60.0)

async def first(pool, kind):
    while True:
        for event in await pool.wait(0.5):
            if isinstance(event, kind):
                return event

async def main():
    folder = Path(sys.argv[1])
    pool = RayPool({"labeler-0": WorkerSpec(Role.LABELER, Talks)}, RuntimeConfig(num_cpus=1), folder)
    await pool.start()
    await first(pool, WorkerUp)
    pool.submit("labeler-0", LabelingOrder(()))
    log = folder / "logs/workers/labeler-0.log"
    until = time.monotonic() + 30.0
    while not (log.is_file() and "on stderr" in log.read_text()) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    os.kill(pool._workers["labeler-0"].pid, signal.SIGKILL)
    print("TOLD", (await first(pool, WorkerDown)).message)
    print("TOLD", dict(pool.state().nodes))
    await pool.close()

asyncio.run(main())
"""


@pytest.mark.ray
def test_what_a_worker_wrote_until_it_was_killed_is_there(tmp_path: Path) -> None:
    """On a real Ray: kill -9 in the middle of a call."""
    (tmp_path / "on_ray.py").write_text(ON_RAY)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "on_ray.py"), str(tmp_path)], capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    message, nodes = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]  # Ray prints others
    assert message.endswith("; see logs/workers/labeler-0.log")
    assert nodes == "TOLD {'node': 1}"
    text = (tmp_path / FOLDER / "labeler-0.log").read_text()
    assert "alsys.actors.shells: labeler-0 starts" in text
    for words in ("INFO engine: begins the label", "printed too", "on stderr"):
        assert words in text, text
    assert "on stderr" not in done.stdout + done.stderr, "nothing of it is printed here"


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A folder that was a campaign's, with a log of its driver and of a worker."""
    directory = CampaignFolder(tmp_path)
    open_writer(directory.store).close()
    directory.write_record(load_config(str(TOY)), str(TOY))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/campaign.log").write_text("the driver\nsays this\n")
    logs_in(tmp_path).take(batch(*(f"line {i}" for i in range(9))))
    return tmp_path


def test_logs_are_listed_and_printed_by_the_command(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", str(campaign)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in listed] == ["driver", "labeler-0"]
    assert listed[1].endswith("ago: line 8")
    assert main(["logs", str(campaign), "labeler-0", "--lines", "2"]) == 0
    assert capsys.readouterr().out == "line 7\nline 8\n"
    (campaign / FOLDER / "labeler-0.log").replace(campaign / FOLDER / "labeler-0.log.1")
    (campaign / FOLDER / "labeler-0.log").write_text("line 9\n")
    assert main(["logs", str(campaign), "labeler-0", "--lines", "2", "--follow"]) == 0, "ends where no driver runs"
    assert capsys.readouterr().out == "line 8\nline 9\n"


def test_a_worker_that_is_none_is_refused_with_those_that_are(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", str(campaign), "labeler-7"]) == 2
    assert "WORKER: has written nothing here (got 'labeler-7'); one of driver, labeler-0" in capsys.readouterr().err
    assert main(["logs", str(campaign), "driver", "--lines", "0"]) == 2
    assert "--lines: must be at least 1" in capsys.readouterr().err
