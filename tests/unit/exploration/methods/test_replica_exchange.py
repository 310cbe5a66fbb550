"""Swaps keep the canonical distribution of every rung, happen as often as they should, and alternate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from alsys.exploration.methods.replica_exchange import ReplicaExchange, ladder
from alsys.units import BOLTZMANN

pytestmark = pytest.mark.thorough

MakeGroup = Callable[..., object]


def points(n_walkers: int) -> np.ndarray:
    return np.zeros((n_walkers, 1, 3))


def test_the_ladder_is_geometric() -> None:
    np.testing.assert_allclose(ladder(300.0, 1200.0, 3), [300, 600, 1200])
    np.testing.assert_allclose(ladder(300.0, 1200.0, 1), [300])


def test_swaps_keep_the_distribution_of_each_rung_and_have_the_exact_rate(make_group: MakeGroup) -> None:
    """Energies of a two-dimensional oscillator are exponential: acceptance is exactly 2 T_cold / (T_cold + T_hot)."""
    method = ReplicaExchange(300.0, 1200.0, rungs=4, interval=1, n_walkers=4)
    rng = np.random.default_rng(0)
    temperatures = ladder(300.0, 1200.0, 4)
    n = 20_000
    after, accepted = np.zeros((n, 4)), 0
    step = np.full(4, 1)
    for row in range(n):
        now = method.temperatures(step)
        energy = rng.exponential(BOLTZMANN * now)  # canonical at the temperature that each walker has
        accepted += len(method.exchange(make_group(points(4), energy, temperatures=now, step=step), rng))  # type: ignore[arg-type]
        after[row] = energy[np.argsort(method.temperatures(step))]
    reduced = after / (BOLTZMANN * temperatures)
    np.testing.assert_allclose(reduced.mean(axis=0), 1.0, atol=5 / np.sqrt(n))
    np.testing.assert_allclose(np.square(reduced).mean(axis=0), 2.0, atol=5 * np.sqrt(20 / n))
    low = np.quantile(reduced, [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_allclose(low, np.tile(-np.log([[0.9], [0.5], [0.1]]), 4), rtol=0.06)
    ratio = temperatures[1] / temperatures[0]
    assert method.n_tried == n // 2 * 2 + n // 2
    assert method.n_swapped == accepted
    assert accepted / method.n_tried == pytest.approx(2 / (1 + ratio), abs=0.012)


def test_even_and_odd_pairs_alternate_and_ladders_stay_apart(make_group: MakeGroup) -> None:
    method = ReplicaExchange(300.0, 900.0, rungs=3, interval=5, n_walkers=7)
    before = method.temperatures(np.zeros(7, dtype=np.int64))
    np.testing.assert_allclose(before, [*np.tile(ladder(300.0, 900.0, 3), 2), 300.0])
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(20):
        hot_first = -np.argsort(np.argsort(before)).astype(np.float64)  # falling energies: always accepted
        group = make_group(points(7), hot_first * 100.0, step=50)
        pairs = list(method.exchange(group, rng))  # type: ignore[arg-type]
        seen.append(pairs)
        for i, j in pairs:
            before[[i, j]] = before[[j, i]]
        np.testing.assert_array_equal(method.temperatures(np.zeros(7, dtype=np.int64)), before)
    assert [bool(p) for p in seen] == [n % 5 == 4 for n in range(20)]
    assert seen[4] == [(0, 1), (3, 4)]
    assert seen[9] == [(0, 2), (3, 5)]
    assert all({i < 3 for i in pair} != {True, False} for pairs in seen for pair in pairs)


def test_walkers_that_just_began_or_have_no_energy_stay_where_they_are(make_group: MakeGroup) -> None:
    rng = np.random.default_rng(0)
    method = ReplicaExchange(300.0, 600.0, rungs=2, interval=10, n_walkers=2)
    for calls in range(1, 101):
        energy = [0.0, np.nan] if calls > 50 else [10.0, 0.0]
        step = [60, 60] if calls > 50 else [60, 9]
        assert not method.exchange(make_group(points(2), energy, step=step), rng)  # type: ignore[arg-type]
    assert method.n_swapped == 0


def test_one_walker_keeps_the_lowest_temperature(make_group: MakeGroup) -> None:
    method = ReplicaExchange(300.0, 600.0, rungs=8, interval=1, n_walkers=1)
    assert not method.exchange(make_group(points(1), step=9), np.random.default_rng(0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(method.temperatures(np.zeros(1, dtype=np.int64)), [300.0])
