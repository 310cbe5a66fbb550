"""A campaign in virtual time is a campaign: it ends, whatever comes and goes, and nothing is counted twice."""

from __future__ import annotations

import pytest
import scale


def test_labelers_come_and_go_and_the_campaign_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "PREEMPTED", 0.5)
    found = scale.run(8, 96, None)
    assert found["labels"] == 96
    assert found["wrong"] == 0
    assert isinstance(found["preempted"], int)
    assert found["preempted"] > 0
    assert isinstance(found["utilisation"], float)
    assert 0.5 < found["utilisation"] <= 1.0


def test_time_goes_by_what_the_driver_computes_and_not_by_what_workers_do() -> None:
    clock = scale.VirtualClock()
    sum(range(1_000_000))
    spent = clock()
    assert spent > 0.0
    sum(range(1_000_000))
    assert clock.leave_out() > 0.0
    before = clock.now
    clock.jump(before + 60.0)
    assert clock() >= before + 60.0
    assert clock.driver_s < before + 60.0
