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
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from alsys.control.busy import BusyTimes
from alsys.control.commands import AuditLabel, CheckLabeler, Command, Emit, Explore, Finish, Idle, LabelFrames, Train
from alsys.control.decisions import decide
from alsys.control.feedback import MAX_COMPARED
from alsys.control.frame_memory import FrameMemory
from alsys.control.inspection import Inspector
from alsys.control.journal import Journal
from alsys.control.label_desk import LabelDesk, labelled_frames
from alsys.control.ledger import Ledger
from alsys.control.ports import (
    Completion,
    ModelShelf,
    PoolEvent,
    Registry,
    RequestBox,
    Role,
    Work,
    WorkerDown,
    WorkerPool,
    WorkerUp,
)
from alsys.control.records import Status
from alsys.control.requests import Answer, Request, carry_out
from alsys.errors import AlsysError, CampaignFailed, InputError
from alsys.events import (
    AuditStarted,
    CampaignOpened,
    CampaignStopped,
    CanaryStarted,
    ErrorsObserved,
    Event,
    ExplorationFailed,
    ExplorationReported,
    ExplorationStarted,
    FrameDropped,
    FrameProposed,
    FrameQuarantined,
    FrameRetried,
    FramesRescored,
    Heartbeat,
    LabelAbandoned,
    LabelRetracted,
    LabelStarted,
    ModelPromoted,
    ModelPublished,
    ModelRejected,
    StopRequested,
    TrainingFailed,
    TrainingStarted,
    WorkerLost,
)
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.frames import TRAINING_ARMS, Arm, Candidate, Frame
from alsys.labeling.base import LabelingOrder
from alsys.labels import Label, LevelOfTheory
from alsys.potentials.base import CommitteeState
from alsys.store.base import Snapshot, StoreWriter
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder

logger = logging.getLogger(__name__)

TICK_S = 0.5
HEARTBEAT_S = 5.0
N_REVIEW = 1000
"""Newest labels that each new committee is asked about."""


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
        inspector: Examines labels before they become data; None takes all of them.
        on_acknowledged: Called with the identities of labels once they are on disk.
        stop_request: Polled; a value asks the campaign to stop.
        requests: Polled; what users ask of the data while the campaign runs.
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
        inspector: Inspector | None = None,
        on_acknowledged: Callable[[Sequence[str]], None] | None = None,
        stop_request: Callable[[], StopRequested | None] | None = None,
        requests: RequestBox | None = None,
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
        self._inspector = inspector
        self._memory = FrameMemory(store)
        self._desk = LabelDesk(
            ledger=ledger,
            level=level,
            baseline=baseline,
            memory=self._memory,
            inspector=inspector,
            record=self._record,
            restart=self._restart,
            clock=clock,
        )
        self._stop_request = stop_request
        self._requests = requests
        self._is_answering = False
        self._taken: set[str] = set()
        self._observe = observe
        self._clock = clock
        self._states: dict[int, CommitteeState] = {}
        self._loaded: dict[str, int] = {}
        self._calls: dict[str, deque[Work]] = {}
        self._roles: dict[str, Role] = {}
        self._leaving: set[str] = set()
        self._orders = 0
        self._snapshot_of_fit: tuple[Snapshot, int] | None = None
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
            queue_models(self.ledger, self._registry)
            if initial is not None:
                self._propose(await initial)
            if self._has_requests():  # before a campaign that has all its labels finds that it is done
                await self.journal.flush()
                await self._answer_requests()
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
            commands = decide(self.ledger, now, Idle() if self.journal.is_behind else self._idle())
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
                self._tell_registry(event)
            case LabelFrames(worker, frame_ids, is_verification):
                self._record(LabelStarted(t=now, worker=worker, frame_ids=frame_ids))
                frames = tuple(self._memory.frame(frame_id) for frame_id in frame_ids)
                self._submit(worker, LabelingOrder(frames, is_tight=is_verification))
            case AuditLabel(worker, frame_id):
                self._record(AuditStarted(t=now, worker=worker, frame_id=frame_id))
                self._submit(worker, LabelingOrder((self._memory.frame(frame_id),), is_tight=True))
            case CheckLabeler(worker):
                assert self._inspector is not None
                assert self._inspector.canary is not None
                self._record(CanaryStarted(t=now, worker=worker))
                self._submit(worker, LabelingOrder((self._inspector.canary,)))
            case Explore():
                self._explore(command, now)
            case Train():
                event_ = TrainingStarted(
                    t=now, worker=command.worker, version=command.version, n_labels=command.n_labels
                )
                self._record(event_)
                self._calls[command.worker].append(LabelingOrder(()))  # keeps the place
                self._fit_task = asyncio.create_task(self._fit(command))
            case Finish():
                raise AssertionError("Finish is handled by _act")

    def _submit(self, worker: str, work: Work) -> None:
        self.busy.start(self._roles[worker], worker, self._clock())
        self._calls[worker].append(work)
        self._pool.submit(worker, work)

    def _restart(self, worker: str, message: str) -> None:
        """Starts a worker anew; until it is up it gets no work."""
        self._leaving.add(worker)
        self._pool.restart(worker, message)

    def _idle(self) -> Idle:
        free: dict[Role, list[str]] = {role: [] for role in Role}
        ahead: list[str] = []
        for worker, calls in self._calls.items():
            if worker in self._leaving:
                continue
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
                self._leaving.discard(worker)
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
                        assert isinstance(work, LabelingOrder)
                        self._desk.take(event, work, event.result)

    def _lose(self, event: WorkerDown) -> None:
        now = self._clock()
        calls = self._calls.pop(event.worker, deque())
        self.busy.stop(event.role, event.worker, now)
        self._loaded.pop(event.worker, None)
        logger.warning("%s is lost: %s: %s", event.worker, event.failure, event.message)
        for i, work in enumerate(calls):
            if event.role is Role.LABELER:
                if not isinstance(work, LabelingOrder) or (not i and self._desk.is_check(event.worker, work)):
                    continue  # an audit or a canary: the ledger asks for another one
                frame_ids = tuple(frame.frame_id for frame in work.frames)
                if i:
                    self._record(LabelAbandoned(t=now, worker=event.worker, frame_ids=frame_ids))
                else:
                    for frame_id in frame_ids:
                        self._desk.fail(frame_id, event.worker, event.failure, event.message, 0.0)
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
            seeds = tuple((c.source.system, c.frame) for c in self._memory.candidates(command.seeds))
            self._loaded[command.worker] = command.version
        compare = tuple((c.frame, forces) for c, forces in self._memory.with_forces(command.compare))
        rescore = self._memory.candidates(command.rescore)
        looked_at = (*rescore, *self._memory.candidates([frame.frame_id for frame, _ in compare]))
        self._orders += 1
        order = ExplorationOrder(
            n_steps=command.n_steps,
            n_random=command.n_random,
            max_candidates=command.max_candidates,
            state=state,
            seeds=seeds,
            rescore=tuple(c.frame for c in rescore),
            compare=compare,
            masks={c.frame.frame_id: c.mask for c in looked_at if c.mask is not None},
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
        if self._inspector is not None:
            self._inspector.expect(report.predictions)
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
        self._memory.add(fresh)
        for event in events:
            self.ledger.apply(event)
        self.journal.stage(events=events, candidates=list(fresh.values()))

    # --- training

    async def _fit(self, command: Train) -> None:
        try:
            await self.journal.flush()
            snapshot, n_retracted = await asyncio.to_thread(self._read_snapshot)
            order = TrainingOrder(
                version=command.version,
                snapshot=snapshot,
                parent=self._state(command.parent) if command.parent else None,
                champion=self._state(command.champion) if command.champion else None,
                seed=(self._opened.epoch * 10_007 + command.version * 101 + self.ledger.settings.seed) % 2**31,
                n_review=N_REVIEW if self._inspector is not None else 0,
                band=self.ledger.calibration.band if self._is_calibrated else None,
            )
        except Exception as error:
            self._problem = error
            return
        calls = self._calls.get(command.worker)
        if self.ledger.training is None or self.ledger.training.version != command.version or not calls:
            return  # the trainer died meanwhile, which counted as a failed fit
        self._snapshot_of_fit, self._fit_parent = (snapshot, n_retracted), command.parent
        calls.pop()  # the place kept while the snapshot was read
        self._submit(command.worker, order)

    def _read_snapshot(self) -> tuple[Snapshot, int]:
        """What to train on, and how many labels had been retracted by then."""
        baseline_id = None if self._baseline is None else self._baseline.level_id
        snapshot = self._store.snapshot(self._level.level_id, None, baseline_id)
        return snapshot, len({tombstone.frame_id for tombstone in self._store.tombstones(snapshot.seq)})

    def _publish(self, trained: TrainedCommittee, wall_s: float) -> None:
        """Bundle first, then the event, then the registry."""
        if self._snapshot_of_fit is None:
            raise AssertionError("a committee arrived that nobody asked for")
        (snapshot, n_retracted), parent = self._snapshot_of_fit, self._fit_parent
        version = trained.state.version
        n_labels = int((~snapshot.is_arm(Arm.ATOM)).sum())
        metrics = {k: float(v) for k, v in trained.metrics.items() if np.isfinite(v)}
        metrics["n_labels_train"] = float(snapshot.is_arm(*TRAINING_ARMS).sum())
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
                n_retracted=n_retracted,
            )
            self._record(event)
            self._desk.review(dict(trained.predictions), snapshot)
            self.journal.after(lambda: _call(self._registry.publish, version, card))

        self.journal.after(publish)

    def _has_model(self, version: int) -> bool:
        try:
            self._state(version)
        except (AlsysError, OSError, KeyError) as error:
            logger.warning("the bundle of v%04d cannot be read: %s", version, error)
            return False
        return True

    @property
    def _is_calibrated(self) -> bool:
        return self.ledger.settings.is_calibrated and self.ledger.calibration.is_fitted

    def _tell_registry(self, event: Event) -> None:
        """Once it is on disk."""
        if isinstance(event, ModelPromoted):
            times = self.ledger.champions.count(event.version)
            self.journal.after(lambda: _call(self._registry.promote, event.version, event.reason, times))
        elif isinstance(event, ModelRejected):
            self.journal.after(lambda: _call(self._registry.reject, event.version, event.reason))

    def _state(self, version: int) -> CommitteeState:
        if version not in self._states:
            self._states[version] = self._shelf.read(version)
        keep = {version, self.ledger.champion, max(self.ledger.models, default=0)}
        self._states = {v: s for v, s in self._states.items() if v in keep}
        return self._states[version]

    # --- after a restart

    def _reload_frames(self) -> None:
        """Frames that wait since before, and labels that a committee may be compared with."""
        waiting = [f for f, record in self.ledger.frames.items() if record.status is Status.PENDING]
        labelled = list(dict.fromkeys([*self.ledger.random_labelled[-MAX_COMPARED:], *self.ledger.to_compare]))
        self._memory.reload(waiting, labelled, self._level.level_id)
        if self._inspector is not None:
            snapshot = self._store.snapshot(self._level.level_id)
            own = snapshot.select(~snapshot.is_arm(Arm.IMPORTED))  # what never passed the gate sets no expectation
            self._inspector.learn(labelled_frames(own, self._level.level_id))

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
        self._follow(event)

    def _follow(self, event: Event) -> None:
        """Forgets what an event makes useless."""
        if isinstance(event, FrameDropped | FrameQuarantined):
            self._memory.drop(event.frame_id)
            if self._inspector is not None:
                self._inspector.forget(event.frame_id)
        if isinstance(event, LabelRetracted):
            self._memory.forget(event.frame_id)
            if self._inspector is not None:
                self._inspector.retract(event.label_id)

    # --- requests

    def _has_requests(self) -> bool:
        return self._requests is not None and any(name not in self._taken for name, _ in self._requests.waiting())

    async def _answer_requests(self) -> None:
        """Carries out what users ask for; everything that was staged must be on disk, where frames are read."""
        self._is_answering = False
        waiting = [] if self._requests is None else self._requests.waiting()
        for name, request in waiting:
            if name not in self._taken:
                self._taken.add(name)
                self._answer(name, request)

    def _answer(self, name: str, request: Request | InputError) -> None:
        try:
            if isinstance(request, InputError):
                raise request
            is_running = self.ledger.stopped is None
            events, answer = carry_out(
                self.ledger, request, name, self._clock(), is_running=is_running, has_model=self._has_model
            )
        except InputError as error:
            events, answer = [], Answer(False, str(error))
        logger.info("request %s: %s", name, answer.message)
        retried = [event.frame_id for event in events if isinstance(event, FrameRetried)]
        self._memory.add(dict(zip(retried, self._store.candidates(retried), strict=True)))
        for event in events:
            self.ledger.apply(event)
            self._follow(event)
        if events:
            self.journal.stage(events=events)  # in one commit: a request is carried out as a whole
        for event in events:
            self._tell_registry(event)
        self.journal.after(lambda: _call(self._reply, name, answer))

    def _reply(self, name: str, answer: Answer) -> None:
        try:
            if self._requests is not None:
                self._requests.answer(name, answer)
        except OSError as error:  # a full disk; what was done is known by the name of the request
            logger.warning("cannot answer request %s: %s", name, error)
            self._taken.discard(name)

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
        if not self._is_answering and self._has_requests():
            self._is_answering = True
            self.journal.after(self._answer_requests)
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


def queue_models(ledger: Ledger, registry: Registry) -> None:
    """Tells a registry all about a campaign's models: something may have been lost, and repeating is harmless."""
    for model in ledger.models.values():
        registry.publish(model.version, {"version": model.version})
        if model.promoted is False:
            registry.reject(model.version, model.reason)
    champions = ledger.champions
    for i, version in enumerate(champions):
        registry.promote(version, ledger.models[version].reason, champions[: i + 1].count(version))


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
