"""What the journal runs after a commit waits for space; other errors end the campaign."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from alsys.control import journal as journal_module
from alsys.control.journal import Journal
from alsys.events import AlarmCleared
from alsys.store.memory import MemoryDisk, open_writer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.01)


class Refuses:
    """An action that the disk refuses a few times."""

    def __init__(self, times: int, error: OSError) -> None:
        self.times, self.error = times, error
        self.calls = 0
        self.seen: list[str | None] = []

    async def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error


def test_an_action_waits_for_space_and_later_ones_for_it(caplog: pytest.LogCaptureFixture) -> None:
    action = Refuses(3, OSError(errno.ENOSPC, "No space left on device"))
    order: list[str] = []

    async def later() -> None:
        order.append(f"after {action.calls} calls")

    async def run() -> None:
        journal = Journal(open_writer(MemoryDisk()))
        journal.stage(events=[AlarmCleared(t=1.0, name="alike")])
        journal.after(action)
        journal.after(later)
        while action.calls < 2:
            await asyncio.sleep(0.001)
        assert journal.is_behind, "no new work meanwhile"
        assert journal.disk_problem is not None
        assert "No space left" in journal.disk_problem
        await journal.drain()
        assert journal.disk_problem is None
        assert journal.problem is None

    asyncio.run(run())
    assert action.calls == 4
    assert order == ["after 4 calls"]
    assert len([record for record in caplog.records if "waiting for space" in record.message]) == 1, "told once"


@pytest.mark.parametrize("error", [FileExistsError(errno.EEXIST, "File exists"), ValueError("no")])
def test_what_is_no_matter_of_space_ends_the_campaign(error: Exception) -> None:
    async def fails() -> None:
        raise error

    async def run() -> None:
        journal = Journal(open_writer(MemoryDisk()))
        journal.after(fails)
        with pytest.raises(type(error)):
            await journal.drain()

    asyncio.run(run())


def test_a_bundle_that_the_disk_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from alsys.potentials import bundle
    from alsys.potentials.base import CommitteeState

    state = CommitteeState(1, "pair", {"elements": ["H"]}, ({"coefficients": np.zeros(4)},))
    fsync = bundle.os.fsync
    calls = 0

    def refuses(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(bundle.os, "fsync", refuses)
    with pytest.raises(OSError, match="No space"):
        bundle.write_bundle(tmp_path / "v0001", state, {})
    assert list(tmp_path.iterdir()) == []
    bundle.write_bundle(tmp_path / "v0001", state, {})
    assert bundle.read_bundle(tmp_path / "v0001").version == 1
