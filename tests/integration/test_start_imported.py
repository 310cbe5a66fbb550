"""A campaign's first fit starts from imported labels of another level; what cannot is refused before it starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alsys.campaign.checks import make_plan
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.start import Levels, is_meant, keep, stored_level
from alsys.cli import main
from alsys.errors import InputError
from alsys.interop.formats import find
from alsys.labels import LevelOfTheory
from alsys.training.pretraining import read_pretraining
from support.labelled import GFN1, shaken_methanol, snapshot_of

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
FIT = "{budget_s: 2.0, first_at: 4, refit_every: 100, compile: false, max_epochs: 4, validation_share: 0.0, start: %s}"
MODEL = "{kind: nequip, num_layers: 1, num_features: 4, r_max: 3.5, members: 2}"
START = "{kind: imported, level: pbe/def2-svp, budget_s: 2}"
Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A command on a campaign whose labels are of a Morse potential."""

    def run(*words: object, start: str = START, more: tuple[str, ...] = ()) -> int:
        overrides = (
            f"directory={tmp_path / 'campaign'}",
            "runtime.kind=in-process",
            "tracking.enabled=false",
            "labeling={kind: analytic}",
            "systems=[{name: methanol, smiles: CO}]",
            f"model={MODEL}",
            f"training={FIT % start}",
            "promotion.examine=false",
            "initial={method: rattle, frames: 6}",
            "exploration.walkers=2",
            "exploration.chunk_steps=10",
            "exploration.spacing_steps=4",
            "stop.labels=6",
            *more,
        )
        return main([*map(str, words), *(part for override in overrides for part in ("--set", override))])

    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "methanol.xyz"
    find("extxyz").write(snapshot_of(shaken_methanol(40)), path, GFN1)
    return path


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_a_campaign_learns_imported_labels_first_and_once(
    command: Command, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = tmp_path / "campaign"
    run = ("run", TOY, "--quiet")
    assert command(*run) == 2
    error = error_of(capsys)
    assert "training.start.level: the campaign holds no imported labels yet" in error
    assert "alsys data import" in error
    assert not campaign.exists()
    assert command("data", "import", TOY, file, "--level", "PBE/def2-SVP") == 0
    assert "stored, and learned before its own labels" in capsys.readouterr().out
    assert command(*run, "--dry-run") == 0
    assert 'first fit: taught by 40 imported labels of {"basis":"def2-svp","method":"pbe"}' in capsys.readouterr().out
    assert not (campaign / "start").exists()

    assert command(*run) == 0
    data = read_pretraining(campaign / "start")
    assert data.n_frames == 40
    (taught,) = (campaign / "start").glob("imported-*")
    assert json.loads((taught / "card.json").read_text())["n_labels"] == 40
    card = json.loads(sorted((campaign / "models").glob("v*"))[0].joinpath("card.json").read_text())
    assert card["metrics"]["n_train"] <= 6, "the campaign's own labels only"
    # a restart looks at the imported labels no more, also where there are others by now
    more = tmp_path / "more.xyz"
    find("extxyz").write(snapshot_of(shaken_methanol(30, seed=7)), more, GFN1)
    assert command("data", "import", TOY, more, "--level", "pbe/def2-svp") == 0
    before = {path: path.stat().st_mtime_ns for path in (campaign / "start").rglob("*")}
    assert command(*run, more=("stop.labels=8",)) == 0
    assert {path: path.stat().st_mtime_ns for path in (campaign / "start").rglob("*")} == before
    assert command(*run, "--dry-run", more=("stop.labels=8",)) == 0
    assert "imported labels of pbe/def2-svp have been learned" in capsys.readouterr().out


def test_labels_that_come_before_the_first_model_are_learned_too(command: Command, file: Path, tmp_path: Path) -> None:
    assert command("data", "import", TOY, file, "--level", "pbe/def2-svp") == 0
    assert command("run", TOY, "--quiet") == 0
    campaign = tmp_path / "campaign"
    shutil.rmtree(campaign / "models")  # as if the driver had been killed before the first fit was over
    more = tmp_path / "more.xyz"
    find("extxyz").write(snapshot_of(shaken_methanol(30, seed=7)), more, GFN1)
    assert command("data", "import", TOY, more, "--level", "pbe/def2-svp") == 0
    plan = make_plan(CampaignFolder.existing(str(campaign)).config(), str(TOY))
    keep(plan.directory, plan.config, plan.start)
    assert read_pretraining(campaign / "start").n_frames == 70


@pytest.mark.parametrize(
    ("start", "more", "reason"),
    [
        (START.replace("pbe/", "b3lyp/"), (), 'no imported labels of this level; it holds '),
        ("{kind: imported, level: pbe/def2-svp, frames: 9}", (), "training.start.frames:"),
        ("{kind: imported, level: ''}", (), "training.start.level:"),
        ("{kind: imported, level: '{'}", (), "is no JSON object"),
        ("{kind: imported}", (), "training.start.level: is required"),
        ("{kind: imported, level: x, temperatures: [300]}", (), "unknown key of kind `imported`: temperatures"),
        (START, ("model={kind: pair}",), "training.start needs model.kind nequip"),
        (START, ("systems=[{name: amine, smiles: CN}]",), "hold no N"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_one_line(
    command: Command, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    start: str, more: tuple[str, ...], reason: str,
) -> None:  # fmt: skip
    assert command("data", "import", TOY, file, "--level", "pbe/def2-svp") == 0
    (tmp_path / "campaign" / "campaign.json").unlink()  # nothing but the store is left to disagree
    capsys.readouterr()
    assert command("run", TOY, "--quiet", start=start, more=more) == 2
    assert reason in error_of(capsys)
    assert not (tmp_path / "campaign" / "start").exists()


OWN, GFN2 = LevelOfTheory({"engine": "x", "xc": "pbe"}), LevelOfTheory({"engine": "tblite", "method": "GFN2-xTB"})
NAMED = LevelOfTheory({"method": "pbe", "basis": "def2-svp"})


def test_a_level_is_meant_by_its_identity_its_name_or_its_specification() -> None:
    for text in (NAMED.level_id, NAMED.level_id[:8].upper(), "PBE/def2-SVP", NAMED.canonical):
        assert is_meant(text, NAMED)
        assert not is_meant(text, OWN)
    assert not is_meant(NAMED.level_id[:7], NAMED)
    assert stored_level("pbe/def2-svp", [OWN, GFN2, NAMED], Levels(OWN, None), "") is NAMED


@pytest.mark.parametrize(
    ("text", "baseline", "reason"),
    [
        (OWN.canonical, None, "is the campaign's own level"),
        ("gfn2-xtb", GFN2, "is the baseline of training.delta"),
        (GFN2.level_id, GFN2, "is the baseline of training.delta"),
        ("b3lyp", GFN2, f"it holds {NAMED.level_id[:8]} "),
    ],
)
def test_levels_that_teach_nothing_are_refused(text: str, baseline: LevelOfTheory | None, reason: str) -> None:
    known = [OWN, GFN2, NAMED, LevelOfTheory({"method": "gfn2-xtb"})]
    with pytest.raises(InputError) as caught:
        stored_level(text, known, Levels(OWN, baseline), "import some")
    assert reason in str(caught.value)
    assert "training.start.level" in str(caught.value)
    assert "\n" not in str(caught.value)
