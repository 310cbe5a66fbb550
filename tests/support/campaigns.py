"""A whole campaign on fakes, in one process and in memory: what tests of the loop run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from alsys.clock import RunningClock
from alsys.control.coordinator import Coordinator
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import LabelGate, Role, WorkerPool
from alsys.control.state.ledger import Ledger
from alsys.events import CampaignOpened, CampaignStopped, Event, StopRequested
from alsys.frames import Frame
from alsys.labels import LevelOfTheory
from alsys.store.base import StoreWriter
from alsys.store.memory import MemoryDisk, open_writer
from alsys.testing.fakes import (
    FAKE_LEVEL,
    AcknowledgedLabels,
    FakeExplorer,
    FakeLabeler,
    FakeTrainer,
    MemoryBundles,
    MemoryRegistry,
    fake_candidates,
)
from alsys.testing.policies import policy_settings


class FakeCampaign:
    """A campaign on fakes that can be run again and again on the same disk.

    Args:
        gate: Makes what judges labels at each start; default judges nothing.
        settings: Of the policies.
    """

    def __init__(self, gate: Callable[[], LabelGate] | None = None, **settings: Any) -> None:
        self._gate = gate
        self.settings = policy_settings(**{"n_labels": 60, "refit_every": 15, "random_share": 0.2, **settings})
        self.disk = MemoryDisk()
        self.bundles = MemoryBundles()
        self.registry = MemoryRegistry()
        self.acknowledged = AcknowledgedLabels()
        self.ledger = Ledger(self.settings)
        self.baseline: LevelOfTheory | None = None
        self.minima: dict[str, Frame] = {}

    def run(
        self,
        labeler: Callable[[], Any] = FakeLabeler,
        trainer: Callable[[], Any] = FakeTrainer,
        explorer: Callable[[], Any] = FakeExplorer,
        stop_request: Callable[[], StopRequested | None] | None = None,
        restarts: int = 20,
        use_threads: bool = False,
        has_gate_thread: bool = False,
        opened: Callable[[MemoryDisk], StoreWriter] = open_writer,
        pool: Callable[..., WorkerPool] = InProcessPool,
        observe: Callable[[Coordinator], None] | None = None,
        running: RunningClock | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> CampaignStopped:
        """Starts or resumes it, and runs it to its end."""
        store = opened(self.disk)
        self.ledger = Ledger.fold(self.settings, store.events())
        workers = {
            "explorer-0": (Role.EXPLORER, explorer),
            "labeler-0": (Role.LABELER, labeler),
            "labeler-1": (Role.LABELER, labeler),
            "trainer-0": (Role.TRAINER, trainer),
        }
        coordinator = Coordinator(
            ledger=self.ledger,
            store=store,
            pool=pool(workers, use_threads=use_threads, restarts=restarts),
            bundles=self.bundles,
            registry=self.registry,
            level=FAKE_LEVEL,
            baseline=self.baseline,
            minima=self.minima,
            initial=lambda: fake_candidates(16),
            opened=CampaignOpened(t=time.time(), epoch=store.epoch, config_hash="", version="test"),
            gate=None if self._gate is None else self._gate(),
            has_gate_thread=has_gate_thread,
            on_acknowledged=self.acknowledged,
            stop_request=stop_request,
            observe=observe,
            running=running,
            on_event=on_event,
        )
        return asyncio.run(coordinator.run())
