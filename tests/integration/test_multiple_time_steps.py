"""A campaign whose walkers move on two time steps, killed and resumed: small networks come with its models."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.events import ExplorationReported
from alsys.potentials.bundle import read_bundle
from alsys.store.zarr import open_reader

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"


def arguments(folder: Path, n_labels: int, *more: str) -> list[str]:
    overrides = (
        f"directory={folder / 'campaign'}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling.delay_s=0.1",
        "labeling.baseline={kind: gfn1-xtb}",
        "training.delta=gfn1-xtb",
        "systems=[{name: methanol, smiles: CO}]",
        "exploration.walkers=2",
        "exploration.chunk_steps=10",
        "exploration.spacing_steps=4",
        "exploration.multiple_time_step={outer_steps: 4}",
        "exploration.hydrogen_mass=2.5",
        f"stop.labels={n_labels}",
        *more,
    )
    command = ["run", str(TOY), "--quiet", "--ack-log", str(folder / "acks.txt")]
    for override in overrides:
        command += ["--set", override]
    return command


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    with (folder / "output.txt").open("wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "alsys.cli", *arguments(folder, 60)], stdout=output, stderr=output, cwd=folder
        )
    deadline = time.monotonic() + 120.0
    while driver.poll() is None and n_acknowledged(folder) < 24:
        assert time.monotonic() < deadline, (folder / "output.txt").read_text()
        time.sleep(0.05)
    assert driver.poll() is None, (folder / "output.txt").read_text()
    driver.kill()
    driver.wait()
    assert 24 <= n_acknowledged(folder) < 60
    assert main(arguments(folder, 60)) == 0
    return folder / "campaign"


def n_acknowledged(folder: Path) -> int:
    acks = folder / "acks.txt"
    return len(set(acks.read_text().split())) if acks.exists() else 0


def test_it_ends_with_all_labels_and_a_network_beside_each_committee(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", str(campaign), "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["ok"] is True
    assert verified["labels"] == n_acknowledged(campaign.parent) >= 60
    bundles = [read_bundle(path) for path in sorted((campaign / "models").glob("v*"))]
    assert len(bundles) > 2
    for state in bundles:
        assert state.baseline is not None
        assert state.inner is not None
        assert (state.inner.baseline, state.inner.n_members, state.inner.version) == (None, 1, state.version)
    main(["status", str(campaign), "--json"])
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["version"] for model in models] == [state.version for state in bundles]


def test_steps_are_counted_as_inner_ones_and_frames_come_between_moves(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = open_reader(CampaignFolder(campaign).store)
    reports = [event for event in reader.events() if isinstance(event, ExplorationReported)]
    reader.close()
    assert reports
    assert {report.n_steps for report in reports} == {12}
    assert all(report.walker_steps % 4 == 0 and report.walker_steps <= 24 for report in reports)
    assert sum(report.walker_steps for report in reports) > 100
    main(["status", str(campaign), "--json"])
    total = json.loads(capsys.readouterr().out)["exploration"]["walker_steps"]
    assert total == sum(report.walker_steps for report in reports)


def test_an_outer_step_that_is_too_long_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tmp_path, 20, "exploration.multiple_time_step={outer_steps: 16}")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert (
        "toy.yaml: exploration.multiple_time_step.outer_steps: steps of 0.5 fs are half a vibration of methanol" in said
    )
    assert not (tmp_path / "campaign").exists()
