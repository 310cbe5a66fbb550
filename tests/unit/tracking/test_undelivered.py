"""What is said of models that the registry has not got yet."""

from __future__ import annotations

from alsys.tracking.undelivered import Undelivered


def test_a_running_campaign_delivers_by_itself() -> None:
    """The remedy of a stopped one, the same command, would be refused beside a driver."""
    for waits in (Undelivered((1,), 2, None, {}), Undelivered((), 1, None, {})):
        (running,), (stopped,) = waits.lines(is_running=True), waits.lines()
        assert "alsys run" not in running
        assert "alsys run" in stopped
