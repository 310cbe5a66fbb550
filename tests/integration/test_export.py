"""`alsys models export` finds the champion of a campaign; the registry is in the calculator's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alsys.campaign.bundles import bundle_name
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import parse_config
from alsys.errors import InputError, StoreCorrupt
from alsys.events import CampaignOpened, Event, ModelLost, ModelPromoted, ModelPublished, ModelRejected
from alsys.interop.model_sources import read_model
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.store.zarr import open_writer

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
}


def make_campaign(folder: Path, events: list[Event]) -> Path:
    """A campaign directory with two bundles and this log."""
    directory = CampaignFolder(folder / "campaign")
    directory.write_record(parse_config(CONFIG))
    member = {"coefficients": np.zeros((1, 8)), "shifts": np.zeros(1)}
    spec = {"elements": ["H"], "r_max": 4.0, "n_basis": 8}
    for version in (1, 2):
        write_bundle(directory.models / bundle_name(version), CommitteeState(version, "pair", spec, (member,)), {})
    store = open_writer(directory.store)
    store.stage([CampaignOpened(t=0.0, epoch=1, config_hash="", version=""), *events])
    store.commit()
    store.close()
    return directory.path


def published(version: int) -> ModelPublished:
    return ModelPublished(t=1.0, version=version, parent=version - 1, seq=1, n_labels=9, wall_s=1.0, metrics={})


def test_the_champion_is_exported_and_not_the_newest(tmp_path: Path) -> None:
    decisions = [
        published(1), ModelPromoted(t=1.0, version=1, reason="first"),
        published(2), ModelRejected(t=1.0, version=2, reason="worse", reasons=("worse",)),
    ]  # fmt: skip
    campaign = make_campaign(tmp_path, decisions)
    assert main(["models", "export", str(campaign), str(tmp_path / "out")]) == 0
    assert read_bundle(tmp_path / "out").version == 1
    assert read_model(campaign)[0].version == 1
    assert read_model(str(campaign / "models" / "v0002"))[0].version == 2


def test_a_lost_champion_makes_way_for_the_one_before(tmp_path: Path) -> None:
    decisions = [
        published(1), ModelPromoted(t=1.0, version=1, reason="first"),
        published(2), ModelPromoted(t=1.0, version=2, reason="better"), ModelLost(t=1.0, version=2, reason="gone"),
    ]  # fmt: skip
    campaign = make_campaign(tmp_path, decisions)
    assert read_model(campaign)[0].version == 1
    (campaign / "store.zarr" / "HEAD").unlink()
    with pytest.raises(StoreCorrupt, match=f"no HEAD; `alsys data repair {campaign}`"):
        read_model(campaign)


def test_a_campaign_without_a_champion_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = make_campaign(tmp_path, [])
    assert main(["models", "export", str(campaign), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{campaign}: has no champion yet; let the campaign train one" in error
    with pytest.raises(InputError, match="has no champion yet"):
        read_model(campaign)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
