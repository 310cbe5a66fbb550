"""Both stores keep the same promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from alsys.store import memory, segments
from alsys.store import zarr as zarr_store
from alsys.store.columns import ColumnReader
from alsys.store.files import Files
from alsys.store.objects import Objects
from alsys.store.writer import ColumnWriter
from alsys.testing.stores import StoreContract

pytestmark = pytest.mark.thorough


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _disk(self) -> None:
        self.disk = memory.MemoryDisk()

    def open_writer(self) -> ColumnWriter:
        return memory.open_writer(self.disk)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return memory.open_reader(self.disk, seq)

    def crash(self, writer: ColumnWriter) -> None:
        del writer


class MortalFiles(Files):
    """Real files of a process that can die."""

    def lock(self, path: Path) -> int:
        self._lock = super().lock(path)
        return self._lock

    def die(self) -> None:
        os.close(self._lock)  # as the kernel does


class TestZarrStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _disk(self, tmp_path: Path) -> Iterator[None]:
        self.path, self.writers = tmp_path / "store.zarr", list[zarr_store.ZarrWriter]()
        yield
        for writer in self.writers:
            writer.folder.close_files()

    def open_writer(self) -> ColumnWriter:
        self.files = MortalFiles()
        self.writers.append(zarr_store.open_writer(self.path, files=self.files))
        return self.writers[-1]

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return zarr_store.open_reader(self.path, seq)

    def crash(self, writer: ColumnWriter) -> None:
        del writer
        self.files.die()


class TestSegmentStoreInMemory(StoreContract):
    @pytest.fixture(autouse=True)
    def _disk(self) -> None:
        self.objects = Objects.at("memory:///")

    def open_writer(self) -> ColumnWriter:
        return segments.open_writer(self.objects)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return segments.open_reader(self.objects, seq)

    def crash(self, writer: ColumnWriter) -> None:
        del writer


class TestCompactedSegmentStore(TestSegmentStoreInMemory):
    """Behind each writer everything is compacted, so that later ones begin with chunks."""

    def open_writer(self) -> ColumnWriter:
        store = segments.SegmentStore(self.objects)
        store.load()
        if store.n:
            store.compact()
        return segments.open_writer(self.objects)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        store = segments.SegmentStore(self.objects)
        store.load()
        store.compact()
        return segments.open_reader(self.objects, seq)
