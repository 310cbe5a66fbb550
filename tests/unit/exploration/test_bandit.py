"""Walkers go to the methods that earn most per CPU-second, others are not forgotten, and all of it is repeatable."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from alsys.exploration.bandit import Tally, allocate, reward, shares, spend


def test_nothing_earned_means_equal_shares() -> None:
    assert shares({"a": Tally(), "b": Tally(0.0, 9.0), "c": Tally()}, 0.1, 0) == dict.fromkeys("abc", 1 / 3)


def test_the_method_that_earns_more_per_second_gets_more() -> None:
    parts = shares({"cheap": Tally(20.0, 100.0), "dear": Tally(20.0, 400.0), "poor": Tally(2.0, 100.0)}, 0.2, 0)
    assert parts["cheap"] > 0.85
    assert parts["dear"] == pytest.approx(0.2 / 3, abs=0.02)
    assert sum(parts.values()) == pytest.approx(1.0)


def test_little_evidence_keeps_shares_open_and_the_unit_of_time_does_not_matter() -> None:
    little = {"a": Tally(2.0, 10.0), "b": Tally(1.0, 10.0)}
    much = {"a": Tally(200.0, 1000.0), "b": Tally(100.0, 1000.0)}
    assert 0.55 < shares(little, 0.0, 0)["a"] < 0.9
    assert shares(much, 0.0, 0)["a"] > 0.99
    slow = {name: Tally(tally.reward, 3600.0 * tally.cpu_s) for name, tally in little.items()}
    assert shares(slow, 0.0, 0) == shares(little, 0.0, 0)


def test_a_method_that_was_never_tried_gets_its_chance() -> None:
    assert shares({"known": Tally(10.0, 100.0), "new": Tally()}, 0.0, 0)["new"] > 0.3


def test_the_prior_is_one_count_at_the_pooled_rate() -> None:
    """10 rewards in 100 s pool to one in 10 s, so P(Exp(10) > Gamma(11, 110)) = (11 / 12)^11."""
    parts = shares({"known": Tally(10.0, 100.0), "new": Tally()}, 0.0, 1)
    assert parts["new"] == pytest.approx((11 / 12) ** 11, abs=4 * 0.5 / math.sqrt(1000))


def test_shares_are_the_probability_of_being_best() -> None:
    """Gamma(a) against Gamma(b) of one scale: P(X > Y) for whole a, b from the binomial distribution."""
    parts = shares({"a": Tally(4.0, 50.0), "b": Tally(2.0, 50.0)}, 0.0, 3)
    a, b = 5, 3
    exact = sum(math.comb(a + b - 1, i) for i in range(a)) / 2 ** (a + b - 1)
    assert parts["a"] == pytest.approx(exact, abs=4 * 0.5 / math.sqrt(1000))


def test_floor_and_seed() -> None:
    tallies = {"a": Tally(500.0, 100.0), "b": Tally(1.0, 100.0)}
    assert shares(tallies, 0.3, 5)["b"] == pytest.approx(0.15)
    assert shares(tallies, 1.0, 5) == {"a": 0.5, "b": 0.5}
    close = {"a": Tally(5.0, 10.0), "b": Tally(4.0, 10.0)}
    assert shares(close, 0.0, 1) == shares(close, 0.0, 1) != shares(close, 0.0, 2)


def test_old_entries_fade_with_each_label_and_their_rate_stays() -> None:
    tallies = {"a": Tally(8.0, 80.0), "b": Tally(4.0, 20.0)}
    for _ in range(10):
        tallies = reward(tallies, "b", 0.5, half_life=10.0)
    assert tallies["a"].reward == pytest.approx(4.0)
    assert tallies["a"].cpu_s == pytest.approx(40.0)
    fade = 0.5**0.1
    assert tallies["b"].reward == pytest.approx(2.0 + 0.5 * (1 - fade**10) / (1 - fade))
    assert spend(tallies, "c", 3.0)["c"] == Tally(0.0, 3.0)
    assert spend(tallies, "a", 3.0)["a"].cpu_s == pytest.approx(43.0)


def test_it_finds_the_best_method_and_follows_when_another_becomes_better() -> None:
    """Simulated campaign: rewards arrive as Poisson counts of 2 against 1 a chunk; then the roles change."""
    rng = random.Random(0)
    tallies = {"a": Tally(), "b": Tally(), "c": Tally()}
    history = []
    for chunk in range(300):
        parts = shares(tallies, 0.1, chunk)
        history.append(parts["a"])
        rates = {"a": 2.0, "b": 1.0, "c": 0.5} if chunk < 150 else {"a": 0.5, "b": 1.0, "c": 2.0}
        for name, walkers in allocate(parts, 16, chunk).items():
            tallies = spend(tallies, name, walkers / 16)
            for _ in range(sum(rng.random() < rates[name] / 160 * walkers for _ in range(10))):
                tallies = reward(tallies, name, 1.0, half_life=40.0)
    assert sum(history[100:150]) / 50 > 0.6
    assert sum(history[250:]) / 50 < 0.15


def test_allocations_are_whole_complete_and_fair_over_seeds() -> None:
    parts = {"a": 0.55, "b": 0.25, "c": 0.15, "d": 0.05}
    total: Counter[str] = Counter()
    for seed in range(2000):
        counts = allocate(parts, 6, seed)
        assert sum(counts.values()) == 6
        assert all(math.floor(6 * parts[k]) <= n <= math.ceil(6 * parts[k]) for k, n in counts.items())
        total.update(counts)
    for name, part in parts.items():
        assert total[name] / 2000 == pytest.approx(6 * part, abs=0.05)
    assert allocate(parts, 0, 0) == dict.fromkeys(parts, 0)
    assert allocate(dict.fromkeys("abcdefg", 1 / 7), 7, 11) == dict.fromkeys("abcdefg", 1)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="CPU-seconds"):
        spend({}, "a", float("nan"))
    with pytest.raises(ValueError, match="reward lies"):
        reward({}, "a", 1.5, 10.0)
    with pytest.raises(ValueError, match="half-life"):
        reward({}, "a", 1.0, 0.0)
    with pytest.raises(ValueError, match="no method"):
        shares({}, 0.1, 0)
    with pytest.raises(ValueError, match="floor"):
        shares({"a": Tally()}, 1.5, 0)
    with pytest.raises(ValueError, match="add up"):
        allocate({"a": 0.5}, 4, 0)
