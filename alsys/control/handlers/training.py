"""What trainers are sent, and what becomes of the committees that they return.

A fit gets a snapshot of what is on disk. A committee that comes back is written to its folder first, then recorded as
published, then told to the registry, each only once the disk holds what was before it. Committees that are in use stay
in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from alsys.control.commands import Train
from alsys.control.group_commit import GroupCommit
from alsys.control.handlers.event_sink import EventSink
from alsys.control.ports import BundleStore, Completion, Registry
from alsys.control.state.ledger import Ledger
from alsys.errors import AlsysError, FailureKind
from alsys.events import (
    Event,
    HessianComputed,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    TrainingFailed,
    TrainingStarted,
)
from alsys.frames import TRAINING_ARMS, Arm
from alsys.labels import Hessian, LevelOfTheory, Prediction
from alsys.metrics import Metrics
from alsys.potentials.base import BUNDLE_DIGEST, CommitteeState
from alsys.potentials.calibration import Band
from alsys.store.base import Snapshot, StoreReader
from alsys.training.base import TrainedCommittee, TrainingOrder

logger = logging.getLogger(__name__)

N_REVIEW = 1000
"""Newest labels that each new committee is asked about."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fit that can begin.

    Attributes:
        order: For the trainer.
        parent: Version that it goes on from; 0 for none.
        n_retracted: Labels that had been retracted by the version of its dataset.
    """

    order: TrainingOrder
    parent: int
    n_retracted: int


@dataclass(kw_only=True)
class TrainingHandler:
    """Fits, committees and the registry of one campaign.

    Attributes:
        ledger: For reading.
        store: Where snapshots come from.
        commits: Say when the disk holds what was staged.
        bundles: Where bundles go.
        registry: Where others get models.
        level: The campaign's level of theory.
        baseline: The level of the baseline beside each label; None where there is none.
        epoch: Of the driver; seeds fits.
        record: Takes events.
        review: Compares labels with what a new committee says of them; None where labels are not examined.
        wake: Ends the wait for workers: there is something to decide.
        clock: Unix time.
    """

    ledger: Ledger
    store: StoreReader
    commits: GroupCommit
    bundles: BundleStore
    registry: Registry
    level: LevelOfTheory
    baseline: LevelOfTheory | None
    epoch: int
    record: EventSink
    review: Callable[[dict[str, Prediction], Snapshot], None] | None
    wake: Callable[[], None]
    clock: Callable[[], float]
    _states: dict[int, CommitteeState] = field(default_factory=dict, init=False)
    _fit: Fit | None = field(default=None, init=False)

    def state(self, version: int) -> CommitteeState:
        """The committee of a version, from memory or the bundles."""
        if version not in self._states:
            self._states[version] = self.bundles.read(version)
        keep = {version, self.ledger.champion, max(self.ledger.models, default=0)}
        self._states = {v: s for v, s in self._states.items() if v in keep}
        return self._states[version]

    def has(self, version: int) -> bool:
        """Whether the committee of a version can be read."""
        try:
            self.state(version)
        except (AlsysError, OSError, KeyError) as error:
            logger.warning("the bundle of v%04d cannot be read: %s", version, error)
            return False
        return True

    async def prepare(self, command: Train) -> Fit:
        """What the next fit is to be sent, once everything that is staged is on disk."""
        found = list(self.ledger.hessians.found.values())  # of which all is on disk, once everything staged is
        await self.commits.flush()
        calibration = self.ledger.calibration
        is_calibrated = self.ledger.settings.is_calibrated and calibration.is_fitted
        band = calibration.band if is_calibrated else None
        # a fit that failed is not tried again in the very same way
        seed = self.epoch * 10_007 + command.version * 101 + self.ledger.training_failures * 31
        seed = (seed + self.ledger.settings.seed) % 2**31
        return await asyncio.to_thread(self._prepared, command, found, band, seed)

    def _prepared(self, command: Train, found: Sequence[HessianComputed], band: Band | None, seed: int) -> Fit:
        """In a thread: a snapshot of many labels takes its time."""
        snapshot, n_retracted, known = self._read_snapshot(command.parent)
        there = frozenset(snapshot.frame_ids)  # not those of minima whose labels were retracted
        order = TrainingOrder(
            version=command.version,
            snapshot=snapshot,
            parent=self.state(command.parent) if command.parent else None,
            champion=self.state(command.champion) if command.champion else None,
            seed=seed,
            n_review=N_REVIEW if self.review is not None else 0,
            band=band,
            known=known,
            budget_s=command.budget_s,
            is_final=command.is_final,
            attempt=self.ledger.failed_attempts,
            hessians=tuple(Hessian.of_triangle(e.frame_id, e.triangle) for e in found if e.frame_id in there),
        )
        return Fit(order, command.parent, n_retracted)

    def start(self, command: Train, now: float, n_workers: int = 1) -> None:
        """Records that a fit was decided on, by so many trainers."""
        self.record(
            TrainingStarted(
                t=now,
                worker=command.worker,
                version=command.version,
                n_labels=command.n_labels,
                budget_s=command.budget_s,
                is_final=command.is_final,
                n_workers=n_workers,
            )
        )

    def fail(self, version: int, kind: FailureKind, message: str) -> None:
        """Records that a fit came to nothing."""
        self.record(TrainingFailed(t=self.clock(), version=version, failure=kind, message=message[:500]))

    def begin(self, fit: Fit) -> TrainingOrder:
        """The fit is sent to a trainer: the next committee that comes back is its."""
        self._fit = fit
        return fit.order

    def publish(self, trained: TrainedCommittee, call: Completion) -> None:
        """A committee came back from a call. Bundle first, then the event, then the registry."""
        if self._fit is None:
            raise AssertionError("a committee arrived that nobody asked for")
        snapshot, parent, n_retracted = self._fit.order.snapshot, self._fit.parent, self._fit.n_retracted
        n_hessians = len(self._fit.order.hessians)
        version, is_final = trained.state.version, self._fit.order.is_final
        n_labels = int((~snapshot.is_arm(Arm.ATOM)).sum())
        own = Metrics({"n_labels_train": float(snapshot.is_arm(*TRAINING_ARMS).sum())})
        metrics = {k: v for k, v in (trained.metrics | own).items() if np.isfinite(v)}
        card = {
            "version": version,
            "parent": parent,
            "head_seq": snapshot.seq,
            "n_labels": n_labels,
            "dataset_digest": "",
            "level_of_theory": dict(self.level.spec),
            "metrics": metrics,
            "test_frames": self.ledger.settings.test_frames,
        }
        if trained.state.baseline is not None:
            card["baseline"] = dict(trained.state.baseline)

        def write() -> str:
            card["dataset_digest"] = _digest(snapshot)
            return self.bundles.write(trained, card)

        async def record() -> None:
            digest = await asyncio.to_thread(write)
            self._states[version] = trained.state
            event = ModelPublished(
                t=self.clock(),
                version=version,
                parent=parent,
                seq=snapshot.seq,
                n_labels=n_labels,
                wall_s=call.finished - call.started,
                metrics=metrics,
                n_retracted=n_retracted,
                sent=call.sent,
                started=call.started,
                finished=call.finished,
                digest=digest,
                is_final=is_final,
                n_hessians=n_hessians,
            )
            self.record(event)
            if self.review is not None:
                self.review(dict(trained.predictions), snapshot)
            self.commits.after(lambda: _call(self.registry.publish, version, card | {BUNDLE_DIGEST: digest}))
            self.wake()  # to be judged now, not when the next worker or the clock says something

        self.commits.after(record)

    def tell_registry(self, event: Event) -> None:
        """Once it is on disk."""
        if isinstance(event, ModelPromoted):
            times = self.ledger.champions.count(event.version)
            self.commits.after(lambda: _call(self.registry.promote, event.version, event.reason, times))
        elif isinstance(event, ModelRejected):
            self.commits.after(lambda: _call(self.registry.reject, event.version, event.reason))

    def _read_snapshot(self, parent: int) -> tuple[Snapshot, int, frozenset[str]]:
        """What to train on, how many labels had been retracted by then, and which frames a version has learned."""
        baseline_id = None if self.baseline is None else self.baseline.level_id
        snapshot = self.store.snapshot(self.level.level_id, None, baseline_id)
        n_retracted = len({tombstone.frame_id for tombstone in self.store.tombstones(snapshot.seq)})
        known: frozenset[str] = frozenset()
        if parent in self.ledger.models:
            before = self.store.snapshot(self.level.level_id, self.ledger.models[parent].seq, baseline_id)
            known = frozenset(before.frame_ids)
        return snapshot, n_retracted, known


def queue_models(ledger: Ledger, registry: Registry) -> None:
    """Tells a registry all about a campaign's models: something may have been lost, and repeating is harmless."""
    for model in ledger.models.values():
        if model.is_lost:
            continue
        registry.publish(model.version, {"version": model.version, BUNDLE_DIGEST: model.digest})
        if model.promoted is False:
            registry.reject(model.version, model.reason)
    champions = ledger.champions
    for i, version in enumerate(champions):
        registry.promote(version, ledger.models[version].reason, champions[: i + 1].count(version))


async def _call(action: Callable[..., None], *args: object) -> None:
    action(*args)


def _digest(snapshot: Snapshot) -> str:
    """Identity of the labels in a snapshot, 32 hexadecimal characters."""
    digest = hashlib.blake2b("".join(snapshot.frame_ids).encode(), digest_size=16)
    digest.update(snapshot.energy.tobytes())
    return digest.hexdigest()
