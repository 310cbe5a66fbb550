"""The bias is the paper's, its force its gradient, and amplitude and width find themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alsys.dynamics.integrators import Langevin
from alsys.exploration.methods.udd import (
    LARGEST_SHARE,
    REACH,
    UncertaintyDriven,
    bias_energy,
    bias_forces,
    half_spread,
    spread_force,
)

pytestmark = pytest.mark.thorough

TETRAHEDRON = 1.5 / math.sqrt(8.0) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=np.float64)


def cluster(n_walkers: int, stdev: float, seed: int = 0) -> np.ndarray:
    return TETRAHEDRON + np.random.default_rng(seed).normal(scale=stdev, size=(n_walkers, 4, 3))


def test_bias_energy_by_hand() -> None:
    energies = np.array([[1.0, 0.2], [1.2, 0.2], [1.7, 0.2]])
    squares = 0.5 * (0.3**2 + 0.1**2 + 0.4**2)
    spread = half_spread(energies, n_atoms=4)
    np.testing.assert_allclose(spread, [squares / 12, 0.0], atol=1e-15)
    wanted = 0.5 * (math.exp(-squares / (3 * 4 * 0.08**2)) - 1.0)
    np.testing.assert_allclose(bias_energy(spread, 0.5, 0.08), [wanted, 0.0], atol=1e-15)


def test_bias_forces_are_the_gradient_of_the_bias_energy(pair_committee: type) -> None:
    committee = pair_committee(4, n_members=5, spread=0.1)
    positions = cluster(3, 0.15)
    amplitude, width = 0.7, 0.1

    def energy(at: np.ndarray) -> np.ndarray:
        return bias_energy(half_spread(committee.group(at).member_energies, 4), amplitude, width)

    group = committee.group(positions)
    spread = half_spread(group.member_energies, 4)
    forces = bias_forces(spread, spread_force(group.member_energies, group.member_forces), amplitude, width)
    numeric = np.zeros_like(forces)
    for atom in range(4):
        for axis in range(3):
            shift = np.zeros((4, 3))
            shift[atom, axis] = 1e-5
            numeric[:, atom, axis] = -(energy(positions + shift) - energy(positions - shift)) / 2e-5
    assert np.abs(numeric).max() > 0.1
    np.testing.assert_allclose(forces, numeric, atol=1e-7)


def test_for_a_given_gradient_the_push_is_largest_where_rho_is_the_width() -> None:
    rho = np.linspace(0.01, 0.4, 400)
    push = np.abs(np.gradient(bias_energy(0.5 * rho**2, 1.0, 0.13), rho))
    assert rho[np.argmax(push)] == pytest.approx(0.13, abs=2e-3)


def run(method: UncertaintyDriven, committee: object, n_steps: int, is_biased: bool = True) -> tuple[float, float]:
    """RMS ratio of bias to physical force, and mean rho, over the second half of some dynamics."""
    rng = np.random.default_rng(1)
    n_walkers = 8
    dynamics = Langevin(np.full(4 * n_walkers, 12.0), np.full(4 * n_walkers, 300.0), 1.0, 0.02)
    positions, velocities = np.tile(TETRAHEDRON, (n_walkers, 1)), dynamics.maxwell(rng)
    forces = np.zeros_like(positions)
    pushed, physical, rho = 0.0, 0.0, 0.0
    for step in range(n_steps):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        group = committee.group(positions.reshape(n_walkers, 4, 3))  # type: ignore[attr-defined]
        bias = method.bias(group)
        forces = (group.forces + (bias if is_biased else 0.0)).reshape(-1, 3)
        velocities = dynamics.second_half(velocities, forces)
        if step >= n_steps // 2:
            pushed += float(np.square(bias).mean())
            physical += float(np.square(group.forces).mean())
            rho += float(np.sqrt(2.0 * half_spread(group.member_energies, 4)).mean()) / (n_steps - n_steps // 2)
    return math.sqrt(pushed / physical), rho


@pytest.mark.parametrize("ratio", [0.2, 0.36])
def test_the_ratio_is_found_and_found_again_after_new_weights(pair_committee: type, ratio: float) -> None:
    method = UncertaintyDriven([300.0], 8, ratio, max_amplitude=2.0, memory=150)
    unsure, sure = pair_committee(4, 4, spread=0.05), pair_committee(4, 4, spread=0.02)
    found, rho = run(method, unsure, 1500)
    assert found == pytest.approx(ratio, rel=0.2)
    assert method.width == pytest.approx(REACH * rho, rel=0.3)
    first = method.width, method.amplitude
    found, _ = run(method, sure, 1500)
    assert found == pytest.approx(ratio, rel=0.2)
    assert method.width < 0.8 * first[0]


def test_the_bias_raises_the_uncertainty_that_walkers_see(pair_committee: type) -> None:
    committee = pair_committee(4, 4, spread=0.05)
    _, driven = run(UncertaintyDriven([300.0], 8, 0.36, 2.0, memory=150), committee, 1500)
    _, plain = run(UncertaintyDriven([300.0], 8, 0.36, 2.0, memory=150), committee, 1500, is_biased=False)
    assert driven > 1.1 * plain


def test_members_that_agree_give_no_bias(pair_committee: type) -> None:
    method = UncertaintyDriven([300.0], 3, 0.36, max_amplitude=2.0, memory=100)
    for _ in range(5):
        forces = method.bias(pair_committee(4, 3, spread=0.0).group(cluster(3, 0.1)))
    np.testing.assert_array_equal(forces, np.zeros((3, 4, 3)))
    assert method.amplitude <= 2.0


def test_the_amplitude_stays_bounded_when_the_spread_jumps(pair_committee: type) -> None:
    method = UncertaintyDriven([300.0], 4, 0.36, max_amplitude=0.05, memory=100)
    calm, wild = pair_committee(4, 3, spread=1e-5), pair_committee(4, 3, spread=0.4)
    amplitudes = []
    for n in range(300):
        forces = method.bias((calm if (n // 50) % 2 == 0 else wild).group(cluster(4, 0.1, seed=n)))
        assert np.isfinite(forces).all()
        amplitudes.append(method.amplitude)
    assert min(amplitudes) > 0.0
    assert max(amplitudes) == 0.05


def test_no_walker_is_pushed_beyond_its_bound(pair_committee: type) -> None:
    """One walker stands where members disagree on the forces fifty times more than anywhere before."""
    method, committee = UncertaintyDriven([300.0], 4, 0.36, 2.0, memory=100), pair_committee(4, 3, spread=0.1)
    physical = [np.square(committee.group(cluster(4, 0.1, seed=n)).forces).mean() for n in range(100)]
    for n in range(100):
        method.bias(committee.group(cluster(4, 0.1, seed=n)))
    group = committee.group(cluster(4, 0.1, seed=7))
    group.member_forces[:, 0] = group.forces[0] + 50.0 * (group.member_forces[:, 0] - group.forces[0])
    size = np.sqrt(np.square(method.bias(group)).mean(axis=(1, 2)))
    assert size[0] == pytest.approx(LARGEST_SHARE * 0.36 * math.sqrt(np.mean(physical)), rel=0.05)
    assert size[1:].max() < size[0]


def test_wrecks_are_neither_pushed_nor_learned_from(pair_committee: type) -> None:
    committee = pair_committee(4, 3, spread=0.1)
    positions = cluster(3, 0.1)
    healthy = UncertaintyDriven([300.0], 3, 0.36, 2.0, memory=100)
    healthy.bias(committee.group(positions))
    method = UncertaintyDriven([300.0], 5, 0.36, 2.0, memory=100)
    group = committee.group(np.concatenate([positions, cluster(2, 0.1, seed=5)]))
    group.member_energies[:, 3] = np.inf
    group.member_forces[:, 4] = np.nan
    group.forces[4] = np.nan
    forces = method.bias(group)
    np.testing.assert_array_equal(forces[3:], np.zeros((2, 4, 3)))
    assert np.abs(forces[:3]).min() > 0
    assert (method.amplitude, method.width) == pytest.approx((healthy.amplitude, healthy.width))
