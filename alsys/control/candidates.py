"""The candidate set: frames that wait for a label, in order of what they would teach.

Free atoms and initial frames go first, in the order they came. Uncertain frames are a priority set: the largest
deviation is labelled first, the smallest is evicted first. The random arm is a queue of its own whose order never
depends on a deviation, or it would stop being an unbiased sample.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator

from sortedcontainers import SortedList

from alsys.frames import Arm


class CandidateSet:
    """Pending frames by arm; every change is O(log n)."""

    def __init__(self) -> None:
        self._queues: dict[Arm, OrderedDict[str, None]] = {
            arm: OrderedDict() for arm in Arm if arm is not Arm.UNCERTAIN
        }
        self._ranked: SortedList[tuple[float, int, str]] = SortedList()
        self._rank_of: dict[str, tuple[float, int, str]] = {}
        self._arm_of: dict[str, Arm] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._arm_of)

    def __contains__(self, frame_id: str) -> bool:
        return frame_id in self._arm_of

    def count(self, *arms: Arm) -> int:
        """Pending frames of these arms."""
        return sum(len(self._rank_of if arm is Arm.UNCERTAIN else self._queues[arm]) for arm in arms)

    def queued(self, arm: Arm) -> Iterator[str]:
        """Pending frames of a first-come arm, in order."""
        return iter(self._queues[arm])

    def ranked(self) -> Iterator[str]:
        """Pending frames of the uncertain arm, largest deviation first, older first among equals."""
        return (frame_id for _, _, frame_id in self._ranked)

    def add(self, frame_id: str, arm: Arm, deviation: float) -> None:
        """Adds a frame behind those of its arm, or gives an uncertain one a new deviation. NaN ranks as infinite."""
        self.discard(frame_id)
        self._serial += 1
        self._arm_of[frame_id] = arm
        if arm is Arm.UNCERTAIN:
            rank = (-math.inf if math.isnan(deviation) else -deviation, self._serial, frame_id)
            self._rank_of[frame_id] = rank
            self._ranked.add(rank)
        else:
            self._queues[arm][frame_id] = None

    def discard(self, frame_id: str) -> None:
        """Removes a frame if it is there."""
        arm = self._arm_of.pop(frame_id, None)
        if arm is Arm.UNCERTAIN:
            self._ranked.remove(self._rank_of.pop(frame_id))
        elif arm is not None:
            del self._queues[arm][frame_id]

    def least(self, n: int) -> list[str]:
        """The `n` least uncertain frames, least first."""
        return [frame_id for _, _, frame_id in self._ranked[max(0, len(self._ranked) - n) :]][::-1]
