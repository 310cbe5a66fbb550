"""A campaign goes on from another's model, through the command line; what does not fit is refused before it starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alsys.cli import main
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.training.start import read_starting_point

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
FIT = "{budget_s: 1.0, first_at: 4, refit_every: 4, compile: false, max_epochs: 4, validation_share: 0.0%s}"
MODEL = "{kind: nequip, num_layers: 1, num_features: 4, r_max: 3.5, members: 2}"


def run(directory: Path, n_labels: int, start: str = "", model: str = MODEL, *more: str, is_dry: bool = False) -> int:
    overrides = (
        f"directory={directory}",
        "runtime.kind=in-process",
        "tracking.enabled=false",
        "labeling={kind: analytic}",
        "systems=[{name: methanol, smiles: CO}]",
        f"model={model}",
        f"training={FIT % start}",
        "promotion.examine=false",
        "initial={method: rattle, frames: 6}",
        "exploration.walkers=2",
        "exploration.chunk_steps=10",
        "exploration.spacing_steps=4",
        f"stop.labels={n_labels}",
        *more,
    )
    command = ["run", str(TOY), "--quiet"]
    for override in overrides:
        command += ["--set", override]
    return main([*command, "--dry-run"] if is_dry else command)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("first") / "campaign"
    assert run(directory, 10) == 0
    return directory


def newest(campaign: Path) -> Path:
    return sorted((campaign / "models").glob("v*"))[-1]


def test_a_second_campaign_goes_on_from_the_first_and_keeps_what_it_was_given(first: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(newest(first), bundle)
    start = f", start: {{kind: model, model: '{bundle}', replay: {{campaign: '{first}', share: 0.5}}}}"
    second = tmp_path / "second"
    assert run(second, 6, start) == 0
    point = read_starting_point(second / "start")
    assert point.is_same_level
    assert point.replay is not None
    assert point.replay.n_frames >= 5
    made = read_bundle(sorted((second / "models").glob("v*"))[0])
    assert made.spec == point.state.spec
    for mine, other in zip(made.members, point.state.members, strict=True):
        name = "model.func.per_type_energy_scale_shift.shifts"
        np.testing.assert_array_equal(mine[name], other[name])  # of one level: energies are kept
    card = json.loads((newest(second) / "card.json").read_text())
    assert card["metrics"]["n_train"] > 6  # with replayed frames
    # a restart needs neither the bundle nor the first campaign
    shutil.rmtree(bundle)
    moved = first.rename(first.with_name("moved"))
    try:
        assert run(second, 8, start) == 0
    finally:
        moved.rename(first)


@pytest.mark.parametrize(
    ("start", "model", "reason"),
    [
        ("{kind: model, model: BUNDLE}", MODEL.replace("features: 4", "features: 8"), "num_features 4 and not 8"),
        ("{kind: model, model: BUNDLE}", "{kind: pair}", "training.start needs model.kind nequip"),
        ("{kind: model, model: /nowhere}", MODEL, "training.start.model: no such folder (got '/nowhere')"),
        ("{kind: model, model: nope}", MODEL, "paths are relative to the campaign file"),
        ("{kind: model, model: .}", MODEL, "training.start.model: is not a readable bundle"),
        ("{kind: model, model: 'models:/'}", MODEL, "training.start.model: names no registered model"),
        ("{kind: model, model: BUNDLE, replay: {campaign: /nowhere}}", MODEL, "training.start.replay.campaign"),
        ("{kind: teacher, teacher: ani}", MODEL, "training.start.teacher"),
        ("{kind: model, model: SMALL}", MODEL, "has 1 members, the campaign wants 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str, model: str, reason: str
) -> None:
    state = read_bundle(newest(first))
    alone = type(state)(state.version, state.kind, state.spec, state.members[:1])
    write_bundle(tmp_path / "small", alone, {})
    text = start.replace("BUNDLE", f"'{newest(first)}'").replace("SMALL", f"'{tmp_path / 'small'}'")
    capsys.readouterr()
    assert run(tmp_path / "second", 6, f", start: {text}", model) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "second").exists()


def test_frames_of_another_level_are_not_replayed(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = f", start: {{kind: model, model: '{newest(first)}', replay: {{campaign: '{first}'}}}}"
    assert run(tmp_path / "second", 6, start, MODEL, "labeling={kind: xtb}") == 2
    assert "holds no labels at this campaign's level of theory" in capsys.readouterr().err


def test_a_dry_run_says_what_the_first_fit_starts_from(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    teacher = ", start: {kind: teacher, teacher: gfn2-xtb, frames: 50, budget_s: 20}"
    assert run(tmp_path / "a", 6, teacher, is_dry=True) == 0
    assert "first fit: taught by gfn2-xtb: 50 frames, then 20 s, once" in capsys.readouterr().out
    start = f", start: {{kind: model, model: '{newest(first)}', replay: {{campaign: '{first}'}}}}"
    assert run(tmp_path / "b", 6, start, is_dry=True) == 0
    assert f"first fit: goes on from {newest(first)}, with replayed frames" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
