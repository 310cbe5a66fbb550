"""The ledger under random results, failures, crashes and restarts: its books always balance, and it always ends."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alsys.control.commands import AuditLabel, CheckLabeler, Emit, Explore, Finish, Idle, LabelFrames, Train
from alsys.control.rules.decisions import decide
from alsys.control.rules.requests import RollBack, carry_out
from alsys.control.state.audits import audit_of
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind, InputError
from alsys.events import (
    AuditReason,
    AuditStarted,
    CampaignOpened,
    CampaignStopped,
    ErrorsObserved,
    Event,
    ExplorationReported,
    ExplorationStarted,
    FrameProposed,
    FrameRetried,
    FramesRescored,
    LabelAccepted,
    LabelAudited,
    LabelFailed,
    LabelFailedGate,
    LabelFlaggedByModel,
    LabelNotReproduced,
    LabelRetracted,
    LabelStarted,
    ModelPublished,
    ReferenceChecked,
    ReferenceCheckStarted,
    TrainingFailed,
    TrainingStarted,
    WorkerLost,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings
from support.ledger_states import assert_report_agrees, others, state_of

SETTINGS = policy_settings(n_labels=30, first_at=4, refit_every=5, max_pending=6, random_share=0.25, max_attempts=3)
EXPLORERS = ("explorer-0", "explorer-1")
LABELERS = ("labeler-0", "labeler-1", "labeler-2")
TRAINER = "trainer-0"


class Call(NamedTuple):
    """What a labeler works on: ``label``, ``verify``, ``audit`` or ``reference``."""

    kind: str
    frame_ids: tuple[str, ...] = ()


def label_id(frame_id: str) -> str:
    return hashlib.blake2b(frame_id.encode(), digest_size=16).hexdigest()


class LedgerMachine(RuleBasedStateMachine):
    """Plays coordinator, workers and fate."""

    settings = SETTINGS

    @initialize(n_initial=st.integers(4, 10))
    def start(self, n_initial: int) -> None:
        self.clock = 0.0
        self.n_frames = 0
        self.log: list[Event] = []
        self.trained_on: dict[int, set[str]] = {}
        self.ledger = Ledger(self.settings)
        self.finished: str | None = None
        self.forget_flights()
        self.record(self.opened())
        self.propose(Arm.ATOM, 0.0)
        for i in range(n_initial):
            self.propose(Arm.RANDOM if i % 4 == 3 else Arm.INITIAL, 0.0)

    # --- the parts that a coordinator plays

    def opened(self) -> CampaignOpened:
        return CampaignOpened(t=self.clock, epoch=1, config_hash="", version="")

    def record(self, event: Event) -> None:
        self.ledger.apply(event)
        assert self.ledger.is_balanced, event
        assert 0 <= self.ledger.n_new <= self.ledger.n_changes, event
        if event.is_durable:
            self.log.append(event)

    def propose(self, arm: Arm, deviation: float) -> None:
        self.n_frames += 1
        self.record(
            FrameProposed(
                t=self.clock, frame_id=f"f{self.n_frames}", arm=arm, system="s", deviation=deviation,
                model_version=self.ledger.champion,
            )
        )  # fmt: skip

    def forget_flights(self) -> None:
        self.labeling: dict[str, list[Call]] = {}
        self.exploring: dict[str, Explore] = {}
        self.training: Train | None = None

    @rule()
    @precondition(lambda self: self.finished is None)
    def decide(self) -> None:
        idle = Idle(
            explorers=tuple(e for e in EXPLORERS if e not in self.exploring),
            labelers=tuple(w for w in LABELERS if w not in self.labeling),
            busy_labelers=tuple(w for w, calls in self.labeling.items() if len(calls) == 1),
            trainers=() if self.training else (TRAINER,),
            n_others=sum(len(calls) > 1 for calls in self.labeling.values()),
        )
        before = (self.ledger.proposed, dict(self.ledger.counts))
        commands = decide(self.ledger, self.clock, idle)
        assert (self.ledger.proposed, dict(self.ledger.counts)) == before, "decide must change nothing"
        for command in commands:
            match command:
                case Emit(event):
                    self.record(event)
                case LabelFrames(worker, frame_ids, is_verification):
                    assert all(self.ledger.frames[f].status is Status.PENDING for f in frame_ids)
                    assert all(bool(self.ledger.frames[f].unverified_of) is is_verification for f in frame_ids)
                    self.record(LabelStarted(t=self.clock, worker=worker, frame_ids=frame_ids))
                    self.labeling.setdefault(worker, []).append(
                        Call("verify" if is_verification else "label", frame_ids)
                    )
                case AuditLabel(worker, frame_id):
                    assert worker not in self.labeling, "audits and reference checks go to idle labelers"
                    self.record(AuditStarted(t=self.clock, worker=worker, frame_id=frame_id))
                    self.labeling[worker] = [Call("audit", (frame_id,))]
                case CheckLabeler(worker):
                    assert worker not in self.labeling
                    self.record(ReferenceCheckStarted(t=self.clock, worker=worker))
                    self.labeling[worker] = [Call("reference")]
                case Explore():
                    assert command.version == self.ledger.champion > 0
                    self.exploring[command.worker] = command
                    self.record(
                        ExplorationStarted(
                            t=self.clock, worker=command.worker, n_steps=1, n_random=command.n_random,
                            rescored=command.rescore, compared=command.compare,
                        )
                    )  # fmt: skip
                case Train():
                    assert self.training is None
                    self.training = command
                    self.snapshot = (set(self.ledger.labelled), len(self.ledger.retracted))
                    self.record(
                        TrainingStarted(
                            t=self.clock,
                            worker=TRAINER,
                            version=command.version,
                            n_labels=command.n_labels,
                            budget_s=command.budget_s,
                            is_final=command.is_final,
                        )
                    )
                case Finish(reason, message, is_final):
                    assert not self.ledger.in_flight
                    self.record(CampaignStopped(t=self.clock, reason=reason, message=message, is_final=is_final))
                    self.finished = reason

    # --- the parts that workers play

    @rule(data=st.data(), outcome=st.sampled_from(["good"] * 6 + ["odd"] * 2 + list(FailureKind)))
    @precondition(lambda self: self.labeling)
    def label_returns(self, data: st.DataObject, outcome: str) -> None:
        worker = data.draw(st.sampled_from(sorted(self.labeling)))
        calls = self.labeling[worker]
        self.settle(worker, calls.pop(0), outcome)
        if not calls:
            del self.labeling[worker]

    def settle(self, worker: str, call: Call, outcome: str) -> None:
        """One call came back; what is odd fails the gate, is not reproduced, is rejected, or costs the labeler."""
        if call.kind == "reference":
            self.record(ReferenceChecked(t=self.clock, worker=worker, is_sound=outcome == "good", forces=(0.0,)))
            return
        for f in call.frame_ids:
            if call.kind == "audit":
                self.audited(worker, f, outcome)
            elif outcome == "good":
                self.accept(worker, f)
            elif outcome == "odd" and call.kind == "label":
                self.record(LabelFailedGate(t=self.clock, frame_id=f, worker=worker, findings=("odd",)))
            elif outcome == "odd":
                self.record(LabelNotReproduced(t=self.clock, frame_id=f, worker=worker, force_difference=1.0))
            else:
                self.record(LabelFailed(t=self.clock, frame_id=f, failure=FailureKind(outcome), worker=worker))

    def accept(self, worker: str, frame_id: str) -> None:
        """Every fifth frame as in logs of before it was written down which labels are audited."""
        audit = audit_of(label_id(frame_id), self.settings.audit_share) if int(frame_id[1:]) % 5 else ""
        self.record(
            LabelAccepted(
                t=self.clock, frame_id=frame_id, label_id=label_id(frame_id), worker=worker, wall_s=0.01,
                audit=audit,
            )
        )  # fmt: skip

    def audited(self, worker: str, frame_id: str, outcome: str) -> None:
        is_label = outcome in ("good", "odd")
        is_there = self.ledger.frames[frame_id].status is Status.LABELLED
        self.record(
            LabelAudited(
                t=self.clock, frame_id=frame_id, worker=worker, reason=AuditReason.RANDOM,
                is_confirmed=outcome != "odd", force_difference=0.0, force_mae=0.0,
                error="" if is_label and is_there else "no label",
            )
        )  # fmt: skip
        if outcome == "odd" and is_there:
            self.record(LabelRetracted(t=self.clock, frame_id=frame_id, label_id=label_id(frame_id), reason="audit"))

    @rule(data=st.data())
    @precondition(lambda self: self.ledger.counts[Status.LABELLED])
    def flag(self, data: st.DataObject) -> None:
        frame_id = data.draw(st.sampled_from(self.frames_of(Status.LABELLED)))
        self.record(LabelFlaggedByModel(t=self.clock, frame_id=frame_id, findings=("odd",)))

    @rule(data=st.data())
    @precondition(lambda self: self.labeling)
    def labeler_dies(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.labeling)))
        for call in self.labeling.pop(worker):
            for frame_id in call.frame_ids if call.kind in ("label", "verify") else ():
                self.record(
                    LabelFailed(t=self.clock, frame_id=frame_id, failure=FailureKind.WORKER_LOST, worker=worker)
                )
        self.record(WorkerLost(t=self.clock, worker=worker, role="labelers", failure=FailureKind.WORKER_LOST))

    @rule(data=st.data(), deviations=st.lists(st.floats(0.0, 1.0), max_size=5))
    @precondition(lambda self: self.exploring)
    def exploration_returns(self, data: st.DataObject, deviations: list[float]) -> None:
        worker = data.draw(st.sampled_from(sorted(self.exploring)))
        order = self.exploring.pop(worker)
        self.record(
            ExplorationReported(
                t=self.clock, worker=worker, model_version=order.version, n_steps=1, walker_steps=10,
                n_candidates=len(deviations), n_above=len(deviations), wall_s=0.0,
                n_members=4, n_distinct=data.draw(st.sampled_from([4, 4, 1])),
            )
        )  # fmt: skip
        if order.rescore:
            scores = {f: data.draw(st.floats(0.0, 0.5)) for f in order.rescore}
            self.record(FramesRescored(t=self.clock, model_version=order.version, deviations=scores))
        if order.compare:
            errors = tuple(data.draw(st.floats(0.0, 2.0)) for _ in order.compare)
            self.record(
                ErrorsObserved(
                    t=self.clock, model_version=order.version, frame_ids=order.compare, n_atoms=(1,) * len(errors),
                    deviations=(0.1,) * len(errors), errors=errors,
                )
            )  # fmt: skip
        for deviation in deviations:
            self.propose(Arm.UNCERTAIN, deviation)
        for _ in range(order.n_random):
            self.propose(Arm.RANDOM, 0.0)

    @rule(
        difference=st.sampled_from([None, -0.01, 0.01]),
        is_good=st.booleans(),
        survival=st.sampled_from([None, 0.0, 1.0]),
        skill=st.sampled_from([None, 0.0, 1.0]),
    )
    @precondition(lambda self: self.training is not None)
    def fit_returns(
        self, difference: float | None, is_good: bool, survival: float | None = None, skill: float | None = None
    ) -> None:
        command, self.training = self.training, None
        trained_on, n_retracted = self.snapshot
        if not is_good:
            self.record(TrainingFailed(t=self.clock, version=command.version, failure=FailureKind.INTERNAL))
            return
        metrics = {"n_labels_train": float(len(trained_on))}
        if difference is not None:
            metrics |= {"difference_low": difference, "difference_high": difference + 0.001}
        if survival is not None:
            metrics |= {"stability_hot_survival": survival, "stability_walkers": 8.0}
        if skill is not None:
            metrics |= {"holdout_skill": skill, "holdout_skill_high": skill}
        self.trained_on[command.version] = trained_on
        self.record(
            ModelPublished(
                t=self.clock, version=command.version, parent=command.parent, seq=1, n_labels=command.n_labels,
                wall_s=1.0, metrics=metrics, n_retracted=n_retracted, is_final=command.is_final,
            )
        )  # fmt: skip

    @rule(data=st.data())
    @precondition(lambda self: len(self.ledger.models) > 1)
    def roll_back(self, data: st.DataObject) -> None:
        """While it runs, or after it has ended."""
        if self.ledger.champion and data.draw(st.booleans()):
            version = 0
        else:
            version = data.draw(st.sampled_from(sorted(self.ledger.models)))
        n_champions = len(self.ledger.champions)
        try:
            events, _ = carry_out(
                self.ledger, RollBack(version), f"r{len(self.log)}", self.clock, is_running=self.finished is None
            )
        except InputError:
            assert version in (0, self.ledger.champion)
            return
        for event in events:
            self.record(event)
        assert len(self.ledger.champions) == n_champions + 1
        assert self.ledger.champion == self.ledger.champions[-1]
        assert version in (0, self.ledger.champion)

    def frames_of(self, status: Status) -> list[str]:
        return sorted(f for f, record in self.ledger.frames.items() if record.status is status)

    @rule(data=st.data())
    @precondition(lambda self: self.ledger.counts[Status.LABELLED])
    def retract(self, data: st.DataObject) -> None:
        """While it runs, or after it has ended."""
        frame_id = data.draw(st.sampled_from(self.frames_of(Status.LABELLED)))
        n_labels, n_new = self.ledger.n_labels, self.ledger.n_new
        event = LabelRetracted(t=self.clock, frame_id=frame_id, label_id=label_id(frame_id), reason="wrong")
        for _ in range(2):  # the second one has no effect
            self.record(event)
            assert self.ledger.frames[frame_id].status is Status.RETRACTED
            assert self.ledger.n_labels == n_labels - (self.ledger.frames[frame_id].arm is not Arm.ATOM)
            assert self.ledger.n_new == n_new + 1
        assert frame_id not in self.ledger.labelled
        assert frame_id not in self.ledger.random_labelled

    @rule(data=st.data())
    @precondition(lambda self: self.ledger.counts[Status.QUARANTINED])
    def retry(self, data: st.DataObject) -> None:
        frame_id = data.draw(st.sampled_from(self.frames_of(Status.QUARANTINED)))
        for _ in range(2):
            self.record(FrameRetried(t=self.clock, frame_id=frame_id))
            record = self.ledger.frames[frame_id]
            assert record.status is Status.PENDING
            assert (record.attempts, record.kills, record.verdict) == (0, 0, None)
            assert frame_id in self.ledger.pending

    @rule()
    def crash_and_restart(self) -> None:
        before = {f: r.status for f, r in self.ledger.frames.items()}
        accepted, models = dict(self.ledger.accepted), sorted(self.ledger.models)
        champions = self.ledger.champions
        labelled, retracted, n_changes = self.ledger.labelled, self.ledger.retracted, self.ledger.n_changes
        self.ledger = Ledger.fold(self.settings, self.log)
        self.forget_flights()
        self.finished = None
        self.record(self.opened())
        assert dict(self.ledger.accepted) == accepted
        assert sorted(self.ledger.models) == models
        assert self.ledger.champions == champions
        assert (self.ledger.labelled, self.ledger.retracted, self.ledger.n_changes) == (labelled, retracted, n_changes)
        for frame_id, status in before.items():
            expected = Status.PENDING if status is Status.IN_FLIGHT else status
            assert self.ledger.frames[frame_id].status is expected

    @invariant()
    def only_labelled_frames_are_compared(self) -> None:
        if hasattr(self, "ledger"):
            assert all(self.ledger.frames[f].status is Status.LABELLED for f in self.ledger.to_compare)

    @invariant()
    def a_champion_is_compared_with_no_frame_that_it_was_trained_on(self) -> None:
        if hasattr(self, "ledger") and self.ledger.champion:
            assert not self.trained_on[self.ledger.champion] & set(self.ledger.to_compare)

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.is_balanced
            assert all(self.ledger.frames[f].status is Status.PENDING for f in self.ledger.audits.to_verify)
            assert all(self.ledger.frames[f].status is Status.LABELLED for f in self.ledger.audits.to_audit)
            assert self.ledger.n_labels + self.ledger.n_in_flight <= self.settings.n_labels

    def teardown(self) -> None:
        """With good luck from here on, the campaign ends by itself."""
        if not hasattr(self, "ledger"):
            return
        for step in range(20_000):
            if self.finished is not None:
                break
            self.clock += 1.0
            self.decide()
            for worker in sorted(self.labeling):
                for call in self.labeling.pop(worker):
                    self.settle(worker, call, "good")
            for worker in sorted(self.exploring):
                order = self.exploring.pop(worker)
                self.record(
                    ExplorationReported(
                        t=self.clock, worker=worker, model_version=order.version, n_steps=1, walker_steps=1,
                        n_candidates=1, n_above=1, wall_s=0.0,
                    )
                )  # fmt: skip
                if order.rescore:
                    scores = dict.fromkeys(order.rescore, 0.3)
                    self.record(FramesRescored(t=self.clock, model_version=order.version, deviations=scores))
                self.propose(Arm.UNCERTAIN, 0.3)
                for _ in range(order.n_random):
                    self.propose(Arm.RANDOM, 0.0)
            if self.training is not None:
                self.fit_returns(None, True) if step % 2 == 0 else None
        assert self.finished is not None, "the campaign never ended"
        state = state_of(self.settings, self.log)
        for option, changed in list(others(self.settings))[-2:]:  # all of them changed at once
            assert state_of(changed, self.log) == state, option
        assert_report_agrees(self.settings, self.log)


class CalibratedMachine(LedgerMachine):
    settings = policy_settings(
        n_labels=30, first_at=4, refit_every=5, max_pending=6, random_share=0.25, trust=(0.15, 1.0), is_calibrated=True
    )


class RoundsMachine(LedgerMachine):
    settings = policy_settings(
        is_rounds=True, n_labels=30, first_at=4, refit_every=5, max_pending=6, random_share=0.25, max_attempts=3
    )


class AssuredMachine(LedgerMachine):
    """Where labels are audited and labelers are checked."""

    settings = policy_settings(
        n_labels=30,
        first_at=4,
        refit_every=5,
        max_pending=6,
        random_share=0.25,
        audit_share=0.3,
        reference_every=5,
        train_on=2,
    )


class PacedMachine(LedgerMachine):
    """Where labels wait for models; quick ones (a hundredth of a second, against a minute) for each of them."""

    settings = policy_settings(
        n_labels=30,
        first_at=4,
        refit_every=5,
        max_pending=6,
        random_share=0.25,
        max_ahead="auto",
        audit_share=0.2,
        reference_every=7,
    )

    @invariant()
    def labels_keep_pace(self) -> None:
        """Never more than the next batch, half of the one after, and one a labeler; retracted labels count too."""
        if hasattr(self, "ledger") and self.ledger.champion:
            ledger = self.ledger
            n_new = ledger.n_new - (len(ledger.retracted) - self.n_retracted_at_fit)
            in_flight = ledger.in_flight_by_arm[Arm.INITIAL] + ledger.in_flight_by_arm[Arm.UNCERTAIN]
            late = sum(record.arm is Arm.INITIAL for record in ledger.frames.values())
            assert n_new + in_flight <= 5 + 3 + len(LABELERS) + late

    @invariant()
    def the_random_arm_has_its_place(self) -> None:
        """Whatever fails, no other arm takes what the random arm needs to be as large as planned."""
        if hasattr(self, "ledger") and self.ledger.champion and not self.ledger.retracted:
            ledger = self.ledger
            n_train = ledger.n_train + ledger.in_flight_by_arm[Arm.INITIAL] + ledger.in_flight_by_arm[Arm.UNCERTAIN]
            assert n_train <= 30 - 8

    @property
    def n_retracted_at_fit(self) -> int:
        latest = max(self.ledger.models.values(), key=lambda model: model.n_changes, default=None)
        return 0 if latest is None else min(latest.n_changes - latest.n_seen, len(self.ledger.retracted))


class FinalMachine(LedgerMachine):
    """With a final fit at the end."""

    settings = replace(SETTINGS, final_fit_s=500.0)

    @invariant()
    def final_fits_come_once_and_last(self) -> None:
        if hasattr(self, "ledger"):
            finals = [model.n_changes for model in self.ledger.models.values() if model.is_final and not model.is_lost]
            assert len(set(finals)) == len(finals), "one for the same data"
            if self.training is not None and self.training.is_final:
                assert self.training.budget_s == 500.0
            if self.finished in ("labels", "target-reached") and self.ledger.training_failures == 0:
                assert finals, "no campaign ends without one"


TestLedger = LedgerMachine.TestCase
TestLedger.settings = hypothesis_settings(max_examples=60, stateful_step_count=60, deadline=None)
TestFinal = FinalMachine.TestCase
TestFinal.settings = hypothesis_settings(max_examples=40, stateful_step_count=60, deadline=None)
TestCalibrated = CalibratedMachine.TestCase
TestCalibrated.settings = hypothesis_settings(max_examples=40, stateful_step_count=60, deadline=None)
TestRounds = RoundsMachine.TestCase
TestRounds.settings = hypothesis_settings(max_examples=40, stateful_step_count=60, deadline=None)
TestAssured = AssuredMachine.TestCase
TestAssured.settings = hypothesis_settings(max_examples=60, stateful_step_count=60, deadline=None)
TestPaced = PacedMachine.TestCase
TestPaced.settings = hypothesis_settings(max_examples=60, stateful_step_count=60, deadline=None)
