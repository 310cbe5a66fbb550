"""Lost computing is tried again on another labeler, where there is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alsys.control.commands import Idle, LabelFrames
from alsys.control.rules.decisions import decide
from alsys.control.rules.labels import n_wanted
from alsys.control.state.ledger import Ledger
from alsys.errors import FailureKind
from alsys.events import CampaignOpened, Event, FrameProposed, LabelAccepted, LabelFailed, LabelStarted
from alsys.frames import Arm
from alsys.testing.policies import policy_settings


def campaign(n: int = 1, failure: FailureKind = FailureKind.TIMEOUT) -> Ledger:
    """`n` frames, the most uncertain first, which was lost on ``a``."""
    events: list[Event] = [CampaignOpened(t=0.0, epoch=1, config_hash="", version="")]
    events += [
        FrameProposed(t=0.0, frame_id=f"f{i}", arm=Arm.UNCERTAIN, system="s", deviation=1.0 / (i + 1)) for i in range(n)
    ]
    events += [
        LabelStarted(t=0.0, worker="a", frame_ids=("f0",)),
        LabelFailed(t=1.0, frame_id="f0", failure=failure, worker="a"),
    ]
    return Ledger.fold(policy_settings(batch_s=0.0), events)


def handed_out(ledger: Ledger, *labelers: str, busy: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    n_others = len(ledger.in_flight.keys() - {*labelers, *busy})
    commands = decide(ledger, 2.0, Idle(labelers=labelers, busy_labelers=busy, n_others=n_others))
    return {command.worker: command.frame_ids for command in commands if isinstance(command, LabelFrames)}


def test_another_idle_labeler_gets_the_frame() -> None:
    assert handed_out(campaign(), "a", "b") == {"b": ("f0",)}
    assert handed_out(campaign(), "b", "a") == {"b": ("f0",)}
    assert handed_out(campaign(3), "a", "b") == {"a": ("f1",), "b": ("f0",)}


def test_a_busy_labeler_is_waited_for_and_the_worker_that_lost_it_goes_on_with_others() -> None:
    ledger = campaign(3)
    ledger.apply(LabelStarted(t=2.0, worker="b", frame_ids=("f2",)))
    assert handed_out(ledger, "a") == {"a": ("f1",)}
    ledger.apply(LabelStarted(t=2.0, worker="a", frame_ids=("f1",)))
    ledger.apply(LabelFailed(t=3.0, frame_id="f2", failure=FailureKind.TIMEOUT, worker="b"))
    assert handed_out(ledger, "b") == {"b": ("f0",)}


def test_a_single_labeler_gets_it_again() -> None:
    assert handed_out(campaign(), "a") == {"a": ("f0",)}


def test_so_does_the_last_one_left() -> None:
    ledger = campaign(2)
    ledger.apply(LabelStarted(t=2.0, worker="b", frame_ids=("f1",)))
    assert handed_out(ledger, "a") == {}
    ledger.apply(LabelFailed(t=3.0, frame_id="f1", failure=FailureKind.WORKER_LOST, worker="b"))
    assert handed_out(ledger, "a")["a"] in (("f0",), ("f1",))


@pytest.mark.parametrize("failure", [kind for kind in FailureKind if kind.is_lost_computing])
def test_a_frame_that_was_lost_on_every_labeler_is_still_handed_out(failure: FailureKind) -> None:
    ledger = campaign(failure=failure)
    ledger.apply(LabelStarted(t=2.0, worker="b", frame_ids=("f0",)))
    kind = FailureKind.TIMEOUT
    ledger.apply(LabelFailed(t=3.0, frame_id="f0", failure=kind, worker="b"))
    assert handed_out(ledger, "a", "b") == {"a": ("f0",)}


def test_a_busy_labeler_may_get_it_as_a_call_ahead() -> None:
    ledger = campaign(3)
    ledger.apply(LabelStarted(t=2.0, worker="b", frame_ids=("f1",)))
    ledger.apply(LabelAccepted(t=3.0, frame_id="f1", label_id="l1", worker="b", wall_s=0.01))
    ledger.apply(LabelStarted(t=3.0, worker="b", frame_ids=("f2",)))
    assert handed_out(ledger, "a", busy=("b",)) == {"b": ("f0",)}


def sampled(n: int, **settings: Any) -> Ledger:
    """A campaign with so many sampled frames and no label yet."""
    ledger = Ledger(policy_settings(n_labels=200, first_at=10, **settings))
    ledger.apply(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
    for i in range(n):
        ledger.apply(FrameProposed(t=0.0, frame_id=f"f{i}", arm=Arm.INITIAL, system="s", deviation=0.0))
    return ledger


def test_without_a_trainer_no_more_labels_are_made_than_the_first_fit_takes() -> None:
    ledger = sampled(40)
    idle = Idle(labelers=tuple(f"w{i}" for i in range(40)), has_trainer=False)
    assert sum(isinstance(command, LabelFrames) for command in decide(ledger, 0.0, idle)) == 10
    with_trainer = decide(ledger, 0.0, replace(idle, has_trainer=True))
    assert sum(isinstance(command, LabelFrames) for command in with_trainer) == 40


@pytest.mark.parametrize(
    ("label_s", "has_trainer", "wanted"),
    [
        (None, True, 40),  # not known yet: one a frame
        (600.0, True, 39),
        (20.0, True, 39),
        (5.0, True, 10),  # 39 labels of 5 s in 20 s
        (0.004, True, 1),
        (600.0, False, 9),  # the first fit takes ten, one of which is there
    ],
)
def test_so_many_labelers_are_wanted_as_get_through_what_waits_in_time(
    label_s: float | None, has_trainer: bool, wanted: int
) -> None:
    ledger = sampled(40)
    if label_s is not None:
        ledger.apply(LabelAccepted(t=0.0, frame_id="f0", label_id="0" * 32, worker="w", wall_s=label_s))
    assert n_wanted(ledger, 1, has_trainer=has_trainer) == wanted


def test_nobody_is_wanted_where_nothing_waits() -> None:
    assert n_wanted(sampled(0), 3, has_trainer=True) == 0
