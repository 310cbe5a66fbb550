"""A store in a folder and in object storage: the contract, other machines, folders and logs that are behind."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.errors import Fenced, InputError, StoreBusy, StoreCorrupt
from alsys.store import mirror, segments
from alsys.store import zarr as zarr_store
from alsys.store.columns import ColumnReader
from alsys.store.objects import Objects
from alsys.store.schema import BY_PATH, COMMITS
from alsys.store.writer import ColumnWriter
from alsys.store.zarr import ZarrWriter
from alsys.testing.stores import StoreContract, fill, stage
from support.lost_answers import dying, losing

pytestmark = pytest.mark.thorough


class TestMirroredStore(StoreContract):
    """Each writer on another machine, readers of the log."""

    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path) -> Iterator[None]:
        self.objects, self.tmp_path, self.writers = Objects.at("memory:///"), tmp_path, list[ZarrWriter]()
        yield
        for writer in self.writers:
            writer.folder.close_files()

    def kept(self, writer: ZarrWriter) -> ZarrWriter:
        self.writers.append(writer)
        return writer

    def open_writer(self) -> ColumnWriter:
        machine = self.tmp_path / f"machine-{len(self.writers)}"
        return self.kept(mirror.open_writer(machine / "store.zarr", self.objects))

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return segments.open_reader(self.objects, seq)

    def crash(self, writer: ColumnWriter) -> None:
        del writer


class TestMirroredFolder(TestMirroredStore):
    """One machine, readers of its folder."""

    def open_writer(self) -> ColumnWriter:
        return self.kept(mirror.open_writer(self.tmp_path / "store.zarr", self.objects))

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return zarr_store.open_reader(self.tmp_path / "store.zarr", seq)

    def crash(self, writer: Any) -> None:
        writer.folder.close_files()
        writer.folder._files.close(writer.folder.lock)  # as the kernel does
        writer.folder.lock = None


def same(path: Path, objects: Objects) -> int:
    """Number of labels of a folder and its log, which hold the same."""
    one, other = zarr_store.open_reader(path), segments.open_reader(objects)
    assert one.verify().problems == other.verify().problems == []
    assert (one.head.seq, one.head.identity) == (other.head.seq, other.head.identity)
    for name in BY_PATH:
        if name != COMMITS.path:
            np.testing.assert_array_equal(one.column(name), other.column(name))
    return one.head.lengths["labels"]


def write(path: Path, objects: Objects | None, *seeds: int) -> None:
    writer = zarr_store.open_writer(path) if objects is None else mirror.open_writer(path, objects)
    for seed in seeds:
        fill(writer, 3, seed=seed)
    writer.close()


def test_a_folder_that_was_there_before_goes_into_the_log(tmp_path: Path) -> None:
    path, objects = tmp_path / "s", Objects.at("memory:///")
    write(path, None, 1, 2)
    write(path, objects, 3)
    assert same(path, objects) == 9


def test_a_folder_that_was_written_without_the_log_for_a_while_gives_it_what_it_lacks(tmp_path: Path) -> None:
    path, objects = tmp_path / "s", Objects.at("memory:///")
    write(path, objects, 1)
    write(path, None, 2, 3)
    write(path, objects, 4)
    assert same(path, objects) == 12
    write(tmp_path / "elsewhere", objects, 5)
    assert same(tmp_path / "elsewhere", objects) == 15


def test_a_folder_that_is_behind_gets_what_others_wrote(tmp_path: Path) -> None:
    objects = Objects.at("memory:///")
    for k, name in enumerate(["a", "b", "a", "c", "b", "a"]):
        write(tmp_path / name, objects, k)
        assert same(tmp_path / name, objects) == 3 * k + 3


def test_two_that_went_different_ways_are_refused(tmp_path: Path) -> None:
    objects = Objects.at("memory:///")
    write(tmp_path / "a", objects, 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "a", objects, 2)
    write(tmp_path / "b", None, 3)
    before = objects.names("")
    with pytest.raises(InputError, match="another way"):
        mirror.open_writer(tmp_path / "b", objects)
    assert objects.names("") == before
    write(tmp_path / "b", None, 4)  # its lock is free again
    write(tmp_path / "other", None, 9)
    with pytest.raises(InputError, match="another campaign"):
        mirror.open_writer(tmp_path / "other", objects)
    with pytest.raises(InputError, match="another campaign"):
        mirror.fetch(tmp_path / "other", objects)


def test_a_driver_elsewhere_fences_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "OWNER_EVERY_S", -1.0)
    objects = Objects.at("memory:///")
    first = mirror.open_writer(tmp_path / "a", objects)
    fill(first, 2, seed=1)
    with pytest.raises(StoreBusy):
        mirror.open_writer(tmp_path / "a", objects)
    second = mirror.open_writer(tmp_path / "b", objects)
    stage(first, 2, seed=2)
    with pytest.raises(Fenced):
        first.check_owner()
    with pytest.raises(Fenced):
        first.commit()
    fill(second, 2, seed=3)
    second.close()
    first.close()
    assert same(tmp_path / "b", objects) == 4
    write(tmp_path / "a", objects, 4)
    assert same(tmp_path / "a", objects) == 7


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "TRY_EVERY_S", 0.01)


def wait_for(writer: ZarrWriter) -> None:
    """Until the log has all."""
    deadline = time.monotonic() + 20.0
    while writer.waits_for:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def watch(writer: ZarrWriter) -> None:
    """As a driver without commits does."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        writer.check_owner()
        time.sleep(0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_the_storage_refuses_is_on_the_disk_and_follows(tmp_path: Path, when: str) -> None:
    objects = losing()
    writer = mirror.open_writer(tmp_path / "s", objects)
    fill(writer, 2, seed=1)
    stage(writer, 2, seed=2)
    objects.fails = when
    assert writer.commit().seq == 2
    assert zarr_store.open_reader(tmp_path / "s").head.seq == 2
    wait_for(writer)
    fill(writer, 2, seed=3)
    writer.close()
    assert same(tmp_path / "s", objects) == 6


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_late", [False, True], ids=["refused", "carried-out-and-unanswered"])
@pytest.mark.parametrize("part_bytes", [2**26, 200], ids=["whole", "in-parts"])
def test_a_log_that_dies_and_comes_back_gets_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool, part_bytes: int
) -> None:
    objects = dying()
    writer = mirror.open_writer(tmp_path / "s", objects)
    fill(writer, 2, seed=1)
    assert writer.waits_for == ""
    objects.is_dead, objects.is_late = not is_late, is_late
    for seed in range(2, 6):
        fill(writer, 2, seed=seed)
        writer.check_owner()
    assert "4 commits are on the local disk only" in writer.waits_for
    assert zarr_store.open_reader(tmp_path / "s").head.lengths["labels"] == 10
    monkeypatch.setattr(segments, "PART_BYTES", part_bytes)
    objects.is_dead = False
    wait_for(writer)
    monkeypatch.setattr(segments, "PART_BYTES", 2**26)
    assert same(tmp_path / "s", objects) == 10
    fill(writer, 2, seed=6)
    assert same(tmp_path / "s", objects) == 12, "commits go there first again"
    n = len(objects.names("log"))
    fill(writer, 2, seed=7)
    assert len(objects.names("log")) == n + 1
    writer.close()
    assert same(tmp_path / "s", objects) == 14


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "left"])
def test_what_lies_in_the_place_of_the_next_segment_ends_no_driver(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_removed: bool
) -> None:
    objects = Objects.at("memory:///")
    writer = mirror.open_writer(tmp_path / "s", objects)
    fill(writer, 2, seed=1)
    stranger = f"log/{len(objects.names('log')) + 1:012d}"
    objects.put(stranger, b"not of alsys")
    for seed in (2, 3):
        fill(writer, 2, seed=seed)
        writer.check_owner()
    assert f"{stranger}, the place of the next segment, holds none; remove it" in caplog.text
    assert "2 commits are on the local disk only" in writer.waits_for
    if is_removed:
        objects.remove([stranger])
        wait_for(writer)
        fill(writer, 2, seed=4)
    writer.close()
    assert zarr_store.open_reader(tmp_path / "s").head.lengths["labels"] == (8 if is_removed else 6)
    if is_removed:
        assert same(tmp_path / "s", objects) == 8
        return
    assert "the next `alsys run` here puts them there" in caplog.text
    with pytest.raises(StoreCorrupt, match=stranger):
        mirror.open_writer(tmp_path / "s", objects)
    objects.remove([stranger])
    write(tmp_path / "s", objects, 4)
    assert same(tmp_path / "s", objects) == 9


def test_commits_after_an_outage_leave_no_gap_where_answers_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "TRY_EVERY_S", 0.1)
    objects = dying()
    writer = mirror.open_writer(tmp_path / "s", objects)
    objects.is_dead = True
    fill(writer, 2, seed=1)
    objects.is_dead = False
    wait_for(writer)
    fill(writer, 2, seed=2)
    objects.answer_s = 0.3  # whoever still tries to catch up sees the segment before its writer counts it
    fill(writer, 2, seed=3)
    objects.answer_s = 0.0
    fill(writer, 2, seed=4)
    numbers = sorted(int(name.rpartition("/")[2]) for name in objects.names("log"))
    assert numbers == list(range(1, len(numbers) + 1))
    assert same(tmp_path / "s", objects) == 8
    writer.close()


@pytest.mark.usefixtures("impatient")
def test_a_log_that_stays_away_is_caught_up_by_the_next_driver(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = dying()
    writer = mirror.open_writer(tmp_path / "s", objects)
    fill(writer, 2, seed=1)
    objects.is_dead = True
    stage(writer, 2, seed=2)
    writer.append()
    fill(writer, 2, seed=3)
    writer.close()
    assert "the next `alsys run` here puts them there" in caplog.text
    objects.is_dead = False
    assert segments.open_reader(objects).head.lengths["labels"] == 2
    write(tmp_path / "s", objects, 4)
    assert same(tmp_path / "s", objects) == 9


@pytest.mark.usefixtures("impatient")
def test_a_driver_elsewhere_that_began_while_the_log_was_away_fences_this_one(tmp_path: Path) -> None:
    objects = dying()
    first = mirror.open_writer(tmp_path / "a", objects)
    fill(first, 2, seed=1)
    objects.is_dead = True
    fill(first, 2, seed=2)
    there = Objects(objects._store, "memory://")
    write(tmp_path / "b", there, 3)
    objects.is_dead = False
    with pytest.raises(Fenced):
        watch(first)
    with pytest.raises(Fenced):
        fill(first, 2, seed=4)
    first.close()
    assert same(tmp_path / "b", there) == 5
    with pytest.raises(InputError, match="another way"):
        mirror.open_writer(tmp_path / "a", there)


def test_a_dead_log_does_not_hold_up_who_looks_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "OWNER_EVERY_S", -1.0)
    answer = threading.Event()

    class Silent(Objects):
        def exists(self, name: str) -> bool:
            answer.wait(60.0)
            return super().exists(name)

    writer = segments.open_writer(Silent(Objects.at("memory:///")._store, "memory:"))
    started = time.monotonic()
    for _ in range(20):
        writer.check_owner()
    took_s = time.monotonic() - started
    answer.set()
    writer.close()
    assert took_s < 30.0, "each look would have waited for the answer"


def test_what_a_commit_speaks_of_is_put_before_it(tmp_path: Path) -> None:
    objects, seen = Objects.at("memory:///"), list[int]()
    writer = mirror.open_writer(tmp_path / "s", objects, lambda: seen.append(len(objects.names("log"))))
    fill(writer, 1, seed=1)
    fill(writer, 1, seed=2)
    assert seen == [1, 2]
    writer.close()


def test_a_copy_for_reading_fences_nobody(tmp_path: Path) -> None:
    objects = Objects.at("memory:///")
    with pytest.raises(InputError, match="holds no campaign"):
        mirror.fetch(tmp_path / "view", objects)
    writer = mirror.open_writer(tmp_path / "a", objects)
    for seed in range(3):
        fill(writer, 2, seed=seed)
        mirror.fetch(tmp_path / "view", objects)
        assert same(tmp_path / "view", objects) == 2 * seed + 2
    writer.check_owner()
    writer.close()


def test_compaction_reads_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "COMPACT_EVERY", 4)
    objects = Objects.at("memory:///")
    write(tmp_path / "a", objects, *range(15))
    assert objects.get(segments.COMPACTED) is not None
    assert len(objects.names("log")) < 16
    write(tmp_path / "b", objects, 99)
    assert same(tmp_path / "b", objects) == 48


def test_a_driver_loses_nothing_that_goes_on_until_it_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commits come between the look of the other one and its claim."""
    objects = Objects.at("memory:///")
    first = mirror.open_writer(tmp_path / "a", objects)
    fill(first, 2, seed=1)
    load, seeds = segments.SegmentStore.load, iter(range(2, 5))

    def late(self: segments.SegmentStore) -> None:
        load(self)
        if (seed := next(seeds, None)) is not None:
            fill(first, 2, seed=seed)

    monkeypatch.setattr(segments.SegmentStore, "load", late)
    second = mirror.open_writer(tmp_path / "b", objects)
    with pytest.raises(Fenced):
        fill(first, 2, seed=9)
    fill(second, 2, seed=10)
    second.close()
    assert same(tmp_path / "b", objects) == 10


def test_a_server_that_does_not_answer_is_told_of_without_the_values_of_types() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        keys = {"access_key_id": "a", "secret_access_key": "b", "region": "x"}
        options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}, **keys}
        objects = Objects.at("s3://bucket/prefix", endpoint=server, **options)
        with pytest.raises(OSError, match=r"Error performing GET http://127\.0\.0\.1") as caught:
            objects.get_version("COMPACTED")
    assert "Debug source" not in str(caught.value)
    assert "RetryError" not in str(caught.value)
