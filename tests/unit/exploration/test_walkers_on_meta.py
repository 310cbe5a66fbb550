"""Explorers on a device without numbers: nothing is forgotten on the host, and a step makes a few copies only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.config import parse_config
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Frame
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.device_arrays import DeviceArrays
from alsys.potentials.devices import META, copies
from alsys.potentials.nequip import NequIPCommittee
from alsys.potentials.on_device import DeviceCommittee
from alsys.potentials.scored import fit_score, scored
from support.networks import random_state

ATOMS = molecule("CH3CH2OH")
ETHANOL = Frame.molecule(ATOMS.numbers, ATOMS.positions)
SPACING = 5
METHODS: dict[str, tuple[dict[str, Any], int, int]] = {
    "plain": ({"kind": "plain"}, 2, 0),
    "ramp": ({"kind": "ramp", "points": [[0, 50], [10, 1050]]}, 2, 1),
    "replica-exchange": ({"kind": "replica-exchange", "interval": 1.0}, 2, 1),
    "torsion-scan": ({"kind": "torsion-scan"}, 2, 1),
    "metadynamics": ({"kind": "metadynamics", "interval": 1000.0}, 2, 0),
    "udd": ({"kind": "udd"}, 4, 0),
}
"""Settings of a method, and the most copies of a step to the host and from it; one of these more every `SPACING` steps,
when walkers are remembered."""


def on_meta(state: CommitteeState) -> Committee:
    return DeviceCommittee(NequIPCommittee(state, device=META), state, DeviceArrays(META))


LISTED = (6, 4)
"""The same for periodic walkers whose list is made anew at each step, as on meta; where it is kept, 4 and none."""


def diamond() -> Frame:
    atoms = bulk("C", "diamond", a=3.6) * (2, 2, 1)
    moved = atoms.positions + np.random.default_rng(0).normal(0, 0.05, (len(atoms), 3))
    return Frame(atoms.numbers, moved, atoms.cell.array, atoms.pbc)


def explorer(
    method: dict[str, Any],
    start: Frame = ETHANOL,
    build: Callable[[CommitteeState], Committee] = on_meta,
    **exploration: Any,
) -> WalkerExplorer:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "CCO"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip"},
            "exploration": {"walkers": 4, "spacing_steps": SPACING, "methods": [method], **exploration},
        }
    )
    return WalkerExplorer(config, {"e": [start]}, 0, build)


def copies_of(walkers: WalkerExplorer, n_steps: int) -> tuple[int, int]:
    """To the host and to the device, of a chunk of so many steps."""
    before = (copies.to_host, copies.to_device)
    report = walkers.run(ExplorationOrder(n_steps=n_steps, state=None, trajectory_base=1000 * n_steps))
    assert report.walker_steps == 4 * n_steps
    return copies.to_host - before[0], copies.to_device - before[1]


@pytest.mark.parametrize(
    ("name", "settings"),
    [*[(name, {}) for name in METHODS], ("udd", {"thermostat": "nose-hoover"}), ("plain", {"thermostat": "none"})],
)
def test_copies_of_a_step(name: str, settings: dict[str, Any]) -> None:
    method, to_host, to_device = METHODS[name]
    walkers = explorer(method, **settings)
    walkers.run(ExplorationOrder(n_steps=1, state=random_state(), trajectory_base=0))
    few, many = copies_of(walkers, 2 * SPACING), copies_of(walkers, 4 * SPACING)
    assert 2 * SPACING <= many[0] - few[0] <= to_host * 2 * SPACING
    assert many[1] - few[1] <= to_device * 2 * SPACING + 2


@pytest.mark.parametrize("settings", [{"pressure": 1000.0}, {"thermostat": "nose-hoover"}], ids=str)
def test_copies_of_a_step_of_periodic_walkers(settings: dict[str, Any]) -> None:
    walkers = explorer({"kind": "plain"}, diamond(), **settings)
    walkers.run(ExplorationOrder(n_steps=1, state=random_state(), trajectory_base=0))
    few, many = copies_of(walkers, 2 * SPACING), copies_of(walkers, 4 * SPACING)
    assert many[0] - few[0] <= LISTED[0] * 2 * SPACING
    assert many[1] - few[1] <= LISTED[1] * 2 * SPACING + 2


@pytest.mark.parametrize("score", ["last-layer", "latent-distance"])
def test_calibration_scores_cost_no_copy(score: str) -> None:
    plain, batch = random_state(), FrameBatch.of([ETHANOL] * 2)
    learned = fit_score(score, NequIPCommittee(plain), [batch], [batch])
    state = dataclasses.replace(plain, score=score, score_state=learned)
    walkers = explorer({"kind": "plain"}, build=lambda s: scored(on_meta(s), s))
    walkers.run(ExplorationOrder(n_steps=1, state=state, trajectory_base=0))
    few, many = copies_of(walkers, 2 * SPACING), copies_of(walkers, 4 * SPACING)
    assert many[0] - few[0] <= 2 * 2 * SPACING
    assert many[1] - few[1] <= 2


def test_members_that_are_looked_at_now_and_then() -> None:
    walkers = explorer({"kind": "plain"}, uncertainty_every=SPACING)
    walkers.run(ExplorationOrder(n_steps=1, state=random_state(), trajectory_base=0))
    few, many = copies_of(walkers, 2 * SPACING), copies_of(walkers, 4 * SPACING)
    assert many[0] - few[0] <= 2 * 2 * SPACING
    assert many[1] - few[1] <= 2
