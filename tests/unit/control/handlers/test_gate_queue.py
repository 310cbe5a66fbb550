"""Judging labels keeps neither the loop waiting nor a label that came from being data."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np
import pytest

from alsys.config.labeling import QualityConfig
from alsys.control.handlers.gate_queue import GateQueue
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import PoolEvent
from alsys.control.state.records import Status
from alsys.errors import FailureKind
from alsys.events import LabelAccepted, LabelFailed, ReferenceChecked, StopRequested, WorkerLost
from alsys.frames import Frame
from alsys.labeling.gate.findings import Finding
from alsys.labeling.gate.gate import LabelGate
from alsys.labels import Label
from alsys.store.memory import open_reader
from alsys.testing.fakes import FakeLabeler, fake_frame
from support.campaigns import FakeCampaign

LOOSE = QualityConfig(net_force=100.0, net_torque=100.0)
PATIENCE_S = 20.0


class SlowGate(LabelGate):
    """Holds its first judgement back until `go`."""

    def __init__(self, reference_frame: Frame | None = None) -> None:
        super().__init__(LOOSE, reference_frame)
        self.go = threading.Event()
        self.asked = threading.Event()

    def judge(self, *question: Any) -> list[tuple[Finding, ...]]:
        self.asked.set()
        assert self.go.wait(PATIENCE_S)
        return super().judge(*question)


def events_of(run: FakeCampaign, kind: type) -> list[Any]:
    return [event for event in open_reader(run.disk).events() if isinstance(event, kind)]


def test_the_loop_goes_on_while_a_label_is_judged() -> None:
    gate = SlowGate()
    seen: list[str] = []

    class Labeler(FakeLabeler):
        def label(self, frame: Frame) -> Any:
            seen.append(frame.frame_id)
            if len(seen) == 4:  # the first labels have come and are judged, or wait for that
                assert gate.asked.wait(PATIENCE_S)
                gate.go.set()  # else the judgement waits in vain, and the test fails
            return super().label(frame)

    run = FakeCampaign(lambda: gate)
    assert run.run(labeler=Labeler, has_gate_thread=True).reason == "labels"
    assert run.ledger.n_labels == 60
    assert run.ledger.is_balanced


def test_a_label_that_came_is_data_although_the_user_stops_the_campaign_meanwhile() -> None:
    gate = SlowGate()

    def stop() -> StopRequested | None:
        if not gate.asked.is_set():
            return None
        threading.Timer(0.2, gate.go.set).start()
        return StopRequested(t=time.time(), drain=False)

    run = FakeCampaign(lambda: gate)
    assert run.run(has_gate_thread=True, stop_request=stop).reason == "user"
    assert len(events_of(run, LabelAccepted)) >= 1
    assert run.ledger.counts[Status.IN_FLIGHT] == 0


def test_a_label_is_data_although_its_labeler_dies_while_it_is_judged() -> None:
    gate = SlowGate()
    seen: list[str] = []

    class Labeler(FakeLabeler):
        def label(self, frame: Frame) -> Any:
            seen.append(frame.frame_id)
            if len(seen) == 4:
                assert gate.asked.wait(PATIENCE_S)
                threading.Timer(0.1, gate.go.set).start()
                raise RuntimeError("a bug")
            return super().label(frame)

    run = FakeCampaign(lambda: gate)
    assert run.run(labeler=Labeler, has_gate_thread=True).reason == "labels"
    accepted = [event.frame_id for event in events_of(run, LabelAccepted)]
    assert len(events_of(run, WorkerLost)) == 1
    assert len(set(accepted)) == len(accepted)
    assert set(seen[:3]) <= set(accepted)
    assert {event.failure for event in events_of(run, LabelFailed)} == {FailureKind.WORKER_LOST}


def test_every_labeler_is_checked_once_although_the_judgement_takes_long() -> None:
    class Slow(LabelGate):
        def judge_reference(self, reference: Label | None, label: Label) -> str:
            time.sleep(0.2)
            return super().judge_reference(reference, label)

    run = FakeCampaign(lambda: Slow(LOOSE, fake_frame(np.random.default_rng(99))), reference_every=1000, n_labels=30)
    assert run.run(has_gate_thread=True).reason == "labels"
    checked = events_of(run, ReferenceChecked)
    assert sorted(event.worker for event in checked) == ["labeler-0", "labeler-1"]
    assert [bool(event.forces) for event in checked] == [True, False], "the second is compared with the first"


def test_the_loop_goes_on_while_labels_are_reviewed_with_a_new_committee() -> None:
    go, asked = threading.Event(), threading.Event()
    seen, was_asked = list[str](), list[bool]()

    class Gate(LabelGate):
        def review(self, labelled: Any) -> dict[str, tuple[Finding, ...]]:
            asked.set()
            was_asked.append(go.wait(PATIENCE_S))
            return super().review(labelled)

    class Labeler(FakeLabeler):
        def label(self, frame: Frame) -> Any:
            seen.append(frame.frame_id)
            if len(seen) > 16:  # found with the first committee, whose review is under way
                was_asked.append(asked.wait(PATIENCE_S))
                go.set()  # else the review waits in vain, and the test fails
            return super().label(frame)

    run = FakeCampaign(lambda: Gate(LOOSE, None))
    assert run.run(labeler=Labeler, has_gate_thread=True, use_threads=True).reason == "labels"
    assert run.ledger.n_labels == 60
    assert all(was_asked)


def test_what_the_gate_raises_is_raised() -> None:
    queue = GateQueue(lambda: None)
    answers: list[int] = []
    queue.ask(lambda: 1, answers.append)
    queue.ask(lambda: 1 // 0, answers.append)

    def settle() -> None:
        for _ in range(1000):
            queue.settle()
            time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        settle()
    queue.close()
    assert answers == [1]


class SlowCheck(LabelGate):
    """Holds its first judgement on a reference frame back until `go`."""

    def __init__(self) -> None:
        super().__init__(LOOSE, fake_frame(np.random.default_rng(99)))
        self.go, self.asked = threading.Event(), threading.Event()

    def judge_reference(self, reference: Label | None, label: Label) -> str:
        self.asked.set()
        assert self.go.wait(PATIENCE_S)
        return super().judge_reference(reference, label)


class Dying(InProcessPool):
    """Its first labeler dies while its check is judged, and is at the next one when that is answered."""

    campaign: FakeCampaign
    gate: SlowCheck
    is_done = False

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        if self.gate.asked.is_set() and not self.is_done:
            self.is_done = True
            self.restart("labeler-0", "died")
        calls = [call for call in self._queue if call[0] == "labeler-0"]
        if not (self.is_done and calls and not self.campaign.ledger.audits.n_reference_checks):
            return await super().wait(timeout_s)
        self.gate.go.set()
        self._queue = deque(call for call in self._queue if call[0] != "labeler-0")
        events = await super().wait(timeout_s)
        self._queue.extend(calls)
        return events


def test_an_answer_that_comes_after_its_labeler_died_is_not_that_to_its_next_check() -> None:
    """The reference frame is none of the campaign's: its label would be looked for in vain."""
    gate = SlowCheck()
    run = FakeCampaign(lambda: gate, reference_every=1000)

    def pool(*args: Any, **kwargs: Any) -> Dying:
        made = Dying(*args, **kwargs)
        made.campaign, made.gate = run, gate
        return made

    assert run.run(pool=pool, has_gate_thread=True).reason == "labels"
    assert sorted(event.worker for event in events_of(run, ReferenceChecked)) == ["labeler-0", "labeler-1"]
