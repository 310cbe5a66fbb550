"""How many walkers each exploration method gets: more for those that return more reward per CPU-second.

Thompson sampling (W. R. Thompson, Biometrika 25, 285 (1933); O. Chapelle, L. Li, NeurIPS 2011). What a method earns in
a CPU-second is taken for a Poisson rate, so its posterior is a Gamma distribution with the reward as counts and the
CPU-seconds as exposure. The share of a method is the probability that its rate is the largest, which splits a batch of
walkers, where upper confidence bounds would give all of them to one method until results are in. The prior holds one
count at the pooled rate, so no unit of time matters. Tallies fade with each label (V. Raj, S. Kalyani,
arXiv:1707.09727), since what is informative changes as the model learns; a method that is hardly used becomes
uncertain, and is tried again. A floor keeps every method alive, as rewards come late.

Rewards are in [0, 1], for example ``min(error / tolerance, cap) / cap``: then counts of one at most never make a
method look surer than it is. All is decided by the arguments.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

N_DRAWS = 1000
"""Draws from the posteriors: shares are good to some 0.016."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a method has earned and spent, faded.

    Attributes:
        reward: Sum of rewards.
        cpu_s: CPU-seconds spent.
    """

    reward: float = 0.0
    cpu_s: float = 0.0


def spend(tallies: Mapping[str, Tally], method: str, cpu_s: float) -> dict[str, Tally]:
    """The tallies after a method has spent CPU-seconds.

    Raises:
        ValueError: Negative or not finite.
    """
    if not (cpu_s >= 0 and math.isfinite(cpu_s)):
        raise ValueError(f"CPU-seconds must be finite and not negative, not {cpu_s}")
    old = tallies.get(method, Tally())
    return {**tallies, method: Tally(old.reward, old.cpu_s + cpu_s)}


def reward(tallies: Mapping[str, Tally], method: str, amount: float, half_life: float) -> dict[str, Tally]:
    """The tallies after a label that a method proposed was accepted; all older entries fade.

    Args:
        tallies: Before.
        method: Who proposed the frame.
        amount: Reward in [0, 1].
        half_life: Labels, of all methods, after which an entry counts half.

    Raises:
        ValueError: An amount outside [0, 1], or a half-life that is not positive.
    """
    if not 0.0 <= amount <= 1.0:
        raise ValueError(f"a reward lies in [0, 1], not {amount}")
    if not half_life > 0:
        raise ValueError(f"a half-life is positive, not {half_life}")
    fade = 0.5 ** (1.0 / half_life)
    faded = {name: Tally(fade * tally.reward, fade * tally.cpu_s) for name, tally in tallies.items()}
    old = faded.get(method, Tally())
    return {**faded, method: Tally(old.reward + amount, old.cpu_s)}


def shares(tallies: Mapping[str, Tally], floor: float, seed: int) -> dict[str, float]:
    """Share of the walkers for each method, adding up to 1.

    Args:
        tallies: One for each method that may be used, at least one.
        floor: Least share of a method, as a fraction of an equal share, in [0, 1].
        seed: Of the draws.

    Raises:
        ValueError: No method, or a floor outside [0, 1].
    """
    if not tallies:
        raise ValueError("there is no method to choose from")
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"a floor lies in [0, 1], not {floor}")
    names = list(tallies)
    earned, spent = sum(t.reward for t in tallies.values()), sum(t.cpu_s for t in tallies.values())
    equal = 1.0 / len(names)
    if earned <= 0.0 or spent <= 0.0:
        return dict.fromkeys(names, equal)
    exposure = spent / earned
    rng = random.Random(seed)
    wins = dict.fromkeys(names, 0)
    for _ in range(N_DRAWS):
        rates = {
            name: rng.gammavariate(1.0 + tally.reward, 1.0 / (exposure + tally.cpu_s))
            for name, tally in tallies.items()
        }
        wins[max(names, key=rates.__getitem__)] += 1
    return {name: floor * equal + (1.0 - floor) * wins[name] / N_DRAWS for name in names}


def allocate(parts: Mapping[str, float], n_walkers: int, seed: int) -> dict[str, int]:
    """Whole walkers for each method.

    Systematic sampling (W. G. Madow, L. H. Madow, Ann. Math. Stat. 15, 1 (1944)): a method gets its share of walkers
    rounded up or down, and exactly its share on the average over seeds; so where walkers are few, small shares take
    turns.

    Args:
        parts: Shares, adding up to 1.
        n_walkers: Walkers to give out.
        seed: Of the rounding.

    Raises:
        ValueError: Negative shares, shares that do not add up, or a negative number of walkers.
    """
    if n_walkers < 0 or any(part < 0 for part in parts.values()) or abs(sum(parts.values()) - 1.0) > 1e-6:
        raise ValueError("shares are positive and add up to 1, and walkers are not negative")
    offset = random.Random(seed).random()
    counts: dict[str, int] = {}
    total, given = 0.0, 0
    for name, part in parts.items():
        total += part * n_walkers
        reached = math.ceil(total - offset)
        counts[name], given = max(reached - given, 0), max(reached, given)
    last = max(parts, key=parts.__getitem__)
    counts[last] += n_walkers - sum(counts.values())  # rounding of the sum of shares
    return counts
