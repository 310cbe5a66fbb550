"""Output that nobody reads: commands end quietly, a campaign goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alsys import open_dataset

TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
ALSYS = f"{sys.executable} -m alsys.cli"


def run_with_reader_gone(*words: str) -> subprocess.CompletedProcess[str]:
    """A command whose standard output is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "alsys.cli", *words]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300, env=buffered)
    finally:
        os.close(writer)


def run_in_shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)


def campaign(folder: Path) -> list[str]:
    changes = ["runtime.kind=in-process", "tracking.enabled=false", "labeling.delay_s=0", "stop.labels=20"]
    overrides = [part for change in [*changes, f"directory={folder / 'campaign'}"] for part in ("--set", change)]
    return [str(TOY), *overrides]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["config", "schema"], 141),
        (["config", "schema", "--json"], 141),
        (["run", str(TOY), "--no"], 2),
    ],
)
def test_a_reader_that_left(words: list[str], code: int) -> None:
    result = run_with_reader_gone(*words)
    assert result.returncode == code
    assert (result.stderr == "") == (code != 2), "a usage error is said all the same"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["--help", "config schema", "--version"])
def test_closed_streams(words: str, closed: str) -> None:
    result = run_in_shell(f"{ALSYS} {words} {closed}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_full_disk_is_still_said() -> None:
    result = run_in_shell(f"{ALSYS} config schema > /dev/full")
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "No space left on device" in result.stderr


def test_a_campaign_goes_on_without_a_reader(tmp_path: Path) -> None:
    result = run_with_reader_gone("run", *campaign(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert len(open_dataset(tmp_path / "campaign")) >= 20
    result = run_with_reader_gone("status", str(tmp_path / "campaign"))
    assert (result.returncode, result.stderr) == (141, "")
    result = run_with_reader_gone("data", "verify", str(tmp_path / "campaign"))
    assert (result.returncode, result.stderr) == (0, ""), "the work was done; only its line found no reader"


def test_a_campaign_goes_on_without_streams(tmp_path: Path) -> None:
    result = run_in_shell(f"{ALSYS} run {' '.join(campaign(tmp_path))} <&- >&- 2>&-")
    assert result.returncode == 0
    assert len(open_dataset(tmp_path / "campaign")) >= 20
    assert run_in_shell(f"{ALSYS} data verify {tmp_path / 'campaign'}").returncode == 0
