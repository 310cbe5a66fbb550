"""What committees expect of frames is kept as long as these wait, and no longer."""

from __future__ import annotations

from alsys.control.handlers.frame_memory import FrameMemory
from alsys.frames import Arm
from alsys.labels import Label, Prediction
from alsys.store.memory import MemoryDisk, open_writer
from alsys.testing.fakes import FAKE_LEVEL, fake_candidates


def test_predictions_stay_however_many_frames_wait_and_go_with_the_last_of_them() -> None:
    memory = FrameMemory(open_writer(MemoryDisk()))
    candidates = {c.frame.frame_id: c for c in fake_candidates(9000, arm=Arm.UNCERTAIN)}
    frame = next(iter(candidates.values())).frame
    prediction = Prediction(0.0, -frame.positions, frame.positions[:, 0], 1)
    memory.expect(dict.fromkeys(candidates, prediction))
    assert memory.expected(frame.frame_id) is None, "a frame that nobody knows"
    memory.add(candidates)
    memory.expect(dict.fromkeys(candidates, prediction))
    assert all(memory.expected(frame_id) is prediction for frame_id in candidates)
    first, *others = candidates
    memory.keep(Label(first, FAKE_LEVEL.level_id, 0.0, -candidates[first].frame.positions))
    for frame_id in others:
        memory.drop(frame_id)
    assert not any(memory.expected(frame_id) for frame_id in candidates)
