"""Requests to a running campaign: carried out between results, answered once durable, taken over after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from alsys.clock import RunningClock
from alsys.control.coordinator import Coordinator
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import Role
from alsys.control.rules.requests import Answer, Request, RetractLabels, RetryFrames, RollBack
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind, InputError
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    ExplorationReported,
    FrameRetried,
    LabelRetracted,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
)
from alsys.frames import Frame
from alsys.store.memory import MemoryDisk, open_reader, open_writer
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

SETTINGS = policy_settings(n_labels=30, refit_every=8, random_share=0.2)
STEADY = policy_settings(n_labels=300, refit_every=8, random_share=0.2, max_ahead=9)
"""Labels wait for models, so that there are many."""


HARD = [candidate.frame.frame_id for candidate in fake_candidates(12)[2:5]]


class Box:
    """Requests in memory. `make` adds to them when the driver looks."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self.requests: dict[str, Request | InputError] = {}
        self.answers: dict[str, Answer] = {}
        self.make: Callable[[], None] = lambda: None
        self.is_full = False
        self.dies: type[BaseException] | None = None

    def waiting(self) -> list[tuple[str, Request | InputError]]:
        self.make()
        return list(self.requests.items())

    def answer(self, name: str, answer: Answer) -> None:
        if self.is_full:
            self.is_full = False
            raise OSError("no space")
        if self.dies is not None:
            raise self.dies("killed between the commit and the answer")
        if answer.is_accepted and answer.message != "was carried out before":
            kinds = (FrameRetried, LabelRetracted, ModelPromoted)
            names = {e.request for e in open_reader(self._disk).events() if isinstance(e, kinds)}
            assert name in names, "answered before it was durable"
        del self.requests[name]
        self.answers[name] = answer


class Campaign:
    def __init__(self, settings: PolicySettings = SETTINGS) -> None:
        self.settings = settings
        self.disk = MemoryDisk()
        self.box = Box(self.disk)
        self.bundles = MemoryBundles()
        self.registry = MemoryRegistry()
        self.ledger = Ledger(settings)
        self.healthy = False

    def failure(self, frame: Frame) -> FailureKind | None:
        """Three initial frames do not converge until somebody mends it."""
        return FailureKind.SCF_NOT_CONVERGED if not self.healthy and frame.frame_id in HARD else None

    def run(self) -> CampaignStopped:
        store = open_writer(self.disk)
        self.ledger = Ledger.fold(self.settings, store.events())
        workers: dict[str, tuple[Role, Callable[[], Any]]] = {
            "explorer-0": (Role.EXPLORER, FakeExplorer),
            "labeler-0": (Role.LABELER, lambda: FakeLabeler(failure=self.failure)),
            "trainer-0": (Role.TRAINER, FakeTrainer),
        }
        times = iter(range(10**9))
        coordinator = Coordinator(
            ledger=self.ledger,
            store=store,
            pool=InProcessPool(workers),
            bundles=self.bundles,
            registry=self.registry,
            level=FAKE_LEVEL,
            initial=lambda: fake_candidates(12),
            opened=CampaignOpened(t=0.0, epoch=store.epoch, config_hash="", version="test"),
            requests=self.box,
            clock=lambda: 0.0,
            running=RunningClock(lambda: float(next(times))),  # every look at the clock is a tick
        )
        return asyncio.run(coordinator.run())

    def frames(self, status: Status) -> list[str]:
        return [frame_id for frame_id, record in self.ledger.frames.items() if record.status is status]

    def check(self) -> None:
        reader = open_reader(self.disk)
        assert reader.verify().problems == []
        folded = Ledger.fold(self.settings, reader.events())
        assert folded.counts == self.ledger.counts
        gone = {e.frame_id for e in reader.tombstones()}
        assert not gone & set(reader.snapshot(FAKE_LEVEL.level_id).frame_ids)
        last = [e for e in reader.events() if isinstance(e, ModelPublished)][-1]
        snapshot = reader.snapshot(FAKE_LEVEL.level_id, last.seq)
        assert last.n_labels == snapshot.n_frames
        assert last.n_retracted == len(reader.tombstones(last.seq))


def test_a_running_campaign_goes_back_to_an_earlier_version_and_on_from_there() -> None:
    campaign = Campaign(STEADY)

    def make() -> None:
        if campaign.ledger.champion == 2 and not campaign.box.answers:
            campaign.box.requests["r1"] = RollBack()

    campaign.box.make = make
    assert campaign.run().reason == "labels"
    assert campaign.box.answers["r1"].message.startswith("v0001 is champion, v0002 was; explorers go back to it")
    events = open_reader(campaign.disk).events()
    at = next(k for k, e in enumerate(events) if isinstance(e, ModelPromoted) and e.request == "r1")
    assert events[at].reason == "rolled back by the user from v0002"
    later = [e for e in events[at:] if isinstance(e, ExplorationReported | ModelPublished | ModelPromoted)]
    end = next((k for k, e in enumerate(later[1:], 1) if isinstance(e, ModelPromoted)), len(later))
    versions = [e.model_version for e in later[:end] if isinstance(e, ExplorationReported)]
    assert versions[-1] == 1, versions
    parents = {e.version: e.parent for e in events if isinstance(e, ModelPublished)}
    verdicts = {e.version: e for e in events[at + 1 :] if isinstance(e, ModelPromoted | ModelRejected)}
    in_flight = [version for version in verdicts if parents[version] == 2]
    for version in in_flight:
        assert verdicts[version].reason == "was fitted from v0002 and compared with it; v0001 is champion now"
    first = min(set(verdicts) - set(in_flight))
    assert parents[first] == 1, "the next fit starts from it"
    assert campaign.ledger.champion == max(parents)
    assert campaign.registry.promoted[:3] == [1, 2, 1]
    folded = Ledger.fold(STEADY, open_reader(campaign.disk).events())
    assert folded.champions == campaign.ledger.champions


def test_a_bundle_that_is_gone_is_no_way_back_and_does_no_harm() -> None:
    campaign = Campaign(STEADY)

    def make() -> None:
        if campaign.ledger.champion >= 4 and not campaign.box.answers:
            campaign.bundles.states.pop(1, None)
            campaign.box.requests["r1"] = RollBack(1)

    campaign.box.make = make
    assert campaign.run().reason == "labels"
    assert campaign.box.answers["r1"] == Answer(False, "version: its bundle cannot be read (got 1)")


def test_a_running_campaign_takes_a_label_out_and_labels_another() -> None:
    campaign = Campaign()

    def make() -> None:
        if campaign.ledger.n_train >= 12 and not campaign.box.answers:
            frame_ids = (campaign.ledger.labelled[3], campaign.ledger.labelled[7])
            campaign.box.requests["r1"] = RetractLabels("wrong", frame_ids)

    campaign.box.make = make
    assert campaign.run().reason == "labels"
    assert campaign.ledger.n_labels == 30
    assert campaign.ledger.counts[Status.RETRACTED] == 2
    assert campaign.ledger.counts[Status.LABELLED] == 30
    assert "the campaign labels others" in campaign.box.answers["r1"].message
    campaign.check()


def test_quarantined_frames_are_labelled_after_all() -> None:
    campaign = Campaign()

    def make() -> None:
        if campaign.ledger.counts[Status.QUARANTINED] >= 3 and not campaign.box.answers:
            campaign.healthy = True
            campaign.box.requests["r1"] = RetryFrames(is_all=True)

    campaign.box.make = make
    assert campaign.run().reason == "labels"
    retried = [e.frame_id for e in open_reader(campaign.disk).events() if isinstance(e, FrameRetried)]
    assert sorted(retried) == sorted(HARD)
    assert all(campaign.ledger.frames[frame_id].status is Status.LABELLED for frame_id in HARD)
    assert campaign.ledger.counts[Status.QUARANTINED] == 0
    campaign.check()


def test_a_request_that_waited_for_a_finished_campaign_reopens_it() -> None:
    campaign = Campaign()
    campaign.healthy = True
    campaign.run()
    n_models = len(campaign.ledger.models)
    campaign.box.requests["r1"] = RetractLabels("wrong", (campaign.ledger.labelled[0],))
    assert campaign.run().reason == "labels"
    assert campaign.box.answers["r1"].is_accepted
    assert campaign.ledger.n_labels == 30
    assert campaign.ledger.counts[Status.RETRACTED] == 1
    assert len(campaign.ledger.models) == n_models + 1
    campaign.check()


def test_refusals_are_answered_and_change_nothing() -> None:
    campaign = Campaign()
    campaign.healthy = True
    campaign.box.requests = {"a": RetryFrames(is_all=True), "b": InputError("is not a request")}
    campaign.run()
    assert [answer.is_accepted for answer in campaign.box.answers.values()] == [False, False]
    assert campaign.ledger.n_labels == 30
    campaign.check()


def test_a_crash_between_commit_and_answer_carries_nothing_out_twice() -> None:
    campaign = Campaign()

    def make() -> None:
        if campaign.ledger.counts[Status.QUARANTINED] >= 1 and not campaign.box.requests:
            campaign.box.requests["r1"] = RetryFrames(is_all=True)

    campaign.box.make = make
    campaign.box.dies = RuntimeError
    with pytest.raises(RuntimeError, match="killed"):
        campaign.run()
    campaign.box.make = lambda: None
    campaign.box.dies = None
    campaign.run()
    assert campaign.box.answers["r1"] == Answer(True, "was carried out before")
    requests = [e.request for e in open_reader(campaign.disk).events() if isinstance(e, FrameRetried)]
    assert requests
    frames = [e.frame_id for e in open_reader(campaign.disk).events() if isinstance(e, FrameRetried)]
    assert len(set(frames)) == len(frames)
    campaign.check()


def test_an_answer_that_finds_no_space_is_given_later() -> None:
    campaign = Campaign()
    campaign.healthy = True
    campaign.box.is_full = True

    def make() -> None:
        if campaign.ledger.n_train >= 5 and not campaign.box.answers and not campaign.box.requests:
            campaign.box.requests["r1"] = RetractLabels("wrong", (campaign.ledger.labelled[3],))

    campaign.box.make = make
    assert campaign.run().reason == "labels"
    assert campaign.box.answers["r1"].is_accepted
    assert campaign.ledger.counts[Status.RETRACTED] == 1
    campaign.check()
