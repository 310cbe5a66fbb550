"""Calls have budgets that follow from the work; a driver that stood still judges nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from alsys.clock import RunningClock
from alsys.config import parse_config
from alsys.control.budgets import CHUNK_FACTOR, FIRST_CHUNK_S, FLOOR_S, Budgets
from alsys.control.coordinator import Coordinator
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import Completion, Role, WorkerUp
from alsys.control.state.ledger import Ledger
from alsys.control.worker_calls import WorkerCalls
from alsys.events import CampaignOpened, ExplorationFailed, Heartbeat, WorkerLost
from alsys.exploration.base import ExplorationOrder
from alsys.labeling.base import LabelingOrder
from alsys.store.memory import MemoryDisk, open_writer
from alsys.testing.fakes import (
    FAKE_LEVEL,
    FakeExplorer,
    FakeLabeler,
    FakeTrainer,
    MemoryBundles,
    MemoryRegistry,
    fake_candidates,
)
from alsys.testing.policies import policy_settings

FRAMES = tuple(candidate.frame for candidate in fake_candidates(4))
CHUNK: Any = SimpleNamespace()


class Hand:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def config(**sections: Any) -> Any:
    data = {
        "name": "a",
        "systems": [{"name": "w", "smiles": "O"}],
        "labeling": {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "timeout_s": 100.0},
        "model": {"kind": "pair"},
        **sections,
    }
    return parse_config(data)


def worker_calls(role: Role, budgets: Budgets) -> tuple[WorkerCalls, Hand]:
    hand = Hand()
    pool: Any = SimpleNamespace(roles={"w-0": role}, submit=lambda *_: None, restart=lambda *_: None)
    calls = WorkerCalls(pool, RunningClock(hand), budgets)
    calls.note(WorkerUp("w-0", role))
    return calls, hand


def pass_time(hand: Hand, calls: WorkerCalls, seconds: float) -> None:
    """In steps of a second, as a loop that runs looks at its clock."""
    for _ in range(int(seconds)):
        hand.now += 1.0
        calls.idle(), calls._clock()


def test_a_chunk_may_take_many_times_what_chunks_took() -> None:
    budgets = Budgets()
    assert budgets.of_call(Role.EXPLORER, CHUNK).timeout_s == FIRST_CHUNK_S
    budgets.observe(Role.EXPLORER, 0.5)
    assert budgets.of_call(Role.EXPLORER, CHUNK).timeout_s == FLOOR_S
    budgets.observe(Role.EXPLORER, 60.0)
    assert budgets.of_call(Role.EXPLORER, CHUNK).timeout_s == CHUNK_FACTOR * 60.0
    assert budgets.of_call(Role.EXPLORER, CHUNK).remind_s == 180.0


def test_labels_and_fits_have_the_limits_of_the_config_and_a_margin() -> None:
    budgets = Budgets.of(config(training={"budget_s": 1000.0}))
    assert budgets.of_call(Role.LABELER, LabelingOrder(FRAMES)).timeout_s > 4 * 100.0 + 2 * 180.0
    assert budgets.of_call(Role.TRAINER, CHUNK).timeout_s > 3000.0
    with_baseline = Budgets.of(
        config(
            labeling={
                "kind": "pyscf",
                "xc": "pbe",
                "basis": "def2-svp",
                "timeout_s": 100.0,
                "baseline": {"kind": "gfn2-xtb"},
            },
        )
    )
    assert with_baseline.of_call(Role.LABELER, LabelingOrder(FRAMES)).timeout_s > 8 * 100.0


def test_a_user_may_set_each() -> None:
    budgets = Budgets.of(config(runtime={"chunk_timeout_s": 7, "fit_timeout_s": 8, "label_timeout_s": 9}))
    budgets.observe(Role.EXPLORER, 100.0)
    budgets.observe(Role.TRAINER, 100.0)
    assert budgets.of_call(Role.EXPLORER, CHUNK).timeout_s == 7.0
    assert budgets.of_call(Role.TRAINER, CHUNK).timeout_s == 8.0
    labels = budgets.of_call(Role.LABELER, LabelingOrder(FRAMES))
    assert labels.timeout_s == 36.0
    assert "runtime.label_timeout_s" in labels.reason


def test_one_that_is_silent_is_spoken_of_once_and_then_ended() -> None:
    budgets = Budgets()
    budgets.observe(Role.EXPLORER, 0.5)
    calls, hand = worker_calls(Role.EXPLORER, budgets)
    calls.submit("w-0", CHUNK)
    pass_time(hand, calls, 30)
    assert not calls.overdue().slow
    pass_time(hand, calls, 25)
    assert "is at one call for 55 s" in calls.overdue().slow["w-0"]
    assert not calls.overdue().slow, "once"
    pass_time(hand, calls, 66)
    assert "gave no answer for 121 s, and a chunk may take 120 s" in calls.overdue().late["w-0"]
    calls.restart("w-0", "")
    assert not calls.overdue().late


def test_a_call_ahead_has_its_own_budget() -> None:
    calls, hand = worker_calls(Role.LABELER, Budgets(label_s=10.0, label_is_set=True))
    for _ in range(2):
        calls.submit("w-0", LabelingOrder(FRAMES[:1]))
    pass_time(hand, calls, 9)
    calls.complete(Completion("w-0", Role.LABELER, (), 0.0, 0.0, 0.0))
    pass_time(hand, calls, 9)
    assert not calls.overdue().late
    pass_time(hand, calls, 2)
    assert calls.overdue().late


def test_a_driver_that_was_stopped_for_an_hour_ends_nobody() -> None:
    budgets = Budgets()
    budgets.observe(Role.EXPLORER, 0.5)
    calls, hand = worker_calls(Role.EXPLORER, budgets)
    calls.submit("w-0", CHUNK)
    pass_time(hand, calls, 5)
    hand.now += 3600.0
    assert not calls.overdue().late
    assert calls.busy.take(calls._clock()) == {Role.EXPLORER: 35.0, Role.LABELER: 0.0, Role.TRAINER: 0.0}


class Hangs(FakeExplorer):
    """The first chunk of the first explorer never ends."""

    release = threading.Event()
    made = 0

    def __init__(self) -> None:
        super().__init__()
        self.is_first = not Hangs.made
        Hangs.made += 1

    def run(self, order: ExplorationOrder) -> Any:
        if self.is_first:
            self.release.wait(120.0)
        return super().run(order)


def run(explorer: Callable[[], Any], clock: Callable[[], float], budgets: Budgets | None = None) -> Any:
    store = open_writer(MemoryDisk())
    workers: dict[str, tuple[Role, Callable[[], Any]]] = {
        "labeler-0": (Role.LABELER, FakeLabeler),
        "explorer-0": (Role.EXPLORER, explorer),
        "trainer-0": (Role.TRAINER, FakeTrainer),
    }
    coordinator = Coordinator(
        ledger=Ledger(policy_settings(n_labels=24, first_at=4, refit_every=12, random_share=0.0)),
        store=store,
        pool=InProcessPool(workers, use_threads=True),
        bundles=MemoryBundles(),
        registry=MemoryRegistry(),
        level=FAKE_LEVEL,
        initial=lambda: fake_candidates(8),
        opened=CampaignOpened(t=0.0, epoch=store.epoch, config_hash="", version="test"),
        clock=clock,
        budgets=budgets,
    )
    stopped = asyncio.run(coordinator.run())
    return stopped, store.events(), coordinator


def test_a_worker_that_hangs_is_replaced_and_the_campaign_ends(caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    stopped, events, _ = run(Hangs, time.time, Budgets(chunk_s=1.0))
    Hangs.release.set()
    assert time.monotonic() - started < 30.0
    assert stopped.reason == "labels"
    failure = next(event for event in events if isinstance(event, ExplorationFailed))
    assert "a chunk may take 1 s (runtime.chunk_timeout_s)" in failure.message
    assert [event.worker for event in events if isinstance(event, WorkerLost)] == ["explorer-0"]


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0])
def test_a_clock_that_is_set_by_hours_changes_no_duration(jump_s: float) -> None:
    started = time.monotonic()
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.time() + (jump_s if looks > 20 else 0.0)

    stopped, events, coordinator = run(FakeExplorer, clock)
    took = time.monotonic() - started
    beats = [event for event in events if isinstance(event, Heartbeat)]
    assert looks > 30
    assert stopped.reason == "labels"
    assert all(0.0 <= beat.wall_s <= took for beat in beats)
    assert all(0.0 <= seconds <= 4 * took for beat in beats for seconds in beat.busy_s.values())
    assert coordinator.ledger.totals.wall_s <= took
