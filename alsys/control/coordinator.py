"""The coordinator: carries out what the ledger decides, and tells the ledger what came back.

One asyncio loop, one owner of the store. Handlers (labels, models, exploration, requests) put orders together and turn
results into events; an event is applied to the ledger and staged for the store at once, and committed by a thread that
always takes everything staged (group commit). The ledger may run ahead of the disk by one commit, so nothing that
leaves the process does: labels are acknowledged, snapshots are taken and models are published only after the commit
that holds them (docs/design/003-coordinator.md). A full disk stops new work and is waited for. Workers die without
harm: what they were doing is pending again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alsys import events
from alsys.clock import RunningClock
from alsys.control.budgets import Budgets
from alsys.control.commands import (
    AuditLabel,
    CheckLabeler,
    Command,
    ComputeHessian,
    Emit,
    Explore,
    Finish,
    Idle,
    LabelFrames,
    Train,
)
from alsys.control.group_commit import GroupCommit
from alsys.control.handlers.event_sink import EventSink
from alsys.control.handlers.exploration import ExplorationHandler
from alsys.control.handlers.fits import FitHandler
from alsys.control.handlers.frame_memory import FrameMemory
from alsys.control.handlers.gate_queue import GateQueue
from alsys.control.handlers.hessians import HessianHandler
from alsys.control.handlers.labels import LabelHandler
from alsys.control.handlers.requests import RequestHandler
from alsys.control.handlers.staff import StaffHandler
from alsys.control.handlers.training import TrainingHandler, queue_models
from alsys.control.ports import (
    BundleStore,
    Completion,
    LabelGate,
    PoolEvent,
    PoolState,
    Registry,
    RequestBox,
    Role,
    WorkerDown,
    WorkerPool,
)
from alsys.control.rules.decisions import decide
from alsys.control.rules.spending import noted_text
from alsys.control.state.feedback import MAX_COMPARED
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.control.worker_calls import WorkerCalls
from alsys.errors import CampaignFailed
from alsys.exploration.base import ExplorationReport
from alsys.frames import Candidate, Frame
from alsys.labeling.base import Curvature, HessianOrder, LabelingOrder
from alsys.labels import LabelFailure, LevelOfTheory
from alsys.store.base import StoreWriter
from alsys.threads import WorkerThread
from alsys.training.base import FittedMember, TrainedCommittee, TrainingFailure

logger = logging.getLogger(__name__)

TICK_S = 0.5
HEARTBEAT_S = 5.0


class Coordinator:
    """Runs one campaign to its end.

    Args:
        ledger: Folded from the store's events.
        store: The one writer.
        pool: Workers.
        bundles: Where bundles go.
        registry: Where others get models.
        level: The campaign's level of theory.
        baseline: The level of the baseline beside each label; None where there is none.
        initial: Makes the first frames; called in a thread, only for a campaign without frames.
        opened: The event that says who opened the campaign.
        minima: Structures whose minima get a Hessian, by the names in `PolicySettings.hessians`.
        gate: Judges labels before they become data; None takes all of them.
        has_gate_thread: Whether it does so in a thread of its own.
        on_acknowledged: Called with the identities of labels once they are on disk.
        on_event: Called with each event once it is on disk; what it raises ends the campaign.
        stop_request: Polled; a value asks the campaign to stop.
        requests: Polled; what users ask of the data while the campaign runs.
        observe: Called every half a second and at the end, for displays.
        clock: Unix time, for the log; no duration is taken from it.
        running: Seconds that this process has run.
        budgets: How long calls may take.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: StoreWriter,
        pool: WorkerPool,
        bundles: BundleStore,
        registry: Registry,
        level: LevelOfTheory,
        initial: Callable[[], Sequence[Candidate]],
        opened: events.CampaignOpened,
        baseline: LevelOfTheory | None = None,
        minima: Mapping[str, Frame] | None = None,
        gate: LabelGate | None = None,
        has_gate_thread: bool = False,
        on_acknowledged: Callable[[Sequence[str]], None] | None = None,
        on_event: Callable[[events.Event], None] | None = None,
        stop_request: Callable[[], events.StopRequested | None] | None = None,
        requests: RequestBox | None = None,
        observe: Callable[[Coordinator], None] | None = None,
        clock: Callable[[], float] = time.time,
        running: RunningClock | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self.ledger = ledger
        self.commits = GroupCommit(store, on_acknowledged, on_event)
        self._store = store
        self._pool = pool
        self._registry = registry
        self._level = level
        self._baseline = baseline
        self._initial = initial
        self._opened = opened
        self._gate = gate
        self._gate_queue = GateQueue(self._wake_from_thread if has_gate_thread and gate is not None else None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._memory = FrameMemory(store)
        self._record = EventSink(ledger, self.commits, self._memory, lambda label_id: self._labels.forget(label_id))
        self._running = running or RunningClock()
        self._calls = WorkerCalls(pool, self._running, budgets, ledger.settings.prices)
        self._staff = StaffHandler(ledger, pool, self._calls, self._record, clock, self._running)
        self._labels = LabelHandler(
            ledger=ledger,
            level=level,
            baseline=baseline,
            memory=self._memory,
            gate=gate,
            queue=self._gate_queue,
            record=self._record,
            restart=self._calls.restart,
            clock=clock,
        )
        self._models = TrainingHandler(
            ledger=ledger,
            store=store,
            commits=self.commits,
            bundles=bundles,
            registry=registry,
            level=level,
            baseline=baseline,
            epoch=opened.epoch,
            record=self._record,
            review=None if gate is None else self._labels.review,
            wake=pool.wake,
            clock=clock,
        )
        self._explorations = ExplorationHandler(
            ledger=ledger,
            memory=self._memory,
            record=self._record,
            state=self._models.state,
            epoch=store.epoch,
            clock=clock,
        )
        self._hessians = HessianHandler(
            ledger=ledger,
            memory=self._memory,
            record=self._record,
            propose=self._explorations.propose,
            offer=self._labels.offer,
            starts=minima or {},
            clock=clock,
        )
        self._requests: RequestHandler | None = None
        if requests is not None:
            self._requests = RequestHandler(
                ledger=ledger,
                box=requests,
                store=store,
                commits=self.commits,
                memory=self._memory,
                models=self._models,
                record=self._record,
                wake=pool.wake,
                clock=clock,
            )
        self._stop_request = stop_request
        self._observe = observe
        self._clock = clock
        self._fits = FitHandler(ledger, self._models, self._calls, self._running)
        self._last_tick = -TICK_S
        self._last_beat = 0.0
        self._paused_s = 0.0
        self._problem: Exception | None = None

    # --- the loop

    async def run(self) -> events.CampaignStopped:
        """Runs until a stop criterion holds.

        Raises:
            CampaignFailed: All workers of one kind are gone for good.
            Fenced: Another process took the store over.
        """
        self._loop = asyncio.get_running_loop()
        self._last_beat = self._running()
        # the baseline's first: readers that want one level, and no config, take the last
        self.commits.stage_levels([level for level in (self._baseline, self._level) if level is not None])
        self._record(self._opened)
        try:
            if not await self._start():
                return await self._stopped_early()
            if self._requests is not None and self._requests.is_waited_for:
                await self.commits.flush()  # before a campaign that has all its labels finds that it is done
                await self._requests.answer()
            while (stopped := self._act()) is None:
                for event in await self._pool.wait(TICK_S):
                    self._take(event)
                self._gate_queue.settle()
                self._tick()
            await self._drain()
            return stopped
        finally:
            self._fits.close()
            self._gate_queue.close()
            await self._pool.close()
            if self.commits.problem is None and self.commits.disk_problem is None:
                await self.commits.flush()

    def staff(self) -> tuple[PoolState, Mapping[str, Role]]:
        """How many workers there are now, and what each is for."""
        return self._pool.state(), self._pool.roles

    def _wake_from_thread(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._pool.wake)

    async def _drain(self) -> None:
        """Everything on disk; a stop that is asked for ends the wait for one that refuses."""
        draining = asyncio.ensure_future(self.commits.drain())
        while not draining.done():
            if self.ledger.stop_requested is not None or (self._stop_request is not None and self._stop_request()):
                self.commits.leave()
            await asyncio.wait([draining], timeout=TICK_S)
        await draining

    async def _start(self) -> bool:
        """Brings the workers up and makes the first frames; False where a user wants the campaign to stop meanwhile."""
        thread = None if self.ledger.proposed else WorkerThread("first-frames")
        initial = None if thread is None else asyncio.wrap_future(thread.submit(self._initial))
        try:
            if await self._unless_stopped(asyncio.ensure_future(self._pool.start())):
                return False
            self._reload_frames()
            queue_models(self.ledger, self._registry)
            if initial is not None:
                if await self._unless_stopped(initial):
                    return False
                self._explorations.propose(initial.result())
            return True
        finally:
            if thread is not None and initial is not None:
                initial.cancel()
                thread.close()

    async def _unless_stopped(self, waited_for: asyncio.Future[Any]) -> bool:
        """Waits; True where a user wants the campaign to stop, which is looked for all the time."""
        while not waited_for.done():
            await asyncio.wait([waited_for], timeout=TICK_S / 2.0)
            self._tick(is_starting=True)
            if self.ledger.stop_requested is not None:
                waited_for.cancel()
                return True
        waited_for.result()
        return False

    async def _stopped_early(self) -> events.CampaignStopped:
        stopped = self._stop(Finish("user", "stopped on request before it began", is_final=False), self._clock())
        await self._drain()
        return stopped

    def _act(self) -> events.CampaignStopped | None:
        problem = self._problem or self._fits.problem or self.commits.problem
        if problem is not None:
            raise problem
        while True:
            now = self._clock()
            commands = decide(self.ledger, now, Idle() if self.commits.is_behind else self._calls.idle())
            for command in commands:
                if isinstance(command, Finish):
                    return None if self._gate_queue.is_busy else self._stop(command, now)  # no label that came is lost
                self._carry_out(command, now)
            if not any(isinstance(command, Emit) for command in commands):
                self._fits.hand_out()
                return None

    def _stop(self, finish: Finish, now: float) -> events.CampaignStopped:
        self._beat()
        stopped = events.CampaignStopped(t=now, reason=finish.reason, message=finish.message, is_final=finish.is_final)
        self._record(stopped)
        if self._observe is not None:
            self._observe(self)
        return stopped

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Emit(event):
                self._record(event)
                if isinstance(event, events.BudgetWarned | events.BudgetReserved):
                    logger.warning("%s", noted_text(event))
                self._models.tell_registry(event)
            case LabelFrames(worker, frame_ids, is_verification):
                self._record(events.LabelStarted(t=now, worker=worker, frame_ids=frame_ids))
                frames = tuple(self._memory.frame(frame_id) for frame_id in frame_ids)
                self._calls.submit(worker, LabelingOrder(frames, is_tight=is_verification, has_slope=is_verification))
            case AuditLabel(worker, frame_id):
                self._record(events.AuditStarted(t=now, worker=worker, frame_id=frame_id))
                has_cause = self.ledger.audits.auditing[worker].reason is not events.AuditReason.RANDOM
                frame = self._memory.frame(frame_id)
                self._calls.submit(worker, LabelingOrder((frame,), is_tight=True, has_slope=has_cause))
            case CheckLabeler(worker):
                self._record(events.ReferenceCheckStarted(t=now, worker=worker))
                self._calls.submit(worker, self._labels.check())
            case ComputeHessian(worker):
                self._calls.submit(worker, self._hessians.order(command))
            case Explore():
                self._calls.submit(command.worker, self._explorations.order(command, now))
            case Train():
                self._fits.begin(command, now)
            case Finish():
                raise AssertionError("Finish is handled by _act")

    # --- results

    def _take(self, event: PoolEvent) -> None:
        match event:
            case WorkerDown():
                self._lose(event)
            case Completion():
                work = self._calls.complete(event)
                match event.result:
                    case ExplorationReport():
                        self._explorations.take(event.worker, event.result)
                    case TrainedCommittee() | FittedMember() | TrainingFailure():
                        self._fits.take(event, work)
                    case Curvature() | LabelFailure():
                        self._hessians.take(event, event.result)
                    case _:
                        assert isinstance(work, LabelingOrder)
                        self._labels.take(event, work, event.result)
                if event.after_commit is not None:
                    self.commits.after(event.after_commit)
            case _:
                self._staff.note(event)
                self._explorations.forget(event.worker)

    def _lose(self, event: WorkerDown) -> None:
        now, message = self._clock(), event.message[:500]
        calls, lost = self._calls.lose(event, now)
        self._explorations.forget(event.worker)
        logger.warning("%s is lost: %s: %s", event.worker, event.failure, event.message)
        if event.role is Role.TRAINER:
            self._fits.lose(event, calls)
        for i, work in enumerate(calls):
            if isinstance(work, HessianOrder):
                self._hessians.fail(event.worker, event.failure, event.message)
            elif event.role is Role.LABELER:
                if not isinstance(work, LabelingOrder) or (not i and self._labels.is_check(event.worker, work)):
                    continue  # an audit or a check: the ledger asks for another one
                frame_ids = tuple(frame.frame_id for frame in work.frames)
                if i:
                    self._record(events.LabelAbandoned(t=now, worker=event.worker, frame_ids=frame_ids))
                else:
                    for frame_id in frame_ids:
                        self._labels.fail(frame_id, event.worker, event.failure, event.message, 0.0)
            elif event.role is Role.EXPLORER:
                self._record(
                    events.ExplorationFailed(t=now, worker=event.worker, failure=event.failure, message=message)
                )
        self._record(lost)
        if event.is_final and self._calls.give_up(event):
            self._problem = CampaignFailed(
                f"the last of the {event.role} died too often and was given up; its last words: {event.message}"
            )

    # --- after a restart

    def _reload_frames(self) -> None:
        """Frames that wait since before, and labels that a committee may be compared with."""
        waiting = [f for f, record in self.ledger.frames.items() if record.status is Status.PENDING]
        labelled = list(dict.fromkeys([*self.ledger.random_labelled[-MAX_COMPARED:], *self.ledger.to_compare]))
        self._memory.reload(waiting, labelled, self._level.level_id)
        self._labels.learn_from(self._store)

    # --- the clock

    def _tick(self, *, is_starting: bool = False) -> None:
        running = self._running()
        if self._running.paused_s > self._paused_s:
            logger.warning("this process stood still for %.0f s", self._running.paused_s - self._paused_s)
            self._paused_s = self._running.paused_s
        if running - self._last_tick < TICK_S:
            return
        self._last_tick = running
        self.commits.check_owner()
        if self._stop_request is not None and self.ledger.stop_requested is None:
            request = self._stop_request()
            if request is not None:
                self._record(request)
        if not is_starting:
            if self._requests is not None:
                self._requests.poll()
            self._calls.end_overdue()
            self._staff.tick()
        if running - self._last_beat >= HEARTBEAT_S:
            self._beat()
            self._registry.poke()
        if self._observe is not None:
            self._observe(self)

    def _beat(self) -> None:
        beat = self._calls.heartbeat(self._clock(), self._last_beat)
        self._record(beat)
        self._last_beat += beat.wall_s
