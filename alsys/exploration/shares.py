"""How a number of things is shared out by weight: first frames and walkers over systems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from alsys.config.schema import CampaignConfig


def spread(shares: Sequence[float], n: int) -> tuple[int, ...]:
    """Shares out `n` things by weight, with the largest remainder (Hamilton's method).

    Every weight gets at least one thing where `n` allows; otherwise the largest `n` weights get one each. Ties go to
    the first.

    Args:
        shares: Positive weights; only their ratios matter.
        n: Things to share out, not negative.

    Returns:
        A count for each weight; their sum is `n`.
    """
    weights = np.asarray(shares, dtype=np.float64)
    counts = np.zeros(weights.size, dtype=np.int64)
    if n <= weights.size:
        counts[np.argsort(-weights, kind="stable")[:n]] = 1
        return tuple(counts.tolist())
    counts[:] = 1
    is_open = np.ones(weights.size, dtype=np.bool_)
    while True:  # a weight whose quota is below one keeps its one, and the others share the rest
        left = n - int((~is_open).sum())
        quota = np.where(is_open, weights / weights[is_open].max(), 0.0)
        quota *= left / quota.sum()
        is_small = is_open & (quota < 1.0)
        if not is_small.any():
            break
        is_open &= ~is_small
    counts[is_open] = np.floor(quota[is_open]).astype(np.int64)
    remainders = np.where(is_open, quota - np.floor(quota), -1.0)
    counts[np.argsort(-remainders, kind="stable")[: n - int(counts.sum())]] += 1
    return tuple(counts.tolist())


def shares_of(config: CampaignConfig, names: Iterable[str]) -> list[float]:
    """Weight of each system named; 1 for a system that the config does not know."""
    shares = {system.name: system.share for system in config.systems}
    return [shares.get(name, 1.0) for name in names]
