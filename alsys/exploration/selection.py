"""Which of the uncertain frames of a chunk are proposed: the most uncertain ones, no two of them alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alsys.exploration.geometry import pair_ratios
from alsys.frames import Candidate, FloatArray

ALIKE = 0.02
"""Root mean square difference of sorted distance ratios below which two frames are alike."""


def select(candidates: Sequence[Candidate], n: int, rng: np.random.Generator | None = None) -> list[Candidate]:
    """At most `n` candidates: by falling deviation, or in random order where `rng` is given; alike ones once."""
    if rng is None:
        order = sorted(range(len(candidates)), key=lambda i: -candidates[i].source.deviation)
    else:
        order = rng.permutation(len(candidates)).tolist()
    chosen: list[Candidate] = []
    prints: list[tuple[bytes, FloatArray]] = []
    for i in order:
        if len(chosen) >= n:
            break
        frame = candidates[i].frame
        composition, fingerprint = frame.numbers.tobytes(), np.sort(pair_ratios(frame.numbers, frame.positions)[2])
        if any(c == composition and _distance(p, fingerprint) < ALIKE for c, p in prints):
            continue
        prints.append((composition, fingerprint))
        chosen.append(candidates[i])
    return chosen


def _distance(a: FloatArray, b: FloatArray) -> float:
    return float(np.sqrt(np.square(a - b).mean())) if a.size else 0.0
