"""Selection within a chunk: uncertain and diverse frames in turn, near-duplicates once, systems kept apart."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.schema import SelectionConfig
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.selection.chunks import ChunkSelection
from support.committees import HarmonicCommittee


def frame_of(name: str, scale: float = 1.0, shift: float = 0.0) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, scale * atoms.positions + shift)


def candidate(frame: Frame, deviation: float, stratum: str = "") -> Candidate:
    return Candidate(frame, Source("s", Arm.UNCERTAIN, "plain", deviation=deviation, stratum=stratum))


def stretched(n: int, name: str = "CH3CH2OH") -> list[Frame]:
    return [frame_of(name, 1.0 + 0.02 * k) for k in range(n)]


@pytest.mark.parametrize("diversity", ["lcmd", "farthest-point", "max-det", "random", "stratified"])
def test_uncertain_and_diverse_frames_come_in_turn(diversity: str) -> None:
    frames = stretched(20)
    candidates = [candidate(frame, 0.1 + 0.01 * k, f"{k % 2}") for k, frame in enumerate(frames)]
    selection = ChunkSelection(SelectionConfig(diversity=diversity), 0)  # type: ignore[arg-type]
    chosen = selection.select(candidates, 6, HarmonicCommittee())
    assert [c.source.deviation for c in chosen[0::2]] == pytest.approx([0.29, 0.28, 0.27])
    assert len({c.frame.frame_id for c in chosen}) == 6
    if diversity in ("lcmd", "farthest-point"):
        assert min(c.source.deviation for c in chosen[1::2]) == pytest.approx(0.1), "the frame that is farthest away"


def test_labelled_frames_repel_the_diverse_half() -> None:
    frames = stretched(20)
    candidates = [candidate(frame, 0.1 + 0.01 * k) for k, frame in enumerate(frames)]
    selection = ChunkSelection(SelectionConfig(diversity="farthest-point"), 0)
    selection.labelled = frames[:9]
    chosen = selection.select(candidates, 2, HarmonicCommittee())
    assert chosen[1].frame.frame_id not in {frame.frame_id for frame in frames[:9]}


def test_near_duplicates_are_proposed_once() -> None:
    frames = [*stretched(4), frame_of("CH3CH2OH", 1.0 + 1e-5)]
    candidates = [candidate(frame, 0.1 + 0.01 * k) for k, frame in enumerate(frames)]
    chosen = ChunkSelection(SelectionConfig(), 0).select(candidates, 5, HarmonicCommittee())
    assert len(chosen) == 4
    assert candidates[4] in chosen, "of the two the more uncertain one"
    assert candidates[0] not in chosen


def test_frames_of_a_system_are_compared_with_each_other_only() -> None:
    """Two systems differ by far more than the frames of one; none of these is a duplicate."""
    frames = [*stretched(6), *stretched(6, "H2O")]
    candidates = [candidate(frame, 0.2) for frame in frames]
    assert len(ChunkSelection(SelectionConfig(), 0).select(candidates, 12, HarmonicCommittee())) == 12


def test_without_diversity_the_most_uncertain_are_taken() -> None:
    candidates = [candidate(frame, 0.1 + 0.01 * k) for k, frame in enumerate(stretched(10))]
    chosen = ChunkSelection(SelectionConfig(diversity="none"), 0).select(candidates, 3, HarmonicCommittee())
    assert [c.source.deviation for c in chosen] == pytest.approx([0.19, 0.18, 0.17])


def test_a_single_candidate_needs_no_features() -> None:
    class Blind(HarmonicCommittee):
        def evaluate(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
            raise AssertionError("not asked")

    only = candidate(frame_of("H2O"), np.nan)
    assert ChunkSelection(SelectionConfig(), 0).select([only], 3, Blind()) == [only]
