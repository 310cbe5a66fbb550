"""The ledger: the state of a campaign, folded from its events.

`apply(event)` is the only mutator. There is no clock, no I/O, no Ray and no torch in here; what follows from the state
is in `alsys.control.rules.decisions`. After every event
``proposed == pending + in_flight + labelled + dropped + quarantined + retracted``. Folding the durable events of a log
gives the state of the campaign that wrote it, except that work in flight is pending again. A retracted label is as if
it had never been, except that it counts as one more reason to fit again and that its frame is never labelled again.
Imported labels are counts: their frames were never proposed. The frames, the model versions, the feedback, the
audits and the Hessians each own a part; the ledger tells them of events and owns what was labelled and explored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, get_type_hints

from alsys import events
from alsys.control.settings import PolicySettings
from alsys.control.state.audits import Audit
from alsys.control.state.campaign import CampaignState
from alsys.control.state.feedback import MAX_COMPARED
from alsys.control.state.records import Exploration, FrameRecord, ModelRecord, Status
from alsys.errors import FailureKind
from alsys.frames import Arm
from alsys.labels import label_id_of
from alsys.metrics import Metrics


class Ledger(CampaignState):
    """The state of one campaign, which events change and nothing else does."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(settings)
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.Heartbeat: self.totals.beat,
            events.FrameProposed: self._frames.propose,
            events.LabelStarted: self._frames.start,
            events.AuditsDrawn: self.audits.draw,
            events.ModelRejected: self._models.reject,
            events.HessianStarted: self.hessians.start,
            events.MinimumFound: self.hessians.relax,
            events.HessianComputed: self.hessians.compute,
            events.HessianFailed: self.hessians.fail,
            events.ColumnLost: lambda _: None,  # says nothing that is decided by
            events.EventLost: lambda _: None,
            **{kind: getattr(self, name) for kind, name in _own_handlers().items()},
        }

    @classmethod
    def fold(cls, settings: PolicySettings, events: Iterable[events.Event]) -> Ledger:
        """The state that these events lead to."""
        ledger = cls(settings)
        for event in events:
            ledger.apply(event)
        return ledger

    # --- applying

    def apply(self, event: events.Event) -> None:
        """Takes one event into account.

        Raises:
            KeyError: The event names a frame that was never proposed.
        """
        self._handlers[type(event)](event)

    # --- the campaign

    def _on_opened(self, event: events.CampaignOpened) -> None:
        self._frames.reopen()
        self.audits.restart()
        self.hessians.reopen()
        self._leave_out_retracted()
        self.exploring.clear()
        self._models.reopen()
        self.stopped = None
        self.stop_requested = None
        self.lost_in_a_row = 0
        self.waiting = None
        self.totals.openings += 1

    def _on_stopped(self, event: events.CampaignStopped) -> None:
        self.stopped = event
        self.waiting = None

    def _on_stop_requested(self, event: events.StopRequested) -> None:
        self.stop_requested = event

    def _on_alarm_raised(self, event: events.AlarmRaised) -> None:
        self.alarms[event.name] = event.message

    def _on_alarm_cleared(self, event: events.AlarmCleared) -> None:
        self.alarms.pop(event.name, None)

    def _on_budget_warned(self, event: events.BudgetWarned) -> None:
        self.warned[event.budget] = event.limit

    def _on_budget_reserved(self, event: events.BudgetReserved) -> None:
        self.reserved[event.budget] = event.limit

    def _on_workers_waiting(self, event: events.WorkersWaiting) -> None:
        self.waiting = event if event.message else None

    def _on_worker_left(self, event: events.WorkerLeft) -> None:
        self.exploring.pop(event.worker, None)
        self.audits.lose(event.worker)

    def _on_worker_lost(self, event: events.WorkerLost) -> None:
        self.totals.lose(event)
        self.exploring.pop(event.worker, None)
        self.audits.lose(event.worker)
        self._leave_out_retracted()

    # --- frames

    def _on_dropped(self, event: events.FrameDropped) -> None:
        self._frames.settle(event.frame_id, Status.DROPPED)

    def _on_quarantined(self, event: events.FrameQuarantined) -> None:
        self.lost_in_a_row += 1
        self.totals.quarantined += 1
        self.last_loss = f"{event.failure}: {event.message}"
        record = self._frames.settle(event.frame_id, Status.QUARANTINED)
        record.verdict, record.unverified_of = (event.failure, event.message), ""

    def _on_retried(self, event: events.FrameRetried) -> None:
        self.requests.add(event.request)
        self._frames.retry(event.frame_id)

    def _on_rescored(self, event: events.FramesRescored) -> None:
        self._frames.rescore(event, self.trust_band[0] if event.trusted_below < 0 else event.trusted_below)

    def _on_label_abandoned(self, event: events.LabelAbandoned) -> None:
        for frame_id in event.frame_ids:
            self._frames.again(frame_id)

    # --- labels

    def _on_label_accepted(self, event: events.LabelAccepted) -> None:
        record = self.frames[event.frame_id]
        if record.status in (Status.LABELLED, Status.RETRACTED):
            return
        self.lost_in_a_row = 0
        self._frames.settle(event.frame_id, Status.LABELLED)
        record.label_id = event.label_id
        record.unverified_of = ""
        record.chosen_by = event.chosen_by if event.chosen_by >= 0 else record.seen_by
        self._count_chosen(record, 1)
        self.accepted[record.arm] += 1
        self.strata[record.stratum] = self.strata.get(record.stratum, 0) + 1
        self.label_times.add(event.wall_s)
        self.label_durations.add(event.wall_s)
        self.last_label = event.t
        self.label_work.add(event.cpu_s or event.wall_s)
        self._frames.observe_cost(record, event.wall_s)
        if record.arm in (Arm.INITIAL, Arm.UNCERTAIN):  # a walk from a test frame would leak it into training
            self.labelled.append(event.frame_id)
            self._trainable.append(event.frame_id)
        elif record.arm is Arm.RANDOM:
            self.random_labelled.append(event.frame_id)
        if record.arm is not Arm.ATOM:
            self.audits.accept(event)
            if self.champion:
                self._feedback.wait(event.frame_id)

    def _on_label_retracted(self, event: events.LabelRetracted) -> None:
        self.requests.add(event.request)
        if event.frame_id not in self.frames:
            self._retract_imported(event)
            return
        record = self.frames[event.frame_id]
        if record.status is not Status.LABELLED:
            return
        self._frames.move(record, Status.RETRACTED)
        self.retracted.append(event.frame_id)
        self._count_chosen(record, -1)
        self.accepted[record.arm] -= 1
        self.strata[record.stratum] -= 1
        if record.arm in (Arm.INITIAL, Arm.UNCERTAIN):
            self.labelled.remove(event.frame_id)
        elif record.arm is Arm.RANDOM:
            self.random_labelled.remove(event.frame_id)
        self._feedback.forget(event.frame_id)
        self.audits.withdraw(event.frame_id)

    def _count_chosen(self, record: FrameRecord, step: int) -> None:
        if record.arm is not Arm.ATOM:
            counts = self.chosen.setdefault(0 if record.arm is Arm.INITIAL else record.chosen_by, {})
            counts[record.arm] = counts.get(record.arm, 0) + step

    def _retract_imported(self, event: events.LabelRetracted) -> None:
        """An imported label was damaged. Its frame was never proposed; its level says whether it was trained on."""
        self.retracted.append(event.frame_id)
        levels = {imported.level_id for imported in self.imports if imported.is_training}
        if any(event.label_id == label_id_of(event.frame_id, level_id) for level_id in levels):
            self.accepted[Arm.IMPORTED] -= 1
            self._n_imported_gone += 1

    def _on_label_failed(self, event: events.LabelFailed) -> None:
        self.totals.fail(event.failure)
        self._frames.fail(event)

    def _on_label_repeated(self, event: events.LabelRepeated) -> None:
        self._frames.again(event.frame_id)
        self.totals.repeated += 1
        self.totals.conflicts += event.is_conflict

    def _on_imported(self, event: events.DataImported) -> None:
        self.imports.append(event)
        self.accepted[Arm.IMPORTED] += event.n_train

    # --- whether labels can be trusted

    def _on_failed_gate(self, event: events.LabelFailedGate) -> None:
        self.audits.n_failed_gate += 1
        self._frames.failed_gate(event.frame_id, event.worker)

    def _on_not_reproduced(self, event: events.LabelNotReproduced) -> None:
        self.audits.n_not_reproduced += 1
        self._frames.not_reproduced(event)

    def _on_flagged_by_model(self, event: events.LabelFlaggedByModel) -> None:
        if self.frames[event.frame_id].status is Status.LABELLED:
            self.audits.request(Audit(event.frame_id, events.AuditReason.FLAGGED_BY_MODEL))

    def _on_audit_started(self, event: events.AuditStarted) -> None:
        self.audits.begin_audit(event.worker, event.frame_id)

    def _on_audited(self, event: events.LabelAudited) -> None:
        self.audits.audited(event)
        self._leave_out_retracted()

    def _on_reference_check_started(self, event: events.ReferenceCheckStarted) -> None:
        self.audits.checking[event.worker] = event

    def _on_reference_checked(self, event: events.ReferenceChecked) -> None:
        self.audits.checked(event)
        self._leave_out_retracted()

    def _leave_out_retracted(self) -> None:
        """A label that was retracted meanwhile is not audited, nor tried again."""
        for frame_id in list(self.audits.to_audit):
            if self.frames[frame_id].status is not Status.LABELLED:
                self.audits.withdraw(frame_id)

    # --- models

    def _on_training_started(self, event: events.TrainingStarted) -> None:
        self._models.start(event, self.n_train, self.n_changes)

    def _on_fit_requested(self, event: events.FitRequested) -> None:
        self.requests.add(event.request)
        self._models.request(event.budget_s)

    def _on_training_failed(self, event: events.TrainingFailed) -> None:
        has_ended = event.failure is FailureKind.INTERNAL
        self._models.fail(is_counted=not event.failure.is_nobodys_fault, has_ended=has_ended)

    def _on_published(self, event: events.ModelPublished) -> None:
        metrics = Metrics.read(event.metrics)
        n_trained = metrics.get("n_labels_train")
        n_train = event.n_labels if n_trained is None else int(n_trained)
        gone = self.retracted[: event.n_retracted]
        n_imported = self.accepted[Arm.IMPORTED]  # no driver runs while data are imported, so the fit saw all of them
        n_seen = (
            n_train
            - n_imported
            + sum(f in self.frames and self.frames[f].arm in (Arm.INITIAL, Arm.UNCERTAIN) for f in gone)
        )
        minima = {hessian.frame_id for hessian in self.hessians.found.values()}
        n_hessians = event.n_hessians + sum(f in minima for f in gone)
        n_changes = n_seen + n_imported + event.n_retracted + self._n_imported_gone + n_hessians
        self.fit_times.add(event.wall_s)
        self._models.publish(event, n_train=n_train, n_seen=n_seen, n_changes=n_changes)

    def _on_promoted(self, event: events.ModelPromoted) -> None:
        model = self._models.promote(event)
        self.requests.add(event.request)
        self._lead(model)

    def _on_lost(self, event: events.ModelLost) -> None:
        self._models.lose(event)
        if self.champion:
            self._lead(self.models[self.champion])

    def _lead(self, model: ModelRecord) -> None:
        """A version explores from now on."""
        self._frames.outdate()
        self.exploration = Exploration()
        later = (f for f in self._trainable[model.n_seen :] if self.frames[f].status is Status.LABELLED)
        self._feedback.renew([*self.random_labelled[-MAX_COMPARED:], *later])
        self.tallies_then = dict(self.tallies)

    # --- exploration

    def _on_exploration_started(self, event: events.ExplorationStarted) -> None:
        self.exploring[event.worker] = event
        self._feedback.take(event.compared)

    def _on_explored(self, event: events.ExplorationReported) -> None:
        self.exploring.pop(event.worker, None)
        self.totals.add(event)
        self.chunk_times.add(event.wall_s)
        self._feedback.spend(event)
        if event.model_version == self.champion:
            self.exploration.add(event)

    def _on_exploration_failed(self, event: events.ExplorationFailed) -> None:
        self.exploring.pop(event.worker, None)

    def _on_errors_observed(self, event: events.ErrorsObserved) -> None:
        self._feedback.take(event.frame_ids)
        if event.model_version == self.champion:
            self._feedback.observe(event, self.frames)


@cache
def _own_handlers() -> dict[type[events.Event], str]:
    """Names of the methods that take one kind of event, which is that of their argument."""
    methods = {name: method for name, method in vars(Ledger).items() if name.startswith("_on_")}
    return {get_type_hints(method)["event"]: name for name, method in methods.items()}
