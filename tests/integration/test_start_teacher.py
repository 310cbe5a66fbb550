"""A campaign whose first fit learns from a calculator of ASE: killed, resumed, ended, and told what is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.frames import Arm
from alsys.potentials.bundle import read_bundle
from alsys.store.zarr import open_reader
from support import stand_ins
from support.environments import make_environment

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
MACE = "{kind: ase, calculator: mace-off, parameters: {model: small}}"


def command(
    directory: Path, n_labels: int = 6, teacher: str = MACE, system: str = "{smiles: CO}", *more: str
) -> list[str]:
    start = f"{{kind: teacher, teacher: {teacher}, frames: 40, temperatures: [300], budget_s: 20}}"
    overrides = (
        f"directory={directory}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling={kind: analytic}",
        f"systems=[{system}]",
        "model={kind: nequip, num_layers: 1, num_features: 4, r_max: 3.5, members: 2}",
        "training={budget_s: 1.0, first_at: 4, refit_every: 4, compile: false, max_epochs: 4, validation_share: 0.0, "
        f"start: {start}}}",
        "promotion.examine=false",
        "initial={method: rattle, frames: 6}",
        "exploration.walkers=2",
        "exploration.chunk_steps=10",
        "exploration.spacing_steps=4",
        f"stop.labels={n_labels}",
        *more,
    )
    return ["run", str(TOY), "--quiet", *(word for override in overrides for word in ("--set", override))]


def wait_for(log: Path, line: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not (log.exists() and line in log.read_text().splitlines()):
        assert process.poll() is None, "the campaign ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_campaign_that_a_calculator_teaches_is_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, log = tmp_path / "campaign", tmp_path / "log"
    stand_ins.install(monkeypatch, log=str(log), wait_s=0.002, raise_every=90, nan_every=130)
    process = subprocess.Popen([sys.executable, "-m", "alsys.cli", *command(campaign)], cwd=tmp_path)
    wait_for(log, "frame 201", process)  # in the teacher's dynamics
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((campaign / "start").glob("teacher-*"))

    log.unlink()
    stand_ins.install(monkeypatch, log=str(log), raise_every=90, nan_every=130)
    assert main(command(campaign)) == 0
    assert log.read_text().splitlines()[0] == "loaded mace_off small float64"
    assert log.read_text().count("loaded") == 1
    [taught] = (campaign / "start").glob("teacher-*")
    card = json.loads((taught / "card.json").read_text())
    assert card["teacher"] == "mace-off (model small)"
    assert 30 <= card["n_labels"] <= 44  # with free atoms; frames that failed are left out
    reader = open_reader(CampaignFolder(campaign).store)
    [level] = reader.levels()  # the teacher's labels are none of the campaign's
    snapshot = reader.snapshot(level.level_id)
    reader.close()
    assert snapshot.energy.min() > -100.0
    assert int((~snapshot.is_arm(Arm.ATOM)).sum()) == 6
    first = read_bundle(campaign / "models" / "v0001")
    shifts = "model.func.per_type_energy_scale_shift.shifts"
    assert abs(read_bundle(taught).members[0][shifts]).max() > 100.0  # its zero is another one,
    assert abs(first.members[0][shifts]).max() < 100.0  # of which nothing is left

    log.unlink()
    assert main(command(campaign, 14)) == 0  # later fits go on from their own parents
    assert not log.exists()
    assert len(list((campaign / "models").glob("v*"))) > 1
    config = tmp_path / "campaign.yaml"  # names the teacher, who is not asked: the committee is distilled
    config.write_text(json.dumps(json.loads((campaign / "campaign.json").read_text())["config"]))
    newest = str(sorted((campaign / "models").glob("v*"))[-1])
    limits = ["--frames", "16", "--budget-s", "2", "--temperature", "100"]
    assert main(["models", "distil", newest, str(tmp_path / "plain"), "--config", str(config), *limits]) == 0
    assert not log.exists()


def test_a_calculator_is_found_in_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`PYTHONPATH` does not reach it, so the stand-ins are there and not here."""
    environment = make_environment(tmp_path / "mace", packages=[stand_ins.PACKAGES])
    without = make_environment(tmp_path / "without")
    monkeypatch.setenv("STAND_IN", json.dumps({"log": str(tmp_path / "log")}))
    for folder, code in ((environment, 0), (without, 3)):
        place = f"runtime.environments={{teachers: {folder}}}"
        assert main([*command(tmp_path / "a", 6, MACE, "{smiles: CO}", place), "--dry-run"]) == code
    said = capsys.readouterr()
    assert "first fit: taught by mace-off (model small): 40 frames, then 20 s, once" in said.out
    assert f"mace-off cannot run with {without}/bin/python: ModuleNotFoundError: No module named 'mace'" in said.err
    assert (
        main(command(tmp_path / "a", 6, MACE, "{smiles: CO}", f"runtime.environments={{teachers: {environment}}}")) == 0
    )
    assert "loaded mace_off small float64" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("teacher", "system", "reason"),
    [
        (
            MACE,
            "{smiles: CO}",
            "training.start.teacher: mace-off cannot run here: ModuleNotFoundError: No module",
        ),
        (MACE, "{smiles: '[SiH4]'}", "mace-off does not know this element: toy has element Si (got 'mace-off (model"),
        (MACE, "{smiles: '[OH-]', charge: -1}", "mace-off treats neutral frames only: toy has charge -1"),
        (MACE, "{smiles: '[CH3]', multiplicity: 2}", "mace-off is set up for singlets only: toy has multiplicity 2"),
        (
            MACE.replace("small", "tiny"),
            "{smiles: CO}",
            "parameters.model must be one of small, medium, large (got",
        ),
        (
            MACE.replace("mace-off", "mace"),
            "{smiles: CO}",
            "training.start.teacher.calculator: no such calculator",
        ),
        ("{kind: ase}", "{smiles: CO}", "training.start.teacher.calculator: is required"),
        (
            "mace-off",
            "{smiles: CO}",
            "training.start.teacher: is a calculator of ASE: write {kind: ase, calculator: mace-off}",
        ),
        ("ani", "{smiles: CO}", "should be 'ani-1x', 'gfn2-xtb' or 'gfn1-xtb' or should be a mapping (got 'ani')"),
    ],
)
def test_what_a_teacher_lacks_is_told_in_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: str, system: str, reason: str
) -> None:
    assert main([*command(tmp_path / "a", 6, teacher, system), "--dry-run"]) in (2, 3)
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_an_environment_for_teachers_needs_one_that_runs_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"runtime.environments={{teachers: {tmp_path}}}"
    assert main([*command(tmp_path / "a", 6, "gfn1-xtb", "{smiles: CO}", place), "--dry-run"]) == 2
    assert "runtime.environments.teachers needs training.start.teacher: {kind: ase" in capsys.readouterr().err
