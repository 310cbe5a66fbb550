"""Batches of frames: each method against its definition, worked out by brute force, and its edge cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray
from alsys.selection.batches import (
    DIVERSITIES,
    NOISE,
    Diversity,
    by_score,
    farthest_point,
    gain_per_second,
    lcmd,
    max_det,
    mixed,
    standardised,
    stratified_random,
    without_near_duplicates,
)

Method = Callable[..., IntArray]
METHODS: list[Method] = [farthest_point, lcmd, max_det]
RNG = np.random.default_rng(5)
POOL = RNG.normal(size=(60, 4))
LABELLED = RNG.normal(size=(7, 4))


def distances(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.sqrt(np.square(a[:, None] - b[None]).sum(axis=-1))


def test_farthest_point_takes_the_largest_distance_to_all_that_is_known() -> None:
    known = LABELLED.copy()
    for i in farthest_point(POOL, 10, labelled=LABELLED):
        gaps = distances(POOL, known).min(axis=1)
        assert gaps[i] == pytest.approx(gaps.max())
        known = np.concatenate([known, POOL[i : i + 1]])


def test_lcmd_takes_the_farthest_member_of_the_heaviest_cluster() -> None:
    known = LABELLED.copy()
    for i in lcmd(POOL, 10, labelled=LABELLED):
        squared = distances(POOL, known) ** 2
        cluster, gaps = squared.argmin(axis=1), squared.min(axis=1)
        weights = [gaps[cluster == c].sum() for c in range(len(known))]
        heaviest = int(np.argmax(weights))
        assert cluster[i] == heaviest
        assert gaps[i] == pytest.approx(gaps[cluster == heaviest].max())
        known = np.concatenate([known, POOL[i : i + 1]])


def test_max_det_takes_the_largest_determinant_each_time() -> None:
    size = np.sqrt(np.square(POOL - POOL.mean(axis=0)).sum(axis=1).mean())
    rows, known = (POOL - POOL.mean(axis=0)) / size, (LABELLED - POOL.mean(axis=0)) / size

    def log_determinant(members: list[int]) -> float:
        all_rows = np.concatenate([known, rows[members]])
        return float(np.linalg.slogdet(all_rows @ all_rows.T + NOISE * np.eye(len(all_rows)))[1])

    chosen: list[int] = []
    for i in max_det(POOL, 10, labelled=LABELLED):
        best = max(log_determinant([*chosen, k]) for k in range(len(POOL)) if k not in chosen)
        assert log_determinant([*chosen, int(i)]) == pytest.approx(best, rel=1e-9)
        chosen.append(int(i))


@pytest.mark.parametrize("method", METHODS)
def test_methods_answer_with_all_frames_where_more_are_wanted(method: Method) -> None:
    assert sorted(method(POOL, 100, labelled=LABELLED)) == list(range(60))
    assert sorted(method(POOL[:3], 7)) == [0, 1, 2]
    assert method(POOL, 0).shape == (0,)
    assert method(np.zeros((0, 4)), 5, labelled=LABELLED).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("labelled", [None, np.zeros((2, 3))])
def test_methods_survive_features_that_say_nothing(method: Method, labelled: FloatArray | None) -> None:
    assert sorted(method(np.zeros((6, 3)), 6, labelled=labelled)) == list(range(6))
    none = None if labelled is None else labelled[:, :0]
    assert len(set(method(np.zeros((6, 0)), 4, labelled=none).tolist())) == 4


@pytest.mark.parametrize("method", [farthest_point, lcmd])
def test_copies_are_chosen_last(method: Method) -> None:
    pool = np.concatenate([POOL[:5], POOL[:5], LABELLED[:2]])
    found = [int(i) % 5 for i in method(pool, 5, labelled=LABELLED)]
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_max_det_takes_no_copies_while_directions_are_left() -> None:
    pool = np.concatenate([3.0 * np.eye(8), 3.0 * np.eye(8), -3.0 * np.eye(8)])
    found = [int(i) % 8 for i in max_det(pool, 8)]
    assert sorted(found) == list(range(8))


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_of_all_features_changes_nothing(method: Method) -> None:
    shifted = method(POOL + 1e3, 10, labelled=LABELLED + 1e3)
    assert shifted.tolist() == method(POOL, 10, labelled=LABELLED).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_every_cluster_is_visited(method: Method) -> None:
    centres = 10.0 * np.eye(6)
    pool = np.concatenate([c + RNG.normal(0, 0.1, (40, 6)) for c in centres])
    found = method(pool, 5, labelled=centres[:1])
    assert {int(i) // 40 for i in found} == {1, 2, 3, 4, 5}


def test_lcmd_minds_an_outlier_less_than_a_crowd() -> None:
    crowd = np.array([5.0, 0.0]) + RNG.normal(0, 0.5, (100, 2))
    pool = np.concatenate([crowd, [[0.0, 12.0]]])
    labelled = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert farthest_point(pool, 1, labelled=labelled).tolist() == [100]
    assert lcmd(pool, 1, labelled=labelled)[0] < 100


def test_strata_share_a_batch_whatever_their_size() -> None:
    strata = ["common"] * 190 + ["hot"] * 6 + ["ether"] * 4
    found = [strata[i] for i in stratified_random(strata, 15, seed=3)]
    assert [found.count(name) for name in ("hot", "ether")] in ([5, 4], [6, 4])
    few = [strata[i] for i in stratified_random(strata, 8, labelled=["common"] * 50 + ["gone"], seed=3)]
    assert few.count("common") == 0
    assert few.count("hot") == few.count("ether") == 4


def test_strata_are_random_within_and_fixed_by_the_seed() -> None:
    strata = ["a"] * 500
    first = stratified_random(strata, 50, seed=1).tolist()
    assert stratified_random(strata, 50, seed=1).tolist() == first
    assert stratified_random(strata, 50, seed=2).tolist() != first
    taken = np.concatenate([stratified_random(strata, 50, seed=s) for s in range(200)])
    counts = np.bincount(taken, minlength=500)
    # binomial with mean 20 and standard deviation 4.2
    assert counts.min() > 2
    assert counts.max() < 42
    assert sorted(stratified_random(["a", "b", "a"], 9)) == [0, 1, 2]


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.2])
def test_near_duplicates_are_removed_and_nothing_else(threshold: float) -> None:
    pool = RNG.uniform(size=(700, 3)) * 4.0
    labelled = RNG.uniform(size=(600, 3)) * 4.0 if threshold < 1.0 else RNG.uniform(size=(5, 3)) * 4.0
    score = RNG.uniform(size=700)
    kept = without_near_duplicates(pool, threshold, labelled=labelled, score=score)
    expected: list[int] = []
    for i in np.argsort(-score):
        others = np.concatenate([labelled, pool[expected]])
        if distances(pool[i : i + 1], others).min() > threshold:
            expected.append(int(i))
    assert kept.tolist() == sorted(expected)


def test_of_copies_the_one_with_the_highest_score_is_kept() -> None:
    pool = np.array([[0.0], [0.0], [5.0], [5.0 + 1e-12], [9.0]]) + 1e4
    assert without_near_duplicates(pool, 0.0).tolist() == [0, 2, 4]
    score = np.array([0.1, 0.2, np.nan, 7.0, 0.0])
    assert without_near_duplicates(pool, 0.0, score=score).tolist() == [1, 2, 4]
    assert without_near_duplicates(pool, 0.0, labelled=pool[:1]).tolist() == [2, 4]
    assert without_near_duplicates(np.zeros((0, 1)), 1.0).tolist() == []


def test_unknown_uncertainty_ranks_first_and_ties_keep_their_order() -> None:
    assert by_score([1.0, np.nan, 3.0, np.inf, 3.0, np.nan], 6).tolist() == [1, 5, 3, 2, 4, 0]
    assert by_score([1.0, 2.0], 9).tolist() == [1, 0]
    assert by_score([], 3).tolist() == []


@pytest.mark.parametrize("diversity", DIVERSITIES)
def test_mixed_alternates_the_most_uncertain_with_diverse_frames(diversity: Diversity) -> None:
    uncertainty = RNG.uniform(size=60)
    strata = ["even" if i % 2 else "odd" for i in range(60)]
    found = mixed(
        POOL, uncertainty, 11, diversity=diversity, labelled=LABELLED, strata=strata, labelled_strata=["odd"], seed=4
    )
    assert len(set(found.tolist())) == 11
    assert found[0::2].tolist() == by_score(uncertainty, 6).tolist()
    again = mixed(
        POOL, uncertainty, 11, diversity=diversity, labelled=LABELLED, strata=strata, labelled_strata=["odd"], seed=4
    )
    assert again.tolist() == found.tolist()


@pytest.mark.parametrize("diversity", DIVERSITIES)
def test_mixed_labels_no_frame_twice(diversity: Diversity) -> None:
    pool = np.concatenate([POOL[:4], POOL[:4] + 1e-4, LABELLED[:3] + 1e-4])
    uncertainty = np.arange(11.0)
    uncertainty[1] = np.nan
    found = mixed(
        pool, uncertainty, 9, diversity=diversity, labelled=LABELLED, strata=["one"] * 11, threshold=1e-2, seed=0
    )
    assert found[0] == 1
    assert sorted(found) == [1, 4, 6, 7]


def test_the_diverse_half_keeps_away_from_the_uncertain_half() -> None:
    pool = np.concatenate([RNG.normal(0, 0.1, (20, 2)), np.array([8.0, 0.0]) + RNG.normal(0, 0.1, (20, 2))])
    uncertainty = np.concatenate([np.zeros(20), np.full(20, 5.0)])
    for diversity in ("farthest-point", "lcmd"):
        found = mixed(pool, uncertainty, 2, diversity=diversity, labelled=np.array([[8.0, 5.0]]))
        assert found[0] >= 20
        assert found[1] < 20


def test_cheap_labels_come_first_where_gains_are_equal() -> None:
    assert by_score(gain_per_second([0.4, 0.4, 0.3, np.nan], [10.0, 1.0, 0.5, 100.0]), 4).tolist() == [3, 2, 1, 0]
    found = mixed(
        POOL[:4], [0.4, 0.4, 0.3, 0.2], 2, diversity="random", seconds=[10.0, 1.0, 0.5, 3.0], labelled=LABELLED
    )
    assert found[0] == 2
    with pytest.raises(InputError, match="positive"):
        gain_per_second([1.0], [0.0])


def test_standardised_features_have_unit_spread_and_constant_columns_vanish() -> None:
    raw = np.column_stack([RNG.normal(3.0, 2.0, 500), np.full(500, 0.1), RNG.normal(0.0, 1e-9, 500)])
    pool, other = standardised(raw, raw[:2])
    assert pool.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    assert pool.std(axis=0)[:2] == pytest.approx([1.0, 0.0])
    assert np.array_equal(other, pool[:2])
    assert standardised(np.zeros((0, 2)), raw[:, :2])[1].shape == (500, 2)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_fit_is_refused(method: Method) -> None:
    with pytest.raises(InputError, match="finite"):
        method([[0.0, np.nan]], 1)
    with pytest.raises(InputError, match=r"\(m, 2\)"):
        method([[0.0, 1.0]], 1, labelled=[[1.0]])
    with pytest.raises(InputError, match="at least 0"):
        method([[0.0, 1.0]], -1)


def test_mixed_refuses_what_it_cannot_use() -> None:
    with pytest.raises(InputError, match="one number for each"):
        mixed(POOL, [1.0], 2, diversity="lcmd")
    with pytest.raises(InputError, match="one stratum for each"):
        mixed(POOL, np.zeros(60), 2, diversity="stratified")
    with pytest.raises(InputError, match="threshold"):
        mixed(POOL, np.zeros(60), 2, diversity="lcmd", threshold=-1.0)
    with pytest.raises(InputError, match="noise"):
        max_det(POOL, 2, noise=0.0)
