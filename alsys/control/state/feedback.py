"""Feedback: what the champion's errors on labelled frames teach.

A labelled frame waits until an explorer has compared the champion's forces with its label. The errors calibrate the
champion's uncertainties, and an error counts, once, as a reward for the exploration method that found the frame. A new
champion starts with the random arm's latest frames and those that its fit did not see. Part of the ledger: events
change it, nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alsys.control.settings import PolicySettings
from alsys.control.state.records import FrameRecord, Status
from alsys.events import ErrorsObserved, ExplorationReported
from alsys.exploration import bandit
from alsys.exploration.bandit import Tally
from alsys.frames import Arm
from alsys.potentials.calibration import ForceCalibration

MAX_COMPARED = 200
"""Random-arm frames that each new champion is calibrated on: the latest ones."""
MAX_WAITING = 512
"""Labelled frames that wait to be compared; where labels are faster than explorers, the oldest are left out."""
REWARD_CAP = 3.0
"""Error, in units of the one that is tolerated, from which a label earns its method all there is to earn."""
REWARD_HALF_LIFE = 100.0
"""Labels after which what a method earned counts half."""


class Feedback:
    """What has been learned from comparing the champion with labels. Its containers are never replaced.

    Attributes:
        waiting: Labelled frames to be compared, the oldest first.
        calibration: Of the champion's uncertainties.
        coverage_version: Version that its coverage belongs to; 0 before there is any.
        tallies: What each exploration method has earned and spent.
    """

    def __init__(self, settings: PolicySettings) -> None:
        self.waiting: dict[str, None] = {}
        self.calibration = ForceCalibration(settings.probability)
        self.coverage_version = 0
        self.tallies = {method: Tally() for method in settings.methods}
        self._tolerated = settings.trust[0]
        self._rewarded: set[str] = set()

    def wait(self, frame_id: str) -> None:
        """A frame that was just labelled is to be compared."""
        self.waiting[frame_id] = None
        if len(self.waiting) > MAX_WAITING:
            del self.waiting[next(iter(self.waiting))]

    def take(self, frame_ids: Iterable[str]) -> None:
        """These frames need not wait any more."""
        for frame_id in frame_ids:
            self.waiting.pop(frame_id, None)

    def forget(self, frame_id: str) -> None:
        """A label was retracted: nothing is learned from it."""
        self.waiting.pop(frame_id, None)
        self.calibration.forget(frame_id)

    def renew(self, frame_ids: Iterable[str]) -> None:
        """There is a new champion, to be compared on these frames."""
        self.waiting.clear()
        self.waiting.update(dict.fromkeys(frame_ids))
        self.calibration.replace()

    def spend(self, event: ExplorationReported) -> None:
        """Methods have spent the time of a chunk, each by its steps."""
        asked = sum(event.method_steps.values())
        for method, steps in event.method_steps.items():
            if method in self.tallies:
                self.tallies.update(bandit.spend(self.tallies, method, event.wall_s * steps / asked))

    def observe(self, event: ErrorsObserved, frames: Mapping[str, FrameRecord]) -> None:
        """The champion was compared with labels."""
        worst = self.calibration.observe_frames(event.frame_ids, event.n_atoms, event.deviations, event.errors)
        if self.calibration.coverage.n_frames and not self.calibration.is_replaced:
            self.coverage_version = event.model_version
        for frame_id, error in zip(event.frame_ids, worst, strict=True):
            if frames[frame_id].status is Status.RETRACTED:  # while an explorer compared it
                self.calibration.forget(frame_id)
            else:
                self._reward(frame_id, frames[frame_id], error)

    def _reward(self, frame_id: str, record: FrameRecord, error: float) -> None:
        """A label that taught something counts for the method that found its frame, once."""
        if record.arm is Arm.UNCERTAIN and record.method in self.tallies and frame_id not in self._rewarded:
            self._rewarded.add(frame_id)
            amount = min(error / (REWARD_CAP * self._tolerated), 1.0) if self._tolerated > 0 else 1.0
            self.tallies.update(bandit.reward(self.tallies, record.method, amount, REWARD_HALF_LIFE))
