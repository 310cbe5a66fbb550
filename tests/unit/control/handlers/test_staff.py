"""The pool hears how many labelers are wanted, and the log who waits for a place."""

from __future__ import annotations

from typing import Any

import pytest

from alsys.control.handlers.staff import AGAIN_S, StaffHandler
from alsys.control.ports import PoolState, Role, WorkerPool, WorkerUp
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of, waiting_text
from alsys.control.worker_calls import WorkerCalls
from alsys.events import CampaignOpened, WorkersWaiting
from alsys.testing.policies import policy_settings


class Pool(WorkerPool):
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.said = PoolState(asked=3, up=1)
        self.wanted: list[int] = []

    def want(self, n_labelers: int) -> None:
        self.wanted.append(n_labelers)

    def state(self) -> PoolState:
        return self.said


class Rig:
    def __init__(self) -> None:
        self.now = 100.0
        self.ledger = Ledger(policy_settings())
        self.events: list[WorkersWaiting] = []
        self.pool: Any = Pool()
        calls = WorkerCalls(self.pool, lambda: self.now)
        calls.note(WorkerUp("labeler-0", Role.LABELER))
        record: Any = self.record
        self.handler = StaffHandler(self.ledger, self.pool, calls, record, lambda: 5.0, lambda: self.now)

    def record(self, event: WorkersWaiting) -> None:
        self.events.append(event)
        self.ledger.apply(event)

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.handler.tick()


def test_a_wait_is_an_event_when_it_begins_changes_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.tick()
    assert rig.events == []
    rig.pool.said = PoolState(3, 1, {"trainer-0": "{CPU: 1}", "labeler-1": "{CPU: 1}"})
    for _ in range(3):
        rig.tick()
    said = "asked 3, up 1: trainer-0, labeler-1 wait for {CPU: 1}"
    assert [waiting_text(event) for event in rig.events] == [said]
    assert status_of(rig.ledger, state="running", head_seq=0)["workers_waiting"] == said
    rig.pool.said = PoolState(3, 2, {"labeler-1": "{CPU: 1}"}, {"10.0.0.1 (ab)": "no alsys"})
    rig.tick()
    assert rig.events[-1].message == "labeler-1 waits for {CPU: 1}; node 10.0.0.1 (ab) is avoided: no alsys"
    rig.pool.said = PoolState(4, 2, rig.pool.said.waiting, rig.pool.said.avoided)
    rig.tick()
    assert len(rig.events) == 2, "numbers alone are told of now and then"
    rig.tick(AGAIN_S)
    assert [event.asked for event in rig.events] == [3, 3, 4]
    rig.pool.said = PoolState(4, 4)
    rig.tick()
    assert rig.events[-1].message == ""
    assert status_of(rig.ledger, state="running", head_seq=0)["workers_waiting"] == ""
    assert caplog.messages[-1] == "no worker waits for a place any more, 4 are up"
    assert rig.pool.wanted == [0] * 8


def test_a_wait_ends_with_its_driver() -> None:
    rig = Rig()
    rig.pool.said = PoolState(2, 1, {"labeler-1": "{CPU: 1}"})
    rig.tick()
    rig.ledger.apply(CampaignOpened(t=0.0, epoch=2, config_hash="", version=""))
    assert status_of(rig.ledger, state="running", head_seq=0)["workers_waiting"] == ""


def test_many_that_wait_for_the_same_are_counted() -> None:
    waiting = {f"labeler-{i}": "{CPU: 4, memory: 6 GiB}" for i in range(7)}
    waiting["trainer-0"] = "{GPU: 1}, which no node has"
    assert PoolState(9, 1, waiting).message == (
        "labeler-0, labeler-1, labeler-2 and 4 more wait for {CPU: 4, memory: 6 GiB}; "
        "trainer-0 waits for {GPU: 1}, which no node has"
    )
