"""A campaign whose minima get Hessians, through the command line and a restart; models learn them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alsys import open_dataset
from alsys.cli import main
from alsys.dynamics.vibrations import hessian_of, vibrations
from alsys.events import HessianComputed, MinimumFound, ModelPublished
from alsys.exploration.reference import xtb_potential
from alsys.store.zarr import open_reader

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"


def command(folder: Path, n_labels: int, *more: str, systems: str = "[{name: ethanol, smiles: CCO}]") -> list[str]:
    overrides = (
        f"directory={folder / 'campaign'}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling={kind: xtb, hessians: 2}",
        f"systems={systems}",
        f"stop.labels={n_labels}",
    )
    return ["run", str(TOY), "--quiet", *(part for override in overrides for part in ("--set", override)), *more]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hessians")
    assert main(command(folder, 20)) == 0
    assert main(command(folder, 30)) == 0
    return folder / "campaign"


def test_two_conformers_are_relaxed_once_and_get_one_hessian_each(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_reader(campaign / "store.zarr").events()
    assert sorted(event.name for event in log if isinstance(event, MinimumFound)) == ["ethanol", "ethanol/2"]
    assert sorted(event.name for event in log if isinstance(event, HessianComputed)) == ["ethanol", "ethanol/2"]
    assert main(["data", "verify", str(campaign), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(["status", str(campaign), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["labels"]["accepted"] == 30
    assert "ethanol" in status["hessians"]
    assert main(["data", "info", str(campaign)]) == 0
    assert "Hessian of ethanol/2, at frame" in capsys.readouterr().out
    assert main(["report", str(campaign)]) == 0
    assert "Hessian of ethanol/2 from differences of forces" in (campaign / "report.html").read_text()


def test_they_are_read_with_the_data_and_are_those_of_the_potential(campaign: Path) -> None:
    dataset = open_dataset(campaign)
    frames = {frame.frame_id: frame for frame in dataset.frames()}
    assert len(dataset.hessians) == 2
    for frame_id, matrix in dataset.hessians.items():
        frame = frames[frame_id]
        true = vibrations(frame, hessian_of(frame, xtb_potential(frame), 0.004))
        assert true.n_imaginary == 0
        np.testing.assert_allclose(vibrations(frame, matrix).wavenumbers, true.wavenumbers, atol=3.0)
    assert dataset.select("random").hessians == {}


def test_the_fits_after_them_were_given_them(campaign: Path) -> None:
    published = [event for event in open_reader(campaign / "store.zarr").events() if isinstance(event, ModelPublished)]
    assert published[-1].n_hessians == 2


def test_the_plan_says_what_they_cost_and_that_they_are_there(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, 20, "--dry-run")) == 0
    assert "Hessian of ethanol/2: a relaxation of about 5 to 30 labels, then 54 labels" in capsys.readouterr().out
    assert main(command(campaign.parent, 40, "--dry-run")) == 0
    assert "Hessian of ethanol/2: there" in capsys.readouterr().out


def test_systems_without_one_minimum_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waters = "[{name: waters, cluster: {radius: 5.0, components: [{smiles: O, count: 3}]}}]"
    assert main(command(tmp_path, 20, systems=waters)) == 2
    said = capsys.readouterr().err
    assert "labeling.hessians" in said
    assert "leave it out" in said
    assert not (tmp_path / "campaign").exists()
