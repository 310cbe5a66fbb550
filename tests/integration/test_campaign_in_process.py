"""A whole campaign through the command line, without Ray: run, status, verify, export, report, resume."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import ase.io
import pytest

import alsys
from alsys import Campaign, open_dataset
from alsys.campaign.driver import AcknowledgementLog
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.cli.configs import read_config
from alsys.config import parse_config
from alsys.errors import InputError
from alsys.events import ModelLost, ModelPromoted, ModelPublished
from alsys.store.zarr import open_reader

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
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


def test_export_holds_every_label(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = ["--arm", "uncertain", "--arm", "initial", "--arm", "random"]
    assert main(["data", "export", str(campaign), str(tmp_path / "all.extxyz"), *arms]) == 0
    images = ase.io.read(tmp_path / "all.extxyz", ":")
    assert len(images) == 40
    assert images[0].get_forces().shape == (9, 3)
    assert main(["data", "export", str(campaign), str(tmp_path / "all.h5")]) == 2
    capsys.readouterr()
    assert main(["data", "export", str(campaign), str(tmp_path / "all.npz"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == {"output": str(tmp_path / "all.npz"), "format": "rmd17", "frames": 40, "left_out": 3}


def test_report_is_self_contained(campaign: Path) -> None:
    with pytest.raises(InputError, match="output: cannot be written"):
        Campaign.open(campaign).report(campaign / "none" / "r.html")
    assert main(["report", str(campaign)]) == 0
    page = (campaign / "report.html").read_text()
    assert "<svg" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert "toy" in page


def test_finished_campaign_ends_at_once_and_goes_on_when_extended(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, started = (campaign / "store.zarr" / "HEAD").read_bytes(), time.monotonic()
    assert main(arguments(campaign.parent, 40)) == 0
    assert time.monotonic() - started < 5
    output = capsys.readouterr().out
    assert "is finished; raise stop.labels to go on" in output
    assert "finished (labels): 40 labels" in output
    assert "alsys.load_calculator(" in output
    assert (campaign / "store.zarr" / "HEAD").read_bytes() == head, "nothing is opened, no time is added"
    assert main([*arguments(campaign.parent, 40), "--dry-run"]) == 0
    capsys.readouterr()
    assert main(arguments(campaign.parent, 50)) == 0
    assert "resuming" in capsys.readouterr().out
    main(["status", str(campaign), "--json"])
    assert json.loads(capsys.readouterr().out)["labels"]["accepted"] == 50
    assert main(["stop", str(campaign)]) == 0
    assert "nothing to stop" in capsys.readouterr().out


def damage(bundle: Path) -> None:
    (bundle / "member_00.safetensors").write_bytes(b"garbage")


def test_a_champion_whose_bundle_is_damaged_makes_way_for_the_one_before(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(campaign.parent, tmp_path / "copy"))
    before = json.loads((copy / "campaign" / "models" / "v0002" / "card.json").read_text())
    assert before["version"] == 2
    assert main(["status", str(copy / "campaign"), "--json"]) == 0
    champion = json.loads(capsys.readouterr().out)["champion"]
    reader = open_reader(copy / "campaign" / "store.zarr")
    leaders = [event.version for event in reader.events() if isinstance(event, ModelPromoted)]
    reader.close()
    assert leaders[-1] == champion
    before_it = leaders[-2]
    damage(copy / "campaign" / "models" / f"v{champion:04d}")
    assert main(arguments(copy, 50)) == 0
    output = capsys.readouterr().out
    assert f"v{champion:04d} cannot be read: v{before_it:04d} leads again" in output
    assert int(output.partition("champion: v")[2][:4]) != champion
    reader = open_reader(copy / "campaign" / "store.zarr")
    lost = [event for event in reader.events() if isinstance(event, ModelLost)]
    published = [event for event in reader.events() if isinstance(event, ModelPublished)]
    reader.close()
    assert [event.version for event in lost] == [champion]
    assert next(event for event in published if event.version > champion).parent == before_it
    assert main(["data", "verify", str(copy / "campaign")]) == 0


def test_without_any_bundle_a_campaign_learns_from_its_labels_again(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(campaign.parent, tmp_path / "copy"))
    shutil.rmtree(copy / "campaign" / "models")
    assert main(arguments(copy, 41)) == 0
    output = capsys.readouterr().out
    assert "model v0001" not in output, "what happened before is no news"
    assert "a new committee is fitted to all labels" in output
    assert "finished (labels)" in output
    reader = open_reader(copy / "campaign" / "store.zarr")
    published = [event for event in reader.events() if isinstance(event, ModelPublished)]
    reader.close()
    lost = {
        event.version for event in published if not (copy / "campaign" / "models" / f"v{event.version:04d}").exists()
    }
    anew = next(event for event in published if event.version not in lost)
    assert anew.parent == 0
    assert anew.n_labels >= 40


@pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'
def test_the_last_line_loads_the_champion(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From its bundle where there is no registry, with its address where the campaign names one."""
    copy = Path(shutil.copytree(campaign.parent, tmp_path / "copy"))
    assert main(arguments(copy, 40)) == 0
    assert f"alsys.load_calculator('{copy / 'campaign' / 'models'}" in capsys.readouterr().out
    assert main(["models", "list", str(copy / "campaign")]) == 2
    assert "is in no registry: tracking.enabled is false" in capsys.readouterr().err
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    overrides = [part for change in ("tracking.enabled=true", f"tracking.uri={uri}") for part in ("--set", change)]
    assert main([*arguments(copy, 40), *overrides]) == 0
    call = f"alsys.load_calculator('models:/toy@champion', tracking_uri='{uri}')"
    assert call in capsys.readouterr().out
    assert alsys.load_calculator("models:/toy@champion", tracking_uri=uri).results == {}
    assert main(["models", "list", str(copy / "campaign")]) == 0
    assert capsys.readouterr().out.startswith("toy/1")
    left = sorted(os.environ.keys() & {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"})
    assert left == [], "the next campaign of this process would have its models there"


def test_acknowledgements_that_cannot_be_written_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = arguments(tmp_path, 12)
    command[command.index("--ack-log") + 1] = "/dev/full"
    assert main(command) == 3  # told of at the end, once all labels are in the store
    assert len(open_dataset(tmp_path / "campaign").select("initial", "uncertain", "random")) >= 12
    warnings = [
        record.getMessage() for record in caplog.records if "/dev/full cannot be written" in record.getMessage()
    ]
    assert len(warnings) == 1


def test_acknowledgements_that_were_refused_come_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write, refused = tmp_path / "acks.txt", os.write, [True, True, False, False]

    def sometimes(descriptor: int, content: bytes) -> int:
        if refused and refused.pop(0):
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:5])

    monkeypatch.setattr(os, "write", sometimes)
    with AcknowledgementLog(str(path)) as acknowledge:
        for name in ("first", "second", "third"):
            acknowledge([name])
    assert path.read_text().split() == ["first", "second", "third"]


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
    for choice in (
        'runtime.kind: ray | in-process = "ray"', "mode: async | rounds", "stop.labels: integer = 100",
        "bulk.structure: sc | fcc", 'training.max_ahead: integer | auto | null = "auto"', "labeling: {kind: xtb}",
        "labeling[pyscf].baseline: {kind: gfn1-xtb}", "components[].ignore: list of charge | multiplicity",
    ):  # fmt: skip
        assert choice in described
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {"torch", "pyscf", "ray"} <= {check["name"] for check in checks}


def test_a_plan_says_how_many_fits_there_are_and_which_labels_come_from_which_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", "initial.frames=10", "--set", "selection.random_share=0.2", "--set", "training.budget_s=60"]
    assert main([*arguments(tmp_path, 40), *more, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "of them before the last label" in output
    assert "labels a model (of these in the random arm): sampled 10 (2), v1 " in output
    assert "while a fit runs: labels wait for its model" in output
    assert "random arm: 8 of 40 labels, from exploration at 300, 600 K; the random arm has 8 frames, fewer" in output
    assert main([*arguments(tmp_path, 60), *more, "--set", "training.max_ahead=null", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "any number of labels (training.max_ahead: null)" in output
    assert "fewer than 10" not in output


def test_campaigns_from_before_labels_waited_go_on_as_they_were(campaign: Path, tmp_path: Path) -> None:
    directory = CampaignFolder(tmp_path)
    config = read_config(argparse.Namespace(config=str(TOY), set=[f"directory={tmp_path}"]))
    assert directory.as_begun(config).training.max_ahead == "auto", "it has not begun"
    shutil.copy(campaign / "campaign.json", tmp_path / "campaign.json")
    assert directory.as_begun(config).training.max_ahead == "auto"
    record = json.loads((tmp_path / "campaign.json").read_text())
    record["config"]["training"]["max_ahead"] = None
    (tmp_path / "campaign.json").write_text(json.dumps(record))
    assert directory.as_begun(config).training.max_ahead is None
    assert parse_config(config.model_dump(mode="json")).training.max_ahead == "auto"
    asked = read_config(argparse.Namespace(config=str(TOY), set=[f"directory={tmp_path}", "training.max_ahead=auto"]))
    assert directory.as_begun(asked).training.max_ahead == "auto", "its file asks for it"
