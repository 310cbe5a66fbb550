"""A command that begins anew does so a few times in a row, and not for ever."""

from __future__ import annotations

import os
import sys

import pytest

from alsys.cli import processes


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that would have replaced this process."""
    started: list[list[str]] = []
    monkeypatch.delenv(processes.AGAIN, raising=False)
    monkeypatch.setattr(processes.time, "monotonic", lambda: processes._begun + 1.0)
    monkeypatch.setattr(processes.os, "execv", lambda _, command: started.append(command))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "alsys.cli", "run", "c.yaml"])
    return started


def test_the_same_command_begins_anew_a_few_times(begun: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.AGAIN, "0")  # so that it is restored, whatever the code under test sets
    while processes.may_begin_again():
        processes.begin_again("Ray hangs")
    assert begun == [[sys.executable, "-m", "alsys.cli", "run", "c.yaml"]] * processes.MAX_AGAIN


def test_a_process_that_lasted_was_no_failed_beginning(begun: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.AGAIN, str(processes.MAX_AGAIN))
    assert not processes.may_begin_again()
    monkeypatch.setattr(processes.time, "monotonic", lambda: processes._begun + processes.LASTING_S + 1.0)
    assert processes.may_begin_again()
    processes.begin_again("Ray hangs")
    assert os.environ[processes.AGAIN] == "1"
