"""What a campaign asks machines for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from alsys.config import CampaignConfig, parse_config
from alsys.config.overrides import apply_overrides
from alsys.launch.fleet import Fleet, Machine

ETHANOL = Path(__file__).parents[3] / "configs" / "ethanol.yaml"


def ethanol(**settings: Any) -> CampaignConfig:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return parse_config(apply_overrides(yaml.safe_load(ETHANOL.read_text()), named))


def test_each_kind_of_worker_is_a_group() -> None:
    groups = {"big": {"workers": 2, "cpus": 16, "threads": 16, "min_workers": 0, "ray_memory_mb": 90_000}}
    config = ethanol(
        labeling__workers=8, labeling__min_workers=2, labeling__groups=groups, training__gpus=1, training__workers=2
    )
    fleet = Fleet.of(config)
    assert [(g.name, g.section, g.least, g.most) for g in fleet.groups] == [
        ("labelers", "labeling", 2, 8),
        ("labelers-big", "labeling.groups.big", 0, 2),
        ("explorers", "exploration", 1, 1),
        ("trainers", "training", 2, 2),
    ]
    labelers, big, _, trainers = fleet.groups
    assert labelers.machine == Machine(1.0, 5000, 0.0, 5), "a label's limit, and the labeler's own process"
    assert big.machine.memory_mb == 90_000
    assert trainers.machine.gpus == 1
    assert [g.is_interruptible for g in fleet.groups] == [True, True, False, False]


def test_groups_that_ask_for_nothing_get_a_resource_that_the_config_takes() -> None:
    config = ethanol(labeling__groups={"big": {"workers": 2}}, exploration__resources={"fast": 2})
    fleet, settings = Fleet.of(config).placed()
    again = ethanol(labeling__groups={"big": {"workers": 2}}, exploration__resources={"fast": 2})
    taken = parse_config(apply_overrides(again.model_dump(mode="json", exclude_unset=True), list(settings)))
    assert Fleet.of(taken).groups == fleet.groups
    assert [g.resources for g in fleet.groups] == [{"labeler": 1}, {"labeler_big": 1}, {"fast": 2}, {"trainer": 1}]
