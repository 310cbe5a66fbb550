"""Campaigns whose workers die, leave, come and are replaced at any time: nothing is lost, doubled, or waited for.

Found by it: answers of the gate to a labeler that had died, taken for those to its next check.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from alsys.config.labeling import QualityConfig
from alsys.control.ports import (
    Completion,
    PoolEvent,
    PoolState,
    Role,
    Work,
    Worker,
    WorkerDown,
    WorkerGone,
    WorkerLeaving,
    WorkerUp,
)
from alsys.errors import FailureKind
from alsys.events import FrameQuarantined, LabelAccepted, ModelPublished, StopRequested
from alsys.labeling.gate.gate import LabelGate
from alsys.store.memory import open_reader
from alsys.testing.fakes import FakeExplorer, FakeLabeler, FakeTrainer, fake_frame
from alsys.training.base import FittedMember, MemberOrder
from support.campaigns import FakeCampaign

pytestmark = pytest.mark.thorough

LOOSE = QualityConfig(net_force=100.0, net_torque=100.0)
MAX_LOSSES = 150
NOBODYS = (FailureKind.NODE_LOST, FailureKind.WORKER_PREEMPTED)


class SlowGate(LabelGate):
    """Takes its time now and then, so that answers come after their labelers have gone."""

    def __init__(self, seed: int) -> None:
        super().__init__(LOOSE, fake_frame(np.random.default_rng(99)))
        self._random = random.Random(seed)

    def judge(self, *question: Any) -> Any:
        if self._random.random() < 0.3:
            time.sleep(0.002)
        return super().judge(*question)


class MemberTrainer(FakeTrainer):
    """Fits members too."""

    def run(self, order: Any) -> Any:
        if isinstance(order, MemberOrder):
            return FittedMember(order.fit.version, order.share.number, {"a": 1}, {}, 1, 1.0, 1.0, 0)
        return super().run(order)


class LosingPool:
    """Loses workers as dice say, and holds the coordinator to what a pool may be asked.

    Args:
        seed: Of the dice.
        workers: Role and factory by name.
    """

    def __init__(self, seed: int, workers: Mapping[str, tuple[Role, Callable[[], Worker]]]) -> None:
        self._dice, self._factories = random.Random(seed), dict(workers)
        self._share = self._dice.choice([0.005, 0.02, 0.1])
        self._up: dict[str, Worker] = {}
        self._calls: dict[str, deque[Work]] = {}
        self._leaving: set[str] = set()
        self._back = {name: self._dice.randrange(6) for name in workers}
        self._restarts: list[tuple[str, str]] = []
        self._events: list[PoolEvent] = []
        self.n_turns = self._n_lost = 0

    @property
    def roles(self) -> Mapping[str, Role]:
        return {name: role for name, (role, _) in self._factories.items()}

    async def start(self) -> None:
        """Workers come up one after another."""

    def want(self, n_labelers: int) -> None:
        """All stay."""

    def state(self) -> PoolState:
        return PoolState(len(self._factories), len(self._up))

    def submit(self, worker: str, work: Work) -> None:
        assert worker in self._up
        assert worker not in self._leaving
        assert len(self._calls[worker]) < 2
        self._calls[worker].append(work)

    def restart(self, worker: str, message: str) -> None:
        assert worker in self._up
        self._restarts.append((worker, message))

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        await asyncio.sleep(0 if any(self._calls.values()) else 0.001)
        self.n_turns += 1
        restarts, self._restarts = self._restarts, []
        for name, message in restarts:
            if name in self._up:
                self._lose(WorkerDown(name, self.roles[name], FailureKind.WORKER_LOST, message))
        for name in [name for name, turn in self._back.items() if turn <= self.n_turns]:
            self._come(name)
        for name in self._dice.sample(sorted(self._up), len(self._up)):
            if self._calls[name] and self._dice.random() < 0.6:
                self._complete(name)
        for name in sorted(self._up):
            if name in self._up and self._n_lost < MAX_LOSSES and self._dice.random() < self._share:
                self._n_lost += 1
                self._trouble(name)
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        """It never waits for long."""

    async def close(self) -> None:
        """Nothing runs."""

    def _come(self, name: str) -> None:
        del self._back[name]
        self._up[name], self._calls[name] = self._factories[name][1](), deque()
        self._events.append(WorkerUp(name, self.roles[name]))

    def _complete(self, name: str) -> None:
        now = time.time()
        result = self._up[name].run(self._calls[name].popleft())
        self._events.append(Completion(name, self.roles[name], result, now, now, now))
        if name in self._leaving and not self._calls[name]:
            self._lose(WorkerGone(name, self.roles[name]))

    def _trouble(self, name: str) -> None:
        if self._dice.random() < 0.4:
            self._lose(WorkerDown(name, self.roles[name], self._dice.choice(NOBODYS), "its node died"))
        elif name not in self._leaving and self._calls[name]:
            self._leaving.add(name)
            self._events.append(WorkerLeaving(name, self.roles[name]))
        elif not self._calls[name]:
            self._lose(WorkerGone(name, self.roles[name]))

    def _lose(self, event: WorkerDown | WorkerGone) -> None:
        name = event.worker
        del self._up[name], self._calls[name]
        self._leaving.discard(name)
        self._events.append(event)
        self._back[name] = self.n_turns + self._dice.choice([0, 0, 1, 3, 20])
        if self._back[name] == self.n_turns:
            self._come(name)


@pytest.mark.parametrize("seed", range(120))
def test_a_campaign_ends_with_all_its_labels_whoever_is_lost(seed: int) -> None:
    dice = random.Random(seed)
    n_trainers, has_gate = dice.choice([1, 1, 2, 3]), dice.random() < 0.7
    settings: dict[str, Any] = {
        "n_labels": dice.choice([30, 60]),
        "n_members": 3 if n_trainers > 1 else 0,
        "is_rounds": dice.random() < 0.2,
        "reference_every": dice.choice([0, 7, 1000]) if has_gate else 0,
        "audit_share": dice.choice([0.0, 0.3]) if has_gate else 0.0,
    }
    campaign = FakeCampaign((lambda: SlowGate(seed)) if has_gate else None, **settings)
    workers: dict[str, tuple[Role, Callable[[], Any]]] = {
        **{f"trainer-{i}": (Role.TRAINER, MemberTrainer) for i in range(n_trainers)},
        **{f"explorer-{i}": (Role.EXPLORER, FakeExplorer) for i in range(dice.choice([1, 2]))},
        **{f"labeler-{i}": (Role.LABELER, FakeLabeler) for i in range(dice.choice([1, 2, 5]))},
    }
    pools: list[LosingPool] = []

    def pool(*_: Any, **__: Any) -> LosingPool:
        pools.append(LosingPool(seed + 1000 * len(pools), workers))
        return pools[-1]

    for _ in range(dice.choice([0, 1, 2])):
        last, drains = dice.randrange(5, 120), dice.random() < 0.5

        def stop(last: int = last, drains: bool = drains) -> StopRequested | None:
            return StopRequested(t=time.time(), drain=drains) if pools and pools[-1].n_turns > last else None

        campaign.run(pool=pool, stop_request=stop, has_gate_thread=True)
    assert campaign.run(pool=pool, has_gate_thread=True).reason == "labels"
    assert campaign.ledger.is_balanced
    logged = list(open_reader(campaign.disk).events())
    assert not any(isinstance(event, FrameQuarantined) for event in logged), "nobody's fault"
    for found in (
        [event.frame_id for event in logged if isinstance(event, LabelAccepted)],
        [event.version for event in logged if isinstance(event, ModelPublished)],
    ):
        assert len(set(found)) == len(found)
