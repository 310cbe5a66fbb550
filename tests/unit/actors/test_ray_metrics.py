"""What of a campaign's durations goes to Ray; with Ray itself: tests/services/test_prometheus.py."""

from __future__ import annotations

from collections import Counter

from alsys.actors.ray_metrics import MOST_OBSERVED, RayMetrics
from alsys.control.state.records import Durations

SERIES = ("alsys_label_duration_seconds", ())


def durations(*counts: int) -> Durations:
    return Durations((1.0, 10.0), list(counts))


def test_durations_are_told_once_and_those_of_earlier_drivers_never() -> None:
    metrics = RayMetrics("toy")
    assert metrics._new(SERIES, durations(500, 20, 1)) == []
    assert metrics._new(SERIES, durations(501, 22, 2)) == [0.5, 5.5, 5.5, 15.0]
    assert metrics._new(SERIES, durations(501, 22, 2)) == []


def test_of_many_durations_a_sample_with_the_same_shares_is_told() -> None:
    metrics = RayMetrics("toy")
    metrics._new(SERIES, durations(0, 0, 0))
    told = Counter(metrics._new(SERIES, durations(30_000, 60_000, 10_000)))
    assert MOST_OBSERVED <= told.total() <= MOST_OBSERVED + 3
    assert told[5.5] == 2 * told[0.5] == 6 * told[15.0]
