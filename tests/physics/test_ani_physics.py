"""ANI-1x as a committee: against the level of theory it was fitted to, torchani's own evaluation, and its own energies.

Only where torchani is installed; it is looked for, not imported, because its import needs `pkg_resources`.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.data import atomic_numbers

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.ani import AniCommittee, ani1x_state
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.units import HARTREE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchani") is None, reason="torchani is not installed")
WB97X = {
    "H2O": -76.38821071509336,
    "CH4": -40.49962586853056,
    "C2H4": -78.55737895554086,
    "CH3CH2OH": -154.98998608609745,
}
"""Hartree at the geometries of `ase.build.molecule`: PySCF, RKS, wb97x, 6-31g*, cart=True (as in Gaussian), grid 3."""
WATER = np.array([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
TORCHANI = {0: -76.38837910032892, 7: -76.38933597009208}
"""Hartree, members of torchani 2.2.4's own AEVComputer and ANIModel on `WATER`, in double precision."""


@pytest.fixture(scope="module")
def state() -> CommitteeState:
    return ani1x_state(version=3)


def frame_of(name: str, stdev: float = 0.0, seed: int = 0) -> Frame:
    atoms = molecule(name)
    noise = np.random.default_rng(seed).normal(scale=stdev, size=atoms.positions.shape) if stdev else 0.0
    return Frame.molecule(atoms.numbers, atoms.positions + noise)


def test_energies_are_those_of_the_level_it_was_fitted_to(state: CommitteeState) -> None:
    prediction = AniCommittee(state).evaluate(FrameBatch.of([frame_of(name) for name in WB97X]))
    np.testing.assert_allclose(prediction.energy, np.array(list(WB97X.values())) * HARTREE, atol=0.010)
    assert (prediction.energy_std < 0.05).all()


def test_members_are_those_of_torchani(state: CommitteeState) -> None:
    batch = FrameBatch.of([Frame.molecule(np.array([8, 1, 1]), WATER)])
    energies = AniCommittee(state, torch.float64).evaluate(batch).member_energies[:, 0]
    for member, expected in TORCHANI.items():
        assert energies[member] == pytest.approx(expected * HARTREE, abs=1e-8)


@pytest.mark.parametrize("name", ["CH3CH2OH", "CH3CONH2"])
def test_forces_of_each_member_are_gradients(state: CommitteeState, name: str) -> None:
    committee = AniCommittee(state, torch.float64)
    frame = frame_of(name, stdev=0.1)
    forces = committee.evaluate(FrameBatch.of([frame])).member_forces
    step, shifted = 1e-5, []
    for index in np.ndindex(frame.positions.shape):
        for sign in (1, -1):
            positions = frame.positions.copy()
            positions[index] += sign * step
            shifted.append(frame.with_positions(positions))
    energies = committee.evaluate(FrameBatch.of(shifted)).member_energies.reshape(8, frame.n_atoms, 3, 2)
    assert np.abs(forces).max() > 1.0
    np.testing.assert_allclose(forces, (energies[..., 1] - energies[..., 0]) / (2.0 * step), atol=5e-6)


def test_single_precision_is_enough_for_dynamics(state: CommitteeState) -> None:
    batch = FrameBatch.of([frame_of("CH3CH2OH", 0.1, seed) for seed in range(4)])
    single, double = (AniCommittee(state, dtype).evaluate(batch) for dtype in (torch.float32, torch.float64))
    np.testing.assert_allclose(single.member_forces, double.member_forces, atol=2e-4)
    np.testing.assert_allclose(single.member_energies, double.member_energies, atol=5e-5)


def test_a_batch_of_different_molecules_is_as_one_by_one(state: CommitteeState) -> None:
    committee = AniCommittee(state, torch.float64)
    names = ("H2O", "CH3CH2OH", "H2O", "CH4", "CH3CH2OH")
    frames = [frame_of(name, 0.05, seed) for seed, name in enumerate(names)]
    together = committee.evaluate(FrameBatch.of(frames))
    alone = [committee.evaluate(FrameBatch.of([frame])) for frame in frames]
    np.testing.assert_allclose(together.energy, [a.energy[0] for a in alone], atol=1e-8)
    np.testing.assert_allclose(together.forces, np.concatenate([a.forces for a in alone]), atol=1e-8)


def test_some_members(state: CommitteeState) -> None:
    committee = AniCommittee(state, torch.float64)
    batch = FrameBatch.of([frame_of("CH3CH2OH", 0.1)])
    everyone, two, one = (committee.evaluate(batch, members) for members in (None, [5, 2], [5]))
    np.testing.assert_allclose(two.member_forces, everyone.member_forces[[2, 5]], atol=1e-10)
    np.testing.assert_allclose(one.forces, everyone.member_forces[5], atol=1e-10)
    assert np.isnan(one.frame_deviation).all()
    assert everyone.frame_deviation[0] > 0.0


def test_features_are_what_the_first_members_energies_are_made_of(state: CommitteeState) -> None:
    """With the last layer's weights, in a batch of different molecules; without the first member there are none."""
    frames = [frame_of("H2O"), frame_of("CH3CH2OH", 0.1), frame_of("H2O", 0.1)]
    batch = FrameBatch.of(frames)
    committee = AniCommittee(state, torch.float64)
    prediction = committee.evaluate(batch)
    assert prediction.features is not None
    spec, member = state.spec, state.members[0]
    energies = np.zeros(len(batch.numbers))
    elements, free_atoms = spec["elements"], spec["free_atoms"]
    assert isinstance(elements, list)
    assert isinstance(free_atoms, list)
    for symbol, free in zip(elements, free_atoms, strict=True):
        last = max(int(name.split(".")[1]) for name in member if name.startswith(f"{symbol}."))
        weight, bias = (np.asarray(member[f"{symbol}.{last}.{name}"], dtype=float) for name in ("weight", "bias"))
        rows = batch.numbers == atomic_numbers[symbol]
        energies[rows] = HARTREE * (prediction.features[rows, : weight.shape[1]] @ weight[0] + bias[0]) + free
    found = np.add.reduceat(energies, np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]]))
    np.testing.assert_allclose(found, prediction.member_energies[0], atol=1e-8)
    assert committee.evaluate(batch, [1, 2]).features is None


def test_new_weights_are_taken(state: CommitteeState) -> None:
    committee = AniCommittee(state, torch.float64)
    batch = FrameBatch.of([frame_of("H2O")])
    before = committee.evaluate(batch)
    committee.load(CommitteeState(4, state.kind, state.spec, state.members[4:]))
    after = committee.evaluate(batch)
    assert (committee.version, len(after.member_energies)) == (4, 4)
    np.testing.assert_allclose(after.member_energies, before.member_energies[4:], atol=1e-10)


def test_what_it_does_not_know_is_refused(state: CommitteeState) -> None:
    committee = AniCommittee(state)
    with pytest.raises(InputError, match="elements"):
        committee.evaluate(FrameBatch.of([frame_of("H2O"), frame_of("SH2")]))
    box = Frame(np.array([1]), np.zeros((1, 3)), np.eye(3) * 5.0, np.ones(3, dtype=np.bool_))
    with pytest.raises(InputError, match="molecules"):
        committee.evaluate(FrameBatch.of([box]))
