"""Labelers come and go: a campaign goes on, ends, and wants as many as there is work for."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from alsys.control.commands import Finish, Idle
from alsys.control.handlers.staff import AGAIN_S, StaffHandler
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import PoolEvent, PoolState, Role, WorkerDown, WorkerGone, WorkerLeaving, WorkerUp
from alsys.control.rules.decisions import decide
from alsys.control.rules.labels import n_wanted
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.control.worker_calls import WorkerCalls
from alsys.errors import FailureKind
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    Event,
    FrameProposed,
    FrameQuarantined,
    HessianStarted,
    LabelAccepted,
    LabelFailed,
    LabelStarted,
    MinimumFound,
    ModelPublished,
    ReferenceChecked,
    ReferenceCheckStarted,
    StopRequested,
    TrainingFailed,
    WorkerLeft,
    WorkersWaiting,
)
from alsys.frames import Arm
from alsys.labeling.base import LabelingOrder
from alsys.store.memory import open_reader
from alsys.testing.policies import policy_settings
from support.campaigns import FakeCampaign

ORDER = LabelingOrder(())


def ledger_of(*events: Event, **settings: Any) -> Ledger:
    opened = CampaignOpened(t=0.0, epoch=1, config_hash="", version="")
    return Ledger.fold(policy_settings(**settings), [opened, *events])


def proposed(frame_id: str, arm: Arm = Arm.INITIAL) -> FrameProposed:
    return FrameProposed(t=0.0, frame_id=frame_id, arm=arm, system="s", deviation=1.0)


def labelled(frame_id: str, wall_s: float = 1.0) -> list[Event]:
    return [
        LabelStarted(t=0.0, worker="w", frame_ids=(frame_id,)),
        LabelAccepted(t=1.0, frame_id=frame_id, label_id="0" * 32, worker="w", wall_s=wall_s),
    ]


def workers(now: list[float], ended: list[str]) -> WorkerCalls:
    pool: Any = SimpleNamespace(
        roles={"labeler-0": Role.LABELER},
        submit=lambda *_: None,
        restart=lambda worker, _: ended.append(worker),
        state=PoolState,
    )
    calls = WorkerCalls(pool, lambda: now[0])
    calls.note(WorkerUp("labeler-0", Role.LABELER))
    return calls


def test_a_call_that_hangs_is_ended_though_its_worker_is_about_to_leave() -> None:
    now, ended = [0.0], list[str]()
    calls = workers(now, ended)
    calls.submit("labeler-0", ORDER)
    calls.note(WorkerLeaving("labeler-0", Role.LABELER))
    assert calls.idle().labelers == ()
    now[0] = 1e9
    calls.end_overdue()
    assert ended == ["labeler-0"]


def test_one_that_has_left_is_not_restarted() -> None:
    ended: list[str] = []
    calls = workers([0.0], ended)
    calls.note(WorkerGone("labeler-0", Role.LABELER))
    calls.restart("labeler-0", "gave a wrong label")
    assert ended == []
    assert calls.count(Role.LABELER) == 0
    assert calls.heartbeat(0.0, 0.0).workers[Role.LABELER] == 0


def test_one_that_never_was_there_is_not_told_of_when_it_is_asked_for_no_more() -> None:
    said: list[Event] = []
    sink: Any = said.append
    pool: Any = SimpleNamespace(roles={"labeler-0": Role.LABELER}, state=PoolState)
    calls = WorkerCalls(pool, lambda: 0.0)
    handler = StaffHandler(ledger_of(), pool, calls, sink, lambda: 0.0, lambda: 0.0)
    handler.note(WorkerGone("labeler-0", Role.LABELER))
    assert said == []
    handler.note(WorkerUp("labeler-0", Role.LABELER))
    handler.note(WorkerGone("labeler-0", Role.LABELER))
    assert [type(event) for event in said] == [WorkerLeft]


def test_who_comes_again_under_a_name_is_checked_again() -> None:
    ledger = ledger_of(
        ReferenceCheckStarted(t=0.0, worker="w"),
        ReferenceChecked(t=1.0, worker="w", is_sound=True, message="", wall_s=1.0, energy=1.0, forces=(0.0,)),
    )
    assert not ledger.audits.needs_check("w", 100)
    ledger.apply(WorkerLeft(t=2.0, worker="w"))
    assert ledger.audits.needs_check("w", 100)


def test_somebody_is_wanted_for_the_second_step_of_a_hessian() -> None:
    frame_id = "0" * 16
    ledger = ledger_of(
        HessianStarted(t=0.0, worker="w", name="a/0"),
        proposed(frame_id),
        MinimumFound(t=1.0, name="a/0", frame_id=frame_id, n_labels=1, worker="w", wall_s=1.0),
        *labelled(frame_id),
        hessians=("a/0",),
    )
    assert n_wanted(ledger, 0, has_trainer=True) == 1


def test_a_stuck_campaign_ends_though_no_labeler_is_there_for_want_of_work() -> None:
    ledger = ledger_of(
        proposed("f"),
        LabelStarted(t=0.0, worker="a", frame_ids=("f",)),
        LabelFailed(t=1.0, frame_id="f", failure=FailureKind.SCF_NOT_CONVERGED, worker="a"),
        FrameQuarantined(t=1.0, frame_id="f", failure=FailureKind.SCF_NOT_CONVERGED, message="m"),
    )
    assert n_wanted(ledger, 0, has_trainer=True) == 0
    idle = Idle(explorers=("e",), trainers=("t",))
    assert [type(command) for command in decide(ledger, 2.0, idle)] == [Finish]
    waiting = ledger_of(proposed("f"))
    assert decide(waiting, 2.0, idle) == [], "a labeler comes for it"


def test_a_campaign_is_not_stuck_while_the_labeler_that_may_have_the_last_frame_is_being_restarted() -> None:
    """A frame goes to another labeler than the one that lost it."""
    lost = LabelFailed(t=1.0, frame_id="f", failure=FailureKind.NODE_LOST, worker="a")
    ledger = ledger_of(proposed("f"), LabelStarted(t=0.0, worker="a", frame_ids=("f",)), lost)
    assert decide(ledger, 2.0, Idle(explorers=("e",), labelers=("a",), trainers=("t",), n_others=1)) == []
    assert decide(ledger, 2.0, Idle(explorers=("e",), labelers=("a",), trainers=("t",))) != []


def test_one_at_a_long_label_is_no_help_for_those_that_wait() -> None:
    ledger = ledger_of(
        *(proposed(f"f{i}") for i in range(17)), *labelled("f0"), LabelStarted(t=0.0, worker="w", frame_ids=("f1",))
    )
    assert n_wanted(ledger, 1, has_trainer=True) == 1
    assert n_wanted(ledger, 1, n_slow=1, has_trainer=True) == 2


def test_nobody_is_wanted_for_frames_that_a_stop_leaves() -> None:
    frames = [proposed(f"f{i}", Arm.UNCERTAIN) for i in range(30)]
    assert n_wanted(ledger_of(*frames, StopRequested(t=1.0, drain=True)), 0, has_trainer=True) == 0


def test_a_campaign_that_has_ended_waits_for_no_worker() -> None:
    ledger = ledger_of(
        WorkersWaiting(t=0.0, asked=3, up=2, message="labeler-2 waits for {CPU: 1}"),
        CampaignStopped(t=1.0, reason="labels", message="m"),
    )
    assert status_of(ledger, state="finished", head_seq=0)["workers_waiting"] == ""


@pytest.mark.parametrize("seconds", [45.0])
def test_workers_that_come_up_one_by_one_are_told_of_now_and_then(seconds: float) -> None:
    now, said, left = [0.0], list[Event](), [100]
    ledger = ledger_of()

    def state() -> PoolState:
        return PoolState(100, 100 - left[0], {f"labeler-{i}": "{CPU: 1}" for i in range(left[0])})

    def record(event: Event) -> None:
        said.append(event)
        ledger.apply(event)

    pool: Any = SimpleNamespace(want=lambda _: None, roles={}, state=state)
    sink: Any = record
    handler = StaffHandler(ledger, pool, WorkerCalls(pool, lambda: now[0]), sink, lambda: now[0], lambda: now[0])
    for _ in range(round(2 * seconds)):
        now[0] += 0.5
        left[0] -= 1
        handler.tick()
    assert len(said) <= 1 + seconds / AGAIN_S


def test_nodes_that_are_avoided_for_the_same_are_told_of_together() -> None:
    """A cluster may have hundreds of them, and each change of the message is an event."""
    avoided = {f"10.0.0.{i}": "no alsys" for i in range(200)} | {"10.0.1.1": "a full disk"}
    assert PoolState(2, 1, {"labeler-1": "{CPU: 1}"}, avoided).message == (
        "labeler-1 waits for {CPU: 1}; nodes 10.0.0.0, 10.0.0.1, 10.0.0.2 and 197 more are avoided: no alsys; "
        "node 10.0.1.1 is avoided: a full disk"
    )


class Leaving(InProcessPool):
    """Its trainer goes, and comes again, while a fit is put together, of which a pool knows nothing."""

    coordinator_has_fit: Callable[[], bool]
    goes: PoolEvent
    is_done = False

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        if self.coordinator_has_fit() and not self.is_done:
            self.is_done = True
            return [self.goes, WorkerUp("trainer-0", Role.TRAINER)]
        return await super().wait(timeout_s)


@pytest.mark.parametrize(
    ("goes", "failure"),
    [
        (WorkerGone("trainer-0", Role.TRAINER), FailureKind.WORKER_PREEMPTED),
        (WorkerDown("trainer-0", Role.TRAINER, FailureKind.NODE_LOST, "its node died"), FailureKind.NODE_LOST),
    ],
)
def test_a_fit_whose_trainer_goes_while_it_is_put_together_is_begun_again(
    goes: PoolEvent, failure: FailureKind
) -> None:
    """Once: a trainer that is back before its first order is ready is sent the second one only."""
    campaign = FakeCampaign()

    def pool(*args: Any, **kwargs: Any) -> Leaving:
        made = Leaving(*args, **kwargs)
        made.coordinator_has_fit, made.goes = lambda: campaign.ledger.training is not None, goes
        return made

    assert campaign.run(pool=pool).reason == "labels"
    logged = list(open_reader(campaign.disk).events())
    assert [event.failure for event in logged if isinstance(event, TrainingFailed)] == [failure]
    versions = [event.version for event in logged if isinstance(event, ModelPublished)]
    assert versions == sorted(set(versions))
