"""Hessians in the loop, in one process on fakes: found once, never lost, learned by every fit after them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from alsys.control.commands import ComputeHessian, Idle
from alsys.control.rules.decisions import decide
from alsys.control.state.ledger import Ledger
from alsys.control.status import hessians_text
from alsys.errors import FailureKind
from alsys.events import (
    CampaignOpened,
    HessianComputed,
    HessianFailed,
    HessianStarted,
    LabelAccepted,
    LabelRetracted,
    MinimumFound,
    ModelPublished,
    decode,
    encode,
)
from alsys.frames import Frame
from alsys.labeling.base import HessianOrder
from alsys.labels import Hessian
from alsys.store.memory import open_reader
from alsys.testing.fakes import FakeLabeler, FakeTrainer, fake_frame
from alsys.testing.policies import policy_settings
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from support.campaigns import FakeCampaign

NAMES = ("fake", "fake/2")


class Watching(FakeTrainer):
    """Remembers orders."""

    orders: list[TrainingOrder]

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        self.orders.append(order)
        return super().run(order)


def campaign_with_minima(**settings: Any) -> FakeCampaign:
    campaign = FakeCampaign(**{"hessians": NAMES, **settings})
    rng = np.random.default_rng(1)
    campaign.minima = {name: fake_frame(rng) for name in NAMES}
    return campaign


def watched(campaign: FakeCampaign, labeler: Any = FakeLabeler) -> list[TrainingOrder]:
    """Orders of the fits of a run that ends with all labels."""
    orders: list[TrainingOrder] = []
    trainer = type("Trainer", (Watching,), {"orders": orders})
    assert campaign.run(labeler=labeler, trainer=trainer).reason == "labels"
    return orders


def events_of(campaign: FakeCampaign, kind: type[Any]) -> list[Any]:
    return [event for event in open_reader(campaign.disk).events() if isinstance(event, kind)]


def test_each_minimum_is_found_once_labelled_once_and_every_last_fit_learns_its_hessian() -> None:
    campaign = campaign_with_minima()
    orders = watched(campaign)
    ledger = campaign.ledger
    assert list(ledger.hessians.found) == [event.name for event in events_of(campaign, HessianComputed)]
    assert sorted(ledger.hessians.found) == sorted(NAMES)
    assert len(events_of(campaign, MinimumFound)) == 2
    minima = set(ledger.hessians.minima.values())
    accepted = [event.frame_id for event in events_of(campaign, LabelAccepted)]
    assert minima <= set(accepted)
    assert len(accepted) == len(set(accepted)) == ledger.n_labels == 60  # minima are labels of the budget
    assert {hessian.frame_id for hessian in orders[-1].hessians} == minima
    assert minima <= set(orders[-1].snapshot.frame_ids)
    np.testing.assert_array_equal(orders[-1].hessians[0].matrix, np.eye(6))
    assert open_reader(campaign.disk).verify().problems == []


def test_a_resumed_campaign_computes_nothing_again_and_still_learns() -> None:
    campaign = campaign_with_minima(n_labels=30)
    watched(campaign)
    campaign.settings = dataclasses.replace(campaign.settings, n_labels=50)
    orders = watched(campaign)
    assert len(events_of(campaign, HessianComputed)) == len(events_of(campaign, MinimumFound)) == 2
    assert all(len(order.hessians) == 2 for order in orders)


def test_hessians_that_are_asked_for_later_make_another_fit() -> None:
    campaign = FakeCampaign(n_labels=30)
    watched(campaign)
    n_fits = len(events_of(campaign, ModelPublished))
    campaign.settings = dataclasses.replace(campaign.settings, hessians=NAMES, n_labels=32)
    campaign.minima = {name: fake_frame(np.random.default_rng(7)) for name in NAMES}
    campaign.minima["fake/2"] = fake_frame(np.random.default_rng(8))
    orders = watched(campaign)
    assert len(orders[-1].hessians) == 2
    assert len(events_of(campaign, ModelPublished)) == n_fits + len(orders)


@pytest.mark.parametrize("dies_at", ["relaxation", "hessian"])
def test_a_labeler_that_dies_on_the_way_loses_one_step(dies_at: str) -> None:
    campaign = campaign_with_minima(hessians=("fake",))
    asked: list[HessianOrder] = []

    class Fragile(FakeLabeler):
        def run(self, order: Any) -> Any:
            if isinstance(order, HessianOrder):
                asked.append(order)
                if len(asked) == (1 if dies_at == "relaxation" else 2):
                    raise RuntimeError("killed")
            return super().run(order)

    watched(campaign, Fragile)
    start, minimum = campaign.minima["fake"].frame_id, campaign.ledger.hessians.minima["fake"]
    steps = [order.frame.frame_id for order in asked]
    assert steps == ([start, start, minimum] if dies_at == "relaxation" else [start, minimum, minimum])
    assert not any(order.is_by_differences for order in asked)  # the machine failed, and not the engine
    (failed,) = events_of(campaign, HessianFailed)
    assert failed.failure is FailureKind.WORKER_LOST


def test_where_the_engine_fails_differences_of_forces_are_tried_and_chemistry_is_final() -> None:
    campaign = campaign_with_minima()
    asked: list[HessianOrder] = []

    class Unwilling(FakeLabeler):
        def run(self, order: Any) -> Any:
            outcome = super().run(order)
            if not isinstance(order, HessianOrder):
                return outcome
            asked.append(order)
            if order.frame.frame_id == campaign.minima["fake/2"].frame_id:
                return self.failed(order.frame, FailureKind.UNSUPPORTED)
            is_hessian = outcome.hessian is not None and not order.is_by_differences
            return self.failed(order.frame, FailureKind.OUT_OF_MEMORY) if is_hessian else outcome

        def failed(self, frame: Frame, kind: FailureKind) -> Any:
            return FakeLabeler(failure=lambda _: kind).label(frame)

    orders = watched(campaign, Unwilling)
    assert len(orders[-1].hessians) == 1
    assert [order.is_by_differences for order in asked].count(True) == 1
    given_up = campaign.ledger.hessians.given_up
    assert list(given_up) == ["fake/2"]
    assert campaign.ledger.hessians.is_busy is False


def test_a_retracted_minimum_teaches_nothing_any_more() -> None:
    campaign = campaign_with_minima(n_labels=30, hessians=("fake",))
    watched(campaign)
    ledger = campaign.ledger
    frame_id = ledger.hessians.minima["fake"]
    from alsys.store.memory import open_writer

    store = open_writer(campaign.disk)
    label_id = ledger.frames[frame_id].label_id
    store.stage([LabelRetracted(t=0.0, frame_id=frame_id, label_id=label_id, reason="wrong")])
    store.commit()
    store.close()
    orders = watched(campaign)
    assert frame_id not in orders[-1].snapshot.frame_ids
    assert all(frame_id not in {h.frame_id for h in order.hessians} for order in orders)
    assert len(orders[-1].hessians) == events_of(campaign, ModelPublished)[-1].n_hessians == 0
    assert hessians_text(campaign.ledger).endswith("not learned: its label was retracted")
    assert campaign.ledger.n_new == 0
    assert watched(campaign) == []  # nothing is left to learn


def test_events_keep_every_bit_and_the_ledger_follows_them() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    hessian = Hessian("ab" * 16, matrix + matrix.T)
    event = HessianComputed(
        t=1.0, name="fake", frame_id=hessian.frame_id, triangle=hessian.triangle, n_labels=1, is_analytic=True,
        worker="labeler-0", wall_s=2.0,
    )  # fmt: skip
    read = decode(encode(event))
    assert read == event
    np.testing.assert_array_equal(Hessian.of_triangle(read.frame_id, read.triangle).matrix, hessian.matrix)


def test_half_of_the_labelers_are_left_to_labels() -> None:
    ledger = Ledger(policy_settings(hessians=("a", "b", "c")))
    opened = CampaignOpened(t=0.0, epoch=1, config_hash="", version="")
    ledger.apply(opened)
    idle = Idle(labelers=("labeler-0", "labeler-1", "labeler-2", "labeler-3"))
    asked = [command for command in decide(ledger, 0.0, idle) if isinstance(command, ComputeHessian)]
    assert [command.name for command in asked] == ["a", "b"]
    for command in asked:
        ledger.apply(HessianStarted(t=0.0, worker=command.worker, name=command.name))
    left = Idle(labelers=("labeler-2", "labeler-3"), busy_labelers=("labeler-0", "labeler-1"))
    assert not [command for command in decide(ledger, 0.0, left) if isinstance(command, ComputeHessian)]
    ledger.apply(opened)  # a new driver
    assert ledger.hessians.waiting == ["a", "b", "c"]
