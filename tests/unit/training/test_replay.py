"""Batches hold what they promise: each frame once a pass, new ones more often, small strata not drowned."""

from __future__ import annotations

import numpy as np
import pytest

from alsys.training.bootstrap import is_drawn
from alsys.training.replay import MOST_REPEATED, Replay, Shuffle


def test_a_shuffle_shows_each_frame_once_a_pass() -> None:
    draw = Shuffle(np.array([3, 5, 8, 9, 11, 12, 20]), 3, np.random.default_rng(0))
    for n in range(1, 4):
        rows = np.concatenate([draw.next() for _ in range(3)])
        assert sorted(rows.tolist()) == [3, 5, 8, 9, 11, 12, 20]
        assert (draw.passes, draw.epochs) == (n, n)


def drawn(draw: Replay, n_batches: int, n_rows: int) -> np.ndarray:
    counts = np.zeros(n_rows)
    for _ in range(n_batches):
        counts[draw.next()] += 1
    return counts / counts.sum()


def test_new_frames_get_their_share() -> None:
    new, old = np.arange(100, 150), np.arange(100)
    draw = Replay(new, old, np.zeros(150, dtype=np.int64), 0.5, 10, np.random.default_rng(0))
    shares = drawn(draw, 3000, 150)
    assert shares[100:].sum() == pytest.approx(0.5, abs=0.03)
    assert shares[:100].max() < 3 * shares[:100].mean()


def test_a_single_new_frame_is_not_hammered() -> None:
    new, old = np.array([99]), np.arange(99)
    draw = Replay(new, old, np.zeros(100, dtype=np.int64), 0.5, 10, np.random.default_rng(0))
    assert draw.new_share == pytest.approx(0.01 * MOST_REPEATED)


def test_many_new_frames_are_no_fewer_than_by_chance() -> None:
    draw = Replay(np.arange(90), np.arange(90, 100), np.zeros(100, dtype=np.int64), 0.5, 10, np.random.default_rng(0))
    assert draw.new_share == pytest.approx(0.9)


def test_a_small_system_is_replayed_more_than_by_chance() -> None:
    strata = np.array([0] * 90 + [1] * 10 + [0])
    draw = Replay(np.array([100]), np.arange(100), strata, 0.0, 4, np.random.default_rng(0))
    shares = drawn(draw, 20_000, 101)[:100]
    expected = np.sqrt(10) / (np.sqrt(10) + np.sqrt(90))
    assert shares[90:].sum() / shares.sum() == pytest.approx(expected, abs=0.02)


def test_a_frame_never_changes_bags() -> None:
    frames = [f"{i:032x}" for i in range(2000)]
    first, second = (is_drawn(frames, member, 0.8) for member in (0, 1))
    assert first.mean() == pytest.approx(0.8, abs=0.03)
    assert (first & second).mean() == pytest.approx(0.64, abs=0.03), "members draw independently"
    np.testing.assert_array_equal(is_drawn(frames[500:600], 0, 0.8), first[500:600])
    assert is_drawn(frames, 3, 1.0).all()
    assert is_drawn(frames[:1], 0, 1e-9).all(), "nobody goes without frames"
