"""Convergence: how far a campaign is from the targets of its stop criterion, in one line that says what is missing.

A version reaches the targets where the upper 95 % limits of its force error and of its share of blind spots, both of
the random arm, are below them. A campaign has converged once the latest versions in a row do, and its champion does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alsys.control.settings import Targets
from alsys.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Convergence:
    """How far it is.

    Attributes:
        is_reached: All targets hold for enough versions.
        n_in_a_row: Latest versions that reach them, one after another.
        text: One line: what has been reached, or what is missing.
    """

    is_reached: bool
    n_in_a_row: int
    text: str


def convergence(versions: Sequence[tuple[int, Metrics]], champion: int, targets: Targets) -> Convergence:
    """How far a campaign is.

    Args:
        versions: Published versions and their metrics, oldest first.
        champion: 0 for none.
        targets: What is wanted.
    """
    if not targets.are_set:
        return Convergence(False, 0, "no target is set (stop.target_force_mae, stop.target_blind_spots)")
    by_version = dict(versions)
    if champion not in by_version:
        return Convergence(False, 0, "no model yet")
    n_in_a_row = 0
    for _, metrics in reversed(versions):
        if missing(metrics, targets):
            break
        n_in_a_row += 1
    wanting = missing(by_version[champion], targets)
    if wanting:
        return Convergence(False, n_in_a_row, f"champion v{champion:04d}: {'; '.join(wanting)}")
    if n_in_a_row < targets.in_a_row:
        latest, metrics = versions[-1]
        why = "" if n_in_a_row else f"; latest v{latest:04d}: {'; '.join(missing(metrics, targets))}"
        text = f"reached by the champion and by {n_in_a_row} of {targets.in_a_row} versions in a row{why}"
        return Convergence(False, n_in_a_row, text)
    return Convergence(True, n_in_a_row, f"reached: {_reached(by_version[champion], targets)}")


def missing(metrics: Metrics, targets: Targets) -> list[str]:
    """What a version lacks; empty where it reaches the targets."""
    found: list[str] = []
    n = int(metrics.get("n_random") or 0)
    if n < targets.min_random:
        found.append(f"{n} of at least {targets.min_random} random-arm frames")
    if targets.force_mae is not None:
        high = metrics.get("force_mae_random_arm_high")
        if high is None or high > targets.force_mae:
            known = "is not known yet" if high is None else f"may be {high * 1e3:.1f}"
            found.append(f"force MAE {known} (95 %), target {targets.force_mae * 1e3:.1f} meV/Angstrom")
    if targets.blind_spots is not None:
        high = metrics.get("blind_spots_high")
        if high is None or high > targets.blind_spots:
            found.append(_blind_spots(metrics, n, targets.blind_spots))
    return found


def _blind_spots(metrics: Metrics, n: int, target: float) -> str:
    share, high = metrics.get("blind_spots"), metrics.get("blind_spots_high")
    if high is None:
        return f"blind spots are not known yet, target {target:.1%} of frames"
    text = f"blind spots may be {high:.1%} of frames (95 %), target {target:.1%}"
    if share == 0.0:  # what none in n frames proves: (1 - target)^n = 5 %
        wanted = math.ceil(math.log(0.05) / math.log1p(-target))
        text += f"; none was seen, {wanted} random-arm frames would prove it, there are {n}"
    return text


def _reached(metrics: Metrics, targets: Targets) -> str:
    parts = []
    if targets.force_mae is not None:
        high = metrics["force_mae_random_arm_high"]
        parts.append(f"force MAE on the random arm is at most {high * 1e3:.1f} meV/Angstrom (95 %)")
    if targets.blind_spots is not None:
        parts.append(f"at most {metrics['blind_spots_high']:.1%} of frames are blind spots (95 %)")
    return " and ".join(parts)
