"""The store when the file system fails, or the process dies, at any moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alsys.errors import Fenced, StoreBusy
from alsys.store.base import Head
from alsys.store.files import Files
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL, fake_candidates
from alsys.testing.stores import fill, records


class FailingFiles(Files):
    """The n-th operation fails; all later ones too, where it `stays`."""

    def __init__(self) -> None:
        self.fail_at: int | None = None
        self.stays = False
        self.n = 0

    def _count(self) -> None:
        self.n += 1
        if self.fail_at is not None and (self.n == self.fail_at or (self.stays and self.n > self.fail_at)):
            raise OSError(28, "No space left on device")

    def open(self, *args: Any) -> int:
        self._count()
        return super().open(*args)

    def write(self, *args: Any) -> None:
        self._count()
        super().write(*args)

    def sync(self, *args: Any) -> None:
        self._count()
        super().sync(*args)

    def replace(self, *args: Any) -> None:
        self._count()
        super().replace(*args)


def operations_of_a_commit(path: Path) -> int:
    files = FailingFiles()
    writer = open_writer(path, files=files)
    fill(writer, 2, seed=1)
    before = files.n
    fill(writer, 3, seed=2)
    used = files.n - before
    writer.close()
    return used


def test_every_failing_operation_keeps_what_was_staged(tmp_path: Path) -> None:
    n_operations = operations_of_a_commit(tmp_path / "count")
    assert n_operations > 20
    for k in range(1, n_operations + 1, 5):
        files = FailingFiles()
        path = tmp_path / f"s{k}"
        writer = open_writer(path, files=files)
        fill(writer, 2, seed=1)
        files.n, files.fail_at = 0, k
        try:
            fill(writer, 3, seed=2)
        except OSError:
            files.fail_at = None
            assert open_reader(path).verify().is_ok, "what was committed before must stay sound"
            writer.commit()
        assert writer.head.lengths["labels"] == 5
        assert writer.verify().problems == []
        writer.close()
        assert open_reader(path).snapshot(FAKE_LEVEL.level_id).n_frames == 5


def test_crash_after_every_failing_operation_leaves_a_sound_prefix(tmp_path: Path) -> None:
    for k in range(1, operations_of_a_commit(tmp_path / "count") + 1, 7):
        files = FailingFiles()
        path = tmp_path / f"s{k}"
        writer = open_writer(path, files=files)
        fill(writer, 2, seed=1)
        files.n, files.fail_at, files.stays = 0, k, True
        with pytest.raises(OSError, match="No space"):
            fill(writer, 3, seed=2)
        writer._backend._lock = _released(writer._backend._lock)  # the process is gone: the kernel drops its lock
        again = open_writer(path)
        assert again.head.lengths["labels"] == 2
        fill(again, 3, seed=2)
        assert again.verify().problems == []
        again.close()


def _released(lock: int) -> None:
    import os

    os.close(lock)


def test_second_writer_is_refused_in_one_line(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    with pytest.raises(StoreBusy, match="another process is writing") as caught:
        open_writer(tmp_path / "s")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    writer.close()
    open_writer(tmp_path / "s").close()


def test_writer_that_lost_its_lock_is_fenced(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    fill(writer, 1)
    head = writer.head
    writer._backend.write_head(Head(head.seq, head.epoch + 1, head.lengths))  # as another host's writer would
    writer.stage(candidates=fake_candidates(1, seed=9))
    with pytest.raises(Fenced):
        writer.commit()


WRITER = """
import sys
from alsys.store.zarr import open_writer
from alsys.testing.stores import fill
writer = open_writer(sys.argv[1])
for seed in range(int(sys.argv[2]), 10**6):
    for label_id in fill(writer, 7, seed=seed):
        print(label_id)
    sys.stdout.flush()
"""


def test_sigkill_at_random_moments_loses_no_acknowledged_label(tmp_path: Path) -> None:
    rng = random.Random(3)
    acknowledged: list[str] = []
    for k in range(6):
        output = tmp_path / f"acks{k}"
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "s"), str(1000 * k)], stdout=file)
            deadline = time.monotonic() + 20
            while not output.stat().st_size and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = output.read_text().splitlines(keepends=True)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    reader = open_reader(tmp_path / "s")
    report = reader.verify()
    assert report.problems == []
    stored = {event.label_id for event in reader.events() if event.kind == "label-accepted"}
    assert len(acknowledged) > 50
    assert set(acknowledged) <= stored
    open_writer(tmp_path / "s").close()
    assert open_reader(tmp_path / "s").verify().problems == []


def test_damage_is_found(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "s")
    fill(writer, 3)
    writer.close()
    chunk = next((tmp_path / "s" / "atoms" / "positions" / "c").rglob("0"))
    chunk = chunk if chunk.is_file() else chunk / "0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(bytes(content))
    assert not open_reader(tmp_path / "s").verify().is_ok
    _, labels = records(3)
    assert len(labels) == 3
