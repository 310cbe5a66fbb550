"""Which of the uncertain frames of a chunk are proposed: half by uncertainty, half for diversity, no two of them alike.

Diversity and likeness are judged by latent features of the committee's first member, averaged over the atoms of each
element, beside those of labelled frames that the explorer knows (docs/design/009-selection.md). A committee without
features leaves the choice to uncertainty, and likeness to distances between atoms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alsys.config.schema import SelectionConfig
from alsys.config.section import PluginSection
from alsys.dynamics.geometry import pair_ratios
from alsys.frames import Candidate, FloatArray, Frame
from alsys.potentials.base import Committee, FrameBatch
from alsys.selection.batches import mixed, standardised, without_near_duplicates
from alsys.selection.frame_features import frame_features
from alsys.selection.plugins import SelectionRule

ALIKE = 0.02
"""Root mean square difference of sorted distance ratios below which two frames are alike."""


class ChunkSelection:
    """Selects among the candidates of a chunk.

    Args:
        settings: How.
        seed: Of the random half, and of rules of other packages.

    Attributes:
        labelled: Labelled frames that the explorer knows.
    """

    def __init__(self, settings: SelectionConfig, seed: int) -> None:
        self._settings, self._seed = settings, seed
        diversity = settings.diversity
        self._rule = SelectionRule(diversity) if isinstance(diversity, PluginSection) else None
        self._n_calls = 0
        self.labelled: list[Frame] = []

    def select(self, candidates: Sequence[Candidate], n: int, committee: Committee) -> list[Candidate]:
        """At most `n` candidates, most urgent first."""
        self._n_calls += 1
        diversity = self._settings.diversity
        if len(candidates) < 2 or diversity == "none":
            return by_deviation(candidates, n)
        frames = [candidate.frame for candidate in candidates]
        rows = _features([*frames, *self.labelled], committee)
        if rows is None:
            return by_deviation(candidates, n)
        rows = _scaled(rows, [_composition(frame) for frame in (*frames, *self.labelled)])
        pool, labelled = rows[: len(frames)], rows[len(frames) :]
        uncertainty = np.array([candidate.source.deviation for candidate in candidates])
        threshold, seed = self._settings.near_duplicate, self._seed + self._n_calls
        if isinstance(diversity, PluginSection):
            assert self._rule is not None
            kept = without_near_duplicates(pool, threshold, labelled=labelled, score=uncertainty)
            chosen = kept[self._rule(pool[kept], uncertainty[kept], labelled.copy(), min(n, len(kept)), seed)]
        else:
            chosen = mixed(
                pool,
                uncertainty,
                n,
                diversity=diversity,
                labelled=labelled,
                strata=[candidate.source.stratum for candidate in candidates],
                threshold=threshold,
                seed=seed,
            )
        return [candidates[i] for i in chosen.tolist()]


def _features(frames: Sequence[Frame], committee: Committee) -> FloatArray | None:
    batch = FrameBatch.of(frames)
    features = committee.evaluate(batch, [0]).features
    return None if features is None else frame_features(features, batch.numbers, batch.n_atoms)


def _scaled(rows: FloatArray, compositions: Sequence[bytes]) -> FloatArray:
    """Features with unit variance among frames of one composition, which are as far from others as from each other."""
    kinds = sorted(set(compositions))
    kind = np.array([kinds.index(composition) for composition in compositions])
    scaled = np.concatenate([rows, np.sqrt(rows.shape[1]) * (kind[:, None] == np.arange(len(kinds)))], axis=1)
    for k in range(len(kinds)):
        scaled[kind == k, : rows.shape[1]] = standardised(rows[kind == k])[0]
    return scaled


def by_deviation(candidates: Sequence[Candidate], n: int) -> list[Candidate]:
    """At most `n` candidates by falling deviation, alike ones once."""
    return _first_unlike(candidates, sorted(range(len(candidates)), key=lambda i: -candidates[i].source.deviation), n)


def pick_at_random(candidates: Sequence[Candidate], n: int, rng: np.random.Generator) -> list[Candidate]:
    """At most `n` candidates in random order, alike ones once."""
    return _first_unlike(candidates, rng.permutation(len(candidates)).tolist(), n)


def _first_unlike(candidates: Sequence[Candidate], order: Sequence[int], n: int) -> list[Candidate]:
    chosen: list[Candidate] = []
    prints: list[tuple[bytes, FloatArray]] = []
    for i in order:
        if len(chosen) >= n:
            break
        frame = candidates[i].frame
        composition, fingerprint = _composition(frame), np.sort(pair_ratios(frame.numbers, frame.positions)[2])
        if any(c == composition and _distance(p, fingerprint) < ALIKE for c, p in prints):
            continue
        prints.append((composition, fingerprint))
        chosen.append(candidates[i])
    return chosen


def _composition(frame: Frame) -> bytes:
    """What frames must share to be compared: elements, charge and multiplicity."""
    return frame.numbers.tobytes() + f"{frame.charge},{frame.multiplicity}".encode()


def _distance(a: FloatArray, b: FloatArray) -> float:
    return float(np.sqrt(np.square(a - b).mean())) if a.size else 0.0
