"""How many labelers one coordinator serves: the real ledger, coordinator, gate and store, with time that is virtual.

Labels take 60 s in the mean (lognormal, sigma 0.3) on 10 to 10,000 labelers, and 1 % of the labelers are preempted a
minute; others, of new names, take their places half a minute later. Explorers find frames faster than labelers take
them, the random arm has a tenth of the labels, a committee is fitted to every quarter more of them, 1,000 of its
predictions are reviewed, labelers are checked and labels audited as by default.

Time is honest: while this process computes, the virtual clock goes by its CPU seconds, those of all its threads one
after another, as on one core. So a labeler that is free waits as long as the driver needs, and so do those behind it.
Only what stands for the workers' own work is left out. Where nothing computes, no label is being judged and nothing is
being written, the clock jumps to the next moment at which a worker has something to say. Waiting for the disk costs no
CPU and is not counted: no labeler waits for it.

Utilisation is the share of their time for which labelers that are up have a call, from the first call until the last
label is to be sent: all of the start is in it, the end, where there is less and less to do, is not. The latency of a
decision is the time from the end of a labeler's last call to the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import heapq
import itertools
import json
import logging
import math
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from orchestration import machine
from springs import REFERENCE, SpringExplorer, SpringLabeler, SpringTrainer, spring_candidates

from alsys.clock import RunningClock
from alsys.config.labeling import QualityConfig
from alsys.control.coordinator import Coordinator
from alsys.control.ports import Completion, PoolEvent, PoolState, Role, Work, Worker, WorkerDown, WorkerUp
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.errors import FailureKind
from alsys.events import CampaignOpened
from alsys.labeling.gate.gate import LabelGate
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL, AcknowledgedLabels, LognormalDuration, MemoryBundles, MemoryRegistry
from alsys.testing.policies import policy_settings

LABEL_S, SPREAD, CHUNK_S, FIT_S = 60.0, 0.3, 5.0, 120.0
N_CANDIDATES = 64
"""Of a chunk."""
PREEMPTED = 0.01
"""Share of the labelers a minute."""
BACK_S = 30.0
"""After which another labeler takes the place of one that was preempted."""
EPOCH = 1.8e9
"""Unix time at the start."""


class VirtualClock:
    """Seconds since the start; see the module."""

    def __init__(self) -> None:
        self.now = 0.0
        self.driver_s = 0.0
        self._cpu = time.process_time()

    def __call__(self) -> float:
        """The time, after what was computed since the last look."""
        self.driver_s += (spent := self._spent())
        self.now += spent
        return self.now

    def leave_out(self) -> float:
        """What was computed since the last look is no work of the driver; CPU seconds."""
        return self._spent()

    def jump(self, to: float) -> None:
        """Nothing happens until then."""
        self.now = max(self.now, to)

    def _spent(self) -> float:
        before, self._cpu = self._cpu, time.process_time()
        return self._cpu - before


class VirtualPool:
    """Workers that only take their time.

    Args:
        clock: Virtual seconds.
        n_labelers: Those that are up, but for those that were just preempted.
        n_explorers: Explorers.
        seed: Of preemptions.

    Attributes:
        latencies: Seconds from the end of one call of a labeler to the next one.
        busy_s, up_s: Integrals over time of labelers that have a call, and of those that are up.
        n_preempted: Labelers that were.
    """

    def __init__(self, clock: VirtualClock, n_labelers: int, n_explorers: int, seed: int = 0) -> None:
        self.is_settled: Callable[[], bool] = lambda: True
        self.is_wanting: Callable[[], bool] = lambda: True
        self.latencies: list[float] = []
        self.busy_s = self.up_s = 0.0
        self.n_preempted = 0
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._serial = itertools.count()
        self._roles: dict[str, Role] = {}
        self._workers: dict[str, Worker] = {}
        self._labelers: list[str] = []
        self._free_since: dict[str, float] = {}
        self._busy: set[str] = set()
        self._queues: dict[str, list[tuple[int, Work, float]]] = {}
        self._due: list[tuple[float, int, str, str]] = []
        self._ready: list[PoolEvent] = []
        self._is_woken = False
        self._n_labelers, self._n_explorers = n_labelers, n_explorers
        self._duration = LognormalDuration(LABEL_S, SPREAD)
        self._labeler = SpringLabeler(self._duration)
        self._last = math.nan
        self._is_open, self._window = True, (0.0, 0.0)

    def want(self, n_labelers: int) -> None:
        """All labelers stay."""

    def state(self) -> PoolState:
        """Nobody waits for a place."""
        return PoolState(asked=len(self._roles), up=len(self._roles))

    @property
    def roles(self) -> Mapping[str, Role]:
        """As `WorkerPool.roles`."""
        return self._roles

    async def start(self) -> None:
        """All are there at once."""
        for k in range(self._n_explorers):
            self._up(f"explorer-{k}", Role.EXPLORER, SpringExplorer(seed=k + 1, n_candidates=N_CANDIDATES))
        self._up("trainer-0", Role.TRAINER, SpringTrainer())
        for k in range(self._n_labelers):
            self._up(f"labeler-{k}", Role.LABELER, self._labeler)
        self._preempt_later()

    def submit(self, worker: str, work: Work) -> None:
        """Begins a call, or queues it behind the one that runs."""
        now = self._clock()
        queue = self._queues[worker]
        queue.append((next(self._serial), work, now))
        if len(queue) > 1:
            return
        self._begin(worker, now)
        if self._roles[worker] is Role.LABELER:
            self._count(now)
            self._busy.add(worker)
            since = self._free_since.pop(worker, now)
            self._is_open = self._is_open and self.is_wanting()
            if self._is_open:
                self.latencies.append(now - since)
                self._window = (self.busy_s, self.up_s)

    def restart(self, worker: str, message: str) -> None:
        """Nothing here is ever wrong."""
        raise AssertionError(f"{worker} is restarted: {message}")

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """What has happened by now; where nothing has and nothing computes, the time jumps."""
        await asyncio.sleep(0)
        deadline = self._clock() + timeout_s
        while True:
            now = self._clock()
            while self._due and self._due[0][0] <= now:
                self._happen(*heapq.heappop(self._due))
            if self._ready or self._is_woken or now >= deadline:
                events, self._ready, self._is_woken = self._ready, [], False
                return events
            if self.is_settled():
                self._clock.jump(min(deadline, self._due[0][0] if self._due else deadline))
            else:  # a thread computes, or writes
                await asyncio.sleep(1e-3)

    def wake(self) -> None:
        """Ends a `wait`."""
        self._is_woken = True

    async def close(self) -> None:
        """Has nothing to end."""

    @property
    def utilisation(self) -> float:
        """Up to the last call that was sent."""
        return self._window[0] / self._window[1]

    def _up(self, name: str, role: Role, worker: Worker) -> None:
        self._roles[name], self._workers[name], self._queues[name] = role, worker, []
        if role is Role.LABELER:
            self._count(self._clock.now)
            self._labelers.append(name)
        self._ready.append(WorkerUp(name, role))

    def _count(self, now: float) -> None:
        """Takes the time since the last change into account, which begins with the first call."""
        if not math.isnan(self._last):
            self.busy_s += (now - self._last) * len(self._busy)
            self.up_s += (now - self._last) * len(self._labelers)
        if self._busy or not math.isnan(self._last) or self._labelers:
            self._last = now

    def _begin(self, worker: str, now: float) -> None:
        serial, work, _ = self._queues[worker][0]
        role = self._roles[worker]
        frames: Sequence[Any] = getattr(work, "frames", ())
        seconds = CHUNK_S if role is Role.EXPLORER else FIT_S
        if role is Role.LABELER:
            seconds = sum(self._duration(frame) for frame in frames)
        heapq.heappush(self._due, (now + seconds, serial, "call", worker))

    def _happen(self, due: float, serial: int, what: str, worker: str) -> None:
        if what == "preempt":
            self._preempt(due)
        elif what == "up":
            self._up(worker, Role.LABELER, self._labeler)
        elif worker in self._queues and self._queues[worker] and self._queues[worker][0][0] == serial:
            self._complete(due, worker)

    def _complete(self, due: float, worker: str) -> None:
        queue, role = self._queues[worker], self._roles[worker]
        _, work, sent = queue.pop(0)
        started = max(sent, self._clock.now - FIT_S)
        self._clock()
        result = self._workers[worker].run(work)
        self._clock.leave_out()
        if role is Role.LABELER and not queue:
            self._count(self._clock.now)
            self._busy.discard(worker)
            self._free_since[worker] = due
        if queue:
            self._begin(worker, due)
        self._ready.append(Completion(worker, role, result, EPOCH + sent, EPOCH + started, EPOCH + due))

    def _preempt_later(self) -> None:
        mean = 60.0 / (PREEMPTED * self._n_labelers)
        when = self._clock.now + float(self._rng.exponential(mean))
        heapq.heappush(self._due, (when, next(self._serial), "preempt", ""))

    def _preempt(self, now: float) -> None:
        k = int(self._rng.integers(len(self._labelers)))
        self._labelers[k], self._labelers[-1] = self._labelers[-1], self._labelers[k]
        self._count(self._clock.now)
        worker = self._labelers.pop()
        self._busy.discard(worker)
        for of in (self._roles, self._workers, self._queues, self._free_since):
            of.pop(worker, None)
        self.n_preempted += 1
        message = "its node was taken away"
        self._ready.append(WorkerDown(worker, Role.LABELER, FailureKind.WORKER_PREEMPTED, message, is_final=True))
        other = f"labeler-{self._n_labelers + self.n_preempted}"
        heapq.heappush(self._due, (now + BACK_S, next(self._serial), "up", other))
        self._preempt_later()


class SettlingCoordinator(Coordinator):
    """Tells the pool whether a thread of the driver is at work."""

    def is_settled(self) -> bool:
        """Whether the loop would only wait: nothing is judged, written or read."""
        return not (self._gate_queue.is_busy or self.commits.is_busy or self._fits.is_preparing)

    def is_wanting(self) -> bool:
        """Whether labels are still to be handed out."""
        return self.ledger.n_labels + self.ledger.n_in_flight < self.ledger.settings.n_labels


def settings(n_labelers: int, n_labels: int) -> PolicySettings:
    return policy_settings(
        n_labels=n_labels,
        random_share=0.1,
        max_pending=max(64, n_labelers // 2),
        max_candidates=N_CANDIDATES,
        trust=(0.05, 1e3),
        is_diverse=True,
        is_calibrated=True,
        methods=("fake",),
        first_at=50,
        refit_every=50,
        refit_growth=0.25,
        audit_share=QualityConfig().audit_share,
        reference_every=QualityConfig().reference_every,
    )


def run(n_labelers: int, n_labels: int, profile: str | None) -> dict[str, object]:
    memory = psutil.Process().memory_info().rss
    clock = VirtualClock()
    pool = VirtualPool(clock, n_labelers, 1 + n_labelers // 250)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.zarr"
        store = open_writer(path)
        acknowledged = AcknowledgedLabels()
        coordinator = SettlingCoordinator(
            ledger=Ledger(settings(n_labelers, n_labels)),
            store=store,
            pool=pool,
            bundles=MemoryBundles(),
            registry=MemoryRegistry(),
            level=FAKE_LEVEL,
            initial=lambda: initial,
            opened=CampaignOpened(t=EPOCH, epoch=store.epoch, config_hash="", version="benchmark"),
            gate=LabelGate(QualityConfig(), REFERENCE),
            has_gate_thread=True,
            on_acknowledged=acknowledged,
            clock=lambda: EPOCH + clock.now,
            running=RunningClock(lambda: clock.now, math.inf),
        )
        pool.is_settled, pool.is_wanting = coordinator.is_settled, coordinator.is_wanting
        initial = spring_candidates(max(128, 4 * n_labelers))  # enough through the first fit
        clock.leave_out()
        profiler = cProfile.Profile() if profile else None
        if profiler:
            profiler.enable()
        asyncio.run(coordinator.run())
        if profiler:
            profiler.disable()
            pstats.Stats(profiler, stream=sys.stderr).sort_stats(profile or "").print_stats(45)
        grown = psutil.Process().memory_info().rss - memory
        store.close()
        report = open_reader(path).verify()
        assert report.is_ok, report.problems
        ledger = coordinator.ledger
        assert len(acknowledged.label_ids) == ledger.n_labels + ledger.counts[Status.RETRACTED]
    latencies = np.array(pool.latencies)
    return {
        "labelers": n_labelers,
        "labels": ledger.n_labels,
        "utilisation": pool.utilisation,
        "cpu_share": clock.driver_s / clock.now,
        "cpu_ms_per_label": 1e3 * clock.driver_s / ledger.n_labels,
        "latency_ms_median": 1e3 * float(np.median(latencies)),
        "latency_ms_p99": 1e3 * float(np.quantile(latencies, 0.99)),
        "memory_mb": grown / 2**20,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "hours": clock.now / 3600.0,
        "versions": len(ledger.models),
        "preempted": pool.n_preempted,
        "failed_gate": ledger.audits.n_failed_gate,
        "audits": ledger.audits.n_audited,
        "wrong": ledger.audits.n_rejected + ledger.audits.n_not_reproduced,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--labelers", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--labels", type=int, default=6, help="of each labeler, and 600 at least")
    parser.add_argument("--profile", metavar="ORDER", help="of one run in this process: tottime or cumulative")
    args = parser.parse_args()
    logging.getLogger("alsys").setLevel(logging.ERROR)
    if len(args.labelers) == 1:
        runs = [run(n, max(600, args.labels * n), args.profile) for n in args.labelers]
    else:  # a process each, so that memory is its own
        runs = []
        for n in args.labelers:
            command = [sys.executable, __file__, "--json", "--labelers", str(n), "--labels", str(args.labels)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs += json.loads(done.stdout)["runs"]
    result = {"runs": runs, "label_s": LABEL_S, "preempted_a_minute": PREEMPTED, "machine": machine()}
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
