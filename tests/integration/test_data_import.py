"""`alsys data import` and `data export --format`: whole or nothing, killed and repeated, old and new campaigns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import parse_config
from alsys.interop.formats import find
from alsys.interop.import_reader import named_level
from alsys.labels import LevelOfTheory
from alsys.store.zarr import open_reader, open_writer
from alsys.units import HARTREE
from support.labelled import GFN1, Labelled, shaken_methanol, snapshot_of

CONFIG: dict[str, Any] = {
    "name": "c",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "xtb", "method": "GFN1-xTB", "accuracy": 1.0},
    "model": {"kind": "pair"},
    "training": {"first_at": 20},
    "stop": {"labels": 4},
    "tracking": {"enabled": False},
    "runtime": {"kind": "in-process"},
}
SUFFIXES = {"extxyz": ".xyz", "ase-db": ".db", "spice": ".h5", "omol25": ".aselmdb", "deepmd": "", "rmd17": ".npz"}
"""Of formats that hold labels of any level."""
Run = Callable[..., str]


@pytest.fixture(scope="module")
def labelled() -> list[Labelled]:
    return shaken_methanol(40)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "directory": str(tmp_path / "campaign")}))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its output, or its one line of error."""

    def run(*words: object, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code
        captured = capsys.readouterr()
        if code:
            assert captured.err.count("\n") == 1, captured.err
        return captured.err if code else captured.out

    return run


def write(path: Path, labelled: list[Labelled], name: str = "extxyz", level: LevelOfTheory = GFN1) -> Path:
    find(name).write(snapshot_of(labelled, level), path, level)
    return path


@pytest.mark.parametrize(("level", "says"), [("{config}", "is a campaign file"), ("[1]", "no name"), (".", "no name")])
def test_what_is_no_level(
    level: str, says: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.xyz", shaken_methanol(3))
    assert main(["data", "import", str(config), str(file), "--level", level.format(config=config)]) == 2
    assert says in capsys.readouterr().err


def test_a_level_that_a_file_names_in_short_may_be_the_campaigns(
    config: Path, run: Run, labelled: list[Labelled], tmp_path: Path
) -> None:
    file = write(tmp_path / "a.xyz", labelled, level=named_level("gfn1-xtb"))
    assert "--level campaign says that what the file states is exactly the campaign's" in run(
        "data", "import", config, file
    )
    assert "are trained on" in run("data", "import", config, file, "--level", "campaign")


def test_a_campaign_starts_from_a_file(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    """The file states the campaign's own level, so its frames are trained on before anything is labelled."""
    file = write(tmp_path / "a.xyz", labelled)
    output = run("data", "import", config, file)
    assert "40 new labels of 40 frames" in output
    assert "first fit starts at once" in output
    campaign = tmp_path / "campaign"
    assert json.loads(run("status", campaign, "--json"))["state"] == "created"
    assert "0 new labels of 40 frames, 40 known already" in run("data", "import", campaign, file)
    run("run", config, "--quiet")
    status = json.loads(run("status", campaign, "--json"))
    assert status["labels"]["imported"] == 40
    assert status["labels"]["accepted"] == 4
    assert status["models"][0]["n_labels"] >= 40
    assert json.loads(run("data", "verify", campaign, "--json"))["problems"] == []
    info = json.loads(run("data", "info", campaign, "--json"))
    assert [level["by_arm"]["imported"] for level in info["levels"]] == [40]
    assert (info["imports"][0]["source"], info["imports"][0]["trained_on"]) == ("a.xyz", 40)
    assert "imported a.xyz (extxyz): 40 labels" in run("data", "info", campaign)
    run("report", campaign)
    page = (campaign / "report.html").read_text()
    assert "a.xyz" in page
    assert "GFN1-xTB with tblite" in page


@pytest.fixture(scope="module")
def filled(labelled: list[Labelled], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of nothing but imported frames."""
    folder = tmp_path_factory.mktemp("filled")
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "directory": str(folder / "campaign")}))
    assert main(["data", "import", str(path), str(write(folder / "a.xyz", labelled))]) == 0
    return folder / "campaign"


@pytest.mark.parametrize("name", SUFFIXES)
def test_what_was_exported_is_known(name: str, filled: Path, run: Run, tmp_path: Path) -> None:
    """Where a format keeps our lengths: SPICE's are in Bohr, so that its frames differ in the last bit."""
    file = tmp_path / f"out{SUFFIXES[name]}"
    assert "frames" in run("data", "export", filled, file, "--format", name, "--arm", "imported", "--seq", 1)
    report = json.loads(run("data", "import", filled, file, "--level", "campaign", "--json"))
    assert report["frames"] == 40
    assert report["known"] == 40 or name == "spice"
    assert report["level_id"] == GFN1.level_id


def test_a_format_of_one_level_takes_no_other(filled: Path, run: Run, tmp_path: Path) -> None:
    said = run("data", "export", filled, tmp_path / "out.h5", "--format", "ani1x", "--arm", "imported", code=2)
    assert "holds labels of wb97x/6-31g* only" in said
    assert "GFN1-xTB" in said
    assert list(tmp_path.iterdir()) == []


def test_levels_apart_and_exported_by_name(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    run("data", "import", config, write(tmp_path / "a.xyz", labelled[:20]))
    campaign = tmp_path / "campaign"
    spec = tmp_path / "level.yaml"
    spec.write_text("method: other\n")
    output = run("data", "import", campaign, write(tmp_path / "b.xyz", labelled), "--level", spec)
    assert "of another level than the campaign's" in output
    other = LevelOfTheory({"method": "other"})
    assert "20 frames" in run("data", "export", campaign, tmp_path / "own.xyz")
    before = (tmp_path / "own.xyz").read_bytes()
    assert "nothing is overwritten" in run("data", "export", campaign, tmp_path / "own.xyz", "--seq", 1, code=2)
    assert (tmp_path / "own.xyz").read_bytes() == before
    assert "40 frames" in run("data", "export", campaign, tmp_path / "x.xyz", "--level", other.level_id[:8])
    assert "0 levels" in run("data", "export", campaign, tmp_path / "y.xyz", "--level", "zz", code=2)
    assert "--format" in run("data", "export", campaign, tmp_path / "y.h5", code=2)
    status = json.loads(run("status", campaign, "--json"))
    assert (status["labels"]["imported"], status["labels"]["imported_at_other_levels"]) == (20, 40)


def test_refused_imports_leave_nothing(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    """Neither a campaign that was not there, nor anything in one that was."""
    wrong = write(tmp_path / "wrong.xyz", [(f, e / HARTREE, x / HARTREE) for f, e, x in labelled])
    error = run("data", "import", config, wrong, code=2)
    assert "wrong.xyz" in error
    assert "--force-unit=hartree/angstrom" in error
    assert not (tmp_path / "campaign").exists()
    run("data", "import", config, write(tmp_path / "a.xyz", labelled[:25]))
    campaign = tmp_path / "campaign"
    before = open_reader(CampaignFolder(campaign).store).head.lengths
    run("data", "import", campaign, wrong, code=2)
    assert open_reader(CampaignFolder(campaign).store).head.lengths == before
    assert json.loads(run("data", "verify", campaign, "--json"))["ok"]
    options = ("--energy-unit", "hartree", "--force-unit=hartree/angstrom", "--json")
    assert json.loads(run("data", "import", campaign, wrong, *options))["frames"] == 40


def test_bad_arguments(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    file = write(tmp_path / "a.xyz", labelled)
    for words, expected in (
        ((config, tmp_path / "none.xyz"), "no such file"),
        ((config, config), "looks like no format"),
        ((config, file, "--format", "xml"), "one of extxyz"),
        ((config, file, "--energy-unit", "calorie"), "calorie"),
        ((config, file, "--level", tmp_path / "none.json"), "cannot be read"),
        ((tmp_path, file), "is not a campaign directory"),
        ((tmp_path / "none.yaml", file), "none.yaml"),
        ((config, file, "--set", "model.kind=no"), "model.kind"),
    ):
        assert expected in run("data", "import", *words, code=2)
    assert not (tmp_path / "campaign").exists()


def test_nobody_else_may_write(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    directory = CampaignFolder(tmp_path / "campaign")
    directory.write_record(parse_config(yaml.safe_load(config.read_text())))
    store = open_writer(directory.store)
    try:
        error = run("data", "import", config, write(tmp_path / "a.xyz", labelled), code=2)
    finally:
        store.close()
    assert "this process is writing this store" in error
    assert directory.path.exists()


def test_delta_campaigns_get_baselines_beside(run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    config = tmp_path / "delta.yaml"
    labeling = {**CONFIG["labeling"], "baseline": {"kind": "gfn2-xtb"}}
    training = {"first_at": 20, "delta": "gfn2-xtb"}
    content = {**CONFIG, "labeling": labeling, "training": training, "directory": str(tmp_path / "campaign")}
    config.write_text(yaml.safe_dump(content))
    run("data", "import", config, write(tmp_path / "a.xyz", labelled))
    reader = open_reader(tmp_path / "campaign" / "store.zarr")
    baseline, own = reader.levels()
    assert own == GFN1
    assert baseline.spec["method"] == "GFN2-xTB"
    assert reader.snapshot(baseline.level_id).n_frames == 40
    assert reader.verify().problems == []
    run("run", config, "--quiet")
    assert json.loads(run("status", tmp_path / "campaign", "--json"))["champion"] is not None


def test_a_killed_import_leaves_the_store_as_it_was(
    config: Path, run: Run, labelled: list[Labelled], tmp_path: Path
) -> None:
    """And can be run again: what was appended and not committed is cut away."""
    run("data", "import", config, write(tmp_path / "a.xyz", labelled[:25]))
    store = tmp_path / "campaign" / "store.zarr"
    moved = [(f.with_positions(f.positions + i), e, x) for i in range(1, 401) for f, e, x in labelled[25:]]
    big = write(tmp_path / "big.xyz", moved)
    command = [sys.executable, "-m", "alsys.cli", "data", "import", str(config), str(big), "--trust-units"]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    committed = open_reader(store).head.lengths["labels"]
    numbers = store / "labels" / "energy" / "zarr.json"
    deadline = time.monotonic() + 120
    while json.loads(numbers.read_text())["shape"][0] <= 25 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was killed while it wrote"
    assert open_reader(store).head.lengths["labels"] == committed == 25
    assert json.loads(run("data", "verify", tmp_path / "campaign", "--json"))["ok"]
    report = json.loads(run("data", "import", config, write(tmp_path / "c.xyz", labelled), "--json"))
    assert (report["new"], report["known"]) == (15, 25)
    assert json.loads(run("data", "verify", tmp_path / "campaign", "--json"))["labels"] == 40


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--sampled-at", "0"], "must be a temperature"),
        (["--sampled-at", "nan"], "must be a temperature"),
        (["--sampled-at", "300", "--level", "pbe/def2-svp"], "no comparison for its models"),
    ],
)
def test_a_temperature_that_says_nothing_is_refused(
    config: Path, run: Run, labelled: list[Labelled], tmp_path: Path, words: list[str], reason: str
) -> None:
    file = write(tmp_path / "a.xyz", labelled)
    assert reason in run("data", "import", config, file, *words, code=2)
    assert not (tmp_path / "campaign").exists()


def test_what_was_used_and_what_was_skipped(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    """An account of every key after the import, frames that were left out in a file, both in JSON and in the log."""
    file = write(tmp_path / "a.xyz", labelled)
    text = file.read_text().replace(f"energy={labelled[3][1]!r}", "energy=nan").replace("energy=", "REF_energy=")
    file.write_text(text.replace(" charge=0", " MACE_energy=1.0 zork=3 charge=0"))
    error = run("data", "import", config, file, code=2)
    assert "frame 3" in error
    assert "1 of 40 frames are refused: --skip" in error
    output = run("data", "import", config, file, "--skip")
    assert "39 new labels of 40 frames" in output
    assert "labels: energy from REF_energy, forces from forces; left out: " in output
    assert "unknown, not used: zork" in output
    assert "1 frames are left out: frame 3: energy: holds NaN or infinity" in output
    (listed,) = (tmp_path / "campaign" / "logs").glob("skipped-a-*.tsv")
    assert listed.read_text() == "frame 3\tenergy: holds NaN or infinity\n"
    report = json.loads(run("data", "import", tmp_path / "campaign", file, "--skip", "--json"))
    assert report["known"] == 39
    assert report["skipped"] == [{"frame": "frame 3", "reason": "energy: holds NaN or infinity"}]
    assert report["keys"]["labels"]["energy"] == "REF_energy"
    assert report["keys"]["unknown"] == {"zork": 40}
    assert report["keys"]["left_out"]["MACE_energy"]["why"] == "what a model predicts"
    info = json.loads(run("data", "info", tmp_path / "campaign", "--json"))
    assert (info["imports"][0]["skipped"], info["imports"][0]["labels_from"]) == (
        1,
        "energy: REF_energy, forces: forces",
    )


def test_a_choice_between_two(config: Path, run: Run, labelled: list[Labelled], tmp_path: Path) -> None:
    """Of energies and of the meaning of `spin`; what the user says that no file can hold is refused."""
    file = write(tmp_path / "a.xyz", labelled)
    file.write_text(file.read_text().replace(" charge=0", " cheap_energy=1.0 charge=0"))
    assert "energy and cheap_energy differ" in run("data", "import", config, file, code=2)
    assert "--spin-is" in run("data", "import", config, file, "--spin-is", "3S", code=2)
    assert "stress unit" in run("data", "import", config, file, "--stress-unit", "psi", code=2)
    assert "40 new labels" in run("data", "import", config, file, "--energy-key", "ENERGY", "--level", "Campaign")
    frames = tmp_path / "b.xyz"
    frames.write_text(file.read_text())
    assert "energy and cheap_energy differ" in run("certify", config, "--frames", frames, "--n", 1, code=2)
    assert "force_mae" in run("certify", config, "--frames", frames, "--n", 1, "--energy-key", "energy")


def test_a_word_that_is_nearly_campaign_is_no_level(tmp_path: Path) -> None:
    from alsys.cli.importing import _level
    from alsys.errors import InputError

    own = LevelOfTheory({"engine": "morse"})
    with pytest.raises(InputError, match="did you mean `campaign`"):
        _level("campaing", own)
    assert _level(" Campaign", own) is own
