"""Delivery with child processes that stand in for MLflow: `/bin/sh` scripts, so nothing waits for an import."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alsys.tracking.delivery_process import DeliveryProcess
from alsys.tracking.outbox import Outbox
from alsys.tracking.registry import OutboxRegistry

DELIVERS = "sleep 0.1; mv {outbox}/*.json {outbox}/done/; cat > /dev/null"
FAILS = "echo 'no route to host'; exit 1"
HANGS = "sleep 60"


def delivery(directory: Path, script: str, **settings: float) -> DeliveryProcess:
    command = ["/bin/sh", "-c", script.format(outbox=directory / "outbox", directory=directory)]
    return DeliveryProcess(directory, command=command, **settings)


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_nothing_is_started_where_nothing_waits(tmp_path: Path) -> None:
    lazy = delivery(tmp_path, FAILS)
    lazy.poke()
    assert lazy.flush(5.0)
    assert lazy.n_started == 0
    lazy.close()


def test_a_flush_returns_when_all_is_delivered(tmp_path: Path) -> None:
    Outbox.of(tmp_path).put_publish(1)
    good = delivery(tmp_path, DELIVERS)
    good.poke()
    assert good.flush(10.0)
    assert good.n_started == 1
    good.close()


def test_a_poke_returns_at_once_and_starts_one_child_at_a_time(tmp_path: Path) -> None:
    Outbox.of(tmp_path).put_publish(1)
    slow = delivery(tmp_path, HANGS)
    started = time.monotonic()
    for _ in range(2000):  # more calls than a pipe holds
        slow.poke()
    assert time.monotonic() - started < 5.0
    assert slow.n_started == 1
    assert not slow.flush(0.2)
    slow.close()


def test_a_failure_is_one_warning_and_a_growing_pause(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Outbox.of(tmp_path).put_publish(1)
    now = [0.0]
    command = ["/bin/sh", "-c", FAILS]
    failing = DeliveryProcess(tmp_path, command=command, first_pause_s=30.0, clock=lambda: now[0])

    def tries_at(times: list[float]) -> list[int]:
        counts = []
        for now[0] in times:
            failing.poke()
            time.sleep(0.2)  # the child ends meanwhile
            failing.poke()
            counts.append(failing.n_started)
        return counts

    with caplog.at_level(logging.INFO, "alsys"):
        assert tries_at([0.0, 29.0, 31.0, 60.0, 90.0, 92.0]) == [1, 1, 2, 2, 2, 3]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "no route to host" in warnings[0]
    assert Outbox.of(tmp_path).has_pending()
    failing.close()


def test_a_flush_tries_once_more_and_gives_up_when_that_fails(tmp_path: Path) -> None:
    Outbox.of(tmp_path).put_publish(1)
    failing = delivery(tmp_path, FAILS)
    failing.poke()
    assert eventually(lambda: failing._child is None or failing._child.poll() is not None)
    failing.poke()
    started = time.monotonic()
    assert not failing.flush(60.0)
    assert time.monotonic() - started < 10.0
    assert failing.n_started == 2
    failing.close()


def test_a_command_that_cannot_be_started_does_not_stop_the_campaign(tmp_path: Path) -> None:
    Outbox.of(tmp_path).put_publish(1)
    missing = DeliveryProcess(tmp_path, command=["/nowhere/python"])
    missing.poke()
    assert not missing.flush(60.0)
    missing.close()


def test_the_child_dies_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    """The real child: it must notice that its stdin has ended, or that it has another parent."""
    driver = textwrap.dedent(
        """
        import sys, time
        from alsys.tracking.delivery_process import DeliveryProcess
        from alsys.tracking.outbox import Outbox
        Outbox.of(sys.argv[1]).put_publish(1)
        child = ("import time; from alsys.tracking.deliver import _Driver; _Driver(); print('up', flush=True); "
                 "time.sleep(60)")
        delivery = DeliveryProcess(sys.argv[1], command=[sys.executable, "-c", child])
        delivery.poke()
        print(delivery._child.pid, flush=True)
        time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", driver, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    log = tmp_path / "logs" / "mlflow.log"
    assert eventually(lambda: log.is_file() and "up" in log.read_text(), 20.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert eventually(lambda: not _is_alive(child), 10.0)


def test_closing_ends_a_child_that_hangs(tmp_path: Path) -> None:
    Outbox.of(tmp_path).put_publish(1)
    slow = delivery(tmp_path, "echo $$ > {directory}/pid; exec sleep 60")
    slow.poke()
    pid = tmp_path / "pid"
    assert eventually(lambda: pid.is_file() and bool(pid.read_text().strip()))
    slow.close()
    assert not _is_alive(int(pid.read_text()))
    assert Outbox.of(tmp_path).has_pending()


def test_the_registry_queues_in_order_and_repeats_without_effect(tmp_path: Path) -> None:
    registry = OutboxRegistry(tmp_path, delivery(tmp_path, HANGS))
    for _ in range(2):
        registry.publish(1, {"n_labels": 3})
        registry.promote(1)
    registry.poke()
    assert [item.file_name for item in Outbox.of(tmp_path).pending()] == [
        "000001-publish-v0001.json",
        "000002-promote-v0001.json",
    ]
    assert not registry.flush(0.0)
    registry.close()


def test_a_promotion_brings_a_version_that_a_full_disk_kept_out(tmp_path: Path) -> None:
    registry = OutboxRegistry(tmp_path, delivery(tmp_path, HANGS))
    (tmp_path / "outbox").write_text("")  # a file in the way: nothing can be queued
    registry.publish(1, {})
    (tmp_path / "outbox").unlink()
    registry.promote(1)
    assert [item.kind for item in Outbox.of(tmp_path).pending()] == ["publish", "promote"]
    registry.close()


def test_promotions_stay_in_order_whatever_a_full_disk_keeps_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = OutboxRegistry(tmp_path, delivery(tmp_path, HANGS))
    (tmp_path / "outbox").write_text("")
    for version in (1, 2):
        registry.publish(version, {})
        registry.promote(version, "better")
    registry.poke()
    assert not registry.flush(0.1)
    assert sum("cannot be queued" in record.getMessage() for record in caplog.records) == 1
    (tmp_path / "outbox").unlink()
    registry.poke()
    items = [(item.kind, item.version) for item in Outbox.of(tmp_path).pending()]
    assert items == [("publish", 1), ("promote", 1), ("publish", 2), ("promote", 2)]
    registry.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
