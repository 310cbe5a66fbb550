"""Which frames each batch of a fit holds: new ones, so that nothing waits, and old ones, so that nothing is forgotten.

A fit from scratch goes through its frames in random order, pass after pass. A refit draws a part of each batch from the
frames that the parent has not seen, and replays old ones for the rest: no new frame comes more than `MOST_REPEATED`
times as often as it would by chance, and old ones are drawn by stratum (system), each in proportion to the square root
of its size, so that a small one is not drowned by a large one (experience replay: D. Rolnick et al., NeurIPS 2019).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alsys.frames import IntArray

MOST_REPEATED = 3.0
"""How much more often a new frame is drawn than by chance, at most."""


class Draw(Protocol):
    """An endless supply of batches."""

    @property
    def epochs(self) -> float:
        """Frames drawn over frames there are."""
        ...

    @property
    def passes(self) -> int:
        """Passes that are complete."""
        ...

    def next(self) -> IntArray:
        """Rows of the next batch."""
        ...


class Shuffle:
    """All frames in random order, pass after pass.

    Args:
        rows: Frames to draw from.
        batch_size: Frames in a batch; the last of a pass may hold fewer.
        rng: Source of randomness.
    """

    def __init__(self, rows: IntArray, batch_size: int, rng: np.random.Generator) -> None:
        self._rows, self._size, self._rng = rows, batch_size, rng
        self._n_batches = math.ceil(rows.size / batch_size)
        self._order = rng.permutation(rows)
        self._drawn = 0

    @property
    def epochs(self) -> float:
        """Frames drawn over frames there are."""
        return self._drawn / self._n_batches

    @property
    def passes(self) -> int:
        """Passes that are complete."""
        return self._drawn // self._n_batches

    def next(self) -> IntArray:
        """Rows of the next batch."""
        place = self._drawn % self._n_batches
        if place == 0 and self._drawn:
            self._order = self._rng.permutation(self._rows)
        self._drawn += 1
        return self._order[place * self._size : (place + 1) * self._size]


class Replay:
    """New frames and old ones in each batch.

    Args:
        new: Frames that the parent has not seen; at least one.
        old: Others; at least one.
        strata: ``(n_frames,)`` stratum of each row that `new` and `old` may name.
        new_share: Share of each batch for new frames, where they are numerous enough.
        batch_size: Frames in a batch.
        rng: Source of randomness.
    """

    def __init__(
        self,
        new: IntArray,
        old: IntArray,
        strata: NDArray[np.integer],
        new_share: float,
        batch_size: int,
        rng: np.random.Generator,
    ) -> None:
        self._rng, self._size = rng, batch_size
        self._n_rows = new.size + old.size
        by_chance = new.size / self._n_rows
        self.new_share = max(by_chance, min(new_share, MOST_REPEATED * by_chance))
        self._new = Shuffle(new, 1, rng)
        self._old = old
        _, stratum, counts = np.unique(strata[old], return_inverse=True, return_counts=True)
        weight = 1.0 / np.sqrt(counts[stratum])
        self._cumulative = np.cumsum(weight / weight.sum())
        self._drawn = 0

    @property
    def epochs(self) -> float:
        """Frames drawn over frames there are."""
        return self._drawn / self._n_rows

    @property
    def passes(self) -> int:
        """Passes' worth of batches."""
        return self._drawn // self._n_rows

    def next(self) -> IntArray:
        """Rows of the next batch: new ones on average in their share."""
        n_new = int(self._rng.binomial(self._size, self.new_share))
        fresh = [self._new.next() for _ in range(n_new)]
        at = np.searchsorted(self._cumulative, self._rng.random(self._size - n_new), side="right")
        again = self._old[np.minimum(at, self._old.size - 1)]
        self._drawn += self._size
        rows: IntArray = np.unique(np.concatenate([*fresh, again]).astype(np.int64))
        return rows
