"""What becomes of what labelers return: data, to be verified, a repetition, a failure, an audit or a reference frame.

The gate is asked first, in its own thread; each answer ends as events, which are recorded at once, and the ledger
decides what follows from them. A label stays in flight until then. Without a gate every sound label is data. A labeler
whose reference frame comes out wrong is started anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import nsmallest

import numpy as np

from alsys import events
from alsys.control.handlers.event_sink import EventSink
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.handlers.gate_queue import GateQueue
from alsys.control.ports import Completion, LabelGate
from alsys.control.state.audits import audit_of
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind
from alsys.frames import Arm, Frame
from alsys.labeling.base import LabelingOrder
from alsys.labeling.gate.findings import Finding
from alsys.labels import Label, LabelFailure, LevelOfTheory, Prediction
from alsys.potentials.calibration import Band
from alsys.store.base import Snapshot, StoreWriter
from alsys.store.digests import label_digest

logger = logging.getLogger(__name__)

CONFLICT_ENERGY = 1e-3
"""eV; a repeated label that differs by more is a conflict."""
CONFLICT_FORCE = 1e-2
"""eV/Angstrom."""


@dataclass(kw_only=True)
class LabelHandler:
    """Takes in what labelers return.

    Attributes:
        ledger: For reading.
        level: The campaign's level of theory.
        baseline: Level of the baseline; None where there is none.
        memory: Frames.
        gate: Judges labels; None takes all of them.
        queue: Asks the gate.
        record: Takes events.
        restart: Starts a worker anew, with the reason.
        clock: Unix time.
    """

    ledger: Ledger
    level: LevelOfTheory
    baseline: LevelOfTheory | None = None
    memory: FrameMemory
    gate: LabelGate | None
    queue: GateQueue
    record: EventSink
    restart: Callable[[str, str], None]
    clock: Callable[[], float]

    def take(self, event: Completion, order: LabelingOrder, outcomes: tuple[Label | LabelFailure, ...]) -> None:
        """One call came back."""
        if self.is_check(event.worker, order):
            if event.worker in self.ledger.audits.checking:
                self._take_reference(event.worker, outcomes[0])
            else:
                self._take_audit(event.worker, outcomes[0])
            return
        to_judge: list[Label] = []
        for outcome in outcomes:
            if isinstance(outcome, LabelFailure):
                self.fail(outcome.frame_id, event.worker, outcome.kind, outcome.message, outcome.cost.wall_s)
            elif not self._is_sound(outcome, order.is_tight):
                message = "the labeler returned a label that is not finite, of the wrong shape or of another level"
                self.fail(outcome.frame_id, event.worker, FailureKind.INTERNAL, message, outcome.cost.wall_s)
            elif order.is_tight:
                self._verify(outcome, event)
            elif self.ledger.frames[outcome.frame_id].status in (Status.LABELLED, Status.RETRACTED):
                self._repeated(outcome, event.worker)
            else:
                to_judge.append(outcome)
        self._judge(to_judge, event)

    def check(self) -> LabelingOrder:
        """The reference frame; the first label of it says also how the energy falls along its forces."""
        assert self.gate is not None
        assert self.gate.reference_frame is not None
        return LabelingOrder((self.gate.reference_frame,), has_slope=self.ledger.audits.reference is None)

    def offer(self, label: Label, event: Completion) -> None:
        """A label that came beside something else: where its frame waits for one, it is judged like any other."""
        frame_id = label.frame_id
        if self.ledger.frames[frame_id].status is Status.PENDING and self._is_sound(label, is_tight=False):
            self.record(events.LabelStarted(t=self.clock(), worker=event.worker, frame_ids=(frame_id,)))
            self._judge([label], event)

    def is_check(self, worker: str, order: LabelingOrder) -> bool:
        """Whether the first call of a worker is an audit or a reference frame: no frame of it waits for a label."""
        assurance = self.ledger.audits
        audit = assurance.auditing.get(worker)
        is_audit = audit is not None and order.is_tight and audit.frame_id == order.frames[0].frame_id
        return worker in assurance.checking or is_audit

    def fail(self, frame_id: str, worker: str, kind: FailureKind, message: str, wall_s: float) -> None:
        """An attempt gave no label."""
        logger.warning("label of %s failed on %s: %s: %s", frame_id[:8], worker, kind, message)
        self.record(
            events.LabelFailed(
                t=self.clock(), frame_id=frame_id, failure=kind, message=message[:500], worker=worker, wall_s=wall_s
            )
        )

    def forget(self, label_id: str) -> None:
        """A label is no longer data."""
        if self.gate is not None:
            self.queue.ask(partial(self.gate.forget, label_id))

    def learn_from(self, store: StoreWriter) -> None:
        """Labels that were data before a restart; imported ones never passed the gate, and set no expectation."""
        if self.gate is None:
            return
        own = ((r.label_id, f) for f, r in self.ledger.frames.items() if r.status is Status.LABELLED)
        kept = [frame_id for _, frame_id in nsmallest(self.gate.n_learned, own)]
        for candidate, label in zip(store.candidates(kept), store.labels(kept, self.level.level_id), strict=True):
            if label is not None:
                self.queue.ask(partial(self.gate.learn, candidate.frame, label))

    def review(self, predictions: Mapping[str, Prediction], snapshot: Snapshot) -> None:
        """Labels that look wrong to a new committee are to be audited."""
        if self.gate is None or not predictions:
            return
        gate, level_id = self.gate, self.level.level_id
        wanted = {f for f in predictions if self.ledger.frames[f].status is Status.LABELLED}

        def question() -> dict[str, tuple[Finding, ...]]:
            rows = labelled_frames(snapshot, level_id, wanted)
            return gate.review((frame, label, predictions[frame.frame_id]) for frame, label in rows)

        self.queue.ask(question, self._flag)

    def _flag(self, found: Mapping[str, tuple[Finding, ...]]) -> None:
        for frame_id, findings in found.items():
            lines = tuple(finding.message for finding in findings)
            self.record(events.LabelFlaggedByModel(t=self.clock(), frame_id=frame_id, findings=lines))

    @property
    def _band(self) -> Band | None:
        calibration = self.ledger.calibration
        return calibration.band if calibration.is_fitted else None

    def _is_sound(self, label: Label, is_tight: bool) -> bool:
        n_atoms = self.memory.frame(label.frame_id).n_atoms
        baseline = label.baseline
        return (
            (is_tight or label.level_id == self.level.level_id)
            and _is_whole(label, n_atoms)
            and (
                baseline is None
                or (
                    self.baseline is not None
                    and baseline.level_id == self.baseline.level_id
                    and baseline.frame_id == label.frame_id
                    and _is_whole(baseline, n_atoms)
                )
            )
        )

    def _accept(self, label: Label, event: Completion) -> None:
        (candidate,) = self.memory.candidates([label.frame_id])
        accepted = events.LabelAccepted(
            t=self.clock(),
            frame_id=label.frame_id,
            label_id=label.label_id,
            worker=event.worker,
            wall_s=label.cost.wall_s,
            cpu_s=label.cost.cpu_s,
            sent=event.sent,
            started=event.started,
            finished=event.finished,
            baseline_id="" if label.baseline is None else label.baseline.label_id,
            digest=label_digest(label, candidate.mask),
            chosen_by=self.ledger.frames[label.frame_id].chosen_by,
            audit=self._audit_of(label),
        )
        self.record(accepted, label)
        self.memory.keep(label)

    def _audit_of(self, label: Label) -> str:
        is_atom = self.ledger.frames[label.frame_id].arm is Arm.ATOM
        return audit_of(label.label_id, 0.0 if is_atom else self.ledger.settings.audit_share)

    def _repeated(self, label: Label, worker: str) -> None:
        first = self.memory.label_of(label.frame_id, self.level.level_id)
        energy = force = 0.0
        if first is not None:
            energy = abs(first.energy - label.energy)
            force = float(np.abs(first.forces - label.forces).max())
        self.record(
            events.LabelRepeated(
                t=self.clock(),
                frame_id=label.frame_id,
                worker=worker,
                is_conflict=energy > CONFLICT_ENERGY or force > CONFLICT_FORCE,
                energy_difference=energy,
                force_difference=force,
            )
        )

    def _judge(self, labels: Sequence[Label], event: Completion) -> None:
        """Labels of one call are data, or wait to be verified where the gate finds something odd: one question."""
        if self.gate is None:
            for label in labels:
                self._accept(label, event)
            return
        gate, band = self.gate, self._band
        frames = {label.frame_id: self.memory.frame(label.frame_id) for label in labels}
        # free atoms are learned from as they are
        atoms = [label for label in labels if self.ledger.frames[label.frame_id].arm is Arm.ATOM]
        others = [label for label in labels if self.ledger.frames[label.frame_id].arm is not Arm.ATOM]
        rows = [(frames[label.frame_id], label, self.memory.expected(label.frame_id)) for label in others]

        def question() -> list[tuple[Finding, ...]]:
            for atom in atoms:
                gate.learn(frames[atom.frame_id], atom)
            return [()] * len(atoms) + gate.judge(rows, band)

        def then(answers: list[tuple[Finding, ...]]) -> None:
            for label, findings in zip([*atoms, *others], answers, strict=True):
                if findings:
                    self._set_aside(label, event, findings)
                else:
                    self._accept(label, event)

        if labels:
            self.queue.ask(question, then)

    def _set_aside(self, label: Label, event: Completion, findings: tuple[Finding, ...]) -> None:
        """A label must be verified before it may be data."""
        lines = tuple(finding.message for finding in findings)
        logger.info("label of %s by %s failed the gate: %s", label.frame_id[:8], event.worker, "; ".join(lines))
        self.memory.keep_unverified(label, findings)
        self.record(
            events.LabelFailedGate(
                t=self.clock(),
                frame_id=label.frame_id,
                worker=event.worker,
                findings=lines,
                wall_s=label.cost.wall_s,
            )
        )

    def _verify(self, tight: Label, event: Completion) -> None:
        """The second label, at tighter settings: the first one is data, or the frame is labelled afresh."""
        assert self.gate is not None
        gate, frame_id = self.gate, tight.frame_id
        frame, (first, findings) = self.memory.frame(frame_id), self.memory.take_unverified(frame_id)
        prediction = self.memory.expected(frame_id)
        self.queue.ask(
            lambda: gate.verify(frame, tight, first, findings, prediction),
            lambda answer: self._verified(tight, event, *answer),
        )

    def _verified(
        self, tight: Label, event: Completion, kept: Label | None, findings: tuple[Finding, ...], difference: float
    ) -> None:
        frame_id, wall_s = tight.frame_id, tight.cost.wall_s
        if kept is not None:
            self._accept(kept, event)
        elif findings:
            message = "; ".join(finding.message for finding in findings)
            self.fail(frame_id, event.worker, FailureKind.LABEL_REJECTED, message, wall_s)
        else:
            logger.warning("label of %s is wrong: forces differ by %.3f eV/Angstrom", frame_id[:8], difference)
            self.record(
                events.LabelNotReproduced(
                    t=self.clock(),
                    frame_id=frame_id,
                    worker=event.worker,
                    force_difference=difference,
                    wall_s=wall_s,
                )
            )

    def _take_reference(self, worker: str, outcome: Label | LabelFailure) -> None:
        """The first sound label of the reference frame is what later ones are compared with."""
        assert self.gate is not None
        gate, known = self.gate, self.ledger.audits.reference
        check = self.ledger.audits.checking[worker]
        if isinstance(outcome, LabelFailure):
            # What this level cannot treat at all says nothing about the labeler.
            is_sound = known is None and not outcome.kind.is_lost_computing
            self._checked(worker, outcome, is_sound, f"{outcome.kind}: {outcome.message}")
            return
        frame, label = gate.reference_frame, outcome
        assert frame is not None
        reference: Label | None = None
        if known is not None:
            forces = np.array(known.forces).reshape(-1, 3)
            reference = Label(frame.frame_id, self.level.level_id, known.energy, forces)

        def then(message: str) -> None:
            if self.ledger.audits.checking.get(worker) is not check:
                return  # it died meanwhile, and is checked when it is back, or is so already
            if known is None and self.ledger.audits.reference is not None:
                self._take_reference(worker, label)  # another labeler was first meanwhile
            else:
                self._checked(worker, label, not message, message)

        self.queue.ask(lambda: gate.judge_reference(reference, label), then)

    def _checked(self, worker: str, outcome: Label | LabelFailure, is_sound: bool, message: str) -> None:
        assurance = self.ledger.audits
        energy, forces = 0.0, tuple[float, ...]()
        if is_sound and assurance.reference is None and isinstance(outcome, Label):
            energy, forces = outcome.energy, tuple(outcome.forces.ravel().tolist())
        self.record(
            events.ReferenceChecked(
                t=self.clock(),
                worker=worker,
                is_sound=is_sound,
                message=message,
                wall_s=outcome.cost.wall_s,
                energy=energy,
                forces=forces,
            )
        )
        if not is_sound:
            what = "gave a wrong label of" if isinstance(outcome, Label) else "could not label"
            logger.warning("%s %s the reference frame: %s", worker, what, message)
            self.restart(worker, f"it {what} the reference frame: {message}")

    def _take_audit(self, worker: str, outcome: Label | LabelFailure) -> None:
        """A label that disagrees with its audit is retracted."""
        assert self.gate is not None
        gate, frame_id = self.gate, outcome.frame_id
        first = self.memory.label_of(frame_id, self.level.level_id)
        error = ""
        if isinstance(outcome, LabelFailure):
            error = f"{outcome.kind}: {outcome.message}"
        elif first is None:
            error = "its label is gone"
        elif not self._is_sound(outcome, is_tight=True):
            error = "the audit's label is not finite or of the wrong shape"
        else:
            frame, known, tight = self.memory.frame(frame_id), first, outcome
            audit = self.ledger.audits.auditing[worker]

            def then(answer: tuple[str, float, float]) -> None:
                if self.ledger.audits.auditing.get(worker) is audit:  # else the labeler died meanwhile: made again
                    self._audited(worker, tight, known, "", *answer)

            self.queue.ask(lambda: gate.audit(frame, known, tight), then)
            return
        self._audited(worker, outcome, first, error)

    def _audited(
        self,
        worker: str,
        outcome: Label | LabelFailure,
        first: Label | None,
        error: str,
        against: str = "",
        largest: float = math.nan,
        mae: float = math.nan,
    ) -> None:
        frame_id, audit = outcome.frame_id, self.ledger.audits.auditing[worker]
        self.record(
            events.LabelAudited(
                t=self.clock(),
                frame_id=frame_id,
                worker=worker,
                reason=audit.reason,
                is_confirmed=not against,
                force_difference=largest,
                force_mae=mae,
                wall_s=outcome.cost.wall_s,
                error=error,
            )
        )
        is_data = self.ledger.frames[frame_id].status is Status.LABELLED
        if first is not None and against and is_data:
            why = f"audit ({audit.reason}): {against}"
            logger.warning("label of %s is retracted: %s", frame_id[:8], why)
            self.record(events.LabelRetracted(t=self.clock(), frame_id=frame_id, label_id=first.label_id, reason=why))


def _is_whole(label: Label, n_atoms: int) -> bool:
    is_finite = bool(np.isfinite(label.energy)) and bool(np.isfinite(label.forces).all())
    return is_finite and label.forces.shape == (n_atoms, 3)


def labelled_frames(
    snapshot: Snapshot, level_id: str, frame_ids: Container[str] | None = None
) -> Iterator[tuple[Frame, Label]]:
    """Frames of a snapshot with their labels; only those of `frame_ids` where they are given."""
    offsets = snapshot.offsets.tolist()
    rows = [i for i, frame_id in enumerate(snapshot.frame_ids) if frame_ids is None or frame_id in frame_ids]
    for i, frame in zip(rows, snapshot.frames(rows), strict=True):
        forces = snapshot.forces[offsets[i] : offsets[i + 1]]
        yield frame, Label(snapshot.frame_ids[i], level_id, float(snapshot.energy[i]), forces)
