"""A worker that is given up ends a campaign only where it was the last of its kind, whether it was ever up or not."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from alsys.control.budgets import Budget, Budgets
from alsys.control.ports import Completion, PoolState, Role, Work, WorkerDown, WorkerUp
from alsys.control.worker_calls import WorkerCalls
from alsys.errors import FailureKind
from alsys.labeling.base import LabelingOrder

ROLES = {"labeler-0": Role.LABELER, "labeler-1": Role.LABELER, "trainer-0": Role.TRAINER}


def worker_calls() -> WorkerCalls:
    pool: Any = SimpleNamespace(roles=ROLES, state=PoolState)
    return WorkerCalls(pool, lambda: 0.0)


def down(worker: str) -> WorkerDown:
    return WorkerDown(worker, ROLES[worker], FailureKind.WORKER_LOST, "cannot start", is_final=True)


def lose(calls: WorkerCalls, worker: str) -> bool:
    calls.lose(down(worker), 0.0)
    return calls.give_up(down(worker))


def test_one_that_never_came_up_leaves_the_others_at_work() -> None:
    calls = worker_calls()
    assert not lose(calls, "labeler-0")  # labeler-1 is still starting
    calls.note(WorkerUp("labeler-1", Role.LABELER))
    assert calls.idle().labelers == ("labeler-1",)
    assert calls.heartbeat(0.0, 0.0).workers[Role.LABELER] == 1


@pytest.mark.parametrize("were_up", [False, True])
def test_the_last_of_its_kind_is_told(were_up: bool) -> None:
    calls = worker_calls()
    if were_up:
        for name, role in ROLES.items():
            calls.note(WorkerUp(name, role))
    assert lose(calls, "trainer-0")
    assert not lose(calls, "labeler-1")
    assert lose(calls, "labeler-0")


ORDER = LabelingOrder(())


class Slow:
    """Who is free, worked out anew each time."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.leaving: set[str] = set()

    def with_calls(self, n: int) -> set[str]:
        return {w for w, k in self.calls.items() if k == n and w not in self.leaving}


@pytest.mark.parametrize("seed", range(5))
def test_who_is_free_is_kept_through_whatever_comes(seed: int) -> None:
    """Labelers of old and new names come and go, get calls and calls ahead, are restarted and lost."""
    rng, slow, hand = random.Random(seed), Slow(), SimpleNamespace(now=0.0)
    pool: Any = SimpleNamespace(roles={}, submit=lambda *_: None, restart=lambda *_: None, state=PoolState)
    calls, names = WorkerCalls(pool, lambda: hand.now), itertools.count()
    busy_s = 0.0
    for _ in range(600):
        hand.now += (step := rng.random())
        busy_s += step * sum(k > 0 for k in slow.calls.values())
        what, worker = rng.choice("unscdr"), rng.choice([*slow.calls, "none"])
        if what == "n" or (what == "u" and worker not in slow.calls):
            worker = f"w{next(names)}"
            calls.note(WorkerUp(worker, Role.LABELER))
            slow.calls[worker] = 0
        elif worker == "none":
            continue
        elif what == "s" and slow.calls[worker] < 3 and worker not in slow.leaving:
            calls.submit(worker, ORDER)
            slow.calls[worker] += 1
        elif what == "c" and slow.calls[worker]:
            calls.complete(Completion(worker, Role.LABELER, (), 0.0, 0.0, 0.0))
            slow.calls[worker] -= 1
        elif what == "r":
            calls.restart(worker, "odd")
            slow.leaving.add(worker)
        elif what == "d":
            is_final = rng.random() < 0.5
            event = WorkerDown(worker, Role.LABELER, FailureKind.WORKER_LOST, "gone", is_final=is_final)
            assert len(calls.lose(event, 0.0)[0]) == slow.calls.pop(worker)
            slow.leaving.discard(worker)
            if is_final:
                calls.give_up(event)
            else:
                calls.note(WorkerUp(worker, Role.LABELER))
                slow.calls[worker] = 0
        idle = calls.idle()
        assert set(idle.labelers) == slow.with_calls(0)
        assert set(idle.busy_labelers) == slow.with_calls(1)
        assert idle.n_labelers == len(slow.calls)
        beat = calls.heartbeat(0.0, 0.0)
        assert beat.workers[Role.LABELER] == len(slow.calls)
        assert beat.busy_s[Role.LABELER] == pytest.approx(busy_s)
        busy_s = 0.0
        assert set(calls.overdue().late) <= {w for w, k in slow.calls.items() if k}
    assert len(slow.calls) > 5


class CountingBudgets(Budgets):
    """Counts how often a call is looked at."""

    n = 0

    def of_call(self, role: Role, work: Work) -> Budget:
        self.n += 1
        return super().of_call(role, work)


def test_calls_that_run_as_long_as_usual_are_not_looked_at_one_by_one() -> None:
    hand, budgets = SimpleNamespace(now=0.0), CountingBudgets(label_s=60.0)
    pool: Any = SimpleNamespace(roles={}, submit=lambda *_: None, restart=lambda *_: None, state=PoolState)
    calls = WorkerCalls(pool, lambda: hand.now, budgets)
    for k in range(1000):
        hand.now += 0.01
        calls.note(WorkerUp(f"w{k}", Role.LABELER))
        calls.submit(f"w{k}", ORDER)
    budgets.n = 0
    assert not calls.overdue().late
    assert budgets.n <= len(Role)
    hand.now += 475.005  # the limit of 60 s and the margin of 420 s, for the first half of them
    late = list(calls.overdue().late)
    assert late[0] == "w0"
    assert late[-1] == "w499"
    assert len(late) == 500
