"""The Ray pool on a made-up Ray: deaths, stops and starts that never end, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from ray import exceptions

from alsys.actors import pool as pool_module
from alsys.actors.placement import WorkerSpec
from alsys.actors.pool import MAX_FAILED_STARTS, MAX_RENEWALS, RENEWALS_S
from alsys.control.ports import FORGIVEN_AFTER, Completion, PoolEvent, Role, WorkerDown, WorkerUp
from alsys.errors import EnvironmentProblem, FailureKind, WorkerUnfit
from alsys.labeling.base import LabelingOrder
from alsys.testing.fakes import FakeLabeler
from support.rays import Bench, kinds

pytestmark = pytest.mark.thorough


UP = [("WorkerUp", "labeler-0"), ("WorkerUp", "labeler-1")]
DOWN = [("WorkerDown", "labeler-0"), ("WorkerDown", "labeler-1")]


def test_a_dead_ray_is_brought_up_anew_and_no_worker_is_to_blame(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        bench = Bench(worker_retries=0)
        await bench.pool.start()
        assert kinds(await bench.after(1)) == UP
        bench.pool.submit("labeler-0", LabelingOrder(()))
        lost = bench.actor().calls[-1][1]
        bench.ray.problem = "Ray's raylet died"
        lost.set_exception(RuntimeError("The actor is temporarily unavailable"))
        events = await bench.after(3)
        downs = [event for event in events if isinstance(event, WorkerDown)]
        assert sorted(kinds(list(downs))) == DOWN, "each once"
        assert all(down.failure is FailureKind.WORKER_PREEMPTED and not down.is_final for down in downs)
        assert sorted(kinds([event for event in events if isinstance(event, WorkerUp)])) == UP
        assert bench.ray.renewals == 1
        bench.pool.submit("labeler-1", LabelingOrder(()))
        bench.actor("labeler-1").calls[-1][1].set_result((1.0, 2.0, (), {}))
        assert [type(event) for event in await bench.after(1)] == [Completion]
        await bench.pool.close()

    asyncio.run(run())
    assert any("Ray's raylet died; it is brought up anew" in record.message for record in caplog.records)


def test_a_ray_that_does_not_come_up_again_ends_the_run() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.pool.start()
        await bench.after(1)
        bench.ray.problem, bench.ray.comes_up = "Ray's gcs_server died", False
        with pytest.raises(EnvironmentProblem, match="cannot start Ray"):
            await bench.after(5)
        await bench.pool.close()

    asyncio.run(run())


def test_a_ray_that_dies_again_and_again_ends_the_run() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.pool.start()
        for _ in range(MAX_RENEWALS):
            bench.ray.problem = "Ray's raylet died"
            await bench.after(3)
        bench.ray.problem = "Ray's raylet died"
        with pytest.raises(EnvironmentProblem, match="brought up anew"):
            await bench.after(3)
        assert bench.ray.renewals == MAX_RENEWALS
        await bench.pool.close()

    asyncio.run(run())


def test_a_ray_that_dies_now_and_then_does_not_end_a_campaign_of_weeks() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.pool.start()
        for i in range(1, MAX_RENEWALS + 3):
            bench.ray.problem = "Ray's raylet died"
            await bench.after(3)
            assert bench.ray.renewals == i
            for _ in range(int(RENEWALS_S) // 25):  # so much of a gap between two looks counts
                bench.now += 29.0
                await bench.pool.wait(0.0)
        await bench.pool.close()

    asyncio.run(run())


def test_answers_that_wait_all_the_time_let_others_have_their_turn() -> None:
    """Commits are tasks of the same loop."""
    turns: list[int] = []

    async def commit() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def run() -> None:
        bench = Bench()
        await bench.pool.start()
        await bench.after(1)
        committing = asyncio.create_task(commit())
        for _ in range(20):
            bench.pool.submit("labeler-0", LabelingOrder(()))
            bench.actor().calls[-1][1].set_result((1.0, 2.0, (), {}))
            assert [type(event) for event in await bench.pool.wait(1.0)] == [Completion]
        committing.cancel()
        await bench.pool.close()

    asyncio.run(run())
    assert len(turns) >= 20


def test_a_cluster_of_others_that_is_silent_ends_the_run_with_its_address() -> None:
    async def run() -> None:
        bench = Bench()
        bench.ray.is_local, bench.ray.address = False, "head:6379"
        await bench.pool.start()
        bench.ray.problem = "Ray has not answered for 61 s"
        with pytest.raises(EnvironmentProblem, match="not answered for 61 s: the cluster at head:6379") as caught:
            await bench.after(2)
        assert caught.value.exit_code == 3
        assert bench.ray.renewals == 0
        await bench.pool.close()

    asyncio.run(run())


def test_a_stopped_worker_is_spoken_of_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        bench = Bench(stopped_timeout_s=60.0)
        await bench.pool.start()
        await bench.after(1)
        first = bench.actor()
        bench.pool.submit("labeler-0", LabelingOrder(()))
        bench.ray.stopped[first.pid] = 11.0
        assert await bench.after(2) == []
        assert f"labeler-0 (process {first.pid}) is stopped; it is replaced after 60 s" in caplog.messages
        bench.ray.stopped[first.pid] = 61.0
        events = await bench.after(3)
        assert kinds(events) == [("WorkerDown", "labeler-0"), ("WorkerUp", "labeler-0")]
        assert isinstance(events[0], WorkerDown)
        assert "was stopped" in events[0].message
        assert first.is_killed
        await bench.pool.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())


def test_one_that_is_continued_in_time_is_left_alone() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.pool.start()
        await bench.after(1)
        bench.ray.stopped[bench.actor().pid] = 30.0
        assert await bench.after(2) == []
        bench.ray.stopped.clear()
        assert await bench.after(100) == []
        await bench.pool.close()

    asyncio.run(run())


def test_a_worker_that_no_node_can_hold_ends_the_run_within_a_minute() -> None:
    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None, gpus=1.0, resources={"labeler": 2.0})  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec})
        bench.ray.starts = False
        await bench.pool.start()
        with pytest.raises(EnvironmentProblem, match=r"labeler-0 cannot be placed: .*\{GPU: 1, labeler: 2\}"):
            await bench.after(60)
        await bench.pool.close()

    asyncio.run(run())


def test_a_cluster_may_still_get_the_node_that_a_worker_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None, gpus=1.0)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec}, worker_start_timeout_s=300.0)
        bench.ray.starts, bench.ray.is_local = False, False
        await bench.pool.start()
        assert await bench.after(200) == []
        assert "labeler-0 has not started for 45 s: it asks for {GPU: 1}, which no node has" in "".join(caplog.messages)
        bench.actor().come_up()
        assert kinds(await bench.after(1)) == [("WorkerUp", "labeler-0")]
        await bench.pool.close()

    asyncio.run(run())


def test_others_do_without_the_one_that_cannot_be_placed() -> None:
    async def run() -> None:
        small = WorkerSpec(Role.LABELER, lambda: None)  # type: ignore[arg-type, return-value]
        large = WorkerSpec(Role.LABELER, lambda: None, cpus=64.0)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": small, "labeler-1": large})
        bench.ray.starts = False
        await bench.pool.start()
        bench.actor("labeler-0").come_up()
        events = await bench.after(60)
        downs = [event for event in events if isinstance(event, WorkerDown)]
        assert [(down.worker, down.is_final) for down in downs] == [("labeler-1", True)]
        assert await bench.after(60) == []
        await bench.pool.close()

    asyncio.run(run())


def killed() -> Exception:
    return exceptions.RayActorError(error_msg="The actor died unexpectedly before finishing this task.")


@pytest.mark.parametrize("is_killed", [True, False])
def test_who_is_killed_while_it_starts_is_no_worker_that_cannot_start(is_killed: bool) -> None:
    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec})
        bench.ray.starts = False
        await bench.pool.start()
        events: list[PoolEvent] = []
        for _ in range(2 * MAX_FAILED_STARTS):
            error = (
                killed() if is_killed else exceptions.RayActorError(error_msg="no such module", actor_init_failed=True)
            )
            if not bench.actor().calls[0][1].done():
                bench.actor().calls[0][1].set_exception(error)
            events += await bench.after(1)
            await asyncio.sleep(0.3)
        downs = [event for event in events if isinstance(event, WorkerDown)]
        assert any(down.is_final for down in downs) is not is_killed
        await bench.pool.close()

    asyncio.run(run())


@pytest.mark.parametrize("n_results", [FORGIVEN_AFTER, 1])
def test_results_in_a_row_forgive_all_restarts_before_them(n_results: int) -> None:
    """In a campaign of weeks, workers die more often than `worker_retries`, for a reason each."""

    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec}, worker_retries=1)
        await bench.pool.start()
        events = await bench.after(1)
        for _ in range(3):
            for i in range(n_results + 1):
                if any(isinstance(event, WorkerDown) and event.is_final for event in events):
                    break
                bench.pool.submit("labeler-0", LabelingOrder(()))
                outcome = bench.actor().calls[-1][1]
                outcome.set_exception(killed()) if i == n_results else outcome.set_result((1.0, 2.0, (), {}))
                events += await bench.after(1)
            await asyncio.sleep(0.02)
            events += await bench.after(1)
        is_given_up = any(isinstance(event, WorkerDown) and event.is_final for event in events)
        assert is_given_up == (n_results < FORGIVEN_AFTER)
        await bench.pool.close()

    asyncio.run(run())


def test_a_start_that_hangs_is_tried_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec}, worker_start_timeout_s=100.0)
        bench.ray.starts = False
        await bench.pool.start()
        events: list[PoolEvent] = []
        for _ in range(10 * MAX_FAILED_STARTS):
            events += await bench.after(20)
            await asyncio.sleep(0.3)
            if events and isinstance(events[-1], WorkerDown) and events[-1].is_final:
                break
        assert [type(event) for event in events] == [WorkerDown] * MAX_FAILED_STARTS
        assert "not started after" in events[0].message  # type: ignore[union-attr]
        assert len(bench.ray.actors["labeler-0"]) == MAX_FAILED_STARTS
        await bench.pool.close()

    asyncio.run(run())


def test_a_worker_that_is_stopped_while_it_starts_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec})
        bench.ray.starts = False
        await bench.pool.start()
        bench.ray.stopped[bench.actor().pid] = 61.0
        bench.ray.starts = True
        events = await bench.after(12)
        await asyncio.sleep(0.4)
        events += await bench.after(2)
        assert kinds(events) == [("WorkerDown", "labeler-0"), ("WorkerUp", "labeler-0")]
        await bench.pool.close()

    asyncio.run(run())
    assert any("was stopped while it started" in message for message in caplog.messages)


def test_a_worker_that_lacks_a_package_is_not_started_again() -> None:
    async def check() -> None:
        bench = Bench()
        bench.ray.starts = False
        await bench.pool.start()
        cause = WorkerUnfit("a worker cannot start: no module")
        bench.actor().calls[0][1].set_exception(exceptions.RayTaskError("ready", "", cause))
        with pytest.raises(EnvironmentProblem, match="a worker cannot start: no module"):
            await bench.after(1.0)
        assert len(bench.ray.actors["labeler-0"]) == 1

    asyncio.run(check())


def test_an_actor_says_what_its_worker_lacks() -> None:
    """In a process of its own, since an actor changes what its process does."""
    program = """
from alsys.actors.shells import WorkerActor
from alsys.errors import WorkerUnfit
try:
    WorkerActor(lambda: __import__("no_such_engine"), 1).ready()
except WorkerUnfit as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert said.startswith("a worker cannot start: ModuleNotFoundError: No module named 'no_such_engine'; install")


@pytest.mark.parametrize("is_full", [True, False])
def test_a_full_disk_gives_nobody_up_for_three_starts_in_a_row(is_full: bool) -> None:
    """It may be another's, and be empty in a minute; a worker that raises something else will do so again."""

    async def run() -> None:
        spec = WorkerSpec(Role.LABELER, lambda: None)  # type: ignore[arg-type, return-value]
        bench = Bench({"labeler-0": spec})
        bench.ray.starts = False
        await bench.pool.start()
        events: list[PoolEvent] = []
        for _ in range(MAX_FAILED_STARTS):
            cause = OSError(errno.ENOSPC, "No space left on device") if is_full else ValueError("a bug")
            bench.actor().calls[0][1].set_exception(exceptions.RayTaskError("ready", "", cause))
            events += await bench.after(1)
            await asyncio.sleep(0.6)
        assert any(isinstance(event, WorkerDown) and event.is_final for event in events) is not is_full
        await bench.pool.close()

    asyncio.run(run())


def test_workers_that_die_of_a_full_folder_of_ray_wait_for_space_and_are_not_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # there are logs of no other run
    monkeypatch.setattr(pool_module, "FULL_PAUSE_S", 0.2)
    monkeypatch.setattr(pool_module, "full_folder", lambda: "; /tmp/ray has 0 MB left")

    async def run() -> None:
        bench = Bench({"labeler-0": WorkerSpec(Role.LABELER, FakeLabeler)}, worker_retries=1)
        await bench.pool.start()
        await bench.after(1)
        for _ in range(4):
            actor = bench.actor()
            bench.pool.submit("labeler-0", LabelingOrder(()))
            actor.calls[-1][1].set_exception(killed())
            [down] = [event for event in await bench.after(1) if isinstance(event, WorkerDown)]
            assert down.message.endswith("; /tmp/ray has 0 MB left")
            assert (down.is_final, down.failure) == (False, FailureKind.WORKER_PREEMPTED), "and no frame's fault"
            assert bench.actor() is actor, "not at once"
            await asyncio.sleep(0.3)
            await bench.after(1)
            assert bench.actor() is not actor
        await bench.pool.close()

    asyncio.run(run())
