"""`alsys rollback` without a driver, and the line that says what the target of a campaign lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alsys.campaign.bundles import bundle_name
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import parse_config
from alsys.events import CampaignOpened, CampaignStopped, ModelPromoted, ModelPublished, ModelRejected
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
from alsys.store.zarr import open_reader, open_writer
from alsys.tracking.outbox import ItemKind, Outbox

CONFIG = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair"},
    "stop": {"target_force_mae": 0.04, "target_blind_spots": 0.05},
    "tracking": {"enabled": False},
}
METRICS = {
    "n_random": 40.0, "force_mae_random_arm": 0.03, "force_mae_random_arm_low": 0.02,
    "force_mae_random_arm_high": 0.05, "blind_spots": 0.0, "blind_spots_high": 0.072,
}  # fmt: skip
MISSING = (
    "champion v0002: force MAE may be 50.0 (95 %), target 40.0 meV/Angstrom; blind spots may be 7.2% of frames (95 %), "
    "target 5.0%; none was seen, 59 random-arm frames would prove it, there are 40"
)


def make_campaign(folder: Path, **sections: object) -> CampaignFolder:
    """Two champions and a challenger; finished."""
    directory = CampaignFolder(folder / "campaign")
    directory.write_record(parse_config({**CONFIG, **sections}))
    store = open_writer(directory.store)
    member = {"coefficients": np.zeros((1, 8)), "shifts": np.zeros(1)}
    spec = {"elements": ["H"], "r_max": 4.0, "n_basis": 8}
    for version in (1, 2, 3):
        write_bundle(
            directory.models / bundle_name(version), CommitteeState(version, "pair", spec, (member, member)), {}
        )
    published = [
        ModelPublished(t=1.0, version=v, parent=v - 1, seq=1, n_labels=9, wall_s=1.0, metrics=METRICS)
        for v in (1, 2, 3)
    ]
    store.stage(
        [
            CampaignOpened(t=0.0, epoch=1, config_hash="", version=""),
            published[0],
            ModelPromoted(t=1.0, version=1, reason="first version"),
            published[1],
            ModelPromoted(t=1.0, version=2, reason="better"),
            published[2],
            ModelRejected(
                t=1.0, version=3, reason="worse; lost 6 of 8 walkers", reasons=("worse", "lost 6 of 8 walkers")
            ),
            CampaignStopped(t=4.0, reason="labels", message="9 labels"),
        ]
    )
    store.commit()
    store.close()
    return directory


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignFolder:
    return make_campaign(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_roll_back_and_forth(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(campaign.path)
    said = run(capsys, "rollback", path)
    assert said == (
        "v0001 is champion, v0002 was; with the next `alsys run`, explorers go back to it and the next fit starts from "
        "it\n"
    )
    assert json.loads(run(capsys, "status", path, "--json"))["champion"] == 1
    assert "v0002 is champion" in run(capsys, "rollback", path), "a second one undoes the first"
    assert "v0003 is champion" in run(capsys, "rollback", path, "3"), "whatever the judge said"
    promoted = [event.version for event in open_reader(campaign.store).events() if isinstance(event, ModelPromoted)]
    assert promoted == [1, 2, 1, 2, 3]
    assert not list(campaign.requests.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["v9"], "there are: v0001, v0002, v0003"),
        (["v0002"], "is champion already"),
        (["best"], "there are: v0001, v0002"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    said = run(capsys, "rollback", str(campaign.path), *words, code=2)
    assert expected in said
    assert said.count("\n") == 1


def test_a_bundle_that_is_gone_is_no_way_back(campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(campaign.models / bundle_name(1))
    assert "its bundle cannot be read (got 1)" in run(capsys, "rollback", str(campaign.path), code=2)


def test_the_registry_is_told_where_no_driver_does_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a server that does not answer, what is queued stays queued."""
    tracking = {"uri": "http://127.0.0.1:9", "flush_s": 0.0}
    campaign = make_campaign(tmp_path, tracking=tracking)
    assert "delivers it" in run(capsys, "rollback", str(campaign.path))
    items = Outbox.of(campaign.path).pending()
    assert [(item.version, item.times) for item in items if item.kind is ItemKind.PROMOTE] == [(1, 1), (2, 1), (1, 2)]
    assert [item.card for item in items if item.kind is ItemKind.REJECT] == [{"reason": "worse; lost 6 of 8 walkers"}]


def test_what_the_target_lacks_is_in_status_and_report(
    campaign: CampaignFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(campaign.path)
    status = json.loads(run(capsys, "status", path, "--json"))
    assert status["convergence"] == {"is_reached": False, "versions_in_a_row": 0, "text": MISSING}
    assert status["models"][2]["reasons"] == ["worse", "lost 6 of 8 walkers"]
    shown = "".join(character for character in run(capsys, "status", path) if character.isalnum())
    assert "".join(character for character in MISSING if character.isalnum()) in shown
    run(capsys, "report", path)
    assert MISSING in (campaign.path / "report.html").read_text()
