"""The files in configs/: valid, commented line by line, true to what the README promises of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from alsys.config import load_config, parse_config
from alsys.config.labeling import AnalyticLabeling, PySCFLabeling, XTBLabeling
from alsys.config.load import config_hash
from alsys.config.schema import NequIPModel, PairModel

FOLDER = Path(__file__).parents[3] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def test_the_documented_campaigns_are_there() -> None:
    wanted = "acetylacetone delta ethanol quickstart toy water_box water_carved xtb"
    assert {f"{name}.yaml" for name in wanted.split()} <= {path.name for path in FILES}


@each_file
def test_it_is_valid_and_named_like_its_file(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.directory is None, "a clone's campaigns go to campaigns/NAME"


@each_file
def test_it_survives_a_round_trip_through_the_schema(path: Path) -> None:
    config = load_config(path)
    as_json = parse_config(config.model_dump(mode="json"))
    as_yaml = parse_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert as_json == as_yaml == config
    assert config_hash(as_json) == config_hash(as_yaml) == config_hash(config)


@each_file
def test_every_key_has_a_comment(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if re.match(r"\s*(- )?[a-z_]+:", line):
            _, _, comment = line.partition(" # ")
            assert len(comment.strip()) >= 3, f"{path.name}:{number}: {line!r}"


@each_file
def test_no_key_is_given_twice(path: Path) -> None:
    """YAML would silently keep the last."""
    seen: list[set[str]] = []

    def walk(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            seen.append(set(keys))
            for _, value in node.value:
                walk(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                walk(value)

    walk(yaml.compose(path.read_text()))
    assert seen


@each_file
def test_the_random_arm_can_judge_the_model(path: Path) -> None:
    config = load_config(path)
    assert config.selection.random_share * config.stop.labels >= 10
    trained_on = (1 - config.selection.random_share) * config.stop.labels
    fits = 1 + (trained_on - config.training.first_at) // config.training.refit_every
    assert fits >= 3, "at least three versions"
    assert config.initial.frames >= config.training.first_at, "enough first frames for the first fit"


def test_toy_needs_no_chemistry_and_no_network() -> None:
    config = load_config(FOLDER / "toy.yaml")
    assert isinstance(config.labeling, AnalyticLabeling)
    assert isinstance(config.model, PairModel)
    assert config.initial.method == "rattle"
    assert config.runtime.kind == "ray"
    assert config.labeling.workers >= 2


def test_xtb_is_a_real_method_under_a_small_network() -> None:
    config = load_config(FOLDER / "xtb.yaml")
    assert isinstance(config.labeling, XTBLabeling)
    assert config.labeling.method == "GFN2-xTB"
    assert isinstance(config.model, NequIPModel)
    assert config.model.num_features <= 32


def test_quickstart_is_real_dft_within_its_time() -> None:
    config = load_config(FOLDER / "quickstart.yaml")
    labeling = config.labeling
    assert isinstance(labeling, PySCFLabeling)
    assert (labeling.xc, labeling.basis, labeling.density_fit) == ("pbe", "def2-svp", True)
    assert [system.smiles for system in config.systems] == ["CO"]
    assert config.stop.labels >= 40
    assert config.stop.wall_s is not None
    assert config.stop.wall_s <= 8 * 60
    assert config.labeling.workers + config.exploration.workers + 1 <= 3, "two cores"


def test_ethanol_has_the_level_of_rmd17_and_frames_beyond_its_target_temperature() -> None:
    config = load_config(FOLDER / "ethanol.yaml")
    labeling = config.labeling
    assert isinstance(labeling, PySCFLabeling)
    assert (labeling.xc, labeling.basis, labeling.density_fit, labeling.grid_level) == ("pbe", "def2-svp", True, 4)
    assert [system.smiles for system in config.systems] == ["CCO"]
    assert config.stop.labels == 100
    assert set(config.exploration.temperatures) >= {300.0, 500.0, 700.0}


def test_acetylacetone_has_its_dispersion_correction() -> None:
    labeling = load_config(FOLDER / "acetylacetone.yaml").labeling
    assert isinstance(labeling, PySCFLabeling)
    assert (labeling.xc, labeling.basis, labeling.dispersion) == ("pbe", "def2-svp", "d3bj")


def test_water_box_is_a_small_periodic_liquid() -> None:
    config = load_config(FOLDER / "water_box.yaml")
    box = config.systems[0].box
    assert box is not None
    assert [(c.molecule, c.count) for c in box.components] == [("H2O", 8)]
    assert config.initial.method == "xtb-md"
    assert isinstance(config.model, NequIPModel)
    assert isinstance(config.labeling, XTBLabeling)
    assert config.labeling.method == "GFN1-xTB"
