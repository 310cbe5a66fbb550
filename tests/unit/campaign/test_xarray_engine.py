"""What xarray sees of a campaign: live labels with their frames, read when they are used."""

from __future__ import annotations

import shutil
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from alsys import open_dataset
from alsys.campaign import Campaign
from alsys.campaign.xarray_engine import CampaignEngine
from alsys.errors import InputError, StoreCorrupt
from alsys.store.columns import ColumnReader

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """A campaign of which a label was retracted; its frame, and the version before that."""
    place = tmp_path_factory.mktemp("done") / "campaign"
    settings = {
        "directory": place,
        "runtime.kind": "in-process",
        "tracking.enabled": False,
        "labeling.delay_s": 0,
        "stop.labels": 16,
    }
    opened = Campaign.open(ROOT / "configs" / "toy.yaml", overrides=settings)
    opened.run()
    whole = opened.dataset()
    gone = whole.snapshot.frame_ids[5]
    opened.retract("wrong on purpose", frames=[gone])
    return place, gone, whole.version


def opened(place: Path, **options: Any) -> xarray.Dataset:
    return xarray.open_dataset(place, engine=CampaignEngine, **options)


def test_the_engine_has_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["xarray.backends"].items()
    assert name == "alsys"
    assert EntryPoint(name, value, "xarray.backends").load() is CampaignEngine


def test_a_retracted_label_is_in_the_arrays_and_not_in_the_dataset(campaign: tuple[Path, str, int]) -> None:
    place, gone, version = campaign
    with opened(place) as now, opened(place, version=version) as before:
        assert gone not in now["frame"]
        assert gone in before["frame"]
        assert before.sizes["frame"] == now.sizes["frame"] + 1
    with xarray.open_zarr(place / "store.zarr", group="labels", consolidated=False) as raw:
        assert raw.sizes["labels"] >= before.sizes["frame"]
        assert "retracted" in raw.attrs["comment"]
        assert 'engine="alsys"' in raw.attrs["comment"]


def test_values_and_units_are_those_of_the_eager_dataset(campaign: tuple[Path, str, int]) -> None:
    place, _, version = campaign
    for chosen in (None, version):
        eager = open_dataset(place, chosen).to_xarray()
        with opened(place, version=chosen) as lazy:
            assert eager.attrs.items() <= lazy.attrs.items()
            for name, values in eager.variables.items():
                assert lazy[name].dims == values.dims, name
                assert lazy[name].attrs.get("units") == values.attrs.get("units"), name
                np.testing.assert_array_equal(lazy[name].values, values.values, err_msg=str(name))
            assert lazy["temperature"].attrs["units"] == "K"
            assert "rattle" in lazy["method"].values.tolist()


def test_rows_are_read_when_they_are_used(campaign: tuple[Path, str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    place, _, _ = campaign
    with opened(place) as lazy:
        read: list[tuple[str, int]] = []
        original = ColumnReader.read

        def noted(self: ColumnReader, path: str, start: int, stop: int) -> Any:
            read.append((path, stop - start))
            return original(self, path, start, stop)

        monkeypatch.setattr(ColumnReader, "read", noted)
        chosen = lazy["positions"][9:18, 1]
        assert read == []
        values = chosen.values
        assert [path for path, _ in read] == ["atoms/positions"]
        assert read[0][1] < lazy.sizes["atom"] / 2
        monkeypatch.undo()
        np.testing.assert_array_equal(values, lazy["positions"].values[9:18, 1])
        for key in (3, slice(20, 2, -3), np.array([7, 2, 2, 15])):
            np.testing.assert_array_equal(lazy["forces"][key].values, lazy["forces"].values[key])
            np.testing.assert_array_equal(lazy["energy"][key].values, lazy["energy"].values[key])
            np.testing.assert_array_equal(lazy["cell"][key, 0, [2, 0]].values, lazy["cell"].values[key, 0][..., [2, 0]])
        assert lazy.isel(frame=lazy["arm"] == "random")["energy"].size == (lazy["arm"] == "random").sum()


def test_a_folder_of_a_campaign_is_recognised(campaign: tuple[Path, str, int], tmp_path: Path) -> None:
    engine = CampaignEngine()
    assert engine.guess_can_open(campaign[0])
    assert not engine.guess_can_open(tmp_path)
    assert not engine.guess_can_open(b"CDF")
    with opened(campaign[0], drop_variables=["forces"]) as lazy:
        assert "forces" not in lazy
        assert "energy" in lazy


def test_refusals(campaign: tuple[Path, str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such dataset version"):
        opened(campaign[0], version=10**6)
    with pytest.raises(InputError, match="0 levels have this identity"):
        opened(campaign[0], level="0123456789")
    copy = tmp_path / "campaign"
    shutil.copytree(campaign[0], copy)
    [chunk] = [path for path in (copy / "store.zarr/labels/forces/c").rglob("*") if path.is_file()]
    content = bytearray(chunk.read_bytes())
    content[48] ^= 2
    chunk.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="damaged: 1 label"):
        opened(copy)
