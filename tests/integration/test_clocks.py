"""What is read from files of a running driver does not depend on a clock that may be set."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from alsys.campaign.folder import LIVE_S, _live, moment
from alsys.campaign.requests import STALE_S, RequestFolder
from alsys.cli.processes import diverted_output
from alsys.control.rules.requests import Answer, RollBack


def written(path: Path, written: object, age_of_file_s: float = 0.0) -> dict[str, object] | None:
    path.write_text(json.dumps({"state": "running", "written": written}))
    then = time.time() - age_of_file_s
    os.utime(path, (then, then))
    return _live(path)


@pytest.mark.parametrize("age_of_file_s", [-7200.0, 0.0, 7200.0])
def test_a_live_status_is_as_old_as_the_monotonic_clock_says(tmp_path: Path, age_of_file_s: float) -> None:
    path = tmp_path / "live.json"
    assert written(path, moment(), age_of_file_s) == {"state": "running"}
    old = {**moment(), "monotonic": time.monotonic() - LIVE_S - 1.0}
    assert written(path, old, age_of_file_s) is None
    before_this_boot = {**moment(), "monotonic": time.monotonic() + 1e6}
    assert written(path, before_this_boot, age_of_file_s) is None


def test_that_of_a_driver_on_another_machine_is_taken(tmp_path: Path) -> None:
    assert written(tmp_path / "live.json", {"boot": "another", "monotonic": 5.0}) == {"state": "running"}


@pytest.mark.parametrize("stamp", [None, 3.0, {}, {"boot": "x"}, {"monotonic": "soon"}])
def test_one_without_a_moment_is_not(tmp_path: Path, stamp: object) -> None:
    assert written(tmp_path / "live.json", stamp) is None


def test_an_answer_is_kept_for_who_waits_for_it_whatever_its_date(tmp_path: Path) -> None:
    now = 0.0
    folder = RequestFolder(tmp_path, lambda: now)
    tmp_path.mkdir(exist_ok=True)
    first, second = folder.add(RollBack(1)), folder.add(RollBack(2))
    folder.answer(first, Answer(True, "done"))
    for path in tmp_path.glob("*.answer.json"):
        os.utime(path, (0.0, 0.0))
    folder.answer(second, Answer(True, "done"))
    assert folder.take_answer(first) is not None, "its date says nothing"
    now = STALE_S + 1.0
    folder.answer(folder.add(RollBack(3)), Answer(True, "done"))
    assert folder.take_answer(second) is None, "nobody has fetched it for an hour"


def test_what_others_print_goes_to_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    display = sys.stdout
    path = tmp_path / "stderr.log"
    with diverted_output(path):
        os.write(2, b"from C++\n")
        sys.stderr.write("from a thread\n")
        sys.stdout.write("raylet\n")
        display.write("ours\n")
    sys.stderr.write("afterwards\n")
    out, err = capfd.readouterr()
    assert (out, err) == ("ours\n", "afterwards\n")
    assert sorted(path.read_text().split("\n")) == ["", "from C++", "from a thread", "raylet"]
