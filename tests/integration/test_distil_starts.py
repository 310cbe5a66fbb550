"""Where walkers of `alsys models distil` begin: at labels, or in the boxes that clusters were carved out of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alsys.campaign.folder import CampaignFolder
from alsys.cli.distil import frames_to_begin_from
from alsys.config import CampaignConfig, parse_config
from alsys.frames import Arm, Candidate, Frame, PointCharges, Source
from alsys.labels import Label, LevelOfTheory
from alsys.store.zarr import open_writer

LEVEL = LevelOfTheory({"engine": "none"})
CARD = {"level_of_theory": dict(LEVEL.spec)}
CELL = 6.0 * np.eye(3)


@pytest.fixture
def config(tmp_path: Path) -> CampaignConfig:
    return parse_config(
        {
            "name": "c",
            "directory": str(tmp_path / "campaign"),
            "systems": [
                {"name": "crystal", "bulk": {"formula": "Ar", "structure": "fcc", "a": 5.3, "cubic": True}},
                {"name": "water", "molecule": "H2O"},
            ],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "nequip"},
        }
    )


def write(config: CampaignConfig, frames: list[tuple[str, Frame, np.ndarray | None]]) -> None:
    """Frames of systems with labels of zeros, and masks where some atoms are not learned from."""
    directory = CampaignFolder.of(config)
    directory.write_record(config)
    store = open_writer(directory.store)
    store.stage(
        candidates=[Candidate(frame, Source(name, Arm.INITIAL, "rattle"), mask) for name, frame, mask in frames],
        labels=[Label(f.frame_id, LEVEL.level_id, 0.0, np.zeros((f.n_atoms, 3))) for _, f, _ in frames],
        levels=[LEVEL],
    )
    store.commit()
    store.close()


def systems_of(config: CampaignConfig) -> list[tuple[str, bool, int]]:
    """System, periodicity and size of each frame."""
    known = frames_to_begin_from(config, "c.yaml", CARD)
    return [
        (known.systems[s], bool(pbc.all()), int(n))
        for s, pbc, n in zip(known.system, known.pbc, known.n_atoms, strict=True)
    ]


CHARGES = PointCharges(np.array([[9.0, 0.0, 0.0]]), np.array([0.4]))
CLUSTER = replace(Frame.molecule([18, 18, 18], [[0, 0, 0], [3.7, 0, 0], [0, 3.7, 0]]), environment=CHARGES)
WATER = Frame.molecule([8, 1, 1], [[0, 0, 0], [0, 0, 0.96], [0.93, 0, -0.2]])
BOX = Frame(np.array([18]), np.zeros((1, 3)), CELL, np.ones(3, dtype=bool))
MASK = np.array([True, False, False])


def test_without_a_campaign_they_are_the_structures_of_all_systems_under_their_names(config: CampaignConfig) -> None:
    assert sorted(systems_of(config)) == [("crystal", True, 4), ("water", False, 3)]


def test_a_system_that_is_labelled_in_clusters_brings_its_box_along(config: CampaignConfig) -> None:
    write(config, [("crystal", CLUSTER, MASK), ("water", WATER, None)])
    assert sorted(systems_of(config)) == [("crystal", False, 3), ("crystal", True, 4), ("water", False, 3)]


def test_labelled_boxes_are_enough(config: CampaignConfig) -> None:
    write(config, [("crystal", CLUSTER, MASK), ("crystal", BOX, None), ("water", WATER, None)])
    assert sorted(systems_of(config)) == [("crystal", False, 3), ("crystal", True, 1), ("water", False, 3)]
