"""Fits with several charges and multiplicities: what is told apart, what a parent keeps, what a bundle records."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import CampaignConfig, parse_config
from alsys.frames import Arm, Frame
from alsys.potentials.architectures import STATE_ENERGIES, states_of
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import NequIPCommittee
from alsys.states import ElectronicState
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.evaluate import batch_of
from alsys.training.snapshots import snapshot_of
from alsys.training.start import rebased
from alsys.training.states import states_for, with_states
from alsys.training.trainer import NequIPTrainer

NEUTRAL, CATION, TRIPLET = ElectronicState(), ElectronicState(1, 2), ElectronicState(0, 3)
WATER = molecule("H2O")
STRETCH = {NEUTRAL: 1.0, CATION: 1.1, TRIPLET: 1.2}
IONISATION = {NEUTRAL: 0.0, CATION: 12.0, TRIPLET: 7.0}
SYSTEMS = {
    NEUTRAL: {"name": "water", "molecule": "H2O"},
    CATION: {"name": "cation", "molecule": "H2O", "charge": 1, "multiplicity": 2},
    TRIPLET: {"name": "triplet", "molecule": "H2O", "multiplicity": 3},
}


def labelled(states: list[ElectronicState], n: int, seed: int = 0, *, arm: Arm = Arm.INITIAL) -> Snapshot:
    """Waters of harmonic pairs, whose lengths and energy depend on their state; free atoms first."""
    rng, frames, energies, forces = np.random.default_rng(seed), [], [], []
    for z, multiplicity, energy in ((1, 2, -13.0), (8, 3, -2040.0)):
        frames.append(Frame.molecule([z], np.zeros((1, 3)), 0, multiplicity))
        energies.append(energy)
        forces.append(np.zeros((1, 3)))
    for k in range(n):
        state = states[k % len(states)]
        x = WATER.positions * rng.uniform(1.0, 1.2) + rng.normal(0, 0.05, (3, 3))
        frames.append(Frame.molecule(WATER.numbers, x, state.charge, state.multiplicity))
        force, energy = np.zeros((3, 3)), -2075.0 + IONISATION[state]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            r = float(np.linalg.norm(x[j] - x[i]))
            away = r - STRETCH[state] * float(np.linalg.norm(WATER.positions[j] - WATER.positions[i]))
            energy += 10.0 * away**2
            force[i] += 20.0 * away * (x[j] - x[i]) / r
            force[j] -= 20.0 * away * (x[j] - x[i]) / r
        energies.append(energy)
        forces.append(force)
    arms = [Arm.ATOM, Arm.ATOM, *[arm] * n]
    return snapshot_of(frames, np.array(energies), np.concatenate(forces), arms=arms)


def config(states: list[ElectronicState], told: object = "auto", **more: Any) -> CampaignConfig:
    model = {"kind": "nequip", "members": 2, "num_layers": 2, "num_features": 8, "r_max": 3.5, "states": told}
    training = {
        "budget_s": 1e6, "max_epochs": 10**6, "max_gradient_steps": 60, "learning_rate": 0.02, "compile": False,
        "validation_share": 0.0, "bootstrap": 1.0,
    }  # fmt: skip
    return parse_config(
        {
            "name": "t",
            "systems": [SYSTEMS[state] for state in states],
            "labeling": {"kind": "analytic"},
            "model": model,
            "training": {**training, **more.pop("training", {})},
            "promotion": {"examine": False},
            **more,
        }
    )


def fit(
    settings: CampaignConfig, data: Snapshot, parent: CommitteeState | None = None, version: int = 1
) -> TrainedCommittee:
    result = NequIPTrainer(settings).run(TrainingOrder(version, data, parent, None, seed=3))
    assert isinstance(result, TrainedCommittee), result
    return result


@pytest.fixture(scope="module")
def both() -> TrainedCommittee:
    return fit(config([NEUTRAL, CATION]), labelled([NEUTRAL, CATION], 20))


def test_states_are_those_of_systems_and_labels_where_they_are_several() -> None:
    neutral, mixed = labelled([NEUTRAL], 4), labelled([CATION, NEUTRAL], 4)
    assert states_for(config([NEUTRAL]), neutral) == ()
    assert states_for(config([NEUTRAL]), mixed) == (NEUTRAL, CATION)
    assert states_for(config([CATION, NEUTRAL]), neutral) == (NEUTRAL, CATION)
    assert states_for(config([NEUTRAL], True), neutral) == (NEUTRAL,)
    assert states_for(config([NEUTRAL, CATION], False), mixed) == ()
    assert states_for(config([NEUTRAL]), mixed, (TRIPLET,)) == (TRIPLET, NEUTRAL, CATION)
    carved = config([NEUTRAL, CATION], exploration={"carve": {"radius": 4.0}})
    assert states_for(carved, mixed) == ()
    assert not carved.tells_states_apart


def test_a_fit_tells_states_apart_and_records_them(both: TrainedCommittee) -> None:
    state = both.state
    assert states_of(state.spec) == (NEUTRAL, CATION)
    assert state.seen is not None
    assert state.seen.is_told_apart
    assert state.seen.by_formula == {"H2O": (NEUTRAL, CATION)}
    test = labelled([NEUTRAL, CATION], 20, seed=9)
    test = test.select(~test.is_arm(Arm.ATOM))
    energy = build_committee(state).evaluate(batch_of(test)).energy
    assert np.abs(energy - test.energy).max() < 1.5
    x = WATER.positions
    pair = FrameBatch.of([Frame.molecule(WATER.numbers, x), Frame.molecule(WATER.numbers, x, 1, 2)])
    prediction = build_committee(state).evaluate(pair)
    assert prediction.energy[1] - prediction.energy[0] > 9.0
    assert np.abs(prediction.forces[:3] - prediction.forces[3:]).max() > 0.3
    untold = fit(config([NEUTRAL, CATION], False), labelled([NEUTRAL, CATION], 20))
    assert untold.metrics["force_mae_train"] > 2.0 * both.metrics["force_mae_train"]


def test_the_energy_of_a_state_is_of_the_frame_and_beyond_its_atoms() -> None:
    data = labelled([NEUTRAL, CATION], 20)
    trained = fit(config([NEUTRAL, CATION], training={"max_gradient_steps": 1}), data)
    for member in trained.state.members:
        energies = np.asarray(member[STATE_ENERGIES])
        assert energies[0] == 0.0
        assert energies[1] == pytest.approx(12.0, abs=1.5)


@pytest.mark.parametrize("told", [False, True])
def test_a_parent_that_learns_of_a_state_keeps_what_it_said(told: bool) -> None:
    parent = fit(config([NEUTRAL], told), labelled([NEUTRAL], 12)).state
    data = labelled([NEUTRAL, CATION], 24, seed=5)
    grown = with_states(parent, ["H", "O"], [NEUTRAL, CATION], data.select(~data.is_arm(Arm.ATOM)), 3)
    molecules = data.select(~data.is_arm(Arm.ATOM))
    is_neutral = molecules.charge == 0
    before = NequIPCommittee(parent).evaluate(batch_of(molecules.select(is_neutral)))
    after = NequIPCommittee(grown).evaluate(batch_of(molecules))
    np.testing.assert_allclose(after.energy[is_neutral], before.energy, atol=1e-4)
    assert after.member_energies is not None
    for energies in after.member_energies:
        left = (energies - molecules.energy)[~is_neutral]
        assert abs(left.mean()) < 1e-3
    trained = fit(config([NEUTRAL], "auto"), data, parent, 2)
    assert states_of(trained.state.spec) == (NEUTRAL, CATION)
    assert trained.state.spec["avg_num_neighbors"] == parent.spec["avg_num_neighbors"], "it went on from its parent"


def test_another_level_moves_atoms_and_states(both: TrainedCommittee) -> None:
    data = labelled([NEUTRAL, CATION], 16, seed=4)
    n_oxygen = np.add.reduceat(data.numbers == 8, data.offsets[:-1])
    moved = dataclasses.replace(data, energy=data.energy - 30.0 * n_oxygen + 2.5 * (data.charge == 1))
    state = rebased(both.state, moved, config([NEUTRAL, CATION]).training)
    molecules = moved.select(~moved.is_arm(Arm.ATOM))
    found = NequIPCommittee(state).evaluate(batch_of(molecules))
    assert found.member_energies is not None
    for energies in found.member_energies:
        for charge in (0, 1):
            assert abs((energies - molecules.energy)[molecules.charge == charge].mean()) < 1e-3


@pytest.mark.slow
def test_compiled_training_is_eager_training() -> None:
    data = labelled([NEUTRAL, CATION], 12)
    settings = {"max_gradient_steps": 3, "threads": 1}
    eager = fit(config([NEUTRAL, CATION], training=settings), data)
    compiled = fit(config([NEUTRAL, CATION], training={**settings, "compile": True}), data)
    assert compiled.metrics["is_compiled"] == 1.0
    batch = batch_of(data.select(~data.is_arm(Arm.ATOM)))
    found, expected = (NequIPCommittee(one.state).evaluate(batch) for one in (compiled, eager))
    np.testing.assert_allclose(found.energy, expected.energy, atol=1e-3)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-3)
