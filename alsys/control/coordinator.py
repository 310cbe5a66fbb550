"""The coordinator: carries out what the ledger decides, and tells the ledger what came back.

One asyncio loop, one owner of the store. Results become events; an event is applied to the ledger and staged for the
store at once, and committed by a thread that always takes everything staged (group commit). The ledger may run ahead
of the disk by one commit, so nothing that leaves the process does: labels are acknowledged, snapshots are taken and
models are published only after the commit that holds them (docs/design/003-coordinator.md). A full disk stops new work
and is waited for. Workers die without harm: what they were doing is pending again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import numpy as np

from alsys.control.busy import BusyTimes
from alsys.control.commands import Command, Emit, Explore, Finish, Idle, LabelFrames, Train
from alsys.control.journal import Journal
from alsys.control.ledger import MAX_COMPARED, Ledger, Status
from alsys.control.ports import (
    Completion,
    ModelShelf,
    PoolEvent,
    Registry,
    Role,
    Work,
    WorkerDown,
    WorkerPool,
    WorkerUp,
)
from alsys.errors import CampaignFailed, FailureKind
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    ErrorsObserved,
    Event,
    ExplorationFailed,
    ExplorationReported,
    ExplorationStarted,
    FrameDropped,
    FrameProposed,
    FrameQuarantined,
    FramesRescored,
    Heartbeat,
    LabelAbandoned,
    LabelAccepted,
    LabelFailed,
    LabelRepeated,
    LabelStarted,
    ModelPromoted,
    ModelPublished,
    StopRequested,
    TrainingFailed,
    TrainingStarted,
    WorkerLost,
)
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.frames import Arm, Candidate, FloatArray, Frame
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.potentials.base import CommitteeState
from alsys.store.base import Snapshot, StoreWriter
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder

logger = logging.getLogger(__name__)

TICK_S = 0.5
HEARTBEAT_S = 5.0
CACHE_SIZE = 4096
CONFLICT_ENERGY = 1e-3
"""eV; a repeated label that differs by more is a conflict."""
CONFLICT_FORCE = 1e-2
"""eV/Angstrom."""


class Coordinator:
    """Runs one campaign to its end.

    Args:
        ledger: Folded from the store's events.
        store: The one writer.
        pool: Workers.
        shelf: Where bundles go.
        registry: Where others get models.
        level: The campaign's level of theory.
        baseline: The level of the baseline beside each label; None where there is none.
        initial: Makes the first frames; called in a thread, only for a campaign without frames.
        opened: The event that says who opened the campaign.
        on_acknowledged: Called with the identities of labels once they are on disk.
        stop_request: Polled; a value asks the campaign to stop.
        observe: Called every half a second and at the end, for displays.
        clock: Unix time.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: StoreWriter,
        pool: WorkerPool,
        shelf: ModelShelf,
        registry: Registry,
        level: LevelOfTheory,
        initial: Callable[[], Sequence[Candidate]],
        opened: CampaignOpened,
        baseline: LevelOfTheory | None = None,
        on_acknowledged: Callable[[Sequence[str]], None] | None = None,
        stop_request: Callable[[], StopRequested | None] | None = None,
        observe: Callable[[Coordinator], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self.busy = BusyTimes()
        self.journal = Journal(store, on_acknowledged)
        self._store = store
        self._pool = pool
        self._shelf = shelf
        self._registry = registry
        self._level = level
        self._baseline = baseline
        self._initial = initial
        self._opened = opened
        self._stop_request = stop_request
        self._observe = observe
        self._clock = clock
        self._frames: dict[str, Candidate] = {}
        self._labelled: OrderedDict[str, Candidate] = OrderedDict()
        self._forces: OrderedDict[str, FloatArray] = OrderedDict()
        self._states: dict[int, CommitteeState] = {}
        self._loaded: dict[str, int] = {}
        self._calls: dict[str, deque[Work]] = {}
        self._roles: dict[str, Role] = {}
        self._orders = 0
        self._snapshot_of_fit: Snapshot | None = None
        self._fit_parent = 0
        self._fit_task: asyncio.Task[None] | None = None
        self._last_tick = 0.0
        self._last_beat = 0.0
        self._problem: Exception | None = None

    # --- the loop

    async def run(self) -> CampaignStopped:
        """Runs until a stop criterion holds.

        Raises:
            CampaignFailed: All workers of one kind are gone for good.
            Fenced: Another process took the store over.
        """
        self._last_beat = self._clock()
        self._stage_levels()
        self._record(self._opened)
        initial = None if self.ledger.proposed else asyncio.create_task(asyncio.to_thread(self._initial))
        try:
            await self._pool.start()
            self._reload_frames()
            self._requeue_models()
            if initial is not None:
                self._propose(await initial)
            while (stopped := self._act()) is None:
                for event in await self._pool.wait(TICK_S):
                    self._take(event)
                self._tick()
            await self.journal.drain()
            return stopped
        finally:
            if self._fit_task is not None:
                self._fit_task.cancel()
            await self._pool.close()
            if self.journal.problem is None and self.journal.disk_problem is None:
                await self.journal.flush()

    def _act(self) -> CampaignStopped | None:
        problem = self._problem or self.journal.problem
        if problem is not None:
            raise problem
        while True:
            now = self._clock()
            commands = self.ledger.decide(now, Idle() if self.journal.is_behind else self._idle())
            for command in commands:
                if isinstance(command, Finish):
                    return self._stop(command, now)
                self._carry_out(command, now)
            if not any(isinstance(command, Emit) for command in commands):
                return None

    def _stop(self, finish: Finish, now: float) -> CampaignStopped:
        self._beat(now)
        stopped = CampaignStopped(t=now, reason=finish.reason, message=finish.message, is_final=finish.is_final)
        self._record(stopped)
        if self._observe is not None:
            self._observe(self)
        return stopped

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Emit(event):
                self._record(event)
                if isinstance(event, ModelPromoted):
                    self.journal.after(lambda: _call(self._registry.promote, event.version))
            case LabelFrames(worker, frame_ids):
                self._record(LabelStarted(t=now, worker=worker, frame_ids=frame_ids))
                self._submit(worker, tuple(self._frames[frame_id].frame for frame_id in frame_ids))
            case Explore():
                self._explore(command, now)
            case Train():
                event_ = TrainingStarted(
                    t=now, worker=command.worker, version=command.version, n_labels=command.n_labels
                )
                self._record(event_)
                self._calls[command.worker].append(())
                self._fit_task = asyncio.create_task(self._fit(command))
            case Finish():
                raise AssertionError("Finish is handled by _act")

    def _submit(self, worker: str, work: Work) -> None:
        self.busy.start(self._roles[worker], worker, self._clock())
        self._calls[worker].append(work)
        self._pool.submit(worker, work)

    def _idle(self) -> Idle:
        free: dict[Role, list[str]] = {role: [] for role in Role}
        ahead: list[str] = []
        for worker, calls in self._calls.items():
            role = self._roles[worker]
            if not calls:
                free[role].append(worker)
            elif len(calls) == 1 and role is Role.LABELER:
                ahead.append(worker)
        return Idle(
            explorers=tuple(free[Role.EXPLORER]),
            labelers=tuple(free[Role.LABELER]),
            busy_labelers=tuple(ahead),
            trainers=tuple(free[Role.TRAINER]),
        )

    # --- results

    def _take(self, event: PoolEvent) -> None:
        match event:
            case WorkerUp(worker, role):
                self._roles[worker] = role
                self._calls[worker] = deque()
                self._loaded.pop(worker, None)
            case WorkerDown():
                self._lose(event)
            case Completion():
                work = self._calls[event.worker].popleft()
                if not self._calls[event.worker]:
                    self.busy.stop(event.role, event.worker, self._clock())
                match event.result:
                    case ExplorationReport():
                        self._explored(event.worker, event.result)
                    case TrainedCommittee():
                        self._publish(event.result, event.finished - event.started)
                    case TrainingFailure(version, kind, message):
                        logger.warning("fit of v%04d failed: %s: %s", version, kind, message)
                        self._record(TrainingFailed(t=self._clock(), version=version, failure=kind, message=message))
                    case _:
                        self._labelled_call(event, work, event.result)

    def _labelled_call(self, event: Completion, work: Work, outcomes: tuple[Label | LabelFailure, ...]) -> None:
        now = self._clock()
        for outcome in outcomes:
            if isinstance(outcome, LabelFailure):
                self._failed(outcome.frame_id, event.worker, outcome.kind, outcome.message, outcome.cost.wall_s)
                continue
            frame_id = outcome.frame_id
            n_atoms = self._frame(frame_id).n_atoms
            if not self._is_sound(outcome, n_atoms):
                message = "the labeler returned a label that is not finite, of the wrong shape or of another level"
                self._failed(frame_id, event.worker, FailureKind.INTERNAL, message, outcome.cost.wall_s)
            elif self.ledger.frames[frame_id].status is Status.LABELLED:
                self._repeated(outcome, event.worker)
            else:
                accepted = LabelAccepted(
                    t=now,
                    frame_id=frame_id,
                    label_id=outcome.label_id,
                    worker=event.worker,
                    wall_s=outcome.cost.wall_s,
                    sent=event.sent,
                    started=event.started,
                    finished=event.finished,
                    baseline_id="" if outcome.baseline is None else outcome.baseline.label_id,
                )
                self._record(accepted, label=outcome)
                self._remember(frame_id, outcome.forces)

    def _is_sound(self, label: Label, n_atoms: int) -> bool:
        return (
            label.level_id == self._level.level_id
            and label.forces.shape == (n_atoms, 3)
            and bool(np.isfinite(label.energy))
            and bool(np.isfinite(label.forces).all())
            and (label.baseline is None or self._is_sound_baseline(label.baseline, label.frame_id, n_atoms))
        )

    def _is_sound_baseline(self, label: Label, frame_id: str, n_atoms: int) -> bool:
        return (
            self._baseline is not None
            and label.level_id == self._baseline.level_id
            and label.frame_id == frame_id
            and label.forces.shape == (n_atoms, 3)
            and bool(np.isfinite(label.energy))
            and bool(np.isfinite(label.forces).all())
        )

    def _failed(self, frame_id: str, worker: str, kind: FailureKind, message: str, wall_s: float) -> None:
        logger.warning("label of %s failed on %s: %s: %s", frame_id[:8], worker, kind, message)
        self._record(
            LabelFailed(
                t=self._clock(), frame_id=frame_id, failure=kind, message=message[:500], worker=worker, wall_s=wall_s
            )
        )

    def _repeated(self, label: Label, worker: str) -> None:
        first = self._store.labels([label.frame_id], self._level.level_id)[0]
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

    def _lose(self, event: WorkerDown) -> None:
        now = self._clock()
        calls = self._calls.pop(event.worker, deque())
        self.busy.stop(event.role, event.worker, now)
        self._loaded.pop(event.worker, None)
        logger.warning("%s is lost: %s: %s", event.worker, event.failure, event.message)
        for i, work in enumerate(calls):
            if event.role is Role.LABELER:
                frame_ids = tuple(frame.frame_id for frame in work) if isinstance(work, tuple) else ()
                if i:
                    self._record(LabelAbandoned(t=now, worker=event.worker, frame_ids=frame_ids))
                else:
                    for frame_id in frame_ids:
                        self._failed(frame_id, event.worker, event.failure, event.message, 0.0)
            elif event.role is Role.EXPLORER:
                failure = ExplorationFailed(
                    t=now, worker=event.worker, failure=event.failure, message=event.message[:500]
                )
                self._record(failure)
            elif self.ledger.training is not None:
                version = self.ledger.training.version
                self._record(TrainingFailed(t=now, version=version, failure=event.failure, message=event.message[:500]))
        self._record(
            WorkerLost(t=now, worker=event.worker, role=event.role, failure=event.failure, message=event.message[:500])
        )
        if event.is_final:
            del self._roles[event.worker]
            if event.role not in self._roles.values():
                self._problem = CampaignFailed(
                    f"the last of the {event.role} died too often and was given up; its last words: {event.message}"
                )

    # --- exploration

    def _explore(self, command: Explore, now: float) -> None:
        state = None
        seeds: tuple[tuple[str, Frame], ...] = ()
        if self._loaded.get(command.worker) != command.version:
            state = self._state(command.version)
            seeds = tuple((c.source.system, c.frame) for c in self._candidates(command.seeds))
            self._loaded[command.worker] = command.version
        compare = self._true_forces(command.compare)
        self._orders += 1
        order = ExplorationOrder(
            n_steps=command.n_steps,
            n_random=command.n_random,
            max_candidates=command.max_candidates,
            state=state,
            seeds=seeds,
            rescore=tuple(self._frame(frame_id) for frame_id in command.rescore),
            compare=compare,
            trust=command.trust,
            shares=command.shares,
            trajectory_base=(self._store.epoch << 44) + (self._orders << 20),
        )
        self._record(
            ExplorationStarted(
                t=now,
                worker=command.worker,
                n_steps=command.n_steps,
                n_random=command.n_random,
                rescored=command.rescore,
                compared=tuple(frame.frame_id for frame, _ in compare),
            )
        )
        self._submit(command.worker, order)

    def _explored(self, worker: str, report: ExplorationReport) -> None:
        now = self._clock()
        self._record(
            ExplorationReported(
                t=now,
                worker=worker,
                model_version=report.model_version,
                n_steps=report.n_steps,
                walker_steps=report.walker_steps,
                n_candidates=len(report.candidates),
                n_above=report.n_above,
                wall_s=report.wall_s,
                stops=report.stops,
                deviation_max=report.deviation_max,
                deviation_mean=report.deviation_mean,
                trust=report.trust,
                n_members=report.n_members,
                n_distinct=report.n_distinct,
                method_steps=report.method_steps,
            )
        )
        if report.compared:
            self._record(_errors_observed(report, now))
        if report.rescored:
            self._record(FramesRescored(t=now, model_version=report.model_version, deviations=report.rescored))
        for frame_id in report.withdrawn:
            record = self.ledger.frames.get(frame_id)
            if record is not None and record.status is Status.PENDING:
                self._record(FrameDropped(t=now, frame_id=frame_id, reason="near-test"))
        self._propose(report.candidates)

    def _propose(self, candidates: Sequence[Candidate]) -> None:
        """Proposes frames in one commit; a frame that was ever proposed is ignored."""
        now = self._clock()
        fresh = {c.frame.frame_id: c for c in candidates if c.frame.frame_id not in self.ledger.frames}
        events = [
            FrameProposed(
                t=now,
                frame_id=frame_id,
                arm=c.source.arm,
                system=c.source.system,
                deviation=c.source.deviation,
                model_version=c.source.model_version,
                trajectory=c.source.trajectory,
                method=c.source.method,
                stratum=c.source.stratum,
                n_electrons=int(c.frame.numbers.sum()) - c.frame.charge,
            )
            for frame_id, c in fresh.items()
        ]
        if not events:
            return
        self._frames.update(fresh)
        for event in events:
            self.ledger.apply(event)
        self.journal.stage(events=events, candidates=list(fresh.values()))

    # --- training

    async def _fit(self, command: Train) -> None:
        try:
            await self.journal.flush()
            baseline_id = None if self._baseline is None else self._baseline.level_id
            snapshot = await asyncio.to_thread(self._store.snapshot, self._level.level_id, None, baseline_id)
            order = TrainingOrder(
                version=command.version,
                snapshot=snapshot,
                parent=self._state(command.parent) if command.parent else None,
                champion=self._state(command.champion) if command.champion else None,
                seed=(self._opened.epoch * 10_007 + command.version * 101 + self.ledger.settings.seed) % 2**31,
            )
        except Exception as error:
            self._problem = error
            return
        calls = self._calls.get(command.worker)
        if self.ledger.training is None or self.ledger.training.version != command.version or not calls:
            return  # the trainer died meanwhile, which counted as a failed fit
        self._snapshot_of_fit, self._fit_parent = snapshot, command.parent
        calls.pop()  # the place kept while the snapshot was read
        self._submit(command.worker, order)

    def _publish(self, trained: TrainedCommittee, wall_s: float) -> None:
        """Bundle first, then the event, then the registry."""
        snapshot, parent = self._snapshot_of_fit, self._fit_parent
        if snapshot is None:
            raise AssertionError("a committee arrived that nobody asked for")
        version = trained.state.version
        n_labels = int((~snapshot.is_arm(Arm.ATOM)).sum())
        metrics = {k: float(v) for k, v in trained.metrics.items() if np.isfinite(v)}
        metrics["n_labels_train"] = float(snapshot.is_arm(Arm.INITIAL, Arm.UNCERTAIN).sum())
        card = {
            "version": version,
            "parent": parent,
            "head_seq": snapshot.seq,
            "n_labels": n_labels,
            "dataset_digest": _digest(snapshot),
            "level_of_theory": dict(self._level.spec),
            "metrics": metrics,
        }
        if trained.state.baseline is not None:
            card["baseline"] = dict(trained.state.baseline)

        async def publish() -> None:
            await asyncio.to_thread(self._shelf.write, trained, card)
            self._states[version] = trained.state
            event = ModelPublished(
                t=self._clock(),
                version=version,
                parent=parent,
                seq=snapshot.seq,
                n_labels=n_labels,
                wall_s=wall_s,
                metrics=metrics,
            )
            self._record(event)
            self.journal.after(lambda: _call(self._registry.publish, version, card))

        self.journal.after(publish)

    def _state(self, version: int) -> CommitteeState:
        if version not in self._states:
            self._states[version] = self._shelf.read(version)
        keep = {version, self.ledger.champion, max(self.ledger.models, default=0)}
        self._states = {v: s for v, s in self._states.items() if v in keep}
        return self._states[version]

    # --- frames

    def _frame(self, frame_id: str) -> Frame:
        return self._candidates([frame_id])[0].frame

    def _candidates(self, frame_ids: Sequence[str]) -> list[Candidate]:
        known = {f: c for f in frame_ids if (c := self._frames.get(f) or self._labelled.get(f)) is not None}
        missing = [f for f in frame_ids if f not in known]
        if missing:
            known.update(zip(missing, self._store.candidates(missing), strict=True))
        return [known[f] for f in frame_ids]

    def _remember(self, frame_id: str, forces: FloatArray) -> None:
        """Keeps a labelled frame at hand for seeds and comparison; the oldest are forgotten."""
        self._labelled[frame_id] = self._frames.pop(frame_id)
        self._forces[frame_id] = forces
        for cache in (self._labelled, self._forces):
            while len(cache) > CACHE_SIZE:
                cache.popitem(last=False)

    def _true_forces(self, frame_ids: Sequence[str]) -> tuple[tuple[Frame, FloatArray], ...]:
        """Labelled frames with their forces, from memory only: the store may be in the middle of a commit."""
        known = [f for f in frame_ids if f in self._forces]
        return tuple((c.frame, self._forces[f]) for f, c in zip(known, self._candidates(known), strict=True))

    def _reload_frames(self) -> None:
        """Frames that wait since before a restart, and labels that a committee may be compared with."""
        waiting = [f for f, record in self.ledger.frames.items() if record.status is Status.PENDING]
        self._frames.update(zip(waiting, self._store.candidates(waiting), strict=True))
        labelled = list(dict.fromkeys([*self.ledger.random_labelled[-MAX_COMPARED:], *self.ledger.to_compare]))
        labels = self._store.labels(labelled, self._level.level_id)
        for candidate, label in zip(self._store.candidates(labelled), labels, strict=True):
            if label is not None:
                self._labelled[label.frame_id], self._forces[label.frame_id] = candidate, label.forces

    def _requeue_models(self) -> None:
        """What was published before a restart may not have reached the registry's queue; repeating is harmless."""
        for model in self.ledger.models.values():
            self._registry.publish(model.version, {"version": model.version})
            if model.promoted:
                self._registry.promote(model.version)

    # --- the log

    def _stage_levels(self) -> None:
        """The baseline's level first: readers that want one level, and no config, take the last."""
        known = {level.level_id for level in self._store.levels()}
        levels = [level for level in (self._baseline, self._level) if level is not None]
        if missing := [level for level in levels if level.level_id not in known]:
            self.journal.stage(levels=missing)

    def _record(self, event: Event, label: Label | None = None) -> None:
        self.ledger.apply(event)
        if event.is_durable:
            labels = [] if label is None else [label] if label.baseline is None else [label, label.baseline]
            self.journal.stage(events=[event], labels=labels)
        if isinstance(event, FrameDropped | FrameQuarantined):
            self._frames.pop(event.frame_id, None)

    # --- the clock

    def _tick(self) -> None:
        now = self._clock()
        if now - self._last_tick < TICK_S:
            return
        self._last_tick = now
        if self._stop_request is not None and self.ledger.stop_requested is None:
            request = self._stop_request()
            if request is not None:
                self._record(request)
        if now - self._last_beat >= HEARTBEAT_S:
            self._beat(now)
            self._registry.poke()
        if self._observe is not None:
            self._observe(self)

    def _beat(self, now: float) -> None:
        busy = self.busy.take(now)
        workers = {role: sum(r is role for r in self._roles.values()) for role in Role}
        self._record(
            Heartbeat(
                t=now,
                wall_s=max(0.0, now - self._last_beat),
                busy_s={role: busy.get(role, 0.0) for role in Role},
                workers={str(role): count for role, count in workers.items()},
            )
        )
        self._last_beat = now


def _errors_observed(report: ExplorationReport, now: float) -> ErrorsObserved:
    """Four significant digits are enough for a calibration, and keep the log small."""
    pairs = list(report.compared.values())
    return ErrorsObserved(
        t=now,
        model_version=report.model_version,
        frame_ids=tuple(report.compared),
        n_atoms=tuple(deviation.size for deviation, _ in pairs),
        deviations=tuple(float(f"{value:.4g}") for deviation, _ in pairs for value in deviation),
        errors=tuple(float(f"{value:.4g}") for _, error in pairs for value in error),
    )


async def _call(action: Callable[..., None], *args: object) -> None:
    action(*args)


def _digest(snapshot: Snapshot) -> str:
    """Identity of the labels in a snapshot, 32 hexadecimal characters."""
    digest = hashlib.blake2b("".join(snapshot.frame_ids).encode(), digest_size=16)
    digest.update(snapshot.energy.tobytes())
    return digest.hexdigest()
