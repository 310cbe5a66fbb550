"""Which frames of many are labelled next: batches that are uncertain, cover the space and hold no two alike frames.

Pure functions of arrays: features ``(n, d)`` with one row a frame, uncertainties ``(n,)``, and, where there are some,
features ``(m, d)`` of the frames that are labelled already. Each returns distinct indices in the order of choice, `n`
of them or all there are, and gives the same answer for the same input and seed. Distances are Euclidean, so the caller
decides on the scale of the features; see `standardised`. An uncertainty of NaN (no committee has seen the frame, or
its prediction overflowed) ranks first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray

Diversity = Literal["farthest-point", "lcmd", "max-det", "stratified", "random"]
DIVERSITIES: tuple[Diversity, ...] = get_args(Diversity)

NOISE = 1e-2
"""Variance of the noise of `max_det`, as a share of the mean squared norm of the features."""
ROUNDING = 1e-7
"""Distances below this share of the largest norm cannot be told from zero."""
BLOCK = 512
"""Frames compared at a time."""


def standardised(features: ArrayLike, *others: ArrayLike) -> tuple[FloatArray, ...]:
    """Features with zero mean and unit variance in every column; constant columns become zero.

    Args:
        features: ``(n, d)``; mean and variance are theirs.
        *others: ``(m, d)`` further features on which the same shift and scale are used.

    Returns:
        All of them, in order.

    Raises:
        InputError: They are not finite or not of one width.
    """
    reference = _features(features)
    rest = [_features(other, reference.shape[1]) for other in others]
    if not len(reference):
        return (reference, *rest)
    mean, spread = reference.mean(axis=0), reference.std(axis=0)
    # a column that is constant but for rounding must not be blown up to unit variance
    is_constant = spread <= 1e-12 * np.maximum(1.0, np.abs(mean))
    scale = np.where(is_constant, 0.0, 1.0 / np.where(is_constant, 1.0, spread))
    return tuple((array - mean) * scale for array in (reference, *rest))


def by_score(score: ArrayLike, n: int) -> IntArray:
    """The `n` largest scores, NaN first, lower index first among equals.

    Args:
        score: ``(n_frames,)``, for example uncertainties or gains per second.
        n: Frames wanted.
    """
    values = np.asarray(score, dtype=np.float64)
    keys = np.where(np.isnan(values), -np.inf, -values)
    # NaN before infinity, although both stand for "worse than any number"
    return np.lexsort((keys, ~np.isnan(values)))[: _count(n)].astype(np.int64)


def farthest_point(features: ArrayLike, n: int, *, labelled: ArrayLike | None = None) -> IntArray:
    """Each frame is the one farthest from all labelled and chosen ones (T. F. Gonzalez, Theor. Comput. Sci. 38, 1985).

    Without labelled frames the first is the one nearest to the mean.

    Args:
        features: ``(n_frames, d)``.
        n: Frames wanted.
        labelled: ``(m, d)``.

    Raises:
        InputError: Features are not finite or not of one width.
    """
    pool = _features(features)
    nearest, _ = _nearest(pool, _reference(labelled, pool))
    return _farthest(pool, nearest, min(_count(n), len(pool)))


def _farthest(pool: FloatArray, nearest: FloatArray, n: int) -> IntArray:
    chosen: list[int] = []
    distance = nearest.copy()
    for _ in range(n):
        i = _most_typical(pool) if math.isinf(distance.max()) else int(np.argmax(distance))
        chosen.append(i)
        distance = np.minimum(distance, _squared(pool, pool[i]))
        distance[chosen] = -1.0
    return np.array(chosen, dtype=np.int64)


def lcmd(features: ArrayLike, n: int, *, labelled: ArrayLike | None = None) -> IntArray:
    """Largest cluster maximum distance: D. Holzmueller et al., J. Mach. Learn. Res. 24 (2023) 164, section 4.2.

    Every frame belongs to the cluster of the nearest labelled or chosen frame. The next one is the farthest frame of
    the cluster whose squared distances have the largest sum, so that outliers count less than with `farthest_point`.
    Without labelled frames the first is the one nearest to the mean.

    Args:
        features: ``(n_frames, d)``.
        n: Frames wanted.
        labelled: ``(m, d)``.

    Raises:
        InputError: Features are not finite or not of one width.
    """
    pool = _features(features)
    centres = _reference(labelled, pool)
    distance, cluster = _nearest(pool, centres)
    is_free = np.ones(len(pool), dtype=np.bool_)
    chosen: list[int] = []
    for k in range(min(_count(n), len(pool))):
        if not len(centres) and not k:
            i = _most_typical(pool)
        else:
            weight = np.bincount(cluster, weights=distance)
            largest = int(np.argmax(weight))
            is_member = is_free & (cluster == largest) if weight[largest] > 0 else is_free
            i = int(np.argmax(np.where(is_member, distance, -1.0)))
        chosen.append(i)
        is_free[i] = False
        to_new = _squared(pool, pool[i])
        to_new[i] = 0.0
        is_nearer = to_new < distance
        distance = np.where(is_nearer, to_new, distance)
        cluster = np.where(is_nearer, len(centres) + k, cluster)
    return np.array(chosen, dtype=np.int64)


def max_det(features: ArrayLike, n: int, *, labelled: ArrayLike | None = None, noise: float = NOISE) -> IntArray:
    """Greedy maximisation of ``det(K + noise I)`` over labelled and chosen frames, with the linear kernel ``K``.

    This is the greedy maximum of a determinantal point process. L. Chen et al. (NeurIPS 2018) grow a Cholesky factor
    by one row a frame; here the same variances come from rank-one updates of a ``(d, d)`` posterior covariance, so
    that the number of labelled frames costs nothing once they are in it. Each frame chosen is the one a Bayesian
    linear regression knows least about. Features are shifted to zero mean and unit mean square norm first. A linear
    kernel knows no more than `d` directions: once those are learned, frames far from the mean win, copies included.

    Args:
        features: ``(n_frames, d)``.
        n: Frames wanted.
        labelled: ``(m, d)``.
        noise: Variance of a label's noise, where features have unit mean square norm; above 0.

    Raises:
        InputError: Features are not finite or not of one width, or the noise is not positive.
    """
    if not (math.isfinite(noise) and noise > 0):
        raise InputError("must be a positive number", field="noise", value=noise)
    pool = _features(features)
    known = _reference(labelled, pool)
    wanted = min(_count(n), len(pool))
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    mean = pool.mean(axis=0)
    size = math.sqrt(float(np.square(pool - mean).sum(axis=1).mean())) or 1.0
    pool, known = (pool - mean) / size, (known - mean) / size
    covariance = np.linalg.inv(np.eye(pool.shape[1]) + known.T @ known / noise)
    variance = np.einsum("nd,nd->n", pool @ covariance, pool)
    chosen: list[int] = []
    for _ in range(wanted):
        i = int(np.argmax(variance))
        column = covariance @ pool[i]
        pivot = noise + max(float(column @ pool[i]), 0.0)
        variance = np.maximum(variance - np.square(pool @ column) / pivot, 0.0)
        covariance -= np.outer(column, column) / pivot
        chosen.append(i)
        variance[chosen] = -1.0
    return np.array(chosen, dtype=np.int64)


def stratified_random(
    strata: Sequence[Hashable], n: int, *, labelled: Sequence[Hashable] = (), seed: int = 0
) -> IntArray:
    """Frames at random, in turn from the stratum that has the fewest labelled and chosen frames.

    Args:
        strata: ``(n_frames,)`` stratum of each frame; see `alsys.selection.strata`.
        n: Frames wanted.
        labelled: ``(m,)`` strata of the frames labelled already.
        seed: Decides within a stratum, and between strata that have equally many.
    """
    rng = np.random.default_rng([seed, 2])
    members: dict[Hashable, list[int]] = {}
    for i in rng.permutation(len(strata)).tolist():
        members.setdefault(strata[i], []).append(i)
    counts = dict.fromkeys(members, 0)
    for name in labelled:
        if name in counts:
            counts[name] += 1
    chosen: list[int] = []
    while len(chosen) < _count(n) and members:
        # the order of the dictionary is random, so that no stratum wins all ties
        name = min(members, key=counts.__getitem__)
        chosen.append(members[name].pop())
        counts[name] += 1
        if not members[name]:
            del members[name]
    return np.array(chosen, dtype=np.int64)


def without_near_duplicates(
    features: ArrayLike, threshold: float, *, labelled: ArrayLike | None = None, score: ArrayLike | None = None
) -> IntArray:
    """Frames of which no two are within `threshold` of each other, nor of a labelled one.

    Args:
        features: ``(n_frames, d)``.
        threshold: Largest distance of near-duplicates; 0 removes exact copies (up to rounding) only.
        labelled: ``(m, d)``.
        score: ``(n_frames,)``: of alike frames the one with the largest is kept, NaN before all; None keeps the first.

    Returns:
        Rising indices of the frames kept.

    Raises:
        InputError: Features are not finite or not of one width, or the threshold is negative.
    """
    if not (math.isfinite(threshold) and threshold >= 0):
        raise InputError("must be a number of at least 0", field="threshold", value=threshold)
    pool = _features(features)
    known = _reference(labelled, pool)
    order = np.arange(len(pool)) if score is None else by_score(_score(score, len(pool)), len(pool))
    if not len(pool):
        return order
    centre = pool.mean(axis=0)
    pool, known = pool - centre, known - centre
    largest = max(float(np.square(array).sum(axis=1).max(initial=0.0)) for array in (pool, known))
    limit = max(threshold, ROUNDING * math.sqrt(largest)) ** 2
    is_kept = _nearest(pool, known)[0] > limit
    order = order[is_kept[order]]
    kept = np.empty(len(order), dtype=np.int64)
    n_kept = 0
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        for other in range(0, n_kept, BLOCK):
            block = block[_distances(pool[block], pool[kept[other : min(other + BLOCK, n_kept)]]).min(axis=1) > limit]
            if not block.size:
                break
        is_alike = _distances(pool[block], pool[block]) <= limit
        is_open = np.ones(len(block), dtype=np.bool_)
        for k in range(len(block)):
            if is_open[k]:
                is_open[k + 1 :] &= ~is_alike[k, k + 1 :]
        block = block[is_open]
        kept[n_kept : n_kept + len(block)] = block
        n_kept += len(block)
    return np.sort(kept[:n_kept])


def mixed(
    features: ArrayLike,
    uncertainty: ArrayLike,
    n: int,
    *,
    diversity: Diversity,
    labelled: ArrayLike | None = None,
    strata: Sequence[Hashable] | None = None,
    labelled_strata: Sequence[Hashable] = (),
    seconds: ArrayLike | None = None,
    threshold: float = 0.0,
    seed: int = 0,
) -> IntArray:
    """Half by uncertainty, half by diversity or at random; of near-duplicates only the most uncertain.

    The two halves alternate, the most uncertain frame first, so that any beginning of the answer is mixed too. The
    diverse half is chosen in the presence of labelled and uncertain frames. Fewer than `n` come back where the rest
    would be near-duplicates.

    Args:
        features: ``(n_frames, d)``.
        uncertainty: ``(n_frames,)``, calibrated; 0 or more, or NaN.
        n: Frames wanted.
        diversity: How the other half is chosen.
        labelled: ``(m, d)`` features of the frames labelled already.
        strata: ``(n_frames,)`` for ``stratified``.
        labelled_strata: ``(m,)`` for ``stratified``.
        seconds: ``(n_frames,)`` expected cost of each label; the uncertain half is then ranked by gain per second.
        threshold: Distance up to which frames are near-duplicates.
        seed: Seed of the random half.

    Raises:
        InputError: Arrays that do not fit each other, or ``stratified`` without strata.
    """
    if diversity not in DIVERSITIES:
        raise InputError(f"must be one of {', '.join(DIVERSITIES)}", field="diversity", value=diversity)
    pool = _features(features)
    known = _reference(labelled, pool)
    score = _score(uncertainty, len(pool))
    if diversity == "stratified" and (strata is None or len(strata) != len(pool)):
        found = None if strata is None else len(strata)
        raise InputError(f"needs one stratum for each of {len(pool)} frames", field="strata", value=found)
    if seconds is not None:
        score = gain_per_second(score, _score(seconds, len(pool)))
    kept = without_near_duplicates(pool, threshold, labelled=known, score=score)
    wanted = min(_count(n), len(kept))
    uncertain = kept[by_score(score[kept], (wanted + 1) // 2)]
    rest = kept[~np.isin(kept, uncertain)]
    n_diverse = wanted - len(uncertain)
    reference = np.concatenate([known, pool[uncertain]])
    if diversity == "stratified":
        assert strata is not None
        present = [*labelled_strata, *(strata[i] for i in uncertain)]
        picked = stratified_random([strata[i] for i in rest], n_diverse, labelled=present, seed=seed)
    elif diversity == "random":
        picked = np.random.default_rng([seed, 3]).permutation(len(rest))[:n_diverse]
    else:
        method = {"farthest-point": farthest_point, "lcmd": lcmd, "max-det": max_det}[diversity]
        picked = method(pool[rest], n_diverse, labelled=reference)
    answer = np.empty(wanted, dtype=np.int64)
    answer[0::2], answer[1::2] = uncertain, rest[picked]
    return answer


def gain_per_second(uncertainty: ArrayLike, seconds: ArrayLike) -> FloatArray:
    """Expected gain per second of labelling: uncertainty over predicted cost.

    Args:
        uncertainty: ``(n_frames,)``, 0 or more; NaN becomes infinity, so that such frames rank first.
        seconds: ``(n_frames,)`` see `alsys.selection.label_cost`; above 0.

    Returns:
        ``(n_frames,)``, unit of the uncertainty per second.

    Raises:
        InputError: A cost that is not positive and finite, or arrays of two lengths.
    """
    gain = np.asarray(uncertainty, dtype=np.float64)
    cost = _score(seconds, len(gain))
    if not (np.isfinite(cost) & (cost > 0)).all():
        raise InputError("predicted costs must be positive and finite", field="seconds", value=float(cost.min()))
    return np.where(np.isnan(gain), np.inf, gain / cost)


def _features(features: ArrayLike, width: int | None = None) -> FloatArray:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        wanted = "(n, d)" if width is None else f"(m, {width})"
        raise InputError(f"features must be {wanted}", field="features", value=array.shape)
    if not np.isfinite(array).all():
        raise InputError("features must be finite", field="features", value="NaN or infinity")
    return array


def _reference(labelled: ArrayLike | None, pool: FloatArray) -> FloatArray:
    return np.zeros((0, pool.shape[1])) if labelled is None else _features(labelled, pool.shape[1])


def _score(score: ArrayLike, n: int) -> FloatArray:
    array = np.asarray(score, dtype=np.float64)
    if array.shape != (n,):
        raise InputError(f"needs one number for each of {n} frames", field="score", value=array.shape)
    return array


def _count(n: int) -> int:
    if n < 0:
        raise InputError("must be at least 0", field="n", value=n)
    return n


def _most_typical(pool: FloatArray) -> int:
    return int(np.argmin(_squared(pool, pool.mean(axis=0))))


def _squared(features: FloatArray, point: FloatArray) -> FloatArray:
    """``(n,)`` squared distances to one point."""
    return _norms(features - point)


def _norms(a: FloatArray) -> FloatArray:
    """``(n,)`` squared norms of rows."""
    squares: FloatArray = np.einsum("nd,nd->n", a, a)
    return squares


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """``(n, m)`` squared distances; their error is rounding of the squared norms."""
    squared: FloatArray = np.maximum(_norms(a)[:, None] + _norms(b)[None] - 2.0 * (a @ b.T), 0.0)
    return squared


def _nearest(pool: FloatArray, centres: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """``(n,)`` squared distance to the nearest centre (infinite where there is none), and which one it is."""
    distance, which = np.full(len(pool), np.inf), np.zeros(len(pool), dtype=np.int64)
    if not len(pool):
        return distance, which
    middle = pool.mean(axis=0)
    shifted = pool - middle
    for start in range(0, len(centres), BLOCK):
        table = _distances(shifted, centres[start : start + BLOCK] - middle)
        best = np.argmin(table, axis=1)
        found = table[np.arange(len(pool)), best]
        is_nearer = found < distance
        distance = np.where(is_nearer, found, distance)
        which = np.where(is_nearer, start + best, which)
    return distance, which
