"""A worker that is given up ends a campaign only where it was the last of its kind, whether it was ever up or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alsys.control.ports import Role, WorkerDown, WorkerUp
from alsys.control.worker_calls import WorkerCalls
from alsys.errors import FailureKind

ROLES = {"labeler-0": Role.LABELER, "labeler-1": Role.LABELER, "trainer-0": Role.TRAINER}


def worker_calls() -> WorkerCalls:
    pool: Any = SimpleNamespace(roles=ROLES)
    return WorkerCalls(pool, lambda: 0.0)


def down(worker: str) -> WorkerDown:
    return WorkerDown(worker, ROLES[worker], FailureKind.WORKER_LOST, "cannot start", is_final=True)


def lose(calls: WorkerCalls, worker: str) -> bool:
    calls.lose(down(worker))
    return calls.give_up(down(worker))


def test_one_that_never_came_up_leaves_the_others_at_work() -> None:
    calls = worker_calls()
    assert not lose(calls, "labeler-0")  # labeler-1 is still starting
    calls.arrive(WorkerUp("labeler-1", Role.LABELER))
    assert calls.idle().labelers == ("labeler-1",)
    assert calls.heartbeat(0.0, 0.0).workers[Role.LABELER] == 1


@pytest.mark.parametrize("were_up", [False, True])
def test_the_last_of_its_kind_is_told(were_up: bool) -> None:
    calls = worker_calls()
    if were_up:
        for name, role in ROLES.items():
            calls.arrive(WorkerUp(name, role))
    assert lose(calls, "trainer-0")
    assert not lose(calls, "labeler-1")
    assert lose(calls, "labeler-0")
