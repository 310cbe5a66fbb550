"""A store in a folder and in object storage: the contract, other machines, folders and logs that are behind."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alsys.errors import Fenced, InputError, StoreBusy
from alsys.store import mirror, segments
from alsys.store import zarr as zarr_store
from alsys.store.columns import ColumnReader
from alsys.store.objects import Objects
from alsys.store.schema import BY_PATH, COMMITS
from alsys.store.writer import ColumnWriter
from alsys.store.zarr import ZarrWriter
from alsys.testing.stores import StoreContract, fill, stage
from support.lost_answers import losing

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


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_the_storage_refuses_is_in_neither_or_comes_again(tmp_path: Path, when: str) -> None:
    objects = losing()
    writer = mirror.open_writer(tmp_path / "s", objects)
    fill(writer, 2, seed=1)
    stage(writer, 2, seed=2)
    objects.fails = when
    with pytest.raises(OSError, match="no answer"):
        writer.commit()
    assert zarr_store.open_reader(tmp_path / "s").head.seq == 1
    if when == "after":  # and the driver dies before the next try
        TestMirroredFolder().crash(writer)
        writer = mirror.open_writer(tmp_path / "s", objects)
        assert writer.head.lengths["labels"] == 4, "the log has it, though nobody was told"
    else:
        assert writer.commit().seq == 2
    fill(writer, 2, seed=3)
    writer.close()
    assert same(tmp_path / "s", objects) == 6


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
