"""Kept SCFs are bounded in memory and on disk, found by other processes, and never trusted blindly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from alsys.frames import Frame
from alsys.labeling.solutions import Solution, SolutionStore, state_key

WATER = np.array([[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
LEVEL = "ab" * 16


def solution(k: float, nao: int = 4) -> Solution:
    frame = Frame.molecule([8, 1, 1], WATER * (1 + 0.01 * k))
    return Solution(frame.frame_id, np.array(frame.positions), np.full((1, nao, nao), k, dtype=np.float32))


def ids(solutions: list[Solution]) -> list[str]:
    return [s.frame_id for s in solutions]


def test_states_differ_by_all_that_decides_the_solution() -> None:
    water = Frame.molecule([8, 1, 1], WATER)
    keys = {
        state_key(LEVEL, water, 1),
        state_key(LEVEL, water, 2),
        state_key("cd" * 16, water, 1),
        state_key(LEVEL, Frame.molecule([8, 1, 1], WATER, charge=1), 1),
        state_key(LEVEL, Frame.molecule([8, 1, 1], WATER, multiplicity=3), 1),
        state_key(LEVEL, Frame.molecule([1, 8, 1], WATER), 1),
    }
    assert len(keys) == 6
    assert state_key(LEVEL, water.with_positions(WATER + 1), 1) in keys


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    first, second = SolutionStore(tmp_path / "new"), SolutionStore(tmp_path / "new")
    assert second.of("k") == []
    first.add("k", solution(1))
    first.add("other", solution(2))
    (found,) = second.of("k")
    assert found.frame_id == solution(1).frame_id
    np.testing.assert_array_equal(found.positions, solution(1).positions)
    np.testing.assert_array_equal(found.fock, solution(1).fock)
    assert len(second.of("k")) == 1
    assert len(first.of("k")) == 1


def test_the_older_of_two_similar_ones_goes_when_memory_is_full() -> None:
    store = SolutionStore(max_solutions=3)
    for k in (0, 5, 5.1, 10):
        store.add("k", solution(k))
    assert ids(store.of("k")) == ids([solution(k) for k in (0, 5.1, 10)])


def test_the_folder_is_bounded_in_files_and_bytes(tmp_path: Path) -> None:
    store = SolutionStore(tmp_path, max_files=3)
    for k in range(6):
        store.add("k", solution(k))
        os.utime(tmp_path / f"k-{solution(k).frame_id}.npz", (k, k))
    store.add("k", solution(9))
    kept = {p.name for p in tmp_path.iterdir()}
    assert kept == {f"k-{solution(k).frame_id}.npz" for k in (4, 5, 9)}
    size = (tmp_path / f"k-{solution(9).frame_id}.npz").stat().st_size
    SolutionStore(tmp_path, max_bytes=2 * size).add("k", solution(10))
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 2 * size


def test_broken_and_foreign_files_are_ignored(tmp_path: Path) -> None:
    SolutionStore(tmp_path).add("k", solution(1))
    whole = next(tmp_path.iterdir()).read_bytes()
    (tmp_path / "k-cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "k-empty.npz").write_bytes(b"")
    (tmp_path / "k-noise.npz").write_bytes(bytes(range(256)))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (tmp_path / "k-flipped.npz").write_bytes(bytes(flipped))
    np.savez(tmp_path / "k-objects.npz", positions=np.array([{}], dtype=object), fock=np.zeros((1, 2, 2)))
    np.savez(tmp_path / "k-nan.npz", positions=np.full((3, 3), np.nan), fock=np.zeros((1, 4, 4), dtype=np.float32))
    np.savez(tmp_path / "k-shape.npz", positions=np.zeros((3, 3)), fock=np.zeros((4, 3), dtype=np.float32))
    assert ids(SolutionStore(tmp_path).of("k")) == ids([solution(1)])


def test_one_of_another_size_is_not_mixed_in(tmp_path: Path) -> None:
    store = SolutionStore(tmp_path)
    store.add("k", solution(1))
    SolutionStore(tmp_path).add("k", solution(2, nao=5))
    assert ids(store.of("k")) == ids([solution(1)])


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = SolutionStore(tmp_path / "file")
    store.add("k", solution(1))
    store.add("k", solution(2))
    assert len(store.of("k")) == 2
