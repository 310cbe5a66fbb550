"""A model is judged as soon as it is published, not when a worker or the clock happens to say something."""

from __future__ import annotations

import asyncio
import time

from alsys.control.coordinator import Coordinator
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import PoolEvent, Role
from alsys.control.state.ledger import Ledger
from alsys.events import CampaignOpened, ModelPromoted, ModelPublished, ModelRejected
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


class PatientPool(InProcessPool):
    """Waits for a minute, whatever it is asked to; once a worker is up, nothing but work and `wake` ends that."""

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        return await super().wait(60.0)


def test_a_published_model_is_judged_at_once() -> None:
    settings = policy_settings(n_labels=12, first_at=4, refit_every=12, random_share=0.0)
    store = open_writer(MemoryDisk())
    workers = {
        "labeler-0": (Role.LABELER, FakeLabeler),
        "explorer-0": (Role.EXPLORER, FakeExplorer),
        "trainer-0": (Role.TRAINER, FakeTrainer),
    }
    coordinator = Coordinator(
        ledger=Ledger(settings),
        store=store,
        pool=PatientPool(workers, use_threads=True),
        bundles=MemoryBundles(),
        registry=MemoryRegistry(),
        level=FAKE_LEVEL,
        initial=lambda: fake_candidates(16),
        opened=CampaignOpened(t=time.time(), epoch=store.epoch, config_hash="", version="test"),
    )
    asyncio.run(coordinator.run())
    events = store.events()
    published = {event.version: event for event in events if isinstance(event, ModelPublished)}
    decided = {event.version: event.t for event in events if isinstance(event, ModelPromoted | ModelRejected)}
    last = published[max(published)]  # all labels are there, so that no worker is busy
    assert decided[last.version] - last.t < 20.0
    assert 0.0 < last.sent <= last.started <= last.finished <= last.t


def test_a_call_that_ended_wakes_a_pool_that_was_woken_before() -> None:
    async def wait_twice() -> float:
        pool = InProcessPool({"labeler-0": (Role.LABELER, FakeLabeler)}, use_threads=True)
        await pool.start()
        await pool.wait(0.1)
        pool.wake()
        started = time.monotonic()
        await pool.wait(60.0)
        await pool.close()
        return time.monotonic() - started

    assert asyncio.run(wait_twice()) < 20.0
