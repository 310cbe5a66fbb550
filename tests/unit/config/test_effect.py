"""Settings that do nothing because of another one are named in the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alsys.campaign import Campaign
from alsys.config import load_config, parse_config
from alsys.config.effect import unused
from alsys.config.schema import CampaignConfig

BASE: dict[str, Any] = {
    "name": "a",
    "systems": [{"smiles": "CCO"}],
    "labeling": {"kind": "xtb"},
    "model": {"kind": "nequip"},
}
PBE = {"kind": "pyscf", "xc": "pbe", "basis": "sto-3g"}
PAIR = {"kind": "pair"}
METADYNAMICS = {"kind": "metadynamics"}

CASES: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("labeling.two_grids", True, {"labeling": {**PBE, "density_fit": False}}, {"labeling": PBE}),
    ("labeling.two_grids", True, {"labeling": {**PBE, "method": "hf", "xc": None}}, {"labeling": PBE}),
    ("labeling.two_grids", True, {"labeling": {**PBE, "grid_level": 1}}, {"labeling": {**PBE, "grid_level": 2}}),
    ("labeling.two_grids", True, {"labeling": {**PBE, "device": "gpu"}}, {"labeling": {**PBE, "device": "cpu"}}),
    ("labeling.grid_level", 3, {"labeling": {**PBE, "method": "hf", "xc": None}}, {"labeling": PBE}),
    ("labeling.gpu_memory_mb", 512, {"labeling": PBE}, {"labeling": {**PBE, "gpus": 1}}),
    ("labeling.gpus", 1, {}, {"labeling": PBE}),
    ("training.compile", True, {"model": PAIR}, {}),
    ("labeling.hessians", 1, {"labeling": PBE, "model": PAIR}, {"labeling": PBE}),
    ("training.learning_rate", 0.01, {"model": PAIR}, {}),
    ("training.huber_delta", 0.02, {}, {"training": {"loss": "huber"}}),
    ("training.max_ahead", 3, {"mode": "rounds"}, {}),
    ("training.train_on", 3, {"mode": "rounds"}, {}),
    ("promotion.coverage_tolerance", 0.2, {"exploration": {"trust": {"kind": "fixed"}}}, {}),
    ("exploration.compile", True, {"model": PAIR}, {}),
    ("exploration.gpus", 0.5, {"model": PAIR}, {}),
    ("training.gpus", 1, {"runtime": {"kind": "in-process"}}, {}),
    ("training.device", "cpu", {"model": PAIR}, {}),
    ("exploration.relaxation", 60.0, {}, {"exploration": {"thermostat": "nose-hoover"}}),
    ("exploration.compressibility", 1e-5, {}, {"exploration": {"pressure": 1.0}}),
    ("exploration.method_floor", 0.1, {}, {"exploration": {"methods": [{"kind": "plain"}, {"kind": "udd"}]}}),
    ("initial.temperature", 400.0, {"initial": {"method": "rattle"}}, {"initial": {"method": "xtb-md"}}),
    ("initial.temperature", 400.0, {"labeling": {"kind": "analytic"}}, {}),
    ("initial.stdev", 0.1, {}, {"initial": {"method": "rattle"}}),
    ("selection.diversity", "max-det", {"selection": {"strategy": "random"}}, {}),
    ("selection.near_duplicate", 0.2, {"selection": {"diversity": "none"}}, {}),
    ("selection.cost_aware", True, {"selection": {"strategy": "random"}}, {}),
    ("stop.min_random", 30, {}, {"stop": {"target_force_mae": 0.03}}),
    ("stop.versions_in_a_row", 3, {}, {"stop": {"target_force_mae": 0.03}}),
    ("runtime.num_cpus", 4, {"runtime": {"address": "auto"}}, {}),
    ("runtime.ship_code", True, {}, {"runtime": {"address": "auto"}}),
    ("labeling.idle_s", 30.0, {}, {"labeling": {"kind": "analytic", "workers": 4, "min_workers": 1}}),
    ("labeling.min_workers", 1, {"runtime": {"kind": "in-process"}}, {}),
]


def config_of(sections: dict[str, Any], field: str = "", value: object = None) -> CampaignConfig:
    data = {**BASE, **{name: dict(part) if isinstance(part, dict) else part for name, part in sections.items()}}
    if field:
        section, name = field.split(".")
        data[section] = {**data.get(section, {}), name: value}
    return parse_config(data)


def named(config: CampaignConfig) -> set[str]:
    return {one.field for one in unused(config)}


@pytest.mark.parametrize(("field", "value", "without", "with_it"), CASES, ids=lambda value: str(value)[:50])
def test_a_setting_without_effect_is_named_where_it_was_set(
    field: str, value: object, without: dict[str, Any], with_it: dict[str, Any]
) -> None:
    (one,) = (one for one in unused(config_of(without, field, value)) if one.field == field)
    assert one.value == value
    assert one.needs
    assert field not in named(config_of(with_it, field, value))
    assert not named(config_of(without))


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        (METADYNAMICS, "distance_width", 0.2),
        (METADYNAMICS, "max_distance", 5.0),
        ({**METADYNAMICS, "torsions": [], "distances": [[0, 1]]}, "torsion_width", 0.3),
    ],
)
def test_widths_of_variables_that_are_not_there_are_named(method: dict[str, Any], field: str, value: float) -> None:
    config = config_of({"exploration": {"methods": [{"kind": "plain"}, {**method, field: value}]}})
    assert named(config) == {f"exploration.methods[1].{field}"}


def test_what_is_off_already_may_be_said() -> None:
    assert not named(config_of({"model": PAIR, "training": {"compile": False, "max_gradient_steps": None}}))


def test_sections_that_are_switched_off_may_stay_and_are_named() -> None:
    config = config_of(
        {
            "tracking": {"enabled": False, "uri": "sqlite:///a.db"},
            "runtime": {"kind": "in-process"},
            "training": {"cpus": 2, "parallel": 2},
            "promotion": {"examine": False, "walkers": 4, "survival": 0.9},
        }
    )
    assert named(config) == {"tracking.uri", "training.cpus", "promotion.walkers"}


def test_the_plan_names_it() -> None:
    data = {
        **BASE,
        "labeling": {"kind": "analytic"},
        "model": PAIR,
        "initial": {"method": "rattle", "temperature": 400},
    }
    text = str(Campaign.open(data).plan.estimate())
    assert "not used: initial.temperature needs initial.method: normal-modes or xtb-md" in text


def test_our_own_configs_hold_none() -> None:
    files = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
    assert len(files) > 8
    for file in files:
        assert not named(load_config(file)), file.name


def test_the_page_lists_them() -> None:
    page = (Path(__file__).parents[3] / "docs" / "no_effect.md").read_text()
    for field in {field for field, *_ in CASES}:
        assert f"{field}`" in page or f"`{field.partition('.')[2]}`" in page, field


def test_resources_of_groups_do_nothing_without_ray() -> None:
    exploration = {"groups": {"gpu2": {"workers": 1, "gpus": 0.5, "threads": 2}}}
    assert named(config_of({"exploration": exploration, "runtime": {"kind": "in-process"}})) == {
        "exploration.groups.gpu2.gpus"
    }
    assert named(config_of({"exploration": exploration})) == set()
