"""Wrong labels in a whole campaign on fakes: none of them stays data, and none of them stops anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alsys.config.labeling import QualityConfig
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import CampaignFailed
from alsys.events import (
    Event,
    LabelAudited,
    LabelFailedGate,
    LabelFlaggedByModel,
    LabelNotReproduced,
    LabelRetracted,
    ReferenceChecked,
    StopRequested,
    WorkerLost,
)
from alsys.frames import Frame
from alsys.labeling.gate.gate import LabelGate
from alsys.labels import Label, LabelFailure
from alsys.store.memory import open_reader
from alsys.testing.fakes import FAKE_LEVEL, FakeLabeler, fake_frame
from support.campaigns import FakeCampaign

pytestmark = pytest.mark.thorough

LOOSE = QualityConfig(net_force=100.0, net_torque=100.0)
"""The harmonic well of the fakes pulls every molecule to the origin."""
REFERENCE_FRAME = fake_frame(np.random.default_rng(99))


def campaign(reference_frame: Frame | None = None, config: QualityConfig = LOOSE, **settings: Any) -> FakeCampaign:
    return FakeCampaign(lambda: LabelGate(config, reference_frame), **settings)


class Tamperer:
    """Says which attempts at a frame are poisoned: by its identity and the number of the attempt."""

    def __init__(self, share: float, attempts: int = 1) -> None:
        self.share, self.attempts = share, attempts
        self.seen: dict[str, int] = {}
        self.poisoned: set[str] = set()

    def __call__(self, frame: Frame) -> bool:
        n = self.seen[frame.frame_id] = self.seen.get(frame.frame_id, 0) + 1
        is_wrong = int(frame.frame_id[:8], 16) / 2**32 < self.share and n <= self.attempts
        if is_wrong:
            self.poisoned.add(frame.frame_id)
        return is_wrong


def events_of(run: FakeCampaign, kind: type[Event]) -> list[Any]:
    return [event for event in open_reader(run.disk).events() if isinstance(event, kind)]


def wrong_in_data(run: FakeCampaign) -> list[str]:
    snapshot = open_reader(run.disk).snapshot(FAKE_LEVEL.level_id)
    error = np.abs(snapshot.forces + snapshot.positions).reshape(snapshot.n_frames, -1).max(axis=1)
    return [snapshot.frame_ids[i] for i in np.flatnonzero(error > 1e-9)]


def test_honest_labels_are_hardly_ever_fail_the_gate() -> None:
    run = campaign(n_labels=200)
    assert run.run().reason == "labels"
    assert len(events_of(run, LabelFailedGate)) <= 4
    assert not events_of(run, LabelNotReproduced)
    assert run.ledger.n_labels == 200


def test_wrong_labels_of_explored_frames_are_made_again() -> None:
    tamperer = Tamperer(0.15)
    run = campaign(n_labels=200)
    assert run.run(labeler=lambda: FakeLabeler(is_poisoned=tamperer)).reason == "labels"
    not_reproduced = {event.frame_id for event in events_of(run, LabelNotReproduced)}
    assert len(tamperer.poisoned) > 10
    assert not_reproduced <= tamperer.poisoned
    assert run.ledger.n_labels == 200
    assert not wrong_in_data(run), "also those of initial frames, which a later model flags"
    assert open_reader(run.disk).verify().problems == []
    assert Ledger.fold(run.settings, open_reader(run.disk).events()).is_balanced


def test_wrong_labels_from_before_the_first_model_are_flagged_audited_and_retracted() -> None:
    run = campaign(n_labels=80, first_at=10)
    first = Tamperer(0.3)
    run.run(labeler=lambda: FakeLabeler(is_poisoned=lambda f: len(first.seen) < 12 and first(f)))
    retracted = {event.frame_id for event in events_of(run, LabelRetracted)}
    assert first.poisoned
    assert not wrong_in_data(run)
    assert retracted <= first.poisoned
    assert run.ledger.n_labels == 80
    assert run.ledger.counts[Status.RETRACTED] == len(retracted)


def test_a_frame_whose_labels_are_always_wrong_is_quarantined() -> None:
    """Wrong at the campaign's level, right at the tighter one."""

    class Stubborn(FakeLabeler):
        def run(self, order: Any) -> Any:
            outcomes = super().run(order)
            if order.is_tight:
                return outcomes
            return tuple(_turned(o) if int(o.frame_id[:8], 16) / 2**32 < 0.05 else o for o in outcomes)

    run = campaign(n_labels=150)
    assert run.run(labeler=Stubborn).reason == "labels"
    quarantined = [f for f, record in run.ledger.frames.items() if record.status is Status.QUARANTINED]
    assert quarantined
    assert all(int(frame_id[:8], 16) / 2**32 < 0.05 for frame_id in quarantined)
    assert not wrong_in_data(run)


def test_a_share_of_good_labels_is_audited_and_confirmed() -> None:
    run = campaign(n_labels=200, audit_share=0.1)
    run.run()
    audits = events_of(run, LabelAudited)
    assert 8 <= len(audits) <= 36
    assert all(audit.is_confirmed and audit.force_difference == 0.0 for audit in audits)
    assert run.ledger.audits.n_audited == len(audits)


@pytest.mark.parametrize("damage", [lambda forces: forces * np.nan, lambda forces: forces[:1]])
def test_an_audit_that_is_no_label_costs_no_good_one(damage: Callable[[Any], Any]) -> None:
    class Broken(FakeLabeler):
        def run(self, order: Any) -> Any:
            outcomes = super().run(order)
            if not order.is_tight:
                return outcomes
            return tuple(Label(o.frame_id, o.level_id, o.energy, damage(o.forces), o.cost) for o in outcomes)

    run = campaign(n_labels=100, audit_share=0.2)
    assert run.run(labeler=Broken).reason == "labels"
    audits = events_of(run, LabelAudited)
    assert audits
    assert all(audit.error and audit.is_confirmed for audit in audits)
    assert not events_of(run, LabelRetracted)
    assert run.ledger.n_labels == 100


def test_a_labeler_gone_wrong_is_found_by_the_reference_frame_and_its_labels_are_made_right() -> None:
    built = {"n": 0}

    class GoingWrong(FakeLabeler):
        def __init__(self) -> None:
            super().__init__()
            built["n"] += 1
            self._is_bad, self._calls = built["n"] == 1, 0

        def label(self, frame: Frame) -> Label | LabelFailure:
            self._calls += 1
            outcome = super().label(frame)
            is_wrong = self._is_bad and self._calls > 8
            return _turned(outcome, 0.9) if is_wrong else outcome

    run = campaign(
        reference_frame=REFERENCE_FRAME,
        config=LOOSE.model_copy(update={"force_residual": 1e6}),
        reference_every=6,
        n_labels=80,
    )
    assert run.run(labeler=GoingWrong).reason == "labels"
    dead = [event for event in events_of(run, ReferenceChecked) if not event.is_sound]
    assert [event.worker for event in dead] == ["labeler-0"]
    assert "reference frame" in events_of(run, WorkerLost)[0].message
    assert any(event.reason.startswith("audit (reference)") for event in events_of(run, LabelRetracted))
    assert not wrong_in_data(run)
    assert run.ledger.n_labels == 80


def test_a_reference_frame_beyond_the_limits_for_data_costs_no_labeler() -> None:
    """Lennard-Jones water pulls harder than any label may; that says nothing about the labeler."""
    tight_limits = LOOSE.model_copy(update={"largest_force": 1e-6, "net_force": 1e-6})
    gate = LabelGate(tight_limits, REFERENCE_FRAME)
    label = FakeLabeler().label(REFERENCE_FRAME)
    assert isinstance(label, Label)
    assert gate.judge_reference(None, label) == ""
    broken = Label(label.frame_id, label.level_id, float("nan"), label.forces)
    assert "not finite" in gate.judge_reference(None, broken)


def test_a_reference_frame_that_the_level_cannot_treat_is_left_alone() -> None:
    class Picky(FakeLabeler):
        def label(self, frame: Frame) -> Label | LabelFailure:
            from alsys.errors import FailureKind

            if frame == REFERENCE_FRAME:
                return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, "no such element")
            return super().label(frame)

    run = campaign(reference_frame=REFERENCE_FRAME, reference_every=10)
    assert run.run(labeler=Picky).reason == "labels"
    assert all(event.is_sound and not event.forces for event in events_of(run, ReferenceChecked))
    assert not events_of(run, WorkerLost)


@pytest.mark.parametrize("n_stops", [1, 5, 20])
def test_stopped_and_resumed_the_gate_still_keeps_wrong_labels_out(n_stops: int) -> None:
    tamperer = Tamperer(0.15)
    run = campaign(reference_frame=REFERENCE_FRAME, reference_every=20, audit_share=0.05, n_labels=120)
    for k in range(n_stops):
        run.run(labeler=lambda: FakeLabeler(is_poisoned=tamperer), stop_request=_after(3 + k % 4))
        assert run.ledger.is_balanced
    assert run.run(labeler=lambda: FakeLabeler(is_poisoned=tamperer)).reason == "labels"
    assert not wrong_in_data(run)
    assert run.ledger.n_labels == 120
    assert open_reader(run.disk).verify().problems == []


def test_flags_name_what_is_odd() -> None:
    run = campaign(n_labels=60, first_at=10)
    seen = {"n": 0}

    def is_poisoned(frame: Frame) -> bool:
        seen["n"] += 1
        return seen["n"] == 4

    run.run(labeler=lambda: FakeLabeler(is_poisoned=is_poisoned))
    flags = events_of(run, LabelFlaggedByModel)
    if flags:  # the fourth label may have failed the gate at once, against the others
        assert all(event.findings for event in flags)
    assert flags or events_of(run, LabelFailedGate)


def _turned(outcome: Any, factor: float = -1.0) -> Any:
    if isinstance(outcome, LabelFailure):
        return outcome
    return Label(outcome.frame_id, outcome.level_id, outcome.energy, factor * outcome.forces, outcome.cost)


def _after(n_polls: int) -> Callable[[], StopRequested | None]:
    polls = {"n": 0}

    def request() -> StopRequested | None:
        polls["n"] += 1
        return StopRequested(t=0.0, drain=False) if polls["n"] >= n_polls else None

    return request


def test_a_wrong_sign_that_repeats_itself_is_no_confirmation() -> None:
    """From the thirtieth label on all forces have the wrong sign, at tighter settings too."""
    seen = {"n": 0}

    def is_poisoned(frame: Frame) -> bool:
        seen["n"] += 1
        return seen["n"] > 30

    run = campaign(n_labels=60)
    stopped = run.run(labeler=lambda: FakeLabeler(is_poisoned=is_poisoned))
    assert not wrong_in_data(run)
    assert stopped.reason == "failed"
    assert "in a row" in stopped.message
    assert "slope" in stopped.message


def test_a_first_reference_label_with_forces_that_are_no_slope_is_not_believed() -> None:
    run = campaign(reference_frame=REFERENCE_FRAME, reference_every=10)
    with pytest.raises(CampaignFailed, match="slope"):
        run.run(labeler=lambda: FakeLabeler(is_poisoned=lambda frame: True), restarts=2)
    assert run.ledger.counts[Status.LABELLED] == 0
