"""Rules that decide campaigns, each with a number that an exchanged operator would change."""

from __future__ import annotations

import math

import pytest

from alsys.control.commands import Idle, LabelFrames
from alsys.control.rules.decisions import decide
from alsys.control.rules.exploration import N_SEEDS, explore
from alsys.control.rules.labels import to_quarantine
from alsys.control.rules.pace import next_batch
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind
from alsys.events import (
    CampaignOpened,
    Event,
    FrameProposed,
    LabelAccepted,
    LabelFailed,
    LabelStarted,
    ModelPromoted,
    ModelPublished,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings

OPENED = CampaignOpened(t=0.0, epoch=1, config_hash="", version="test")
IDLE = Idle(labelers=("l0", "l1"), explorers=("e0",))


def proposed(*frame_ids: str, arm: Arm = Arm.INITIAL) -> list[Event]:
    return [FrameProposed(t=0.0, frame_id=f, arm=arm, system="s", deviation=0.5) for f in frame_ids]


def started(*frame_ids: str, worker: str = "l0") -> LabelStarted:
    return LabelStarted(t=0.0, worker=worker, frame_ids=frame_ids)


def accepted(frame_id: str, wall_s: float = 1.0) -> LabelAccepted:
    return LabelAccepted(t=0.0, frame_id=frame_id, label_id=frame_id, worker="l0", wall_s=wall_s)


def failed(frame_id: str, failure: FailureKind) -> LabelFailed:
    return LabelFailed(t=0.0, frame_id=frame_id, failure=failure, message="gone", worker="l0", wall_s=0.0)


@pytest.mark.parametrize(
    ("failure", "attempts", "kills"),
    [
        (FailureKind.WORKER_PREEMPTED, 0, 0),
        (FailureKind.WORKER_LOST, 5, 5),
        (FailureKind.CRASHED, 5, 5),
        (FailureKind.TIMEOUT, 5, 0),
    ],
)
def test_a_machine_that_is_taken_away_is_no_failure_of_the_frame(
    failure: FailureKind, attempts: int, kills: int
) -> None:
    ledger = Ledger.fold(policy_settings(), [OPENED, *proposed("a")])
    for _ in range(5):
        ledger.apply(started("a"))
        ledger.apply(failed("a", failure))
    record = ledger.frames["a"]
    assert (record.attempts, record.kills) == (attempts, kills)
    assert record.status is Status.PENDING
    assert bool(to_quarantine(ledger)) == (attempts > 0)


@pytest.mark.parametrize(("kind", "limit"), [(FailureKind.WORKER_LOST, 2), (FailureKind.TIMEOUT, 3)])
def test_the_attempt_that_reaches_the_limit_is_the_last(kind: FailureKind, limit: int) -> None:
    ledger = Ledger.fold(policy_settings(max_attempts=3, max_worker_kills=2), [OPENED, *proposed("a")])
    for k in range(1, limit + 1):
        assert not to_quarantine(ledger)
        ledger.apply(started("a"))
        ledger.apply(failed("a", kind))
        assert list(to_quarantine(ledger)) == (["a"] if k == limit else [])


@pytest.mark.parametrize(
    ("every", "growth", "n_train", "batch"),
    [(10, 0.0, 500, 10), (10, 0.5, 10, 10), (10, 0.5, 20, 10), (10, 0.5, 21, 11), (10, 0.5, 100, 50), (1, 1.0, 64, 64)],
)
def test_batches_grow_with_what_the_last_fit_knew(every: int, growth: float, n_train: int, batch: int) -> None:
    assert next_batch(policy_settings(refit_every=every, refit_growth=growth), n_train) == batch


def test_the_next_fit_waits_for_a_batch_that_grew() -> None:
    """14 labels, half as many more: the next fit comes with the 21st, not the 20th."""
    names = [f"f{k:02d}" for k in range(30)]
    settings = policy_settings(first_at=14, refit_every=2, refit_growth=0.5, random_share=0.0)
    ledger = Ledger.fold(settings, [OPENED, *proposed(*names)])
    for name in names[:14]:
        ledger.apply(started(name))
        ledger.apply(accepted(name))
    ledger.apply(ModelPublished(t=0.0, version=1, parent=0, seq=1, n_labels=14, wall_s=1.0, metrics={}))
    ledger.apply(ModelPromoted(t=0.0, version=1, reason="first"))
    due = []
    for name in names[14:22]:
        ledger.apply(started(name))
        ledger.apply(accepted(name))
        due.append(any(type(c).__name__ == "Train" for c in decide(ledger, 0.0, Idle(trainers=("t0",)))))
    assert due == [False] * 6 + [True, True]


def test_a_frame_that_failed_travels_alone() -> None:
    names = [f"f{k}" for k in range(9)]
    settings = policy_settings(batch_s=1.0, random_share=0.0)
    log = [OPENED, *proposed("quick", *names), started("quick"), accepted("quick", wall_s=0.1)]
    ledger = Ledger.fold(settings, log)
    ledger.apply(started("f0", "f1", worker="l1"))
    ledger.apply(failed("f0", FailureKind.TIMEOUT))
    ledger.apply(failed("f1", FailureKind.WORKER_PREEMPTED))
    calls = [c.frame_ids for c in decide(ledger, 0.0, IDLE) if isinstance(c, LabelFrames)]
    assert max(len(call) for call in calls) > 1, "quick labels go in batches"
    assert [call for call in calls if "f0" in call] in ([("f0",)], [])
    left = Ledger.fold(settings, [*log, started("f0", worker="l1"), failed("f0", FailureKind.TIMEOUT)])
    for name in names[3:]:
        left.apply(started(name, worker="l2"))
        left.apply(accepted(name, wall_s=0.1))
    calls = [c.frame_ids for c in decide(left, 0.0, IDLE) if isinstance(c, LabelFrames)]
    assert sorted(calls) == [("f0",), ("f1", "f2")]


def test_walkers_start_from_the_newest_labels_and_some_of_the_others() -> None:
    names = [f"f{k:03d}" for k in range(100)]
    ledger = Ledger.fold(policy_settings(n_labels=1000), [OPENED, *proposed(*names)])
    for name in names:
        ledger.apply(started(name))
        ledger.apply(accepted(name))
    ledger.apply(ModelPublished(t=0.0, version=1, parent=0, seq=1, n_labels=100, wall_s=1.0, metrics={}))
    ledger.apply(ModelPromoted(t=0.0, version=1, reason="first"))
    (order,) = explore(ledger, ["e0"])
    seeds = order.seeds
    assert len(seeds) == len(set(seeds)) == N_SEEDS
    newest = names[-N_SEEDS // 2 :]
    assert list(seeds[-len(newest) :]) == newest
    assert set(seeds[: -len(newest)]) <= set(names[: -len(newest)])
    assert math.isclose(len(newest), N_SEEDS / 2)
    (other,) = explore(ledger, ["e1"])
    assert other.seeds != seeds, "another explorer draws others"
    assert other.seeds[-len(newest) :] == tuple(newest)
