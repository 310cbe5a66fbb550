"""A whole campaign through the command line, without Ray: run, status, verify, export, report, resume."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import pytest

from alsys.cli import main

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"
STATUS_KEYS = {"state", "head_seq", "labels", "candidates", "models", "champion", "wall_s", "utilisation"}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    assert main(arguments(folder, 40)) == 0
    return folder / "campaign"


def arguments(folder: Path, n_labels: int) -> list[str]:
    overrides = (
        f"directory={folder / 'campaign'}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling.delay_s=0",
        f"stop.labels={n_labels}",
    )
    command = ["run", str(TOY), "--quiet", "--ack-log", str(folder / "acks.txt")]
    for override in overrides:
        command += ["--set", override]
    return command


def test_status_has_the_promised_keys(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(campaign), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status.keys() >= STATUS_KEYS
    assert status["state"] == "finished"
    assert status["labels"].keys() >= {"accepted", "failed", "quarantined", "random_arm"}
    assert status["labels"]["accepted"] == 40
    assert status["candidates"].keys() >= {"proposed", "pending", "in_flight", "dropped"}
    assert status["utilisation"].keys() == {"explorers", "labelers", "trainers"}
    expected = {"version", "n_labels", "force_mae_random_arm", "force_mae_interval", "promoted"}
    assert all(model.keys() >= expected for model in status["models"])
    assert main(["status", str(campaign)]) == 0


def test_store_verifies_and_holds_what_was_acknowledged(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(campaign), "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["ok"] is True
    acknowledged = (campaign.parent / "acks.txt").read_text().split()
    assert verified["labels"] == len(set(acknowledged)) >= 40
    assert main(["data", "info", str(campaign), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["levels"][0]["by_arm"]["random"] > 0


def test_export_holds_every_label(campaign: Path, tmp_path: Path) -> None:
    arms = ["--arm", "uncertain", "--arm", "initial", "--arm", "random"]
    assert main(["data", "export", str(campaign), str(tmp_path / "all.extxyz"), *arms]) == 0
    images = ase.io.read(tmp_path / "all.extxyz", ":")
    assert len(images) == 40
    assert images[0].get_forces().shape == (9, 3)
    assert main(["data", "export", str(campaign), str(tmp_path / "all.h5")]) == 2


def test_report_is_self_contained(campaign: Path) -> None:
    assert main(["report", str(campaign)]) == 0
    page = (campaign / "report.html").read_text()
    assert "<svg" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert "toy" in page


def test_finished_campaign_ends_at_once_and_goes_on_when_extended(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(campaign.parent, 40)) == 0
    assert "resuming" in capsys.readouterr().out
    assert main(arguments(campaign.parent, 50)) == 0
    capsys.readouterr()
    main(["status", str(campaign), "--json"])
    assert json.loads(capsys.readouterr().out)["labels"]["accepted"] == 50
    assert main(["stop", str(campaign)]) == 0
    assert "nothing to stop" in capsys.readouterr().out


def test_dry_run_prints_a_plan_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(tmp_path, 40), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "wall time: about" in output
    assert list(tmp_path.iterdir()) == []


def test_config_schema_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", "--json"]) == 0
    assert "labeling" in json.loads(capsys.readouterr().out)["properties"]
    assert main(["config", "schema"]) == 0
    described = capsys.readouterr().out
    assert "exploration.trust[fixed].accurate_below" in described
    assert "exploration.methods[udd].ratio" in described
    assert "systems[].box.components[].count" in described, "sections that may be left out are described too"
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {"torch", "pyscf", "ray"} <= {check["name"] for check in checks}
