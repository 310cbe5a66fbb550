"""Runs the real ledger, coordinator, label gate and durable store on synthetic work; shared by other benchmarks.

The gate has its own thread, as in a campaign. Its limits let the fake labels through, whose net forces do not vanish.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from alsys.actors.placement import WorkerSpec
from alsys.actors.pool import RayPool
from alsys.actors.ray_metrics import RayMetrics
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.metrics_export import Exporter, MetricsExport
from alsys.campaign.metrics_file import MetricsFile
from alsys.config.labeling import QualityConfig
from alsys.config.runtime import RuntimeConfig
from alsys.control.coordinator import Coordinator
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import PoolEvent, WorkerUp
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.events import CampaignOpened, LabelAccepted
from alsys.labeling.gate.gate import LabelGate
from alsys.store.zarr import open_reader, open_writer
from alsys.testing.fakes import FAKE_LEVEL, AcknowledgedLabels, MemoryBundles, MemoryRegistry, fake_candidates

LOOSE = QualityConfig(net_force=100.0, net_torque=100.0, largest_force=100.0)

METRICS_PORT = 9401


class ReadyPool(RayPool):
    """A Ray pool that reports no worker before all are up, so that starting processes is not part of a timing."""

    async def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Waits for all workers first."""
        events = await super().wait(timeout_s)
        while sum(isinstance(event, WorkerUp) for event in events) not in (0, len(self._workers)):
            events += await super().wait(1.0)
        return events


@dataclass(frozen=True)
class Run:
    """What one campaign took.

    Attributes:
        wall_s: From the first label sent to the last one received.
        durable_s: From the first label sent to the end of the campaign, everything on disk.
        ideal_s: The same labels, in the order they were sent, on as many labelers without any overhead.
        busy_s: Sum of the labels' own durations.
        cpu_s: CPU seconds of this process over the campaign.
    """

    wall_s: float
    durable_s: float
    ideal_s: float
    busy_s: float
    cpu_s: float
    n_labels: int


def run_campaign(
    settings: PolicySettings,
    specs: dict[str, WorkerSpec],
    n_initial: int,
    *,
    on_ray: bool,
    n_labelers: int,
    has_gate: bool = True,
    has_metrics: bool = False,
) -> Run:
    """One campaign; with metrics, they go to a file in process, and through Ray's exporter on Ray."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.zarr"
        store = open_writer(path)
        acknowledged = AcknowledgedLabels()
        pool: ReadyPool | InProcessPool
        if on_ray:
            pool = ReadyPool(specs, RuntimeConfig(metrics_port=METRICS_PORT if has_metrics else None))
        else:
            pool = InProcessPool({name: (spec.role, spec.build) for name, spec in specs.items()})
        exporters: list[Exporter] = [RayMetrics("benchmark") if on_ray else MetricsFile(path.with_suffix(".prom"), "b")]
        export = MetricsExport(exporters if has_metrics else [], CampaignFolder(path.parent), is_tracked=False)
        coordinator = Coordinator(
            ledger=Ledger(settings),
            store=store,
            pool=pool,
            bundles=MemoryBundles(),
            registry=MemoryRegistry(),
            level=FAKE_LEVEL,
            initial=lambda: fake_candidates(n_initial),
            opened=CampaignOpened(t=time.time(), epoch=store.epoch, config_hash="", version="benchmark"),
            gate=LabelGate(LOOSE, None) if has_gate else None,
            has_gate_thread=True,
            on_acknowledged=acknowledged,
            observe=export,
        )
        cpu = psutil.Process().cpu_times()
        asyncio.run(coordinator.run())
        end = time.time()
        export.close()
        used = psutil.Process().cpu_times()
        store.close()
        reader = open_reader(path)
        report = reader.verify()
        assert report.is_ok, report.problems
        labels = [e for e in reader.events() if isinstance(e, LabelAccepted)]
        assert len(labels) == len(acknowledged.label_ids) == settings.n_labels
    first = min(label.sent for label in labels)
    in_order = sorted(labels, key=lambda label: label.started)
    durations = [label.wall_s for label in in_order]
    return Run(
        wall_s=max(label.t for label in labels) - first,
        durable_s=end - first,
        ideal_s=list_schedule(durations, n_labelers),
        busy_s=sum(durations),
        cpu_s=used.user + used.system - cpu.user - cpu.system,
        n_labels=len(labels),
    )


def list_schedule(durations: Sequence[float], n_workers: int) -> float:
    """Makespan when each job, in order, goes to the worker that is free first (R. L. Graham, 1966)."""
    free = [0.0] * n_workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def machine() -> dict[str, object]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
