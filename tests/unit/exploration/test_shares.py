"""Things shared out by weight: whole numbers that add up, nobody without where there is enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alsys.config import parse_config
from alsys.exploration.shares import shares_of, spread

weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("shares", "n", "counts"),
    [
        ([47, 16, 15.8, 12, 6.1, 3.1], 10, (4, 2, 1, 1, 1, 1)),  # at least one each, the rest by remainder
        ([5, 3, 1], 9, (5, 3, 1)),
        ([1, 1, 1], 10, (4, 3, 3)),
        ([1, 2, 3], 2, (0, 1, 1)),
        ([1, 1], 0, (0, 0)),
        ([1000, 1, 1], 5, (3, 1, 1)),
        ([1.5, 1.4, 0.1], 3, (1, 1, 1)),
        ([6, 4, 2.9], 5, (2, 2, 1)),
    ],
)
def test_known_cases(shares: list[float], n: int, counts: tuple[int, ...]) -> None:
    assert spread(shares, n) == counts


@given(weights, st.integers(0, 500))
def test_counts_add_up_and_follow_the_weights(shares: list[float], n: int) -> None:
    counts = spread(shares, n)
    assert sum(counts) == n
    assert min(counts) >= (n >= len(shares))
    for a, b in zip(shares, counts, strict=True):
        for c, d in zip(shares, counts, strict=True):
            assert a <= c or b >= d, "a larger weight never gets less"


@given(weights, st.integers(0, 500))
def test_only_ratios_matter(shares: list[float], n: int) -> None:
    assert spread([4.0 * share for share in shares], n) == spread(shares, n)


@given(weights, st.integers(1, 500))
def test_nobody_is_further_from_the_quota_than_one_unless_it_was_lifted_to_one(shares: list[float], n: int) -> None:
    counts = spread(shares, n)
    quotas = [n * share / sum(shares) for share in shares]
    if min(quotas) >= 1.0:
        assert all(abs(count - quota) < 1.0 + 1e-9 for count, quota in zip(counts, quotas, strict=True))


def test_shares_come_from_the_config() -> None:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "a", "smiles": "C", "share": 3}, {"name": "b", "smiles": "O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
        }
    )
    assert shares_of(config, ["b", "a", "unknown"]) == [1.0, 3.0, 1.0]
