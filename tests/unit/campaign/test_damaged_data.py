"""Damaged rows are given to nobody: not to Python, not to a file, until `alsys data repair` has set them aside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alsys import open_dataset
from alsys.campaign import Campaign
from alsys.cli import main
from alsys.errors import StoreCorrupt

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("done") / "campaign"
    settings = {
        "directory": place,
        "runtime.kind": "in-process",
        "tracking.enabled": False,
        "labeling.delay_s": 0,
        "stop.labels": 16,
    }
    Campaign.open(TOY, overrides=settings).run()
    return place


@pytest.mark.parametrize("array", ["labels/energy", "labels/forces", "atoms/positions", "frames/multiplicity"])
def test_damaged_rows_are_not_given_away(
    done: Path, tmp_path: Path, array: str, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = tmp_path / "campaign"
    shutil.copytree(done, campaign)
    n_sound = len(open_dataset(campaign))
    [chunk] = [path for path in (campaign / "store.zarr" / array / "c").rglob("*") if path.is_file()]
    content = bytearray(chunk.read_bytes())
    content[48 if array != "frames/multiplicity" else 24] ^= 0x02
    chunk.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="damaged: 1 "):
        open_dataset(campaign)
    exported = tmp_path / "o.xyz"
    assert main(["data", "export", str(campaign), str(exported)]) == 4
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "alsys data repair" in said
    assert not exported.exists()
    assert main(["data", "repair", str(campaign)]) == 0
    assert len(open_dataset(campaign)) == n_sound - 1
    assert main(["data", "export", str(campaign), str(exported)]) == 0
