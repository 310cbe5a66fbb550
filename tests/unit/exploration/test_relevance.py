"""With a target ensemble, training frames are those that it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.relevance import PATIENCE, ThermalBound
from alsys.frames import Arm, Candidate, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from alsys.units import BOLTZMANN
from support.committees import HarmonicCommittee

STATE = CommitteeState(1, "fake", {}, ())
WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions)
STIFFNESS = 30.0
TARGET_K = 300.0
KT = BOLTZMANN * TARGET_K
BOUND = KT * (4.5 + 3.0 * 4.5**0.5)


class Springs(HarmonicCommittee):
    """Each atom on a spring to where it is in `WATER`."""

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Energies above the start, and restoring forces."""
        said = super().evaluate(batch, members)
        moved = batch.positions - np.tile(WATER.positions, (batch.n_frames, 1))
        energy = 0.5 * STIFFNESS * np.square(moved).reshape(batch.n_frames, -1).sum(axis=1)
        forces = -STIFFNESS * moved
        n_members = len(said.member_energies)
        return replace(
            said, energy=energy, forces=forces,
            member_energies=np.repeat(energy[None], n_members, axis=0),
            member_forces=np.repeat(forces[None], n_members, axis=0),
        )  # fmt: skip


def explored(deviation: float, n_chunks: int, temperature: float = 2000.0, **changes: Any) -> list[Candidate]:
    """Proposed training frames, by chunk; the band is 0.1 to 0.6 eV/Angstrom."""
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "w", "molecule": "H2O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {
                "walkers": 12, "temperatures": [temperature], "spacing_steps": 4, "reactive": True,
                "min_distance": 0.1, "thermostat": "langevin", "friction": 0.2,
            },
            "target": {"temperature": TARGET_K, "decorrelation": 5.0, "share": 0.2},
            **changes,
        }
    )  # fmt: skip
    of = WalkerExplorer(
        config, {"w": [WATER]}, 0,
        build=lambda state: Springs(STIFFNESS, lambda batch: np.full(batch.n_frames, deviation)),
    )  # fmt: skip
    found: list[Candidate] = []
    for k in range(n_chunks):
        order = ExplorationOrder(20, state=STATE if k == 0 else None, trajectory_base=1000 * (k + 1))
        found += [c for c in of.run(order).candidates if c.source.arm is Arm.UNCERTAIN]
    return found


def energy(candidate: Candidate) -> float:
    return 0.5 * STIFFNESS * float(np.square(candidate.frame.positions - WATER.positions).sum())


def test_frames_beyond_the_energies_of_the_ensemble_are_left_out() -> None:
    """Most frames at 2000 K are; without a target they are proposed."""
    aimed = explored(0.3, 10)
    assert len(aimed) > 10
    assert max(map(energy, aimed)) <= BOUND
    anywhere = explored(0.3, 10, target=None)
    assert max(map(energy, anywhere)) > 2 * BOUND


def test_random_choice_is_of_the_ensemble_too() -> None:
    found = explored(0.0, 10, selection={"strategy": "random"})
    assert len(found) > 10
    assert max(map(energy, found)) <= BOUND


def test_frames_above_the_band_are_taken_only_where_there_are_no_others_for_long() -> None:
    assert explored(0.9, PATIENCE - 1) == []
    assert explored(0.9, PATIENCE + 5)
    assert explored(0.9, 2, target=None)


@pytest.mark.parametrize(("above", "is_likely"), [(0.99, True), (1.01, False)])
def test_the_bound_is_that_of_a_harmonic_system_above_its_lowest_start(above: float, is_likely: bool) -> None:
    """3 N degrees of freedom, classical: mean 3 N kT / 2, variance 3 N (kT)^2 / 2."""
    stretched = WATER.with_positions(WATER.positions * 1.1)
    bound = ThermalBound(TARGET_K, {"w": [stretched, WATER]})
    bound.load(Springs(STIFFNESS))
    assert bound.is_likely("w", 3, above * BOUND) is is_likely
    assert not bound.is_likely("w", 3, float("nan"))
    draws = 0.5 * KT * np.random.default_rng(0).chisquare(9, 100_000)
    assert (draws > BOUND).mean() == pytest.approx(0.009, abs=0.003)
