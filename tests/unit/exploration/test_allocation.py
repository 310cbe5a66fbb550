"""Walkers shared out over systems and methods, steered as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import CampaignConfig, parse_config
from alsys.errors import InputError
from alsys.exploration.allocation import WalkerAllocation, check_methods
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Arm, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, committee_prediction
from support.committees import HarmonicCommittee

pytestmark = pytest.mark.thorough

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
        chosen = self._stiffness if members is None else [self._stiffness[m] for m in members]
        energies = np.stack([0.5 * k * squared for k in chosen])
        return committee_prediction(batch, energies, np.stack([-k * away for k in chosen]), n_members=2)


def run(explorer: WalkerExplorer, n_steps: int, **fields: Any) -> ExplorationReport:
    return explorer.run(ExplorationOrder(n_steps=n_steps, **{"state": STATE, "max_candidates": 1000, **fields}))


def test_walkers_are_spread_over_methods_that_suit_the_system() -> None:
    systems = {"e": ETHANOL, "w": WATER}
    allocation = WalkerAllocation(config_of(systems, walkers=16, methods=PORTFOLIO), systems, 0)
    walkers = allocation.walkers({})
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
    allocation = WalkerAllocation(config_of({"e": ETHANOL}, walkers=10, methods=PORTFOLIO), {"e": ETHANOL}, 0)
    shares = {"plain": 0.1, "udd": 0.7, "torsion-scan": 0.1, "ramp": 0.1}
    assert allocation.walkers(shares).steering.names.count("udd") == 7
    assert not allocation.is_new(shares)
    assert allocation.is_new({**shares, "udd": 0.5, "plain": 0.3})


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
    allocation = WalkerAllocation(config_of(systems, walkers=2), systems, 0)
    seen: set[str] = set()
    for _ in range(20):
        walkers = allocation.walkers({})
        assert len(walkers) == 2
        seen |= set(walkers.systems)
    assert seen == set(systems)
    assert allocation.is_new({})


class Watched(HarmonicCommittee):
    """Remembers which members were asked for batches of all walkers."""

    def __init__(self, n_walkers: int) -> None:
        super().__init__(0.0, lambda batch: np.full(batch.n_frames, 0.2))
        self.asked: list[Sequence[int] | None] = []
        self._n_walkers = n_walkers

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        if batch.n_frames == self._n_walkers:
            self.asked.append(members)
        return super().evaluate(batch, members)


def test_all_members_are_looked_at_every_few_steps_and_frames_are_found_there() -> None:
    committee = Watched(8)
    explorer = WalkerExplorer(
        config_of({"e": ETHANOL}, uncertainty_every=4, spacing_steps=8, max_temperature_ratio=1e6),
        {"e": [ETHANOL]},
        0,
        build=lambda _: committee,
    )
    report = run(explorer, 16, n_random=3)
    assert committee.asked == [None, *[None if step % 4 == 0 else (0,) for step in range(1, 17)]]
    uncertain = [c for c in report.candidates if c.source.arm is Arm.UNCERTAIN]
    assert {c.source.step for c in uncertain} <= {4, 8, 12, 16}
    assert len(uncertain) >= 8
    assert sum(c.source.arm is Arm.RANDOM for c in report.candidates) == 3
    assert report.walker_steps == 8 * 16
    assert report.deviation_mean == pytest.approx(0.2), "the mean over looks, not over steps"
    assert report.stops == {}


def test_between_looks_the_first_member_drives_and_always_does() -> None:
    """Two springs: with members of 2 and 1 eV/Angstrom^2, the energy of the first is conserved."""
    settings = {"thermostat": "none", "trust": {"accurate_below": 1e3, "failed_above": 1e4}, "temperatures": [300]}
    energies = []
    for every in (1, 4):
        explorer = WalkerExplorer(
            config_of({"e": ETHANOL}, uncertainty_every=every, spacing_steps=8, **settings),
            {"e": [ETHANOL]},
            0,
            build=lambda _: TwoMinds(ETHANOL.positions, (2.0, 1.0)),
        )
        run(explorer, 40)
        walkers = explorer._walkers
        away = walkers.positions - np.tile(ETHANOL.positions, (8, 1))
        assert walkers.forces == pytest.approx(-(1.5 if every == 1 else 2.0) * away)
        energies.append(float(np.square(away).sum()))
    assert energies[0] != energies[1]


def test_uncertainty_driven_dynamics_need_all_members_at_every_step() -> None:
    with pytest.raises(InputError, match="uncertainty_every must be 1 with the method udd"):
        config_of({"e": ETHANOL}, uncertainty_every=2, methods=[{"kind": "udd"}])
    with pytest.raises(InputError, match="must not be larger than spacing_steps"):
        config_of({"e": ETHANOL}, uncertainty_every=5)
    with pytest.raises(InputError, match=r"trust\.kind must be calibrated"):
        config_of({"e": ETHANOL}, uncertainty="last-layer")
