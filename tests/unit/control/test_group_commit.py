"""What a group commit runs after a commit waits for space; other errors end the campaign."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from alsys.control.disk_waits import DiskWait
from alsys.control.group_commit import GroupCommit
from alsys.errors import EnvironmentProblem
from alsys.events import AlarmCleared, StopRequested
from alsys.store.base import Head, StoreWriter
from alsys.store.memory import MemoryDisk, open_reader, open_writer
from alsys.store.writer import ColumnWriter
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.store_records import records
from support.campaigns import FakeCampaign


def group_commit(store: Any, patience_s: float = 600.0, **settings: Any) -> GroupCommit:
    """One that tries again at once."""
    return GroupCommit(store, wait=lambda: DiskWait(retry_s=0.01, patience_s=patience_s), **settings)


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
        commits = group_commit(open_writer(MemoryDisk()))
        commits.stage(events=[AlarmCleared(t=1.0, name="alike")])
        commits.after(action)
        commits.after(later)
        while action.calls < 2:
            await asyncio.sleep(0.001)
        assert commits.is_behind, "no new work meanwhile"
        assert commits.disk_problem is not None
        assert "No space left" in commits.disk_problem
        await commits.drain()
        assert commits.disk_problem is None
        assert commits.problem is None

    asyncio.run(run())
    assert action.calls == 4
    assert order == ["after 4 calls"]
    assert len([record for record in caplog.records if "waiting for space" in record.message]) == 1, "told once"


@pytest.mark.parametrize("error", [FileExistsError(errno.EEXIST, "File exists"), ValueError("no")])
def test_what_is_no_matter_of_space_ends_the_campaign(error: Exception) -> None:
    async def fails() -> None:
        raise error

    async def run() -> None:
        commits = group_commit(open_writer(MemoryDisk()))
        commits.after(fails)
        with pytest.raises(type(error)):
            await commits.drain()

    asyncio.run(run())


def test_a_bundle_that_the_disk_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from alsys.potentials import bundle
    from alsys.potentials.base import CommitteeState

    state = CommitteeState(1, "pair", {"elements": ["H"]}, ({"coefficients": np.zeros(4)},))
    fsync = os.fsync
    calls = 0

    def refuses(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuses)
    with pytest.raises(OSError, match="No space"):
        bundle.write_bundle(tmp_path / "v0001", state, {})
    assert list(tmp_path.iterdir()) == []
    bundle.write_bundle(tmp_path / "v0001", state, {})
    assert bundle.read_bundle(tmp_path / "v0001").version == 1


class Disk:
    """A store's writer whose commits the disk refuses with one error, the first `times` times."""

    def __init__(self, error: OSError, times: int = 10**9) -> None:
        self._writer = open_writer(MemoryDisk())
        self._error, self.times = error, times

    def __getattr__(self, name: str) -> object:
        return getattr(self._writer, name)

    def commit(self) -> object:
        if self.times:
            self.times -= 1
            raise self._error
        return self._writer.commit()


def committed(commits: GroupCommit) -> None:
    async def run() -> None:
        commits.stage(events=[AlarmCleared(t=1.0, name="alike")])
        await commits.flush()

    asyncio.run(run())


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE, errno.EBADF, errno.EFBIG])
def test_what_waiting_does_not_mend_ends_the_driver_with_one_line(number: int) -> None:
    error = OSError(number, "never shown")
    error.filename = "camp/store.zarr/labels/energy/c/0"
    with pytest.raises(EnvironmentProblem, match=r"cannot write camp/store\.zarr/labels/energy/c/0: ") as caught:
        committed(group_commit(Disk(error)))
    assert caught.value.exit_code == 3
    assert os.strerror(number) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_what_may_pass_is_waited_for(number: int) -> None:
    committed(group_commit(Disk(OSError(number, "no"), times=4)))


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_broken_disk_is_not_waited_for_for_ever(number: int) -> None:
    disk = Disk(OSError(number, "no"))
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*, for 0 minutes"):
        committed(group_commit(disk, patience_s=0.05))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_who_is_asked_to_stop_waits_no_longer(number: int) -> None:
    async def run() -> None:
        commits = group_commit(Disk(OSError(number, "no")))
        commits.stage(events=[AlarmCleared(t=1.0, name="alike")])
        flushing = asyncio.ensure_future(commits.flush())
        while commits.disk_problem is None:
            await asyncio.sleep(0.001)
        commits.leave()
        with pytest.raises(EnvironmentProblem, match="stopped as asked while cannot write"):
            await asyncio.wait_for(flushing, 2.0)

    asyncio.run(run())


def test_a_campaign_with_all_its_labels_and_a_full_disk_obeys_a_stop() -> None:
    """Once its end was decided, nothing polled for signals: the driver waited for space for ever."""
    campaign = FakeCampaign(n_labels=20)
    commit = ColumnWriter.commit
    seen: list[float] = []

    def stop() -> StopRequested | None:
        return StopRequested(t=time.time(), drain=False) if seen and time.monotonic() - seen[0] > 0.1 else None

    class Full(ColumnWriter):
        def commit(self) -> Head:
            if any(b"campaign-stopped" in event for event in self._staged.events + self._failed.events):
                seen.append(time.monotonic())
                raise OSError(errno.ENOSPC, "No space left on device")
            return commit(self)

    def opened(disk: MemoryDisk) -> ColumnWriter:
        writer = open_writer(disk)
        writer.__class__ = Full
        return writer

    with pytest.raises(EnvironmentProblem, match="stopped as asked while cannot write"):
        campaign.run(stop_request=stop, opened=opened)
    assert campaign.run().reason == "labels"


def test_labels_are_acknowledged_once_the_mirror_has_them() -> None:
    """They are on the local disk, and go on being used; whoever asks in between hears no promise."""

    class Mirrored(ColumnWriter):
        is_away = True

        @property
        def waits_for(self) -> str:
            return "the mirror" if self.is_away else ""

    store = open_writer()
    store.__class__ = Mirrored
    acknowledged: list[str] = []

    async def run() -> list[int]:
        commits = GroupCommit(store, acknowledged.extend)
        candidates, labels = records(2)
        commits.stage(candidates=candidates, labels=labels, levels=[FAKE_LEVEL])
        await commits.flush()
        commits.check_owner()
        seen = [len(acknowledged)]
        Mirrored.is_away = False
        commits.check_owner()
        return [*seen, len(acknowledged)]

    assert asyncio.run(run()) == [0, 2]
    assert store.head.lengths["labels"] == 2


def test_labels_that_a_mirror_gets_at_the_end_are_acknowledged() -> None:
    class Mirrored(ColumnWriter):
        looks = 0

        @property
        def waits_for(self) -> str:
            Mirrored.looks += 1
            return "the mirror" if Mirrored.looks < 4 else ""

    store = open_writer()
    store.__class__ = Mirrored
    acknowledged: list[str] = []

    async def run() -> None:
        commits = GroupCommit(store, acknowledged.extend)
        candidates, labels = records(2)
        commits.stage(candidates=candidates, labels=labels, levels=[FAKE_LEVEL])
        await commits.drain()

    asyncio.run(run())
    assert len(acknowledged) == 2


class SlowDisk:
    """A store whose commits take a while."""

    def __init__(self, store: StoreWriter, commit_s: float) -> None:
        self._store, self._commit_s = store, commit_s

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def commit(self) -> object:
        time.sleep(self._commit_s)
        return self._store.commit()


def test_flush_waits_for_what_was_staged_before_it_and_not_for_silence() -> None:
    """Proposals come faster than the disk takes them, so that there is always something staged."""
    disk = MemoryDisk()

    async def run() -> tuple[float, int, int]:
        slow: Any = SlowDisk(open_writer(disk), 0.1)
        commits = group_commit(slow)
        staged = 0

        async def propose() -> None:
            nonlocal staged
            while True:
                staged += 1
                commits.stage(events=[AlarmCleared(t=float(staged), name="alike")])
                await asyncio.sleep(0.01)

        proposing = asyncio.create_task(propose())
        await asyncio.sleep(0.25)
        before, started = staged, time.monotonic()
        await asyncio.wait_for(commits.flush(), 5.0)
        took = time.monotonic() - started
        n_durable = len(open_reader(disk).events())
        proposing.cancel()
        await commits.flush()
        return took, before, n_durable

    took, before, n_durable = asyncio.run(run())
    assert n_durable >= before
    assert took < 1.0


def test_flush_takes_what_somebody_else_staged_and_returns_where_there_is_nothing() -> None:
    disk = MemoryDisk()

    async def run() -> None:
        store = open_writer(disk)
        commits = group_commit(store)
        await asyncio.wait_for(commits.flush(), 5.0)
        store.stage(events=[AlarmCleared(t=1.0, name="alike")])
        await asyncio.wait_for(commits.flush(), 5.0)
        assert len(open_reader(disk).events()) == 1
        commits.stage(events=[])
        await asyncio.wait_for(commits.flush(), 5.0)

    asyncio.run(run())


def test_what_is_staged_while_a_commit_begins_is_told_too() -> None:
    """It is on disk with that commit, and no other one may follow."""
    store = open_writer(MemoryDisk())
    commit, told = store.commit, []

    async def run() -> None:
        commits = group_commit(store, on_event=told.append)
        loop = asyncio.get_running_loop()

        def late() -> Head:
            if len(told) == 0 and not late_ones:
                late_ones.append(1)
                staged = asyncio.run_coroutine_threadsafe(stage(), loop)
                staged.result(10.0)
            return commit()

        async def stage() -> None:
            commits.stage(events=[AlarmCleared(t=2.0, name="late")])

        late_ones: list[int] = []
        store.commit = late  # type: ignore[method-assign]
        commits.stage(events=[AlarmCleared(t=1.0, name="first")])
        await commits.flush()

    asyncio.run(run())
    assert [event.name for event in told] == ["first", "late"]
