"""What becomes of what labelers return: data, a suspect, a repetition, a failure, an audit or a canary.

Each outcome ends as events, which are recorded at once; the ledger decides what follows from them. Without an inspector
every sound label is data. A labeler whose canary is wrong is started anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterator

import numpy as np

from alsys.control.handlers.event_sink import EventSink
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.inspection import Inspector
from alsys.control.ports import Completion
from alsys.control.state.audits import audit_of
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind
from alsys.events import (
    CanaryChecked,
    LabelAccepted,
    LabelAudited,
    LabelDisputed,
    LabelDoubted,
    LabelFailed,
    LabelRepeated,
    LabelRetracted,
    LabelSuspected,
)
from alsys.frames import Arm, Frame
from alsys.labeling.base import LabelingOrder
from alsys.labels import Label, LabelFailure, LevelOfTheory, Prediction
from alsys.potentials.calibration import Band
from alsys.store.base import Snapshot
from alsys.store.digests import label_digest

logger = logging.getLogger(__name__)

CONFLICT_ENERGY = 1e-3
"""eV; a repeated label that differs by more is a conflict."""
CONFLICT_FORCE = 1e-2
"""eV/Angstrom."""


class LabelHandler:
    """Takes in what labelers return.

    Args:
        ledger: For reading.
        level: The campaign's level of theory.
        baseline: Level of the baseline; None where there is none.
        memory: Frames.
        inspector: Examines labels; None takes all of them.
        record: Takes events.
        restart: Starts a worker anew, with the reason.
        clock: Unix time.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        level: LevelOfTheory,
        baseline: LevelOfTheory | None = None,
        memory: FrameMemory,
        inspector: Inspector | None,
        record: EventSink,
        restart: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._level = level
        self._baseline = baseline
        self._memory = memory
        self._inspector = inspector
        self._record = record
        self._restart = restart
        self._clock = clock

    def take(self, event: Completion, order: LabelingOrder, outcomes: tuple[Label | LabelFailure, ...]) -> None:
        """One call came back."""
        if self.is_check(event.worker, order):
            if event.worker in self._ledger.assurance.checking:
                self._canary(event.worker, outcomes[0])
            else:
                self._audited(event.worker, outcomes[0])
            return
        for outcome in outcomes:
            if isinstance(outcome, LabelFailure):
                self.fail(outcome.frame_id, event.worker, outcome.kind, outcome.message, outcome.cost.wall_s)
            elif not self._is_sound(outcome, order.is_tight):
                message = "the labeler returned a label that is not finite, of the wrong shape or of another level"
                self.fail(outcome.frame_id, event.worker, FailureKind.INTERNAL, message, outcome.cost.wall_s)
            elif order.is_tight:
                self._verified(outcome, event)
            elif self._ledger.frames[outcome.frame_id].status in (Status.LABELLED, Status.RETRACTED):
                self._repeated(outcome, event.worker)
            elif not self._is_suspect(outcome, event.worker):
                self._accept(outcome, event)

    def is_check(self, worker: str, order: LabelingOrder) -> bool:
        """Whether the first call of a worker is an audit or a canary: no frame of it waits for a label."""
        assurance = self._ledger.assurance
        audit = assurance.auditing.get(worker)
        is_audit = audit is not None and order.is_tight and audit.frame_id == order.frames[0].frame_id
        return worker in assurance.checking or is_audit

    def fail(self, frame_id: str, worker: str, kind: FailureKind, message: str, wall_s: float) -> None:
        """An attempt gave no label."""
        logger.warning("label of %s failed on %s: %s: %s", frame_id[:8], worker, kind, message)
        self._record(
            LabelFailed(
                t=self._clock(), frame_id=frame_id, failure=kind, message=message[:500], worker=worker, wall_s=wall_s
            )
        )

    def review(self, predictions: dict[str, Prediction], snapshot: Snapshot) -> None:
        """Labels that look wrong to a new committee are to be audited."""
        if self._inspector is None or not predictions:
            return
        rows = [
            (frame, label, predictions[frame.frame_id])
            for frame, label in labelled_frames(snapshot, self._level.level_id, predictions)
            if self._ledger.frames[frame.frame_id].status is Status.LABELLED
        ]
        for frame_id, findings in self._inspector.review(rows).items():
            lines = tuple(finding.message for finding in findings)
            self._record(LabelDoubted(t=self._clock(), frame_id=frame_id, findings=lines))

    @property
    def _band(self) -> Band | None:
        calibration = self._ledger.calibration
        return calibration.band if calibration.is_fitted else None

    def _is_sound(self, label: Label, is_tight: bool) -> bool:
        n_atoms = self._memory.frame(label.frame_id).n_atoms
        baseline = label.baseline
        return (
            (is_tight or label.level_id == self._level.level_id)
            and _is_whole(label, n_atoms)
            and (
                baseline is None
                or (
                    self._baseline is not None
                    and baseline.level_id == self._baseline.level_id
                    and baseline.frame_id == label.frame_id
                    and _is_whole(baseline, n_atoms)
                )
            )
        )

    def _accept(self, label: Label, event: Completion) -> None:
        (candidate,) = self._memory.candidates([label.frame_id])
        accepted = LabelAccepted(
            t=self._clock(),
            frame_id=label.frame_id,
            label_id=label.label_id,
            worker=event.worker,
            wall_s=label.cost.wall_s,
            sent=event.sent,
            started=event.started,
            finished=event.finished,
            baseline_id="" if label.baseline is None else label.baseline.label_id,
            digest=label_digest(label, candidate.mask),
            chosen_by=self._ledger.frames[label.frame_id].chosen_by,
            audit=self._audit_of(label),
        )
        if self._inspector is not None:
            self._inspector.accept(candidate.frame, label)
        self._record(accepted, label)
        self._memory.keep(label)

    def _audit_of(self, label: Label) -> str:
        is_atom = self._ledger.frames[label.frame_id].arm is Arm.ATOM
        return audit_of(label.label_id, 0.0 if is_atom else self._ledger.settings.audit_share)

    def _repeated(self, label: Label, worker: str) -> None:
        first = self._memory.label_of(label.frame_id, self._level.level_id)
        energy = force = 0.0
        if first is not None:
            energy = abs(first.energy - label.energy)
            force = float(np.abs(first.forces - label.forces).max())
        self._record(
            LabelRepeated(
                t=self._clock(),
                frame_id=label.frame_id,
                worker=worker,
                is_conflict=energy > CONFLICT_ENERGY or force > CONFLICT_FORCE,
                energy_difference=energy,
                force_difference=force,
            )
        )

    def _is_suspect(self, label: Label, worker: str) -> bool:
        """Whether a label must be verified before it may be data; it is set aside then."""
        frame_id = label.frame_id
        if self._inspector is None or self._ledger.frames[frame_id].arm is Arm.ATOM:
            return False
        findings = self._inspector.examine(self._memory.frame(frame_id), label, self._band)
        if not findings:
            return False
        lines = tuple(finding.message for finding in findings)
        logger.info("label of %s by %s is suspect: %s", frame_id[:8], worker, "; ".join(lines))
        self._inspector.suspect(label, findings)
        wall_s = label.cost.wall_s
        self._record(LabelSuspected(t=self._clock(), frame_id=frame_id, worker=worker, findings=lines, wall_s=wall_s))
        return True

    def _verified(self, tight: Label, event: Completion) -> None:
        """A suspect was labelled at tighter settings: the first label is data, or the frame is labelled afresh."""
        assert self._inspector is not None
        frame_id, wall_s = tight.frame_id, tight.cost.wall_s
        first, findings, difference = self._inspector.verify(self._memory.frame(frame_id), tight)
        if first is not None:
            self._accept(first, event)
        elif findings:
            message = "; ".join(finding.message for finding in findings)
            self.fail(frame_id, event.worker, FailureKind.LABEL_REJECTED, message, wall_s)
        else:
            logger.warning("label of %s is wrong: forces differ by %.3f eV/Angstrom", frame_id[:8], difference)
            self._record(
                LabelDisputed(
                    t=self._clock(),
                    frame_id=frame_id,
                    worker=event.worker,
                    force_difference=difference,
                    wall_s=wall_s,
                )
            )

    def _canary(self, worker: str, outcome: Label | LabelFailure) -> None:
        """The first sound canary is what later ones are compared with."""
        assert self._inspector is not None
        reference = self._ledger.assurance.reference
        energy, forces, message = 0.0, tuple[float, ...](), ""
        is_sound = True
        if isinstance(outcome, LabelFailure):
            message = f"{outcome.kind}: {outcome.message}"
            # What this level cannot treat at all says nothing about the labeler.
            is_sound = reference is None and not outcome.kind.is_lost_computing
        elif (finding := self._inspector.judge_canary(reference, outcome)) is not None:
            message, is_sound = finding.message, False
        elif reference is None:
            energy, forces = outcome.energy, tuple(outcome.forces.ravel().tolist())
        self._record(
            CanaryChecked(
                t=self._clock(),
                worker=worker,
                is_sound=is_sound,
                message=message,
                wall_s=outcome.cost.wall_s,
                energy=energy,
                forces=forces,
            )
        )
        if not is_sound:
            logger.warning("canary of %s failed: %s", worker, message)
            self._restart(worker, f"its canary failed: {message}")

    def _audited(self, worker: str, outcome: Label | LabelFailure) -> None:
        """A label that disagrees with its audit is retracted."""
        assert self._inspector is not None
        frame_id, reason = outcome.frame_id, self._ledger.assurance.auditing[worker].reason
        first = self._memory.label_of(frame_id, self._level.level_id)
        against, largest, mae, error = "", math.nan, math.nan, ""
        if isinstance(outcome, LabelFailure):
            error = f"{outcome.kind}: {outcome.message}"
        elif first is None:
            error = "its label is gone"
        elif not self._is_sound(outcome, is_tight=True):
            error = "the audit's label is not finite or of the wrong shape"
        else:
            against, largest, mae = self._inspector.audit(self._memory.frame(frame_id), first, outcome)
        self._record(
            LabelAudited(
                t=self._clock(),
                frame_id=frame_id,
                worker=worker,
                reason=reason,
                is_confirmed=not against,
                force_difference=largest,
                force_mae=mae,
                wall_s=outcome.cost.wall_s,
                error=error,
            )
        )
        if first is not None and against:
            why = f"audit ({reason}): {against}"
            logger.warning("label of %s is retracted: %s", frame_id[:8], why)
            self._record(LabelRetracted(t=self._clock(), frame_id=frame_id, label_id=first.label_id, reason=why))


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
