"""Campaigns that alsys made before are as they were, and go on.

`golden/NAME.tar.xz` is the folder of a campaign of commit ecc1669, with failed labels, quarantined frames, an import
and promotions: `toy` of the analytic potential, `xtb` of GFN2-xTB. `status-then.json` is the status that this commit
gave.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from alsys import Campaign
from alsys.events import LabelAccepted
from alsys.store.zarr import open_reader

GOLDEN = Path(__file__).parent / "golden"
RENAMED = {
    "suspected": "failed_gate",
    "disputed": "not_reproduced",
    "refuted": "rejected",
    "canaries": "reference_checks",
    "canaries_failed": "reference_checks_failed",
}
"""Words of the status for what labels were held against, then and now."""
COVERAGE = {"coverage", "coverage_standard_error", "coverage_frames", "coverage_version"}
"""Stays visible after a promotion now."""


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def as_now(then: dict[str, Any]) -> dict[str, Any]:
    now = dict(then)
    now["label_checks"] = {RENAMED.get(key, key): value for key, value in now.pop("assurance").items()}
    return now


@pytest.mark.parametrize("name", ["toy", "xtb"])
def test_a_campaign_of_before(name: str, tmp_path: Path) -> None:
    place = unpacked(name, tmp_path)
    then = as_now(json.loads((place / "status-then.json").read_text()))
    campaign = Campaign.open(place)
    now = campaign.status()
    assert now.keys() >= then.keys()
    for key, value in then.items():
        if isinstance(value, dict):
            assert {k: v for k, v in now[key].items() if k in value.keys() - COVERAGE} == {
                k: v for k, v in value.items() if k not in COVERAGE
            }, key
        elif key != "directory":
            assert now[key] == value, key
    assert then["labels"]["quarantined"] > 0
    assert then["labels"]["imported"] > 0
    assert then["champion"] >= 2
    before = open_reader(place / "store.zarr")
    assert before.verify().is_ok
    labels = [event for event in before.events() if isinstance(event, LabelAccepted)]
    result = campaign.run(labels=now["labels"]["accepted"] + 4)
    assert (result.state, result.reason) == ("finished", "labels")
    after = open_reader(place / "store.zarr")
    assert after.verify().is_ok
    assert [event for event in after.events() if isinstance(event, LabelAccepted)][: len(labels)] == labels
    assert campaign.champion.calculator() is not None
