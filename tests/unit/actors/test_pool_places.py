"""The Ray pool on several nodes: who waits, who makes room, who comes and goes, and whose fault a death is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from ray import exceptions

from alsys.actors.greeting import Greeting, versions
from alsys.actors.losses import UNSURE_S
from alsys.actors.nodes import AVOIDED_S, Holder, Look, Node, Nodes
from alsys.actors.placement import WorkerSpec
from alsys.actors.places import STARTS_S, WAITS_S
from alsys.actors.pool import PING_EVERY_S
from alsys.control.ports import Role, WorkerDown, WorkerGone, WorkerLeaving, WorkerUp
from alsys.errors import EnvironmentProblem, FailureKind, WorkerUnfit
from alsys.labeling.base import LabelingOrder
from support.rays import Bench, Nobody, kinds

pytestmark = pytest.mark.thorough

ORDER = LabelingOrder(())


def spec(role: Role, **changes: Any) -> WorkerSpec:
    return replace(WorkerSpec(role, Nobody), **changes)


TRAINER, EXPLORER, LABELER = spec(Role.TRAINER), spec(Role.EXPLORER), spec(Role.LABELER)


def on_cluster(
    run: Callable[[Bench], Awaitable[None]], specs: Mapping[str, WorkerSpec], *, cpus: float = 2.0, **runtime: Any
) -> None:
    """Runs a test on a cluster of two nodes that others run."""

    async def with_pool() -> None:
        bench = Bench(specs, **runtime)
        bench.ray.is_local = False
        bench.ray.nodes = {"n0": Node("10.0.0.1", {"CPU": cpus}), "n1": Node("10.0.0.2", {"CPU": cpus})}
        await run(bench)
        await bench.pool.close()

    asyncio.run(with_pool())


def downs(events: list[Any]) -> list[tuple[str, FailureKind, bool]]:
    return [(event.worker, event.failure, event.is_final) for event in events if isinstance(event, WorkerDown)]


def unavailable() -> Exception:
    return exceptions.ActorUnavailableError("socket closed", b"\0" * 16)


def test_who_waits_for_a_place_is_told_and_is_never_given_up() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.waits_for = {"labeler-1", "labeler-2"}
        await bench.pool.start()
        assert bench.pool.state().message == ""
        events = await bench.after(3 * 60.0 + WAITS_S)
        assert kinds(events) == [("WorkerUp", "labeler-0")], "a wait for a place is no start that fails"
        state = bench.pool.state()
        assert (state.asked, state.up) == (3, 1)
        assert state.message == "labeler-1, labeler-2 wait for {CPU: 1}"
        bench.ray.waits_for = set()
        bench.actor("labeler-1").come_up()
        bench.actor("labeler-2").come_up()
        await bench.after(3)
        assert bench.pool.state().message == ""
        assert bench.pool.state().up == 3

    on_cluster(run, {f"labeler-{i}": LABELER for i in range(3)}, cpus=1.0, worker_start_timeout_s=60.0)


def test_a_worker_that_has_room_and_no_process_yet_is_not_said_to_wait() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.waits_for = {"labeler-0", "labeler-3"}
        await bench.pool.start()
        await bench.after(2 * WAITS_S)
        assert bench.pool.state().message == "labeler-3 waits for {CPU: 2}", "the rest has room beside each other"
        await bench.after(STARTS_S)
        assert "labeler-0" in bench.pool.state().message, "others use the cluster too"

    large = replace(LABELER, cpus=2.0)
    on_cluster(run, {"labeler-0": LABELER, "labeler-1": large, "labeler-2": LABELER, "labeler-3": large})


def test_labelers_make_room_for_a_trainer_that_waits_idle_ones_first_and_only_as_many_as_needed() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        bench.pool.submit("labeler-3", ORDER)
        bench.ray.waits_for = {"trainer-0"}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        events = await bench.after(1)
        assert downs(events) == [("trainer-0", FailureKind.WORKER_LOST, False)]
        await asyncio.sleep(0.01)
        events = await bench.after(WAITS_S)
        assert [event.worker for event in events if isinstance(event, WorkerGone)] == ["labeler-2"]
        assert not bench.actor("labeler-3").is_killed, "it has a call"

    specs = {"trainer-0": TRAINER, "labeler-0": LABELER, "labeler-1": LABELER, "labeler-2": LABELER}
    on_cluster(run, {**specs, "labeler-3": LABELER})


def test_a_busy_labeler_that_makes_room_ends_its_calls_first() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        for name in ("labeler-0", "labeler-1"):
            bench.pool.submit(name, ORDER)
        bench.ray.waits_for = {"trainer-0"}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        events = await bench.after(WAITS_S + 3)
        assert [event for event in events if isinstance(event, WorkerLeaving | WorkerGone)] == [
            WorkerLeaving("labeler-1", Role.LABELER)
        ], "the first labeler stays: without it nothing is learned either"
        bench.actor("labeler-1").calls[-1][1].set_result((0.0, 1.0, (), {}))
        bench.ray.waits_for = {"labeler-1"}
        assert kinds(await bench.after(2)) == [("Completion", "labeler-1"), ("WorkerGone", "labeler-1")]

    on_cluster(run, {"trainer-0": TRAINER, "labeler-0": LABELER, "labeler-1": LABELER}, cpus=1.0)


def test_labelers_make_room_for_a_trainer_that_shares_fits_with_another() -> None:
    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        bench.ray.waits_for = {"trainer-1"}
        await bench.pool.start()
        events = await bench.after(WAITS_S + 2)
        assert [event.worker for event in events if isinstance(event, WorkerGone)] == ["labeler-1"]

    specs = {"trainer-0": TRAINER, "explorer-0": EXPLORER, "labeler-0": LABELER, "trainer-1": TRAINER}
    on_cluster(run, {**specs, "labeler-1": LABELER}, cpus=4.0)


def test_a_second_trainer_makes_room_for_the_only_labeler_once_it_has_no_call() -> None:
    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        bench.ray.waits_for = {"labeler-0"}
        await bench.pool.start()
        await bench.after(1)
        for name in ("trainer-0", "trainer-1"):
            bench.pool.submit(name, ORDER)
        events = await bench.after(WAITS_S + 3)
        assert [event for event in events if isinstance(event, WorkerLeaving)] == [
            WorkerLeaving("trainer-1", Role.TRAINER)
        ]
        bench.actor("trainer-1").calls[-1][1].set_result((0.0, 1.0, (), {}))
        bench.ray.waits_for |= {"trainer-1"}
        assert kinds(await bench.after(2)) == [("Completion", "trainer-1"), ("WorkerGone", "trainer-1")]

    on_cluster(run, {"trainer-0": TRAINER, "labeler-0": LABELER, "trainer-1": TRAINER})


def test_a_trainer_that_waits_is_asked_for_before_labelers_that_asked_earlier() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.waits_for = {"labeler-1"}
        await bench.pool.start()
        await bench.after(10)
        first = bench.actor("labeler-1")
        bench.ray.waits_for = {"labeler-1", "trainer-0"}
        del bench.ray.nodes[bench.actor("trainer-0").node]
        bench.pool.restart("trainer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        await bench.after(WAITS_S + 3)
        assert first.is_killed
        assert bench.actor("labeler-1") is first, "it is not asked for again before the trainer has its place"
        assert "labeler-1" in bench.pool.state().waiting
        bench.ray.waits_for = {"labeler-1"}
        bench.actor("trainer-0").come_up()
        await bench.after(3)
        assert bench.actor("labeler-1") is not first

    on_cluster(run, {"trainer-0": TRAINER, "labeler-0": LABELER, "labeler-1": LABELER}, cpus=1.0)


def test_labelers_come_while_frames_wait_and_go_when_there_is_nothing_for_them() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        assert kinds(await bench.after(2)) == [("WorkerUp", "labeler-0")]
        assert bench.pool.state().asked == 1
        bench.pool.want(3)
        events = await bench.after(3)
        assert kinds(events) == [("WorkerUp", "labeler-1"), ("WorkerUp", "labeler-2")]
        bench.pool.submit("labeler-1", ORDER)
        bench.pool.want(1)
        events = await bench.after(4)
        assert events == [], "idle for less than idle_s"
        events = await bench.after(8)
        assert events == [WorkerGone("labeler-2", Role.LABELER)], "the one that is busy stays"
        bench.actor("labeler-1").calls[-1][1].set_result((0.0, 1.0, (), {}))
        events = await bench.after(12)
        assert kinds(events) == [("Completion", "labeler-1"), ("WorkerGone", "labeler-1")]
        assert bench.pool.state().asked == 1
        bench.pool.want(2)
        assert await bench.after(3) == [WorkerUp("labeler-1", Role.LABELER)]

    elastic = replace(LABELER, is_kept=False, idle_s=10.0)
    on_cluster(run, {"labeler-0": LABELER, "labeler-1": elastic, "labeler-2": elastic, "labeler-3": elastic})


def test_a_labeler_that_came_and_has_no_place_is_not_waited_for_any_more_once_others_suffice() -> None:
    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        bench.ray.waits_for = {"labeler-1"}
        await bench.pool.start()
        bench.pool.want(2)
        await bench.after(10)
        assert bench.pool.state().message == "labeler-1 waits for {CPU: 1}"
        bench.pool.want(1)
        await bench.after(3)
        assert bench.pool.state().message == ""

    on_cluster(run, {"labeler-0": LABELER, "labeler-1": replace(LABELER, is_kept=False, idle_s=10.0)}, cpus=1.0)


@pytest.mark.parametrize("n_results_of_look", [1, 5])
def test_the_death_of_a_node_is_nobodys_fault(n_results_of_look: int) -> None:
    """Ray knows of it some time after the calls to it failed."""

    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        bench.pool.submit("labeler-0", ORDER)
        bench.actor("labeler-0").calls[-1][1].set_exception(unavailable())
        assert await bench.after(n_results_of_look) == [], "it is not known yet what happened"
        bench.ray.dead = {"n0"}
        bench.ray.nodes = {"n1": bench.ray.nodes["n1"]}
        events = await bench.after(2)
        await asyncio.sleep(0.01)
        events += await bench.after(1)
        assert downs(events) == [("labeler-0", FailureKind.NODE_LOST, False)]
        assert kinds(events)[1:] == [("WorkerUp", "labeler-0")], "elsewhere, though it may not be restarted"

    on_cluster(run, {"labeler-0": LABELER}, worker_retries=0)


def test_a_worker_that_is_lost_on_a_living_node_is_lost_by_itself() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        for name, error in {
            "labeler-0": exceptions.RayActorError(error_msg="died"),
            "labeler-1": unavailable(),
        }.items():
            bench.pool.submit(name, ORDER)
            bench.actor(name).calls[-1][1].set_exception(error)
        assert downs(await bench.after(3)) == [("labeler-0", FailureKind.WORKER_LOST, False)]
        assert downs(await bench.after(UNSURE_S)) == [("labeler-1", FailureKind.WORKER_LOST, False)]

    on_cluster(run, {"labeler-0": LABELER, "labeler-1": LABELER})


def test_idle_workers_are_asked_whether_they_live() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        actor = bench.actor("labeler-0")
        await bench.after(1.5 * PING_EVERY_S)
        assert [name for name, _ in actor.calls] == ["ready", "ping"]
        actor.is_dead = True
        bench.ray.dead = {"n0"}
        assert downs(await bench.after(PING_EVERY_S + 3)) == [("labeler-0", FailureKind.NODE_LOST, False)]

    on_cluster(run, {"labeler-0": LABELER})


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_worker_that_could_not_be_asked_for_a_moment_is_left_alone(is_busy: bool) -> None:
    """A broken connection is no dead worker: it may have a label of hours by the time that this is known."""

    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(PING_EVERY_S)
        bench.actor().is_dead = True
        await bench.after(2)
        bench.actor().is_dead = False
        if is_busy:
            bench.pool.submit("labeler-0", ORDER)
        assert await bench.after(2 * UNSURE_S) == []

    on_cluster(run, {"labeler-0": LABELER})


def test_workers_leave_a_node_that_is_being_drained() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        bench.pool.submit("labeler-1", ORDER)
        assert bench.actor("labeler-0").node == "n0"
        bench.ray.nodes["n0"] = replace(bench.ray.nodes["n0"], is_draining=True)
        events = await bench.after(2)
        assert kinds(events) == [("WorkerGone", "labeler-0"), ("WorkerLeaving", "labeler-1"), ("WorkerUp", "labeler-0")]
        assert bench.actor("labeler-0").node == "n1"
        bench.actor("labeler-1").calls[-1][1].set_result((0.0, 1.0, (), {}))
        events = await bench.after(2)
        assert kinds(events) == [("Completion", "labeler-1"), ("WorkerGone", "labeler-1"), ("WorkerUp", "labeler-1")]
        assert bench.actor("labeler-1").node == "n1"

    on_cluster(run, {"labeler-0": LABELER, "labeler-1": LABELER})


def test_a_node_on_which_workers_cannot_start_is_avoided(caplog: pytest.LogCaptureFixture) -> None:
    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        bench.actor("labeler-0").calls[0][1].set_exception(
            WorkerUnfit("a worker cannot start: No module named 'alsys'")
        )
        bench.ray.starts = True
        events = await bench.after(2)
        assert [event.is_final for event in events if isinstance(event, WorkerDown)] == [False]
        assert "node 10.0.0.1 (n0) is avoided: a worker cannot start: No module named 'alsys'" in caplog.text
        for _ in range(3):
            await asyncio.sleep(0.3)
            await bench.after(1)
        assert bench.actor("labeler-0").node == "n1"
        assert bench.pool.state().up == 1
        assert list(bench.pool.state().avoided) == ["10.0.0.1 (n0)"]

    caplog.set_level(logging.WARNING)
    on_cluster(run, {"labeler-0": LABELER}, worker_retries=0)


def test_where_no_node_can_run_a_worker_the_run_ends_with_what_the_worker_said() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        del bench.ray.nodes["n1"]
        await bench.pool.start()
        await bench.after(1)
        bench.actor("labeler-0").calls[0][1].set_exception(WorkerUnfit("No module named 'alsys'"))
        with pytest.raises(EnvironmentProblem, match="No module named 'alsys'"):
            await bench.after(3)

    on_cluster(run, {"labeler-0": LABELER})


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (Greeting(1, "n0", {**versions(), "alsys": "0.0.1"}), r"its node has alsys 0\.0\.1, and the driver alsys"),
        (Greeting(1, "n0", {**versions(), "python": "3.99"}), r"its node has python 3\.99, and the driver python 3"),
        (Greeting(1, "n0", versions(), "level-b"), r"it would label at level level-b, and the campaign's is level-a"),
    ],
)
def test_a_node_with_other_versions_is_avoided(caplog: pytest.LogCaptureFixture, greeting: Greeting, said: str) -> None:
    with pytest.raises(WorkerUnfit, match=said):
        greeting.check("level-a", is_elsewhere=False)

    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        bench.actor("labeler-0").calls[0][1].set_result(greeting)
        bench.ray.starts = True
        assert downs(await bench.after(2)) == [("labeler-0", FailureKind.WORKER_LOST, False)]
        assert "node 10.0.0.1 (n0) is avoided: " in caplog.text

    on_cluster(run, {"labeler-0": replace(LABELER, identity="level-a")})


def test_of_an_environment_of_its_own_only_the_version_of_alsys_is_compared() -> None:
    here = versions()
    Greeting(1, "n0", {"alsys": here["alsys"], "torch": "0.1"}).check("", is_elsewhere=True)
    with pytest.raises(WorkerUnfit, match="its node has alsys 0"):
        Greeting(1, "n0", {**here, "alsys": "0"}).check("", is_elsewhere=True)


def test_a_build_for_cuda_and_what_a_worker_does_without_are_no_other_versions() -> None:
    here = versions()
    Greeting(1, "n0", {**here, "torch": f"{here['torch'].partition('+')[0]}+cu126"}).check("", is_elsewhere=False)
    Greeting(1, "n0", {name: here[name] for name in ("alsys", "python")}).check("", is_elsewhere=False)


def test_several_labelers_make_room_for_a_large_trainer_once() -> None:
    """Real Ray would give a labeler that is asked for again at once the place that it has just left."""

    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        await bench.pool.start()
        await bench.after(1)
        bench.ray.waits_for = {"trainer-0"}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        events = await bench.after(60)
        gone = [event.worker for event in events if isinstance(event, WorkerGone)]
        assert sorted(gone) == ["labeler-1", "labeler-2", "labeler-3", "labeler-4"]
        assert len(bench.ray.actors["labeler-4"]) == 1, "not asked for again"
        bench.ray.waits_for = set()
        bench.actor("trainer-0").come_up()
        assert len([event for event in await bench.after(3) if isinstance(event, WorkerUp)]) == 5

    labelers = {f"labeler-{i}": LABELER for i in range(5)}
    on_cluster(run, {"trainer-0": replace(TRAINER, cpus=4.0), **labelers}, cpus=5.0)


def test_one_that_is_given_up_while_it_makes_room_does_not_come_again() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        bench.pool.restart("labeler-1", "gave no answer")
        await bench.after(1)
        await asyncio.sleep(0.01)
        await bench.after(1)
        for name in ("labeler-0", "labeler-1"):
            bench.pool.submit(name, ORDER)
        bench.ray.waits_for = {"trainer-0"}
        bench.ray.nodes = {"n1": bench.ray.nodes["n1"]}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        events = await bench.after(WAITS_S + 3)
        (leaving,) = [event.worker for event in events if isinstance(event, WorkerLeaving)]
        bench.pool.restart(leaving, "gave no answer")
        assert (leaving, FailureKind.WORKER_LOST, True) in downs(await bench.after(2))
        n_actors = len(bench.ray.actors[leaving])
        await bench.after(200)
        assert len(bench.ray.actors[leaving]) == n_actors
        assert leaving not in bench.pool.state().waiting

    specs = {"trainer-0": TRAINER, "labeler-0": LABELER, "labeler-1": LABELER, "explorer-0": EXPLORER}
    on_cluster(run, specs, cpus=2.0, worker_retries=1)


def test_the_only_labeler_that_is_there_makes_no_room_whatever_its_name() -> None:
    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        await bench.pool.start()
        bench.pool.want(2)
        await bench.after(3)
        bench.pool.submit("labeler-1", ORDER)
        bench.pool.want(1)
        assert WorkerGone("labeler-0", Role.LABELER) in await bench.after(15)
        bench.ray.waits_for = {"explorer-1"}
        bench.pool.restart("explorer-1", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        events = await bench.after(100)
        assert not any(isinstance(event, WorkerLeaving | WorkerGone) for event in events)

    elastic = replace(LABELER, is_kept=False, idle_s=5.0)
    specs = {"trainer-0": TRAINER, "explorer-0": EXPLORER, "labeler-0": elastic, "explorer-1": EXPLORER}
    on_cluster(run, {**specs, "labeler-1": elastic}, cpus=4.0)


def test_a_node_is_avoided_no_longer_where_it_is_the_only_one_left_and_its_reason_may_be_gone() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        for _ in range(2):
            bench.actor("labeler-0").calls[0][1].set_exception(OSError("No space left on device"))
            await bench.after(3)
            await asyncio.sleep(0.6)
            await bench.after(1)
        assert list(bench.pool.state().avoided) == ["10.0.0.1 (n0)"]
        bench.actor("labeler-0").come_up()
        await bench.after(2)
        bench.pool.submit("labeler-0", ORDER)
        bench.actor("labeler-0").calls[-1][1].set_exception(unavailable())
        bench.ray.dead, bench.ray.nodes = {"n1"}, {"n0": bench.ray.nodes["n0"]}
        bench.ray.starts = True
        events = await bench.after(3)
        await asyncio.sleep(0.05)
        assert WorkerUp("labeler-0", Role.LABELER) in [*events, *await bench.after(5)]

    on_cluster(run, {"labeler-0": LABELER})


def test_another_node_may_come_for_a_worker_that_had_one(caplog: pytest.LogCaptureFixture) -> None:
    """The only node of its kind is drained: nothing is given up, however long it takes."""

    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        await bench.pool.start()
        await bench.after(1)
        bench.ray.nodes["n0"] = replace(bench.ray.nodes["n0"], is_draining=True)
        bench.ray.waits_for = {"labeler-0"}
        events = await bench.after(2000)
        assert kinds(events) == [("WorkerGone", "labeler-0")]
        assert bench.pool.state().message == (
            "labeler-0 waits for {CPU: 1}, which only nodes have that are drained or avoided"
        )

    on_cluster(run, {"labeler-0": LABELER})


def test_a_worker_that_is_lost_while_ray_seems_gone_comes_again() -> None:
    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(2)
        bench.ray.problem = "Ray has not answered for 61 s"
        bench.pool.restart("labeler-0", "is to be elsewhere")
        bench.now += 0.01
        events = await bench.pool.wait(0.001)
        bench.ray.problem = None
        await asyncio.sleep(1.1)
        events += await bench.after(3)
        assert kinds(events) == [("WorkerDown", "labeler-0"), ("WorkerUp", "labeler-0")]

    on_cluster(run, {"labeler-0": LABELER})


@pytest.mark.parametrize("drains", [False, True])
def test_a_long_call_of_one_that_leaves_keeps_no_idle_one_from_making_room(drains: bool) -> None:
    async def run(bench: Bench) -> None:
        del bench.ray.nodes["n1"]
        bench.ray.nodes["n2"] = Node("10.0.0.3", {"CPU": 2.0})
        await bench.pool.start()
        await bench.after(1)
        busy = next(f"labeler-{i}" for i in range(1, 6) if bench.actor(f"labeler-{i}").node == "n2")
        bench.pool.submit(busy, ORDER)
        if drains:
            bench.ray.nodes["n2"] = replace(bench.ray.nodes["n2"], is_draining=True)
            bench.ray.waits_for = {f"labeler-{i}" for i in range(6)}
        await bench.after(2)
        bench.ray.waits_for |= {"trainer-0"}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        bench.ray.nodes["n0"] = replace(bench.ray.nodes["n0"], total={"CPU": 4.0})  # others use the cluster too
        assert any(isinstance(event, WorkerGone) for event in await bench.after(60))

    on_cluster(run, {"trainer-0": TRAINER, **{f"labeler-{i}": LABELER for i in range(6)}}, cpus=5.0)


def test_one_that_lacks_what_nobody_holds_keeps_labelers_from_nothing() -> None:
    """Labelers that ask for CPUs take nothing from an explorer that asks for a GPU, and an autoscaler must see them."""

    async def run(bench: Bench) -> None:
        bench.ray.waits_for = {"explorer-gpu-0", "labeler-1", "labeler-2"}
        await bench.pool.start()
        events = await bench.after(200)
        assert not any(isinstance(event, WorkerGone) for event in events)
        assert [len(bench.ray.actors[f"labeler-{i}"]) for i in range(3)] == [1, 1, 1]

    specs = {"trainer-0": TRAINER, "explorer-0": EXPLORER, "labeler-0": LABELER}
    others = {"explorer-gpu-0": replace(EXPLORER, gpus=1.0), "labeler-1": LABELER, "labeler-2": LABELER}
    on_cluster(run, {**specs, **others}, worker_start_timeout_s=1e6)


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_trainer_whom_nobody_can_help_does_not_keep_an_explorer_from_its_place(is_gone: bool) -> None:
    """The only node with a GPU is gone, or somebody else has the GPU."""

    async def run(bench: Bench) -> None:
        bench.ray.nodes["n2"] = Node("10.0.0.3", {"CPU": 1.0, "GPU": 1.0})
        await bench.pool.start()
        await bench.after(2)
        bench.ray.waits_for = {"trainer-0", "explorer-0"}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        bench.pool.restart("explorer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        bench.ray.nodes["n0"] = Node("10.0.0.1", {"CPU": 1.0})  # others use the cluster too
        if is_gone:
            del bench.ray.nodes["n2"]
        else:
            bench.ray.nodes["n2"] = replace(bench.ray.nodes["n2"], free={"CPU": 1.0, "GPU": 0.0})
        events = await bench.after(20)
        assert any(isinstance(event, WorkerGone) and event.role is Role.LABELER for event in events)

    labelers = {f"labeler-{i}": LABELER for i in range(4)}
    on_cluster(run, {"trainer-0": replace(TRAINER, gpus=1.0), "explorer-0": EXPLORER, **labelers})


def test_workers_with_fractions_of_a_cpu_fill_a_node() -> None:
    """Seven less nine times 0.7 is less than 0.7 to a computer, and 0.1 and 0.7 is less than 0.8."""
    nodes = Nodes()
    nodes.look = Look(1.0, {"n0": Node("10.0.0.1", {"CPU": 7.0}, {"CPU": 0.1})})
    assert nodes.too_many([], {f"labeler-{i}": {"CPU": 0.7} for i in range(10)}) == set()
    assert nodes.too_many([], {f"labeler-{i}": {"CPU": 0.7} for i in range(11)}) == {"labeler-10"}
    holder = Holder("labeler-0", "n0", {"CPU": 0.7}, is_busy=False)
    assert nodes.to_end({"CPU": 0.8}, [holder]) == [holder]


async def refused(bench: Bench, error: Exception) -> None:
    """The worker that starts says why it cannot, and is asked for again."""
    bench.actor().calls[0][1].set_exception(error)
    await bench.after(3)
    await asyncio.sleep(0.6)
    await bench.after(1)


def test_nodes_on_which_every_process_is_killed_are_avoided_before_the_worker_is_given_up() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        for _ in range(2):
            await refused(bench, exceptions.RayActorError(error_msg="The actor died unexpectedly"))
        assert bench.actor().node == "n1"

    on_cluster(run, {"labeler-0": LABELER}, worker_retries=3)


def test_a_node_whose_reason_may_be_gone_is_tried_again_after_a_while_though_there_are_others() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        for _ in range(2):
            await refused(bench, OSError("No space left on device"))
        assert list(bench.pool.state().avoided) == ["10.0.0.1 (n0)"]
        bench.actor().come_up()
        await bench.after(AVOIDED_S + 5)
        assert list(bench.pool.state().avoided) == []
        bench.ray.nodes["n1"] = replace(bench.ray.nodes["n1"], is_draining=True)
        await bench.after(3)
        assert bench.actor().node == "n0"
        bench.ray.nodes["n1"] = replace(bench.ray.nodes["n1"], is_draining=False)
        await refused(bench, OSError("No space left on device"))
        assert list(bench.pool.state().avoided) == ["10.0.0.1 (n0)"], "once is enough now"

    on_cluster(run, {"labeler-0": LABELER})


def test_a_node_that_is_gone_is_not_told_of() -> None:
    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        await refused(bench, WorkerUnfit("No module named 'alsys'"))
        assert list(bench.pool.state().avoided) == ["10.0.0.1 (n0)"]
        del bench.ray.nodes["n0"]
        await bench.after(3)
        assert bench.pool.state().avoided == {}

    on_cluster(run, {"labeler-0": LABELER})


def test_a_run_without_any_node_for_labelers_ends_though_most_were_never_asked_for() -> None:
    """A campaign wants so many as it has frames: each of them would wait for `worker_start_timeout_s`."""

    async def run(bench: Bench) -> None:
        bench.ray.starts = False
        await bench.pool.start()
        bench.pool.want(2)
        with pytest.raises(EnvironmentProblem, match=r"cannot be placed: it asks for \{memory: 1024 GiB\}"):
            await bench.after(100)

    large = replace(LABELER, memory_mb=1024.0**2, is_kept=False, idle_s=120.0)
    on_cluster(run, {f"labeler-{i}": large for i in range(64)}, worker_start_timeout_s=60.0)


@pytest.mark.parametrize("is_one_up", [False, True])
def test_labelers_of_which_none_comes_up_and_some_have_a_place_do_not_wait_for_ever(is_one_up: bool) -> None:
    """Their interpreter is missing on the nodes; while one is up, others may well wait for a place."""

    async def run(bench: Bench) -> None:
        names = {f"labeler-{i}" for i in range(1 if is_one_up else 0, 6)}
        bench.ray.waits_for, bench.ray.hanging = names, names
        await bench.pool.start()
        downs_ = [event for event in await bench.after(120) if isinstance(event, WorkerDown)]
        assert len({event.worker for event in downs_}) == (0 if is_one_up else 6)
        assert all("is there /opt/mace/bin/python on its node?" in event.message for event in downs_)

    labeler = replace(LABELER, python="/opt/mace/bin/python")
    on_cluster(run, {f"labeler-{i}": labeler for i in range(6)}, worker_start_timeout_s=60.0)


def test_one_that_is_lost_while_it_makes_room_is_started_once() -> None:
    """A second actor of the same name would hold a place that nobody knows of."""

    async def run(bench: Bench) -> None:
        await bench.pool.start()
        await bench.after(1)
        for name in ("labeler-0", "labeler-1"):
            bench.pool.submit(name, ORDER)
        bench.ray.waits_for = {"trainer-0"}
        bench.pool.restart("trainer-0", "is to be elsewhere")
        await bench.after(1)
        await asyncio.sleep(0.01)
        assert WorkerLeaving("labeler-1", Role.LABELER) in await bench.after(WAITS_S + 3)
        bench.ray.waits_for = set()
        bench.actor("trainer-0").come_up()
        bench.actor("labeler-1").calls[-1][1].set_exception(exceptions.RayActorError(error_msg="died"))
        events = await bench.after(3)
        await asyncio.sleep(0.05)
        events += await bench.after(3)
        assert [event for event in events if event == WorkerUp("labeler-1", Role.LABELER)][1:] == []
        assert len(bench.ray.actors["labeler-1"]) == 2

    on_cluster(run, {"trainer-0": TRAINER, "labeler-0": LABELER, "labeler-1": LABELER}, cpus=1.0)
