"""`alsys validate` on a small campaign with GFN2-xTB labels, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from alsys.campaign.bundles import bundle_name
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import parse_config
from alsys.config.validation import CHECKS
from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.interop.formats import find
from alsys.labeling.base import Labeler
from alsys.labeling.factory import build_labeler
from alsys.labels import Label, LabelFailure
from alsys.potentials.bundle import read_bundle
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.store.zarr import open_reader
from alsys.tracking.outbox import ItemKind, Outbox
from alsys.validation.campaign import CampaignValidation
from alsys.validation.distance_check import MIN_FRAMES
from support.labelled import METHANOL, POSITIONS, snapshot_of

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
SMALL = (
    "validation.time=30",
    "validation.walkers=4",
    "validation.torsion_points=6",
    "validation.bond_points=4",
    "validation.reference_labels=80",
    "validation.reference_walkers=2",
    "validation.temperatures=[300]",
)


def sets(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validate") / "campaign"
    overrides = (
        f"directory={folder}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling={kind: xtb}",
        "systems=[{name: methanol, smiles: CO}]",
        "initial={method: normal-modes, frames: 24, temperature: 300}",
        "selection.random_share=0.4",
        "stop.labels=40",
    )
    assert main(["run", str(TOY), "--quiet", *sets(*overrides)]) == 0
    return folder


@pytest.fixture
def campaign(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "campaign"))


def validate(campaign: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["validate", str(campaign), "--json", *sets(*SMALL), *arguments]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def units(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {unit["check"]: unit for unit in content["units"]}


def test_all_checks_of_a_champion_and_once_more(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = validate(campaign, capsys)
    found = units(content)
    assert list(found) == list(CHECKS)
    assert {name for name, unit in found.items() if unit["status"] != "done"} == set()
    assert found["torsions"]["metrics"]["n_scans"] == 1
    assert found["bonds"]["metrics"]["n_scans"] == 3
    assert found["frequencies"]["metrics"]["n_modes"] == 12
    assert found["frequencies"]["metrics"]["n_imaginary_reference"] == 0
    assert found["stability"]["metrics"]["n_walkers"] == 4
    assert found["parity"]["metrics"]["n_frames"] >= 10
    assert np.isfinite(list(content["metrics"].values())).all()
    page = (campaign / "report.html").read_text()
    for title in ("Validation", "Calibration diagram", "Torsion", "Vibrations of methanol", "Stability of dynamics"):
        assert title in page
    record = campaign / "validation" / "v0002.json"
    assert record.is_file() or list((campaign / "validation").glob("v*.json"))
    before = (campaign / "validation" / "labels.jsonl").read_bytes()
    again = validate(campaign, capsys)
    assert again == content
    assert (campaign / "validation" / "labels.jsonl").read_bytes() == before


def test_the_next_version_pays_for_no_scan_again(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = sorted(int(path.name[1:]) for path in (campaign / "models").glob("v*"))
    assert len(versions) >= 2
    scans = "minima,torsions,bonds,frequencies"
    validate(campaign, capsys, "--model", str(versions[0]), "--only", scans)
    other = validate(campaign, capsys, "--model", str(versions[-1]), "--only", scans, "--labels", "0")
    assert [unit["status"] for unit in other["units"]] == ["done"] * 4
    first = json.loads((campaign / "validation" / f"{bundle_name(versions[0])}.json").read_text())
    assert first["units"][1]["metrics"] != other["units"][1]["metrics"]
    assert first["units"][1]["curves"]["scans"][0]["reference"] is not None


def test_a_budget_that_is_spent_leaves_the_rest_for_the_next_run(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n_rounds, n_labels = 0, 0
    while True:
        content = validate(campaign, capsys, "--only", "minima,torsions,frequencies", "--labels", "25")
        assert content["n_labels"] - n_labels <= 25
        n_labels, n_rounds = content["n_labels"], n_rounds + 1
        states = {unit["check"]: unit["status"] for unit in content["units"]}
        if states["torsions"] == "done":
            break
        assert states["torsions"] == "partial"
        assert any("budget" in note for unit in content["units"] for note in unit["notes"])
        assert n_rounds < 5
    assert states["frequencies"] == "partial", "a Hessian is not begun that cannot be finished"
    content = validate(campaign, capsys, "--only", "frequencies")
    assert {unit["check"]: unit["status"] for unit in content["units"]}["frequencies"] == "done"


def sampled(n: int, seed: int = 0) -> list[tuple[Frame, float, Any]]:
    """Frames of methanol with GFN2-xTB labels, atoms in another order than the campaign's."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        frame = Frame.molecule(METHANOL[::-1], POSITIONS[::-1] + rng.normal(0.0, 0.03, POSITIONS.shape))
        values = single_point(frame, XTBMethod("GFN2-xTB"))
        found.append((frame, values.energy, values.forces))
    return found


def test_where_labels_are_dear_the_model_is_measured_alone_or_beside_a_trajectory(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dear = ("--only", "distances", "--set", "validation.cheap_s=0")
    [alone] = validate(campaign, capsys, *dear)["units"]
    assert alone["status"] == "done"
    assert alone["metrics"].keys() == {"drift", "spread", "n_failed"}
    assert "too dear for reference dynamics" in alone["notes"][0]
    assert "alsys data import --sampled-at" in alone["notes"][0]
    content = validate(campaign, capsys, *dear)
    assert content["n_labels"] <= 60, "the minimum, and no dynamics"
    assert "Nothing to compare with" in (campaign / "report.html").read_text()

    level = build_labeler(CampaignFolder.existing(str(campaign)).config().labeling).level
    find("extxyz").write(snapshot_of(sampled(MIN_FRAMES), level), tmp_path / "md.xyz", level)
    words = ["data", "import", str(campaign), str(tmp_path / "md.xyz"), "--level", "campaign"]
    assert main([*words, "--sampled-at", "300"]) == 0
    [beside] = validate(campaign, capsys, *dear)["units"]
    assert beside["metrics"]["n_frames"] == MIN_FRAMES
    assert beside["metrics"]["mae"] > 0.0
    assert any("compared with 200 imported frames (md)" in note for note in beside["notes"])
    again = validate(campaign, capsys, *dear, "--set", "validation.temperatures=[301]")["units"]
    assert ["mae" in unit["metrics"] for unit in again if unit["temperature"] == 301] == [False]
    capsys.readouterr()
    assert main([*words, "--sampled-at", "300"]) == 0
    assert "--sampled-at says nothing of frames that were there before" in capsys.readouterr().out


class Moody:
    """The campaign's labeler, which after a few labels fails for a quarter of all frames."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler, self._n_calls = labeler, 0
        self.level, self.check, self.close = labeler.level, labeler.check, labeler.close

    def label(self, frame: Frame) -> Label | LabelFailure:
        self._n_calls += 1
        if self._n_calls > 3 and int(frame.frame_id[:2], 16) < 64:
            return LabelFailure(frame.frame_id, FailureKind.SCF_NOT_CONVERGED, "on purpose")
        return self._labeler.label(frame)


def test_reference_labels_that_fail_end_nothing(campaign: Path) -> None:
    directory = CampaignFolder.existing(str(campaign))
    record = directory.config().model_dump(mode="json")
    settings = dict(override.removeprefix("validation.").split("=") for override in SMALL)
    record["validation"] |= {name: json.loads(value) for name, value in settings.items()}
    config = parse_config(record)
    validation = CampaignValidation(
        2,
        config=config,
        reader=open_reader(directory.store),
        models=directory.models,
        folder=directory.validation,
        n_labels={1: 10, 2: 30},
        build_labeler=lambda: Moody(build_labeler(config.labeling)),
        label_s=0.001,
    )
    found = {unit.check: unit for unit in validation.run().units}
    assert found["torsions"].status == found["bonds"].status == "done"
    assert found["torsions"].metrics["n_missing"] + found["bonds"].metrics["n_missing"] > 0
    assert found["frequencies"].status == "skipped"
    assert "could not be labelled" in found["frequencies"].notes[0]
    assert found["stability"].status == "done"
    assert found["distances"].status == "skipped" or found["distances"].metrics["n_lost"] > 0


def test_a_run_that_is_killed_goes_on_where_it_was(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = ("--only", "minima,torsions,frequencies,distances")
    twin = Path(shutil.copytree(campaign, tmp_path / "twin"))
    expected = validate(twin, capsys, *checks)
    directory = CampaignFolder.existing(str(campaign))
    config = directory.config()

    class Killed(BaseException):
        pass

    class Kills(Moody):
        def label(self, frame: Frame) -> Label | LabelFailure:
            self._n_calls += 1
            if self._n_calls == 30:
                raise Killed
            return self._labeler.label(frame)

    validation = CampaignValidation(
        expected["version"],
        config=config.model_copy(update={"validation": config.validation.model_copy(update={"torsion_points": 6})}),
        reader=open_reader(directory.store),
        models=directory.models,
        folder=directory.validation,
        n_labels={},
        build_labeler=lambda: Kills(build_labeler(config.labeling)),
    )
    with pytest.raises(Killed):
        validation.run(["minima", "torsions", "frequencies"])
    kept = (campaign / "validation" / "labels.jsonl").read_bytes()
    assert kept.count(b"\n") == 29
    assert validate(campaign, capsys, *checks) == expected
    labels = (campaign / "validation" / "labels.jsonl").read_bytes()
    assert labels.startswith(kept), "nothing that was there is made again"
    assert labels.count(b"\n") == expected["n_labels"]


def test_reference_labels_can_be_exported_and_are_no_data(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["data", "info", str(campaign), "--json"])
    before = json.loads(capsys.readouterr().out)["levels"]
    output = tmp_path / "reference.extxyz"
    content = validate(campaign, capsys, "--only", "minima", "--export", str(output))
    images = ase.io.read(output, ":")
    assert len(images) == content["n_labels"] >= 1
    assert np.abs(images[-1].get_forces()).max() < 0.02, "the last one is the minimum"
    main(["data", "info", str(campaign), "--json"])
    assert json.loads(capsys.readouterr().out)["levels"] == before


def test_numbers_wait_in_the_outbox_while_mlflow_is_away(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    away = ("tracking.enabled=true", "tracking.uri=http://127.0.0.1:9", "tracking.flush_s=0")
    content = validate(campaign, capsys, "--only", "parity", *sets(*away))
    [item] = Outbox.of(campaign).pending()
    assert (item.kind, item.version) == (ItemKind.VALIDATE, content["version"])
    assert item.card["metrics"] == content["metrics"]


def test_models_of_a_finished_campaign_are_validated_where_that_is_asked_for(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((campaign / "campaign.json").read_text())["config"]
    record["validation"] = {"at_end": True, "checks": ["parity"]}
    record["directory"] = str(campaign)
    config = campaign.parent / "again.yaml"
    config.write_text(json.dumps(record))
    capsys.readouterr()
    assert main(["run", str(config)]) == 0
    assert "validation: parity: begins" in capsys.readouterr().out
    assert "validation: parity: done" in (campaign / "logs" / "campaign.log").read_text()
    [path] = (campaign / "validation").glob("v*.json")
    assert [unit["check"] for unit in json.loads(path.read_text())["units"]] == ["parity"]
    assert "Parity of forces" in (campaign / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "torsion"], "no such check"),
        (["--model", "best"], "is a number, or champion"),
        (["--model", "99"], "no such version"),
        (["--labels", "-1"], "must not be negative"),
        (["--model", "²"], "is a number, or champion"),
        (["--export", "labels.h5"], "write .extxyz or .xyz"),
        (["--export", "/nowhere/labels.xyz"], "--export: cannot be written: No such file"),
        (["--set", "labeling.method=GFN1-xTB"], "holds a campaign with"),
        (["--set", "validation.bond_range=[0.1, 0.2]"], "must go from a compression"),
    ],
)
def test_bad_input_is_one_line(
    trained: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["validate", str(trained), *arguments]) == 2
    text = capsys.readouterr().err
    assert words in text
    assert text.count("\n") == 1


def test_a_damaged_bundle_is_named(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [newest] = sorted((campaign / "models").glob("v*"))[-1:]
    read_bundle(newest)
    (newest / "member_00.safetensors").write_bytes(b"x")
    assert main(["validate", str(campaign), "--model", newest.name]) == 2
    assert "SHA256SUMS" in capsys.readouterr().err
