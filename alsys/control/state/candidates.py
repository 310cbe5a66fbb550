"""The candidate set: frames that wait for a label, in order of what they would teach.

Free atoms and initial frames go first, in the order they came. Uncertain frames are a priority set: the largest
deviation is labelled first, and the smallest one of the most crowded stratum is evicted first, so that rare kinds of
frames stay. The random arm is a queue of its own whose order never depends on a deviation, or it would stop being an
unbiased sample.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator

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
        self._stratum_of: dict[str, str] = {}
        self._strata: dict[str, SortedList[tuple[float, int, str]]] = {}
        self._by_age: dict[str, dict[str, None]] = {}
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

    def strata(self) -> dict[str, Iterator[str]]:
        """Pending frames of the uncertain arm by stratum, oldest first."""
        return {stratum: iter(frame_ids) for stratum, frame_ids in self._by_age.items()}

    def add(self, frame_id: str, arm: Arm, deviation: float, stratum: str = "") -> None:
        """Adds a frame behind those of its arm, or gives an uncertain one a new deviation. NaN ranks as infinite."""
        self.discard(frame_id)
        self._serial += 1
        self._arm_of[frame_id] = arm
        if arm is Arm.UNCERTAIN:
            rank = (_rank(deviation), self._serial, frame_id)
            self._rank_of[frame_id] = rank
            self._ranked.add(rank)
            self._stratum_of[frame_id] = stratum
            self._strata.setdefault(stratum, SortedList()).add(rank)
            self._by_age.setdefault(stratum, {})[frame_id] = None
        else:
            self._queues[arm][frame_id] = None

    def rerank(self, deviation_of: Callable[[str], float]) -> None:
        """Gives all frames of the uncertain arm new deviations; among equals the order stays."""
        self._rank_of = {
            frame_id: (_rank(deviation_of(frame_id)), serial, frame_id)
            for frame_id, (_, serial, _) in self._rank_of.items()
        }
        strata: dict[str, list[tuple[float, int, str]]] = {stratum: [] for stratum in self._strata}
        for frame_id, rank in self._rank_of.items():
            strata[self._stratum_of[frame_id]].append(rank)
        self._ranked = SortedList(self._rank_of.values())
        self._strata = {stratum: SortedList(ranks) for stratum, ranks in strata.items()}

    def discard(self, frame_id: str) -> None:
        """Removes a frame if it is there."""
        arm = self._arm_of.pop(frame_id, None)
        if arm is Arm.UNCERTAIN:
            rank, stratum = self._rank_of.pop(frame_id), self._stratum_of.pop(frame_id)
            self._ranked.remove(rank)
            self._strata[stratum].remove(rank)
            del self._by_age[stratum][frame_id]
            if not self._strata[stratum]:
                del self._strata[stratum], self._by_age[stratum]
        elif arm is not None:
            del self._queues[arm][frame_id]

    def least(self, n: int) -> list[str]:
        """The `n` least uncertain frames, one after another of the stratum that is then the most crowded."""
        left = {stratum: len(ranks) for stratum, ranks in self._strata.items()}
        chosen: list[str] = []
        for _ in range(min(n, len(self._ranked))):
            stratum = max(left, key=left.__getitem__)
            left[stratum] -= 1
            chosen.append(self._strata[stratum][left[stratum]][2])
        return chosen


def _rank(deviation: float) -> float:
    return -math.inf if math.isnan(deviation) else -deviation
