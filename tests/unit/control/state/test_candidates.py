"""The candidate set: order of labelling, and what is evicted first."""

from __future__ import annotations

from alsys.control.commands import Emit, Explore, Idle, LabelFrames
from alsys.control.rules.decisions import decide
from alsys.control.state.candidates import CandidateSet
from alsys.control.state.ledger import Ledger
from alsys.events import (
    CampaignOpened,
    ExplorationReported,
    FrameProposed,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings


def filled() -> CandidateSet:
    pending = CandidateSet()
    for k in range(6):
        pending.add(f"common{k}", Arm.UNCERTAIN, 0.5 + 0.1 * k, "common")
    pending.add("rare", Arm.UNCERTAIN, 0.1, "rare")
    return pending


def test_the_most_uncertain_is_first_and_the_most_crowded_stratum_is_evicted_from() -> None:
    pending = filled()
    assert next(pending.ranked()) == "common5"
    assert pending.least(3) == ["common0", "common1", "common2"], "the rare one stays although it is least uncertain"
    assert set(pending.least(7)) == {"rare", *(f"common{k}" for k in range(6))}


def test_frames_that_leave_or_change_their_rank_leave_no_trace() -> None:
    pending = filled()
    pending.add("common0", Arm.UNCERTAIN, 9.0, "common")
    assert next(pending.ranked()) == "common0"
    assert pending.least(1) == ["common1"]
    pending.discard("rare")
    assert set(pending.strata()) == {"common"}
    assert len(pending) == 6


def campaign(**settings: object) -> Ledger:
    ledger = Ledger(policy_settings(n_labels=100, random_share=0.0, **settings))  # type: ignore[arg-type]
    ledger.apply(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
    ledger.apply(ModelPublished(t=1.0, version=1, parent=0, seq=1, n_labels=0, wall_s=1.0))
    ledger.apply(ModelPromoted(t=1.0, version=1, reason="first"))
    return ledger


def propose(ledger: Ledger, name: str, deviation: float, stratum: str = "", n_electrons: int = 10) -> None:
    ledger.apply(
        FrameProposed(
            t=2.0, frame_id=name, arm=Arm.UNCERTAIN, system="s", deviation=deviation, stratum=stratum,
            n_electrons=n_electrons, model_version=1,
        )
    )  # fmt: skip


def next_label(ledger: Ledger, wall_s: float = 1.0) -> str:
    command = next(c for c in decide(ledger, 3.0, Idle(labelers=("labeler-0",))) if isinstance(c, LabelFrames))
    (name,) = command.frame_ids
    ledger.apply(LabelAccepted(t=4.0, frame_id=name, label_id=name, worker="labeler-0", wall_s=wall_s))
    return name


def test_every_other_label_goes_to_the_stratum_that_has_the_fewest() -> None:
    ledger = campaign(is_diverse=True)
    for k in range(6):
        propose(ledger, f"hot{k}", 1.0 + 0.1 * k, "hot")
    for k in range(2):
        propose(ledger, f"cold{k}", 0.2, "cold")
    assert [next_label(ledger) for _ in range(6)] == ["hot5", "cold0", "hot4", "cold1", "hot3", "hot0"]
    plain = campaign(is_diverse=False)
    for k in range(3):
        propose(plain, f"hot{k}", 1.0 + 0.1 * k, "hot")
    propose(plain, "cold", 0.2, "cold")
    assert [next_label(plain) for _ in range(4)] == ["hot2", "hot1", "hot0", "cold"]


def test_explorers_go_on_until_the_pool_is_searched_and_the_best_frames_stay() -> None:
    for pool, n_chunks in ((1.0, 1), (3.0, 3)):
        ledger = campaign(max_pending=4, pool=pool)
        n_asked = 0
        while True:
            commands = decide(ledger, 3.0, Idle(explorers=("explorer-0",)))
            for command in commands:
                if isinstance(command, Emit):
                    ledger.apply(command.event)
            if any(isinstance(command, Emit) for command in commands):
                continue
            if not any(isinstance(command, Explore) for command in commands):
                break
            n_asked += 1
            for k in range(4):
                propose(ledger, f"{n_asked}-{k}", 0.1 * n_asked + 0.01 * k)
            ledger.apply(
                ExplorationReported(
                    t=3.0, worker="explorer-0", model_version=1, n_steps=1, walker_steps=4, n_candidates=4, n_above=4,
                    wall_s=0.1,
                )
            )  # fmt: skip
        assert n_asked == n_chunks
        assert set(ledger.pending.ranked()) == {f"{n_chunks}-{k}" for k in range(4)}, "the most uncertain ones"


def test_a_frame_that_costs_more_must_promise_more() -> None:
    for is_cost_aware, expected in ((True, "small"), (False, "large")):
        ledger = campaign(is_cost_aware=is_cost_aware)
        for k, (n_electrons, wall_s) in enumerate([(10, 1.0), (40, 60.0)] * 4):
            propose(ledger, f"seen{k}", 5.0, n_electrons=n_electrons)
            next_label(ledger, wall_s)
        propose(ledger, "large", 0.6, n_electrons=40)
        propose(ledger, "small", 0.3, n_electrons=10)
        assert next_label(ledger) == expected


def test_new_deviations_for_all_keep_the_order_among_equals_and_the_strata() -> None:
    pending = filled()
    pending.add("first", Arm.INITIAL, 0.0)
    worth = {"rare": 7.0, "common3": 8.0}
    pending.rerank(lambda frame_id: worth.get(frame_id, 0.1))
    assert list(pending.ranked()) == ["common3", "rare", "common0", "common1", "common2", "common4", "common5"]
    assert pending.least(1) == ["common5"]
    assert list(pending.queued(Arm.INITIAL)) == ["first"]
    for name in list(worth):
        pending.discard(name)
    assert set(pending.strata()) == {"common"}
