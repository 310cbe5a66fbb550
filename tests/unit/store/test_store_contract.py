"""Both stores keep the same promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alsys.store import memory
from alsys.store import zarr as zarr_store
from alsys.store.columns import ColumnReader, ColumnWriter
from alsys.testing.stores import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _disk(self) -> None:
        self.disk = memory.MemoryDisk()

    def open_writer(self) -> ColumnWriter:
        return memory.open_writer(self.disk)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        reader = memory.open_reader(self.disk)
        return reader if seq is None else ColumnReader(self.disk, type(reader.head)(seq, 1, reader.lengths_at(seq)))


class TestZarrStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _disk(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.zarr"

    def open_writer(self) -> ColumnWriter:
        return zarr_store.open_writer(self.path)

    def open_reader(self, seq: int | None = None) -> ColumnReader:
        return zarr_store.open_reader(self.path, seq)


def test_closed_store_reads_with_plain_zarr_and_xarray(tmp_path: Path) -> None:
    import xarray
    import zarr

    from alsys.testing.stores import fill

    writer = zarr_store.open_writer(tmp_path / "s")
    fill(writer, 5)
    writer.close()
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert group["frames/n_atoms"].shape == (5,)
    assert group["labels/energy"].shape == (5,)
    assert np.isfinite(group["labels/energy"][:]).all()
    data = xarray.open_zarr(tmp_path / "s", group="labels", consolidated=False)
    assert data["energy"].attrs["units"] == "eV"
    assert data.sizes["labels"] == 5
    frames = xarray.open_zarr(tmp_path / "s", group="frames", consolidated=False)
    assert frames["cell"].dims == ("frames", "vector", "xyz")
