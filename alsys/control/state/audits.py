"""Whether labels can be trusted: what waits to be verified, audited or checked, and what to do about it.

A label that the gate suspects is not data until its frame was labelled again at tighter settings (*verified*). A
random sample of labels that are data, those that a newer committee flags, and those of a labeler whose check failed
are compared with tighter ones (*audited*); one that disagrees is retracted. Each labeler labels a *reference frame*
when it comes up and every so many labels. Part of the ledger: events change it, nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from sys import intern
from typing import Literal

from alsys.events import AuditReason, AuditsDrawn, LabelAccepted, LabelAudited, ReferenceChecked, ReferenceCheckStarted

MAX_AUDITS = 2
"""Attempts at one audit."""
MAX_SINCE = 1000
"""Labels of one labeler that are remembered since its last check."""


@dataclass(frozen=True, slots=True)
class ReferenceLabel:
    """The first sound label of the reference frame; eV, and components of forces, flat, eV/Angstrom."""

    energy: float
    forces: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """A label that is to be compared with one at tighter settings.

    Attributes:
        author: Labeler that gave the label; empty where unknown.
    """

    frame_id: str
    reason: AuditReason
    author: str = ""


@dataclass(slots=True)
class AuditState:
    """What is known about the trustworthiness of labels.

    Attributes:
        to_verify: Frames whose label waits to be verified, with the labeler that gave it.
        to_audit: Audits to be made, by frame.
        undrawn: Labels, by frame, of an older log of which nobody has said whether they are audited, and who gave them.
        auditing: Audit that each labeler is making, another object each time.
        checking: Labelers that have the reference frame, each with the check that is under way.
        since_check: Labels of each labeler since its last good check; a labeler that is not in here needs one.
        reference: What the label of the reference frame must be; None before the first.
        n_failed_gate: Labels that did not pass the gate.
        n_not_reproduced: Those of them that were wrong.
        n_audited: Audits that gave a label.
        n_rejected: Audits that disagreed.
        n_reference_checks: Labels of the reference frame.
        n_failed_reference_checks: Those of them that failed.
    """

    to_verify: dict[str, str] = field(default_factory=dict)
    to_audit: dict[str, Audit] = field(default_factory=dict)
    undrawn: dict[str, tuple[str, str]] = field(default_factory=dict)
    auditing: dict[str, Audit] = field(default_factory=dict)
    checking: dict[str, ReferenceCheckStarted] = field(default_factory=dict)
    since_check: dict[str, list[str]] = field(default_factory=dict)
    reference: ReferenceLabel | None = None
    n_failed_gate: int = 0
    n_not_reproduced: int = 0
    n_audited: int = 0
    n_rejected: int = 0
    n_reference_checks: int = 0
    n_failed_reference_checks: int = 0
    _attempts: dict[str, int] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether labelers are at work for it."""
        return bool(self.auditing or self.checking)

    def drawn(self, share: float) -> list[Audit]:
        """Audits of labels of an older log of which nobody has said whether they are audited, if `share` of all are."""
        return [
            Audit(frame_id, AuditReason.RANDOM, author)
            for frame_id, (label_id, author) in self.undrawn.items()
            if frame_id not in self.to_audit and audit_of(label_id, share) == "yes"
        ]

    def waiting(self, share: float) -> list[Audit]:
        """Audits to be made: those with a cause first, then those that were drawn, `share` of all labels."""
        with_cause = [audit for audit in self.to_audit.values() if audit.reason is not AuditReason.RANDOM]
        drawn = [audit for audit in self.to_audit.values() if audit.reason is AuditReason.RANDOM]
        return [*with_cause, *self.drawn(share), *drawn]

    def needs_check(self, worker: str, every: int) -> bool:
        """Whether a labeler is to label the reference frame before anything else.

        Args:
            worker: A labeler.
            every: Labels between two checks; 0 for none.
        """
        return every > 0 and (worker not in self.since_check or len(self.since_check[worker]) >= every)

    def restart(self) -> None:
        """A new driver: what was under way is to be done again; the ledger has unverified frames labelled afresh."""
        for audit in self.auditing.values():
            self.to_audit[audit.frame_id] = audit
        self.auditing.clear()
        self.checking.clear()
        self.since_check.clear()
        self.to_verify.clear()

    def lose(self, worker: str) -> None:
        """A labeler died: its audit is to be done again, by whoever comes."""
        self.checking.pop(worker, None)
        self.since_check.pop(worker, None)
        audit = self.auditing.pop(worker, None)
        if audit is not None:
            self._retry(audit)

    def accept(self, event: LabelAccepted) -> None:
        """A label became data."""
        frame_id, worker = event.frame_id, event.worker
        if worker in self.since_check:
            done = self.since_check[worker]
            done.append(frame_id)
            del done[:-MAX_SINCE]
        if not event.audit:
            self.undrawn.setdefault(frame_id, (event.label_id, intern(worker)))
        elif event.audit == "yes":
            self.request(Audit(frame_id, AuditReason.RANDOM, worker))

    def draw(self, event: AuditsDrawn) -> None:
        """It was drawn which labels of an older log are audited."""
        for frame_id in event.frame_ids:
            self.request(Audit(frame_id, AuditReason.RANDOM, self.undrawn[frame_id][1]))
        self.undrawn.clear()

    def request(self, audit: Audit) -> None:
        """Asks for an audit, once."""
        if all(audit.frame_id != other.frame_id for other in self.auditing.values()):
            self.to_audit.setdefault(audit.frame_id, audit)

    def withdraw(self, frame_id: str) -> None:
        """A label is no longer data: no need to audit it."""
        self._take(frame_id)
        self._attempts.pop(frame_id, None)

    def begin_audit(self, worker: str, frame_id: str) -> None:
        """An audit is under way."""
        audit = self._take(frame_id)
        if audit is None:
            raise KeyError(frame_id)
        self.auditing[worker] = replace(audit)  # one of its own: a labeler that was lost may get the same one again
        self._attempts[frame_id] = self._attempts.get(frame_id, 0) + 1

    def audited(self, event: LabelAudited) -> None:
        """An audit came back."""
        audit = self.auditing.pop(event.worker, None) or self._take(event.frame_id)
        if event.error:
            if audit is not None:
                self._retry(audit)
            return
        self._attempts.pop(event.frame_id, None)
        self.n_audited += 1
        self.n_rejected += not event.is_confirmed

    def checked(self, event: ReferenceChecked) -> None:
        """A check came back; where it failed, the labels since the last good one are to be audited."""
        self.checking.pop(event.worker, None)
        self.n_reference_checks += 1
        if event.is_sound:
            self.since_check[event.worker] = []
            if self.reference is None and event.forces:
                self.reference = ReferenceLabel(event.energy, event.forces)
            return
        self.n_failed_reference_checks += 1
        for frame_id in self.since_check.pop(event.worker, []):
            self.request(Audit(frame_id, AuditReason.REFERENCE, event.worker))

    def _take(self, frame_id: str) -> Audit | None:
        """The audit of a frame, which does not wait any more."""
        undrawn = self.undrawn.pop(frame_id, None)
        audit = self.to_audit.pop(frame_id, None)
        return Audit(frame_id, AuditReason.RANDOM, undrawn[1]) if audit is None and undrawn is not None else audit

    def _retry(self, audit: Audit) -> None:
        if self._attempts.get(audit.frame_id, 0) < MAX_AUDITS:
            self.to_audit[audit.frame_id] = audit
        else:
            self._attempts.pop(audit.frame_id, None)


def audit_of(label_id: str, share: float) -> Literal["yes", "no"]:
    """Whether a label is among the `share` of all that are audited: decided by its identity."""
    return "yes" if share > 0 and int(label_id[:8], 16) < share * 2**32 else "no"
