"""A campaign whose store is gone, a writer that was stopped, and a disk that is full before the first label."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alsys.campaign.checks import make_plan
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import CampaignConfig, parse_config
from alsys.errors import EnvironmentProblem, InputError
from alsys.store.zarr import open_writer


@pytest.fixture
def config(tmp_path: Path) -> CampaignConfig:
    return parse_config(
        {
            "name": "water",
            "directory": str(tmp_path / "campaign"),
            "systems": [{"name": "water", "molecule": "H2O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "tracking": {"enabled": False},
        }
    )


def test_a_campaign_whose_store_is_gone_is_not_begun_anew(
    config: CampaignConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """It once began among the old models, without a word."""
    directory = CampaignFolder.of(config)
    open_writer(directory.store).close()
    directory.write_record(config)
    make_plan(config, None)
    shutil.rmtree(directory.store)
    with pytest.raises(InputError, match=r"store.zarr is gone.*restore store.zarr, name another") as caught:
        make_plan(config, None)
    assert "\n" not in str(caught.value)
    assert not directory.store.exists()
    assert main(["status", str(directory.path)]) == 2
    assert "store.zarr is gone" in capsys.readouterr().err


@pytest.fixture
def writer_elsewhere(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = f"from alsys.store.zarr import open_writer; open_writer({str(tmp_path / 's')!r}); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    yield child
    child.kill()
    child.communicate()


def test_a_writer_that_was_stopped_is_named(tmp_path: Path, writer_elsewhere: subprocess.Popen[bytes]) -> None:
    pid = writer_elsewhere.pid
    with pytest.raises(InputError, match=rf"another process is writing this store \(pid {pid} "):
        open_writer(tmp_path / "s")
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    with pytest.raises(EnvironmentProblem, match=rf"a stopped process is writing this store \(pid {pid} .*kill -CONT"):
        open_writer(tmp_path / "s")


def test_a_full_disk_names_the_store_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space") as caught:
        open_writer(tmp_path / "s")
    assert caught.value.filename == str(tmp_path / "s")


COMMANDS = (
    "status {}", "status {} --json", "stop {}", "report {}", "validate {}", "rollback {}", "data info {}",
    "data verify {}", "data repair {}", "data export {} out.xyz", "data quarantine list {}",
    "data quarantine retry {} --all",
    "data quarantine export {} out.xyz", "data retract {} 3fa1 --reason none", "models list {}", "models show {} 1",
    "models promote {} 1", "models rollback {}",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "removed"])
def test_every_command_says_how_to_have_a_lost_record_again(
    config: CampaignConfig,
    command: str,
    is_empty: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = CampaignFolder.of(config)
    open_writer(directory.store).close()
    directory.write_record(config)
    directory.record.unlink()
    if is_empty:
        directory.record.touch()
    assert main(command.format(directory.path).split()) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert f"{directory.record}: " in said
    assert "run the file that the campaign was made with, which writes it again" in said
