"""Walkers shared out over systems and methods, steered as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import CampaignConfig, parse_config
from alsys.errors import InputError
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.crew import Crew, check_methods
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, committee_prediction
from alsys.testing.committees import HarmonicCommittee

STATE = CommitteeState(1, "fake", {}, ())
PORTFOLIO: list[dict[str, Any]] = [
    {"kind": "plain", "temperatures": [100]},
    {"kind": "udd", "temperatures": [200]},
    {"kind": "torsion-scan", "temperatures": [300]},
    {"kind": "ramp", "points": [[0, 50], [10, 1050]]},
]


def frame_of(name: str) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, atoms.positions)


ETHANOL, WATER = frame_of("CH3CH2OH"), frame_of("H2O")


def config_of(systems: dict[str, Frame], **exploration: Any) -> CampaignConfig:
    settings = {"walkers": 8, "spacing_steps": 4, "trust": {"accurate_below": 0.1, "failed_above": 0.5}}
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": name, "molecule": "H2O"} for name in systems],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {**settings, **exploration},
        }
    )


class TwoMinds:
    """Two members on springs of different stiffness about the start structure."""

    version = 1

    def __init__(self, center: np.ndarray[Any, np.dtype[np.float64]], stiffness: tuple[float, float]) -> None:
        self._center, self._stiffness = center, stiffness

    def load(self, state: CommitteeState) -> None:
        """Keeps what it has."""

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        away = batch.positions - np.tile(self._center, (batch.n_frames, 1))
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        squared = np.add.reduceat(np.square(away).sum(axis=1), starts)
        energies = np.stack([0.5 * k * squared for k in self._stiffness])
        return committee_prediction(batch, energies, np.stack([-k * away for k in self._stiffness]))


def run(explorer: WalkerExplorer, n_steps: int, **fields: Any) -> ExplorationReport:
    return explorer.advance(ExplorationOrder(n_steps=n_steps, **{"state": STATE, "max_candidates": 1000, **fields}))


def test_walkers_are_spread_over_methods_that_suit_the_system() -> None:
    systems = {"e": ETHANOL, "w": WATER}
    crew = Crew(config_of(systems, walkers=16, methods=PORTFOLIO), systems, 0)
    walkers = crew.walkers({})
    counts = {
        system: [name for name, s in zip(walkers.steering.names, walkers.systems, strict=True) if s == system]
        for system in systems
    }
    assert {name: counts["e"].count(name) for name in counts["e"]} == {
        "plain": 2, "udd": 2, "torsion-scan": 2, "ramp": 2
    }  # fmt: skip
    assert "torsion-scan" not in counts["w"], "water has no rotor"
    assert len(counts["w"]) == 8


def test_shares_decide_how_many_walkers_a_method_gets() -> None:
    crew = Crew(config_of({"e": ETHANOL}, walkers=10, methods=PORTFOLIO), {"e": ETHANOL}, 0)
    shares = {"plain": 0.1, "udd": 0.7, "torsion-scan": 0.1, "ramp": 0.1}
    assert crew.walkers(shares).steering.names.count("udd") == 7
    assert not crew.is_new(shares)
    assert crew.is_new({**shares, "udd": 0.5, "plain": 0.3})


def test_walkers_are_regrouped_only_with_new_weights() -> None:
    explorer = WalkerExplorer(
        config_of({"e": ETHANOL}, methods=PORTFOLIO), {"e": [ETHANOL]}, 0, build=lambda _: HarmonicCommittee(0.0)
    )
    shares = {"plain": 0.0, "udd": 1.0, "torsion-scan": 0.0, "ramp": 0.0}
    assert run(explorer, 3).method_steps == {"plain": 6, "udd": 6, "torsion-scan": 6, "ramp": 6}
    assert run(explorer, 3, state=None, shares=shares).method_steps["plain"] == 6
    assert run(explorer, 3, shares=shares).method_steps == {"udd": 24}


def test_each_method_heats_its_own_walkers_and_signs_its_frames() -> None:
    explorer = WalkerExplorer(
        config_of({"e": ETHANOL}, methods=PORTFOLIO, spacing_steps=2, max_temperature_ratio=1e6),
        {"e": [ETHANOL]},
        0,
        build=lambda _: HarmonicCommittee(0.0, lambda batch: np.full(batch.n_frames, 0.2)),
    )
    found = {c.source.method: set() for c in run(explorer, 1).candidates}
    for candidate in run(explorer, 8, state=None).candidates:
        found.setdefault(candidate.source.method, set()).add(candidate.source.temperature)
    assert found["plain"] == {100.0}
    assert found["udd"] == {200.0}
    assert found["torsion-scan"] == {300.0}
    assert len(found["ramp"]) > 2, "the ramp rises with the steps"


def test_uncertainty_drives_walkers_where_members_disagree() -> None:
    def mean_spread(method: str) -> float:
        config = config_of(
            {"e": ETHANOL}, methods=[{"kind": method, "temperatures": [50]}], walkers=16, friction=0.05,
            trust={"accurate_below": 1e3, "failed_above": 1e4},
        )  # fmt: skip
        explorer = WalkerExplorer(config, {"e": [ETHANOL]}, 3, build=lambda _: TwoMinds(ETHANOL.positions, (2.0, 1.0)))
        return run(explorer, 1500).deviation_mean

    assert mean_spread("udd") > 1.05 * mean_spread("plain")


def test_a_method_that_suits_no_system_is_refused_by_name() -> None:
    config = config_of({"w": WATER}, methods=[{"kind": "plain"}, {"kind": "torsion-scan"}])
    with pytest.raises(InputError, match=r"exploration.methods\[1\].kind: needs a molecule with a bond that turns"):
        check_methods(config, {"w": WATER})
    check_methods(config_of({"w": WATER, "e": ETHANOL}, methods=PORTFOLIO), {"w": WATER, "e": ETHANOL})


def test_methods_of_one_kind_are_told_apart() -> None:
    config = config_of({"e": ETHANOL}, methods=[{"kind": "plain"}, {"kind": "udd"}, {"kind": "plain"}])
    assert config.exploration.method_names == ("plain-1", "udd", "plain-2")


def test_systems_take_turns_where_walkers_are_few() -> None:
    systems = {f"s{k}": WATER for k in range(5)}
    crew = Crew(config_of(systems, walkers=2), systems, 0)
    seen: set[str] = set()
    for _ in range(20):
        walkers = crew.walkers({})
        assert len(walkers) == 2
        seen |= set(walkers.systems)
    assert seen == set(systems)
    assert crew.is_new({})
