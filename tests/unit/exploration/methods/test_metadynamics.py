"""Well-tempered metadynamics: exact gradients, bounded memory, and a free energy known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from alsys.dynamics.integrators import Langevin
from alsys.exploration.methods.metadynamics import Hills, HillTable, Metadynamics
from alsys.exploration.methods.torsions import torsion
from alsys.frames import Frame
from alsys.units import BOLTZMANN

pytestmark = pytest.mark.thorough

HILLS = Hills(height=0.02, torsion_width=0.2, distance_width=0.1, max_distance=6.0, bias_factor=5.0, interval=10)
NO_TORSIONS, ONE_PAIR = np.zeros((0, 4), dtype=np.int64), np.array([[0, 1]])
CHAIN = np.array([[0.0, 0.3, 1.0], [0.0, 0.0, 0.0], [1.4, 0.1, 0.0], [1.8, 1.0, 0.6], [2.9, 1.1, 0.2]])
MakeGroup = Callable[..., object]


def test_hills_on_the_grid_are_gaussians_with_their_slopes() -> None:
    table = HillTable(np.array([-np.pi, 0.0]), np.array([np.pi, 6.0]), np.array([0.2, 0.1]), [True, False])
    table.add(0, 3.0, 0.5)
    table.add(1, 2.0, 0.3)
    s = np.random.default_rng(0).uniform(-np.pi, np.pi, 500)
    gap = np.minimum(np.abs(s - 3.0), 2 * np.pi - np.abs(s - 3.0))
    value, slope = table.evaluate(np.zeros(500, dtype=np.int64), s)
    np.testing.assert_allclose(value, 0.5 * np.exp(-0.5 * (gap / 0.2) ** 2), atol=1e-6)
    forward = table.evaluate(np.zeros(500, dtype=np.int64), s + 1e-6)[0]
    np.testing.assert_allclose(slope, (forward - value) / 1e-6, atol=1e-4)
    value, slope = table.evaluate(np.array([1, 1, 1]), np.array([2.1, 6.5, -0.1]))
    np.testing.assert_allclose(value, [0.3 * np.exp(-0.5), 0.0, 0.0], atol=1e-6)
    assert slope[1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("first", [0, 1])
def test_forces_are_the_gradient_of_the_bias(make_group: MakeGroup, first: int) -> None:
    """Walkers on torsions and on distances in one group, after many hills."""
    torsions, distances = np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), np.array([[0, 4], [1, 3]])
    method = Metadynamics([300.0], 5, torsions, distances, HILLS, first)
    rng = np.random.default_rng(first)
    for step in range(10, 400, 10):
        method.bias(make_group(CHAIN + rng.normal(scale=0.2, size=(5, 5, 3)), step=step))  # type: ignore[arg-type]
    positions = CHAIN + rng.normal(scale=0.2, size=(5, 5, 3))
    forces = method.bias(make_group(positions, step=401))  # type: ignore[arg-type]

    def energy(at: np.ndarray) -> np.ndarray:
        return method.table.evaluate(*method.variables(at))[0]

    numeric = np.zeros_like(forces)
    for atom in range(5):
        for axis in range(3):
            shift = np.zeros((5, 3))
            shift[atom, axis] = 1e-6
            numeric[:, atom, axis] = -(energy(positions + shift) - energy(positions - shift)) / 2e-6
    assert np.abs(numeric).max(axis=(1, 2)).min() > 1e-3
    np.testing.assert_allclose(forces, numeric, atol=1e-7)


def test_a_walker_takes_the_next_variable_when_it_begins_anew_and_hills_stay() -> None:
    frame = Frame.molecule([6] * 5, CHAIN)
    method = Metadynamics([300.0], 2, np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), np.array([[0, 4]]), HILLS)
    stacked = np.stack([CHAIN, CHAIN])
    assert method.variables(stacked)[0].tolist() == [0, 1]
    method.table.add(2, 3.0, 0.1)
    assert method.start(0, [frame], np.random.default_rng(0)) == frame
    variables, values = method.variables(stacked)
    assert variables.tolist() == [2, 1]
    np.testing.assert_allclose(values, [np.linalg.norm(CHAIN[0] - CHAIN[4]), torsion(CHAIN[1:])])
    assert method.table.evaluate(np.array([2]), np.array([3.0]))[0] == pytest.approx(0.1)


def test_heights_are_tempered_and_walkers_share_hills(make_group: MakeGroup) -> None:
    method = Metadynamics([300.0], 3, NO_TORSIONS, ONE_PAIR, HILLS)
    positions = np.zeros((3, 2, 3))
    positions[:, 1, 0] = [2.0, 2.0, 4.0]
    ceiling = BOLTZMANN * 300.0 * 4.0
    wanted = 0.0
    for step in (10, 20, 25, 30, 30):  # 25 is not due, and the second 30 leaves nothing again
        method.bias(make_group(positions, step=step))  # type: ignore[arg-type]
        if step != 25:
            wanted += 2 * 0.02 * np.exp(-wanted / ceiling) * (step != 30)
    wanted += 2 * 0.02 * np.exp(-wanted / ceiling)
    value = method.table.evaluate(np.array([0]), np.array([2.0]))[0]
    assert value[0] == pytest.approx(wanted, rel=1e-3)


def test_beyond_the_range_of_a_distance_nothing_is_left_or_felt(make_group: MakeGroup) -> None:
    method = Metadynamics([300.0], 1, NO_TORSIONS, ONE_PAIR, HILLS)
    positions = np.zeros((1, 2, 3))
    positions[0, 1, 2] = 6.1
    forces = method.bias(make_group(positions, step=10))  # type: ignore[arg-type]
    np.testing.assert_array_equal(forces, np.zeros((1, 2, 3)))
    assert method.table.evaluate(np.array([0]), np.array([5.9]))[0] == 0.0


def test_the_free_energy_of_a_double_well_is_recovered(make_group: MakeGroup) -> None:
    """A pair in a double well: F(r) = U(r) - 2 kT ln r, RMS error below 0.2 kT after 8000 steps of 24 walkers."""
    depth, centre, half, temperature = 0.16, 2.5, 0.5, 300.0
    n_walkers, n_steps = 24, 8000
    hills = Hills(0.004, 0.2, 0.08, 6.0, bias_factor=4.0, interval=20)
    method = Metadynamics([temperature], n_walkers, NO_TORSIONS, ONE_PAIR, hills)
    rng = np.random.default_rng(0)
    dynamics = Langevin(np.full(2 * n_walkers, 2.0), np.full(2 * n_walkers, temperature), 2.0, 0.05)
    positions = np.zeros((n_walkers, 2, 3))
    positions[:, 1, 0] = centre - half
    positions, velocities = positions.reshape(-1, 3), dynamics.maxwell(rng)
    forces = np.zeros_like(positions)
    for step in range(1, n_steps + 1):
        positions, velocities = dynamics.first_half(positions, velocities, forces, rng)
        x = positions.reshape(n_walkers, 2, 3)
        vector = x[:, 1] - x[:, 0]
        r = np.linalg.norm(vector, axis=1)
        y = (r - centre) / half
        pull = (-4.0 * depth / half * y * (y**2 - 1.0) / r)[:, None] * vector
        biased = method.bias(make_group(x, temperatures=temperature, step=step))  # type: ignore[arg-type]
        forces = (biased + np.stack([-pull, pull], axis=1)).reshape(-1, 3)
        velocities = dynamics.second_half(velocities, forces)
    r = np.linspace(centre - 1.35 * half, centre + 1.35 * half, 100)
    exact = depth * (((r - centre) / half) ** 2 - 1.0) ** 2 - 2.0 * BOLTZMANN * temperature * np.log(r)
    found = method.free_energy(0, r)
    difference = (found - found.mean()) - (exact - exact.mean())
    kt = BOLTZMANN * temperature
    assert np.ptp(exact) > 6.0 * kt
    assert np.sqrt(np.square(difference).mean()) < 0.2 * kt
    assert np.abs(difference).max() < 0.6 * kt
