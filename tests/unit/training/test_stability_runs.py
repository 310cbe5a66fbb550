"""Trial runs: energy is kept where it should be, drift is measured where it is not, and lost walkers say why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.dynamics.stopping import Limits
from alsys.frames import Frame
from alsys.potentials.base import CommitteePrediction, FrameBatch, committee_prediction
from alsys.training.stability_runs import StabilityOutcome, StabilityWalker, run_trial
from support.lennard_jones import LennardJonesCommittee

WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions)


class Springs:
    """Springs between all atoms of a molecule, at rest in its reference; a committee of two equal members.

    Args:
        reference: ``(n_atoms, 3)``, Angstrom.
        heating: eV that the energy rises by with each evaluation.
        break_at: From this evaluation on, frame 0 is what `broken` says.
        broken: ``nan``, ``force`` or ``baseline``.
    """

    version = 1

    def __init__(self, reference: Frame, heating: float = 0.0, break_at: int = 10**9, broken: str = "") -> None:
        i, j = np.triu_indices(reference.n_atoms, k=1)
        self._pairs = i, j
        self._rest = np.linalg.norm(reference.positions[i] - reference.positions[j], axis=1)
        self._heating, self._break_at, self._broken = heating, break_at, broken
        self.n_calls = 0

    def load(self, state: Any) -> None:
        raise AssertionError("is never asked to")

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        assert members is None, "the mean of all members, always"
        assert np.isfinite(batch.positions).all()
        i, j = self._pairs
        energies, forces = [], []
        for frame in batch.frames():
            vector = frame.positions[i] - frame.positions[j]
            distance = np.linalg.norm(vector, axis=1)
            pull = -(20.0 * (distance - self._rest) / distance)[:, None] * vector
            force = np.zeros_like(frame.positions)
            np.add.at(force, i, pull)
            np.add.at(force, j, -pull)
            energies.append(10.0 * float(np.square(distance - self._rest).sum()) + self._heating * self.n_calls)
            forces.append(force)
        self.n_calls += 1
        result = committee_prediction(batch, np.array([energies] * 2), np.array([np.concatenate(forces)] * 2))
        if self.n_calls <= self._break_at:
            return result
        first = batch.n_atoms[0]
        if self._broken == "force":
            result.forces[0] = 100.0
        else:
            result.forces[:first] = np.nan
            result.energy[0] = np.nan
        failed = np.arange(batch.n_frames) == 0
        return replace(result, is_failed=failed) if self._broken == "baseline" else result


def walkers(n: int, frame: Frame = WATER, temperature: float = 300.0) -> list[StabilityWalker]:
    """At constant energy and hot in turn."""
    return [StabilityWalker("water", frame, WATER, temperature, k % 2 == 1) for k in range(n)]


def run(committee: Any, of: Sequence[StabilityWalker], n_steps: int = 200, **options: Any) -> StabilityOutcome:
    settings: dict[str, Any] = {"timestep": 0.5, "budget_s": 1e6, "limits": Limits(), "seed": 1}
    return run_trial(committee, of, n_steps=n_steps, **{**settings, **options})


def test_a_conservative_potential_keeps_its_energy_and_all_walkers() -> None:
    committee = Springs(WATER)
    outcome = run(committee, walkers(8))
    assert (outcome.n_steps, outcome.n_constant, outcome.n_hot) == (200, 4, 4)
    assert outcome.lost_constant == outcome.lost_hot == {}
    assert outcome.drift["water"] < 1e-3
    assert committee.n_calls == 201, "one evaluation of all walkers a step"


def test_drift_is_the_slope_of_the_total_energy() -> None:
    """An energy that rises by 1 meV a step of 0.5 fs is 2 eV a picosecond, over three atoms."""
    outcome = run(Springs(WATER, heating=1e-3), walkers(8))
    assert outcome.drift["water"] == pytest.approx(2.0 / 3.0, rel=1e-3)
    assert outcome.drift_low["water"] == pytest.approx(2.0 / 3.0, rel=0.01)


def test_what_a_short_run_shows_is_no_certain_drift() -> None:
    """The total energy of velocity Verlet oscillates: 25 fs say nothing, and a little longer says little."""
    assert run(Springs(WATER), walkers(8, temperature=1500.0), 50).drift == {}
    for seed in range(5):
        outcome = run(Springs(WATER), walkers(8, temperature=1500.0), 32, timestep=1.0, seed=seed)
        assert outcome.drift["water"] > 0.0
        assert outcome.drift_low["water"] <= 0.5 * outcome.drift["water"]


def test_periodic_frames_of_any_cell_keep_their_energy() -> None:
    argon = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    small, large = (Frame(argon.numbers, argon.positions * s, argon.cell.array * s, [True] * 3) for s in (1.0, 1.05))
    of = [StabilityWalker("argon", frame, small, 80.0, is_hot) for frame in (small, large) for is_hot in (False, True)]
    outcome = run(LennardJonesCommittee(0.0104, 3.4, 5.0), of, 100, timestep=4.0)
    assert outcome.lost_constant == outcome.lost_hot == {}
    assert outcome.drift["argon"] < 1e-3


@pytest.mark.parametrize(
    ("broken", "reason"), [("nan", "not-finite"), ("force", "force-too-large"), ("baseline", "baseline-failed")]
)
def test_a_walker_that_breaks_is_lost_with_its_reason_and_the_others_go_on(broken: str, reason: str) -> None:
    of = walkers(4)
    outcome = run(Springs(WATER, break_at=50, broken=broken), of, 100)
    assert outcome.lost_constant == {0: reason}
    assert outcome.lost_hot == {}
    assert outcome.n_steps == 100
    assert outcome.drift["water"] < 1e-2, "of the walker that is left"


def test_places_are_those_of_the_list_that_was_given() -> None:
    of = walkers(4)[::-1]  # the first is hot
    outcome = run(Springs(WATER, break_at=10, broken="nan"), of, 20)
    assert outcome.lost_constant == {1: "not-finite"}, "the first walker at constant energy is the second given"


def test_heat_beyond_what_the_start_can_give_is_an_explosion() -> None:
    stretched = WATER.with_positions(WATER.positions + np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -0.2], [0.0, 0.0, -0.2]]))
    energy = float(Springs(WATER).evaluate(FrameBatch.of([stretched])).energy[0])
    assert energy > 0.3
    cold = [replace(w, start=stretched, temperature=50.0) for w in walkers(2)]
    assert run(Springs(WATER), cold, limits=Limits(2.0)).lost_constant == {0: "too-hot"}
    known = [replace(w, excess=energy) for w in cold]
    assert run(Springs(WATER), known, limits=Limits(2.0)).lost_constant == {}


def test_atoms_that_come_apart_or_fuse_are_seen_before_the_committee_sees_them() -> None:
    free = Springs(Frame.molecule([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]]))  # wants them 9 Angstrom apart
    pair = Frame.molecule([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
    outcome = run(free, [StabilityWalker("h2", pair, pair, 300.0, False)], 500, limits=Limits(1e9))
    assert outcome.lost_constant[0] in ("broken", "force-too-large")
    assert outcome.n_steps < 500, "nobody is left to move"


def test_the_budget_ends_the_run_between_two_steps() -> None:
    """A second a step. What is too short to say anything goes on, for five budgets at most."""
    for budget_s, n_steps in ((81.0, 80), (21.0, 60), (9.0, 44), (0.0, 0)):
        ticks: Iterator[float] = iter(np.arange(0.0, 1e6))
        clock = partial(next, ticks)
        assert run(Springs(WATER), walkers(4), budget_s=budget_s, clock=clock).n_steps == n_steps
    ticks = iter(np.arange(0.0, 1e6))
    short = run(Springs(WATER), walkers(4), n_steps=12, budget_s=6.0, clock=partial(next, ticks))
    assert short.n_steps == 12, "all that was asked for"
