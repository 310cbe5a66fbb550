"""Walkers stop where they should, the random arm is uniform, dynamics are canonical, structures are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from alsys.config import parse_config
from alsys.dynamics.geometry import closest_contact
from alsys.dynamics.integrators import Langevin, kinetic_temperature
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.initial import initial_frames
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.selection.chunks import by_deviation
from alsys.units import BOLTZMANN
from support.committees import HarmonicCommittee

pytestmark = pytest.mark.thorough

STATE = CommitteeState(1, "fake", {}, ())
ETHANOL = molecule("CH3CH2OH")
FRAME = Frame.molecule(ETHANOL.numbers, ETHANOL.positions)


def explorer(deviation: Any = None, stiffness: float = 0.0, **exploration: Any) -> WalkerExplorer:
    settings = {"walkers": 4, "spacing_steps": 4, "trust": {"accurate_below": 0.1, "failed_above": 0.5}, **exploration}
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "CCO"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": settings,
        }
    )
    return WalkerExplorer(config, {"e": [FRAME]}, 0, build=lambda state: HarmonicCommittee(stiffness, deviation))


def order(n_steps: int = 20, **fields: Any) -> ExplorationOrder:
    return ExplorationOrder(**{"n_steps": n_steps, "state": STATE, "trajectory_base": 1000, **fields})


def constant(value: float) -> Any:
    def deviation(batch: FrameBatch) -> FloatArray:
        return np.full(batch.n_frames, value)

    return deviation


def test_known_frames_are_not_proposed() -> None:
    report = explorer(constant(0.05)).run(order())
    assert report.candidates == ()
    assert report.walker_steps == 80
    assert report.n_above == 0
    assert report.deviation_mean == pytest.approx(0.05)


def test_frames_in_the_band_are_proposed_but_not_too_often() -> None:
    report = explorer(constant(0.2), temperatures=[300, 300]).run(order(20, max_candidates=100))
    steps = sorted({c.source.step for c in report.candidates})
    assert steps
    assert min(np.diff(steps)) >= 4
    assert all(c.source.arm is Arm.UNCERTAIN for c in report.candidates)
    assert report.stops == {}


def test_walks_end_above_the_band_and_begin_again_as_new_trajectories() -> None:
    report = explorer(constant(0.9)).run(order(20, max_candidates=100))
    assert report.stops["failed"] >= 4
    assert len({c.source.trajectory for c in report.candidates}) > 4
    assert all(1000 <= c.source.trajectory < 2**20 + 1000 for c in report.candidates)


def test_wrecks_are_stopped_and_never_proposed() -> None:
    report = explorer(constant(0.2), stiffness=-60.0).run(order(60, max_candidates=1000))
    assert sum(report.stops.values()) > 0
    assert set(report.stops) <= {"too-hot", "too-close", "broken", "force-too-large", "not-finite"}
    assert all(closest_contact(c.frame.numbers, c.frame.positions) > 0.6 for c in report.candidates)


def test_random_arm_is_uniform_over_walkers_and_blind_to_deviation() -> None:
    def by_walker(batch: FrameBatch) -> FloatArray:
        return np.linspace(0.0, 0.4, batch.n_frames)

    walkers = explorer(by_walker, max_steps=10**6)
    counts = np.zeros(4)
    for k in range(60):
        report = walkers.run(order(10, n_random=10, state=STATE if k == 0 else None, trajectory_base=1000 * k))
        random = [c for c in report.candidates if c.source.arm is Arm.RANDOM]
        assert len(random) <= 10
        for candidate in random:
            counts[round(candidate.source.deviation / 0.4 * 3)] += 1
    expected = counts.sum() / 4
    assert counts.sum() > 500
    assert (np.square(counts - expected) / expected).sum() < 16.3  # chi square, 3 degrees of freedom, p = 0.001


def test_same_seed_same_report() -> None:
    first, second = (explorer(constant(0.2)).run(order(10)) for _ in range(2))
    assert [c.frame.frame_id for c in first.candidates] == [c.frame.frame_id for c in second.candidates]


def test_rescoring_and_missing_weights() -> None:
    report = explorer(constant(0.3)).run(order(1, rescore=(FRAME,)))
    assert report.rescored == {FRAME.frame_id: pytest.approx(0.3)}
    with pytest.raises(RuntimeError, match="weights"):
        explorer().run(ExplorationOrder(n_steps=1))


def test_alike_candidates_are_taken_once_and_the_most_uncertain_first() -> None:
    rng = np.random.default_rng(0)
    frames = [FRAME, FRAME.with_positions(FRAME.positions + 1e-4), FRAME.with_positions(FRAME.positions + rng.normal(
        0, 0.2, FRAME.positions.shape))]  # fmt: skip
    candidates = [
        Candidate(f, Source("e", Arm.UNCERTAIN, "x", deviation=d)) for f, d in zip(frames, (1, 2, 3), strict=True)
    ]
    assert [c.source.deviation for c in by_deviation(candidates, 5)] == [3, 2]
    assert len(by_deviation(candidates, 1)) == 1


def test_langevin_is_canonical_per_walker() -> None:
    rng = np.random.default_rng(1)
    n_walkers, n_atoms, temperatures = 4, 50, np.array([100.0, 300.0, 600.0, 1000.0])
    masses = np.tile(np.linspace(1.0, 16.0, n_atoms), n_walkers)
    dynamics = Langevin(masses, np.repeat(temperatures, n_atoms), timestep=1.0, friction=0.05)
    positions, velocities = np.zeros((masses.size, 3)), dynamics.maxwell(rng)
    forces = -5.0 * positions
    samples, potential = [], []
    for step in range(4000):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        forces = -5.0 * positions
        velocities = dynamics.second_half(velocities, forces)
        if step > 500 and step % 50 == 0:
            samples.append(kinetic_temperature(masses, velocities, np.arange(4) * n_atoms, np.full(4, n_atoms)))
            potential.append(np.add.reduceat(2.5 * np.square(positions).sum(axis=1), np.arange(4) * n_atoms))
    mean = np.mean(samples, axis=0)
    error = temperatures * np.sqrt(2.0 / (3 * n_atoms)) / np.sqrt(len(samples))
    assert (np.abs(mean - temperatures) < 4 * error).all()
    configurational = np.mean(potential, axis=0) / (1.5 * n_atoms * BOLTZMANN)
    assert (np.abs(configurational - temperatures) < 6 * error).all()


def test_without_friction_it_is_velocity_verlet_as_in_ase() -> None:
    rng = np.random.default_rng(2)
    atoms = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.2]])
    hessian = np.eye(6) * 10.0
    field = HarmonicForceField(ref_atoms=atoms.copy(), ref_energy=0.0, hessian_x=hessian)
    atoms.positions += rng.normal(0, 0.1, (2, 3))
    start, masses = atoms.positions.copy(), atoms.get_masses()
    atoms.calc = HarmonicCalculator(field)
    atoms.set_velocities(np.zeros((2, 3)))
    reference = np.array([[0, 0, 0], [0, 0, 1.2]])
    VelocityVerlet(atoms, timestep=0.5 * fs).run(200)
    dynamics = Langevin(masses, np.full(2, 300.0), timestep=0.5, friction=0.0)
    positions, velocities = start, np.zeros((2, 3))
    forces = -10.0 * (positions - reference)
    energies = []
    for _ in range(200):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        forces = -10.0 * (positions - reference)
        velocities = dynamics.second_half(velocities, forces)
        kinetic = 1.5 * 2 * BOLTZMANN * kinetic_temperature(masses, velocities, [0], [2])[0]
        energies.append(kinetic + 5.0 * np.square(positions - reference).sum())
    np.testing.assert_allclose(positions, atoms.positions, atol=1e-6)
    assert np.ptp(energies) < 2e-3 * np.mean(energies)


@pytest.mark.parametrize("method", ["normal-modes", "xtb-md", "rattle"])
def test_initial_frames(method: str) -> None:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "CCO"}],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "pair"},
            "initial": {"method": method, "frames": 12, "temperature": 300},
            "selection": {"random_share": 0.3},
        }
    )
    candidates = initial_frames(config, {"e": [FRAME]}, seed=3)
    assert len(candidates) == 12
    assert {c.source.method for c in candidates} == {method}
    assert candidates[0].source.arm is Arm.INITIAL
    assert 0 < sum(c.source.arm is Arm.RANDOM for c in candidates) < 9
    assert len({c.source.trajectory for c in candidates}) == 12
    assert len({c.frame.frame_id for c in candidates}) == 12
    assert all(closest_contact(c.frame.numbers, c.frame.positions) > 0.6 for c in candidates)
    spread = np.std([closest_contact(c.frame.numbers, c.frame.positions) for c in candidates])
    assert 0 < spread < 0.2


def test_a_model_that_breaks_every_walk_at_once_still_yields_frames() -> None:
    made = explorer(constant(0.2), stiffness=-3.0, spacing_steps=40)
    first = made.run(order(20))
    assert first.stops["too-hot"] > 4
    assert 0 < first.walker_steps < 10 * first.stops["too-hot"], "no walk lives for half a spacing"
    found = list(first.candidates)
    for _ in range(20):
        found += made.run(order(20, state=None)).candidates
    assert found
    assert all(c.source.step < 20 for c in found)
