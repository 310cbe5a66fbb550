"""What is printed while a campaign runs without a terminal."""

from __future__ import annotations

import pytest

from alsys.cli.display import FIRST_EVERY_S, Display, _eta
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.events import TrainingStarted
from support.campaigns import FakeCampaign


def test_a_first_fit_is_told_of_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    display = Display("a", is_quiet=False, clock=lambda: now[0])
    ledger = Ledger(FakeCampaign(n_labels=12).settings)

    def lines(after_s: float) -> list[str]:
        now[0] += after_s
        display.update(status_of(ledger, state="running", head_seq=1))
        return capsys.readouterr().out.splitlines()

    assert len(lines(0.0)) == 1
    assert lines(FIRST_EVERY_S - 1.0) == []
    (line,) = lines(1.0)
    assert line.endswith("running: 0/12 labels, no model yet")
    ledger.apply(TrainingStarted(t=now[0], worker="trainer-0", version=1, n_labels=9, budget_s=77.0))
    assert lines(FIRST_EVERY_S - 1.0) == []
    (line,) = lines(1.0)
    assert line.endswith("no model yet; fitting v0001 from 9 labels, for 30 s (budget: 77 CPU s, and tests)")
    assert lines(1.0) == []


def test_the_last_fit_is_told_of_as_soon_as_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    display = Display("a", is_quiet=False, clock=lambda: now[0])
    ledger = Ledger(FakeCampaign(n_labels=12).settings)
    status = status_of(ledger, state="running", head_seq=1)
    training_on, fit = status["training_on"], {"version": 3, "n_labels": 12, "begun": 1000.0, "budget_s": 60.0}
    assert isinstance(training_on, dict)
    display.update(status)
    capsys.readouterr()
    display.update({**status, "fit": fit})
    assert capsys.readouterr().out == "", "labels go on: no last fit"
    last = {**status, "fit": fit, "champion": 2, "training_on": {**training_on, "is_last": True}}
    display.update(last)
    (line,) = capsys.readouterr().out.splitlines()
    assert "; last fit: fitting v0003 from 12 labels, for 0 s (budget: 60 CPU s, and tests)" in line
    display.update(last)
    assert capsys.readouterr().out == ""
    now[0] += FIRST_EVERY_S
    display.update(last)
    assert "last fit: fitting v0003 from 12 labels, for 30 s" in capsys.readouterr().out


def test_no_more_time_is_left_than_the_campaign_may_take() -> None:
    status = {"state": "running", "labels": {"accepted": 10, "target": 40}, "wall_s": 100.0}
    assert _eta(status) == "100 s, about 300 s left"
    assert _eta({**status, "wall_limit_s": 120.0}) == "100 s, about 20 s left"
    assert _eta({**status, "wall_limit_s": None}) == "100 s, about 300 s left"
