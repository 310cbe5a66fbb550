"""The model versions: every version and what became of it, who is champion, and what the last fit knew.

A version is undecided from its publication to its promotion or rejection. The champion is the latest promoted one. A
fit counts as done with the data it began with; one that fails is forgotten, so that the same data are a reason to fit
again, until too many in a row have failed. Part of the ledger: events change it, nothing else does.
"""

from __future__ import annotations

from alsys.control.state.records import ModelRecord
from alsys.events import ModelLost, ModelPromoted, ModelPublished, ModelRejected, TrainingStarted
from alsys.metrics import Metrics

MAX_TRAINING_FAILURES = 3
"""Failed fits in a row after which the same data are no reason for another."""


class ModelVersions:
    """Models of one campaign. Its containers are never replaced, so the ledger can hold them too.

    Attributes:
        records: All versions.
        champions: Versions in the order of their promotion.
        undecided: Versions that are neither promoted nor rejected.
        training: The fit that is running.
        failures: Failed fits in a row.
        failed_attempts: Of those, fits that came to their end and gave nothing.
        requested_s: CPU seconds of a final fit that the user has asked for and that has given no version yet; else 0.
        n_train_at_fit: Training labels when the last fit was started.
        n_changes_at_fit: Changes of the data by then.
    """

    def __init__(self) -> None:
        self.records: dict[int, ModelRecord] = {}
        self.champions: list[int] = []
        self.champion = 0
        self.undecided: dict[int, None] = {}
        self.training: TrainingStarted | None = None
        self.failures = 0
        self.failed_attempts = 0
        self.requested_s = 0.0
        self.n_train_at_fit = 0
        self.n_changes_at_fit = 0

    def start(self, event: TrainingStarted, n_train: int, n_changes: int) -> None:
        """A fit began, with this many training labels and changes of the data."""
        self.training = event
        self.n_train_at_fit, self.n_changes_at_fit = n_train, n_changes

    def fail(self, *, is_counted: bool = True, has_ended: bool = False) -> None:
        """The fit that was running gave no model; not counted where its machine was taken away.

        Args:
            is_counted: Whether it counts.
            has_ended: The trainer said so: where it was is no place to go on from.
        """
        self.training = None
        self.failed_attempts += has_ended
        if is_counted:
            self._count_failure()
        else:
            self._forget_fit()

    def request(self, budget_s: float) -> None:
        """The user asks for a final fit; fits that failed before are no reason against it."""
        self.requested_s, self.failures = budget_s, 0

    def reopen(self) -> None:
        """A new driver: no fit is running."""
        self.training = None
        self._forget_fit()

    def publish(self, event: ModelPublished, *, n_train: int, n_seen: int, n_changes: int) -> None:
        """A fit gave a version; the numbers are those of `ModelRecord`."""
        self.training = None
        self.failed_attempts = 0
        self.requested_s = 0.0 if event.is_final else self.requested_s
        self.records[event.version] = ModelRecord(
            event.version,
            event.n_labels,
            n_train,
            n_seen,
            n_changes,
            Metrics.read(event.metrics),
            event.t,
            parent=event.parent,
            seq=event.seq,
            wall_s=event.wall_s,
            digest=event.digest,
            is_final=event.is_final,
        )
        if n_changes > self.n_changes_at_fit:
            self.n_train_at_fit, self.n_changes_at_fit = n_train, n_changes
        self.undecided[event.version] = None

    def promote(self, event: ModelPromoted) -> ModelRecord:
        """A version is champion."""
        self.undecided.pop(event.version, None)
        model = self.records[event.version]
        model.promoted, model.reason, model.is_lost = True, event.reason, False
        model.reasons, model.is_probation = event.reasons, event.is_probation
        self.failures = 0
        self.champion = event.version
        self.champions.append(event.version)
        return model

    def reject(self, event: ModelRejected) -> None:
        """A version is not; where there is no champion either, it is as if the fit had failed."""
        self.undecided.pop(event.version, None)
        model = self.records[event.version]
        model.promoted, model.reason, model.reasons = False, event.reason, event.reasons
        if self.champion:
            self.failures = 0
        else:
            self._count_failure()

    def lose(self, event: ModelLost) -> None:
        """A version is no more; the champion before it leads again, or none."""
        self.undecided.pop(event.version, None)
        self.records[event.version].is_lost = True
        self.champions[:] = [version for version in self.champions if version != event.version]
        self.champion = self.champions[-1] if self.champions else 0
        self._forget_fit()

    def _count_failure(self) -> None:
        self.failures += 1
        if self.failures < MAX_TRAINING_FAILURES:
            self._forget_fit()

    def _forget_fit(self) -> None:
        """Without the fit that was running, the newest model is the last fit; without a champion there was none."""
        fitted = [model for model in self.records.values() if not model.is_lost] if self.champion else []
        latest = max(fitted, key=lambda model: model.n_changes, default=None)
        self.n_train_at_fit = latest.n_train if latest else 0
        self.n_changes_at_fit = latest.n_changes if latest else 0
