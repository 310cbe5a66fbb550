"""Healthy walkers go on whatever their size; those that explode, heat up or collide are stopped, and say why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from alsys.config import parse_config
from alsys.dynamics.geometry import Bonds
from alsys.dynamics.integrators import Langevin, VelocityVerlet
from alsys.dynamics.runner import Evaluation, Runner, thermostatted
from alsys.dynamics.stopping import IMPROBABLE, Limits, StopRule, heat_limits
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import FloatArray, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, committee_prediction
from alsys.training.stability_runs import StabilityWalker, run_trial

NITROGEN = Frame.molecule([7, 7], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
LIMITS = Limits()
STIFFNESS = 100.0  # eV/Angstrom^2


def spring(batch: FrameBatch) -> Evaluation:
    """Diatomics on a harmonic bond."""
    bond = batch.positions[1::2] - batch.positions[::2]
    length = np.linalg.norm(bond, axis=1)
    forces = np.empty_like(batch.positions)
    forces[::2] = (STIFFNESS * (length - 1.1) / length)[:, None] * bond
    forces[1::2] = -forces[::2]
    return Evaluation(forces, 0.5 * STIFFNESS * np.square(length - 1.1))


class Diatomics:
    """The same as a committee of two equal members."""

    version = 1

    def load(self, state: CommitteeState) -> None:
        raise AssertionError("is never asked to")

    def evaluate(self, batch: FrameBatch, members: Any = None) -> CommitteePrediction:
        found = spring(batch)
        assert found.energy is not None
        return committee_prediction(batch, np.array([found.energy] * 2), np.array([found.forces] * 2))


def runner_of(n: int, temperature: float = 500.0, limits: Limits = LIMITS, **rule: Any) -> Runner:
    starts = [NITROGEN] * n
    integrator = thermostatted(starts, np.full(n, temperature), 0.5, 0.02)
    runner = Runner(starts, integrator, StopRule(starts, integrator.n_degrees, limits, **rule))
    runner.velocities = integrator.maxwell(np.random.default_rng(1))
    return runner


def explored(n_walkers: int, n_steps: int) -> dict[str, int]:
    """Stops of diatomics at 500 K under an explorer."""
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "n", "smiles": "N#N"}],
            "labeling": {"kind": "analytic", "quality": {"enabled": False}},
            "model": {"kind": "pair"},
            "exploration": {
                "walkers": n_walkers, "temperatures": [500], "max_steps": 10**6,
                "trust": {"accurate_below": 0.1, "failed_above": 0.5},
            },
        }
    )  # fmt: skip
    explorer = WalkerExplorer(config, {"n": [NITROGEN]}, 0, build=lambda _: Diatomics())
    report = explorer.run(ExplorationOrder(n_steps=n_steps, state=CommitteeState(1, "fake", {}, ())))
    assert report.walker_steps == n_walkers * n_steps - sum(report.stops.values())
    return dict(report.stops)


def test_healthy_diatomics_are_never_stopped() -> None:
    """In 320,000 steps of walkers; twice the kinetic energy is above 5 n kT in one of 550."""
    assert explored(640, 500) == {}


@pytest.mark.slow
def test_sixty_four_diatomics_go_on_for_20_000_steps() -> None:
    assert explored(64, 20_000) == {}


def test_healthy_diatomics_survive_a_trial_run() -> None:
    of = [StabilityWalker("n", NITROGEN, NITROGEN, 500.0, is_hot) for is_hot in (False, True)] * 320
    outcome = run_trial(Diatomics(), of, timestep=0.5, n_steps=400, budget_s=1e6, limits=Limits(), seed=0)
    assert outcome.lost_constant == outcome.lost_hot == {}


def test_limits_of_heat_are_those_of_the_chi_square_distribution_in_small_systems() -> None:
    few, many = np.array([3, 6, 15]), np.array([18, 24, 300])
    np.testing.assert_allclose(heat_limits(few, 5.0), chi2.isf(IMPROBABLE, few), rtol=1e-9)
    np.testing.assert_allclose(heat_limits(many, 5.0), 5.0 * many)


@pytest.mark.parametrize(
    ("force", "reason"), [(60.0, "force-too-large"), (np.nan, "not-finite"), (-np.inf, "not-finite")]
)
def test_a_walker_that_explodes_is_stopped_and_the_others_are_not(force: float, reason: str) -> None:
    runner, rng = runner_of(4), np.random.default_rng(0)

    def exploding(batch: FrameBatch) -> Evaluation:
        found = spring(batch)
        found.forces[4] = force
        return found

    assert runner.evaluate(spring) == {}
    assert runner.step(spring, rng) == {}
    assert runner.step(exploding, rng) == {2: reason}
    runner.begin(2, NITROGEN, rng)
    runner.evaluate(spring, [2])
    assert all(runner.step(spring, rng) == {} for _ in range(20))


def test_an_energy_that_is_no_number_and_forces_that_are_missing_have_their_reasons() -> None:
    runner = runner_of(3)
    runner.evaluate(spring)

    def broken(batch: FrameBatch) -> Evaluation:
        found = spring(batch)
        found.forces[2:4] = np.nan
        return replace(found, energy=np.array([np.nan, np.nan, 0.0]), missing={1: "baseline-failed"})

    assert runner.step(broken, np.random.default_rng(0)) == {0: "not-finite", 1: "baseline-failed"}
    assert np.isfinite(runner.velocities).all()


def test_a_hot_walker_is_stopped_unless_the_heat_is_known() -> None:
    runner, rng = runner_of(4), np.random.default_rng(0)
    runner.evaluate(spring)
    # along the axis of rotation, so that nothing but heat is wrong: 27 kT, of which 24.8 are in one step of 1e10
    runner.velocities[2:4] = 0.0
    speed = np.sqrt(2.0 * 27.0 * 8.617e-5 * 500.0 / 28.0 * 9.6485e-3)
    runner.velocities[2:4, 0] = speed, -speed
    assert runner.step(spring, rng) == {1: "too-hot"}
    assert runner.step(lambda batch: replace(spring(batch), excess=np.full(4, 10.0)), rng) == {}


def test_a_walker_that_collides_is_stopped_before_the_potential_sees_it() -> None:
    runner, rng = runner_of(4), np.random.default_rng(0)
    runner.evaluate(spring)
    runner.velocities[6, 2] += 1.5  # Angstrom/fs towards its neighbour

    def seeing(batch: FrameBatch) -> Evaluation:
        assert np.linalg.norm(batch.positions[1::2] - batch.positions[::2], axis=1).min() > 0.8
        return spring(batch)

    assert runner.step(seeing, rng) == {3: "too-close"}
    np.testing.assert_array_equal(runner.positions[6:], NITROGEN.positions)


def test_positions_that_are_no_numbers_are_put_back() -> None:
    runner, rng = runner_of(2), np.random.default_rng(0)
    runner.evaluate(spring)
    runner.velocities[0, 0] = np.nan
    assert runner.step(spring, rng) == {0: "not-finite"}
    assert np.isfinite(runner.positions).all()


def test_bonds_that_must_keep_their_lengths() -> None:
    runner, rng = runner_of(2, limits=Limits(1e9), bonds=Bonds(NITROGEN, 0.3)), np.random.default_rng(0)
    runner.evaluate(spring)
    runner.velocities[1, 2] += 1.0
    assert runner.step(spring, rng) == {0: "bond"}


def test_friction_of_each_walker() -> None:
    """Without friction a walker is velocity Verlet's, beside one that is thermostatted."""
    starts, temperatures = [NITROGEN] * 2, np.full(2, 300.0)
    mixed = thermostatted(starts, temperatures, 0.5, np.array([0.0, 0.02]))
    alone = VelocityVerlet(mixed.masses[:2], temperatures[:1], 0.5, [2])
    velocities = mixed.maxwell(np.random.default_rng(0))
    x, v = np.concatenate([NITROGEN.positions] * 2), velocities
    y, w = NITROGEN.positions, velocities[:2]
    forces = spring(FrameBatch.of(starts)).forces
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, v = mixed.first_half(x, v, forces, rng)
        y, w = alone.first_half(y, w, forces[:2], rng)
        forces = spring(replace(FrameBatch.of(starts), positions=x)).forces
        v, w = mixed.second_half(v, forces), alone.second_half(w, forces[:2])
    np.testing.assert_allclose(x[:2], y, atol=1e-12)
    energies = mixed.kinetic_energy(v)
    assert isinstance(mixed, Langevin)
    assert energies[1] != pytest.approx(energies[0])


def lengths(positions: FloatArray) -> FloatArray:
    return np.linalg.norm(positions[1::2] - positions[::2], axis=1)


def test_bonds_have_the_variance_of_their_temperature() -> None:
    runner, rng = runner_of(500), np.random.default_rng(2)
    runner.evaluate(spring)
    seen = []
    for step in range(600):
        assert runner.step(spring, rng) == {}
        if step > 200 and step % 20 == 0:
            seen.append(lengths(runner.positions))
    variance = float(np.var(np.concatenate(seen)))
    assert variance == pytest.approx(8.617333e-5 * 500.0 / STIFFNESS, rel=0.05)


def test_a_box_that_has_grown_or_shrunk_beyond_bounds_is_stopped_where_cells_change() -> None:
    box = Frame([18, 18], [[0.0, 0.0, 0.0], [4.0, 4.0, 4.0]], 8.0 * np.eye(3), [True] * 3)
    rule = StopRule([box] * 3, np.array([3, 3, 3]), Limits())
    positions, cell = np.concatenate([box.positions] * 3), np.stack([f * box.cell for f in (1.0, 0.79, 1.27)])
    assert rule.of_positions(positions, cell, is_scaled=True) == {1: "volume", 2: "volume"}
    assert rule.of_positions(positions, cell) == {}
