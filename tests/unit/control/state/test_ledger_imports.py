"""Imported labels start a fit at once, count as reasons to fit again, and use nothing of the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from alsys.control.commands import Idle, Train
from alsys.control.rules.decisions import decide
from alsys.control.state.ledger import Ledger
from alsys.control.status import headline, status_of
from alsys.events import DataImported, FrameProposed, LabelRetracted, ModelPromoted, ModelPublished
from alsys.frames import Arm
from alsys.labels import label_id_of
from alsys.store.base import own_level
from alsys.store.memory import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.testing.policies import policy_settings
from alsys.testing.store_records import OTHER_LEVEL, records
from alsys.training.dataset import split
from support.campaigns import FakeCampaign

WORKERS = Idle(explorers=("e",), labelers=("l",), trainers=("t",))


def imported(n: int, level_id: str = FAKE_LEVEL.level_id, **fields: Any) -> DataImported:
    return DataImported(
        t=0.0, source="a.xyz", digest="0" * 32, format="extxyz", level_id=level_id,
        is_training=level_id == FAKE_LEVEL.level_id, first_row=0, n_rows=n, n_labels=n,
        n_train=n if level_id == FAKE_LEVEL.level_id else 0, **fields,
    )  # fmt: skip


def import_into(campaign: FakeCampaign, n: int, seed: int) -> None:
    store = open_writer(campaign.disk)
    candidates, labels = records(n, seed)
    candidates = [
        replace(c, source=replace(c.source, arm=Arm.IMPORTED, trajectory=10_000 + i)) for i, c in enumerate(candidates)
    ]
    first_row = store.head.lengths["labels"]
    store.stage((), candidates, labels, [FAKE_LEVEL])
    store.append()
    store.stage([replace(imported(n), first_row=first_row)])
    store.commit()
    store.close()


def trains(ledger: Ledger) -> bool:
    return any(isinstance(command, Train) for command in decide(ledger, 0.0, WORKERS))


def test_enough_imported_labels_are_fitted_at_once() -> None:
    settings = policy_settings(first_at=10)
    waiting = FrameProposed(t=0.0, frame_id="f" * 32, arm=Arm.INITIAL, system="m", deviation=0.0)
    assert not trains(Ledger.fold(settings, [imported(9), waiting]))
    ledger = Ledger.fold(settings, [imported(10), waiting])
    assert trains(ledger)
    assert (ledger.n_labels, ledger.n_train, ledger.is_balanced) == (0, 10, True)
    assert not trains(Ledger.fold(settings, [imported(50, OTHER_LEVEL.level_id), waiting]))


def test_a_fit_knows_of_what_was_imported_before_it_and_no_more() -> None:
    """After a restart too, and whatever the log says of labels of the campaign's own."""
    published = ModelPublished(
        t=1.0, version=1, parent=0, seq=1, n_labels=100, wall_s=1.0, metrics={"n_labels_train": 100.0}
    )
    events = [imported(100), published, ModelPromoted(t=1.0, version=1, reason="first version")]
    ledger = Ledger.fold(policy_settings(refit_every=30), events)
    assert (ledger.n_new, ledger.models[1].n_seen) == (0, 0)
    ledger.apply(imported(29))
    assert ledger.n_new == 29
    assert not trains(ledger)
    ledger.apply(imported(1))
    assert trains(ledger)


def test_an_imported_label_that_was_set_aside_is_a_reason_to_fit_again() -> None:
    """Its frame was never proposed. A fit made after that knows of it, one made before does not."""
    frame_ids = [f"{i:032x}" for i in range(3)]
    published = ModelPublished(
        t=1.0, version=1, parent=0, seq=1, n_labels=100, wall_s=1.0, metrics={"n_labels_train": 100.0}
    )
    gone = [
        LabelRetracted(
            t=2.0, frame_id=frame_id, label_id=label_id_of(frame_id, level_id), reason="damaged", is_damaged=True
        )
        for frame_id, level_id in zip(frame_ids, [FAKE_LEVEL.level_id] * 2 + [OTHER_LEVEL.level_id], strict=True)
    ]
    ledger = Ledger.fold(policy_settings(), [imported(100), imported(9, OTHER_LEVEL.level_id), published, *gone])
    assert ledger.n_train == 98
    assert ledger.n_new == 3
    assert ledger.retracted == frame_ids
    again = replace(published, version=2, parent=1, metrics={"n_labels_train": 98.0}, n_retracted=3)
    ledger.apply(again)
    assert (ledger.n_new, ledger.models[2].n_seen) == (0, 0)


def test_a_campaign_goes_on_from_imported_labels() -> None:
    campaign = FakeCampaign(n_labels=40, first_at=30, refit_every=10)
    import_into(campaign, 200, seed=9)
    assert campaign.run().reason == "labels"
    ledger = campaign.ledger
    assert ledger.models[1].n_train >= 200
    assert ledger.models[1].n_labels < 30 + 200, "the first fit did not wait for labels of its own"
    assert (ledger.n_labels, ledger.accepted[Arm.IMPORTED]) == (40, 200)
    assert ledger.n_new == 0, "the last fit saw everything"
    status = status_of(ledger, state="finished", head_seq=1)
    assert "200 imported" in headline(status)
    reader = open_reader(campaign.disk)
    assert reader.verify().problems == []
    parts = split(reader.snapshot(FAKE_LEVEL.level_id), 0.2)
    assert parts.random.is_arm(Arm.RANDOM).all()
    assert 20 < (parts.validation.is_arm(Arm.IMPORTED)).sum() < 60
    assert parts.train.is_arm(Arm.IMPORTED).sum() + parts.validation.is_arm(Arm.IMPORTED).sum() == 200
    before = max(ledger.models)
    import_into(campaign, 25, seed=11)
    assert campaign.run().reason == "labels"
    assert max(campaign.ledger.models) == before + 1, "what came in after the end is fitted"
    assert Ledger.fold(campaign.settings, reader.at(reader.head.seq).events()).n_train == ledger.n_train


def test_the_campaigns_own_level_is_not_an_imported_one() -> None:
    levels = (FAKE_LEVEL, OTHER_LEVEL)
    assert own_level(levels, []) == OTHER_LEVEL, "a baseline comes before the level of the labels"
    assert own_level(levels, [imported(1, OTHER_LEVEL.level_id)]) == FAKE_LEVEL
    assert own_level((), []) is None
    assert np.isfinite(imported(1).t)
