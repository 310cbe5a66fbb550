"""A campaign's metrics for others: every few seconds, in a thread that nobody waits for; what fails is told once."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from alsys.campaign.folder import CampaignFolder
from alsys.config import CampaignConfig
from alsys.control.campaign_metrics import Sample, samples
from alsys.threads import WorkerThread

if TYPE_CHECKING:
    from alsys.control.coordinator import Coordinator

logger = logging.getLogger(__name__)

EXPORT_EVERY_S: Final = 5.0
"""Ray forgets a gauge that is not recorded for twenty seconds."""
SPEAK_AFTER_S: Final = 60.0
"""An export that takes longer is spoken of."""
LAST_S: Final = 2.0
"""Seconds that the last export is waited for, at most."""


class Exporter(Protocol):
    """Takes a campaign's metrics somewhere."""

    def export(self, samples: Sequence[Sample]) -> None:
        """Takes all values of now. What it raises is told once, and it is asked again."""
        ...


def exporters_of(config: CampaignConfig) -> list[Exporter]:
    """Those that a campaign has: Ray's, of a cluster or with `runtime.metrics_port`, and `runtime.metrics_file`."""
    found: list[Exporter] = []
    runtime = config.runtime
    if runtime.kind == "ray":
        from alsys.actors.ray_start import has_metrics

        if has_metrics(runtime):
            from alsys.actors.ray_metrics import RayMetrics

            found.append(RayMetrics(config.name))
    if runtime.metrics_file is not None:
        from alsys.campaign.metrics_file import MetricsFile

        found.append(MetricsFile(Path(runtime.metrics_file).expanduser(), config.name))
    return found


class MetricsExport:
    """Gives the state of a running campaign to exporters.

    Args:
        exporters: Who takes it.
        directory: The campaign's.
        is_tracked: Whether it has a model registry.
    """

    def __init__(self, exporters: Sequence[Exporter], directory: CampaignFolder, *, is_tracked: bool) -> None:
        self._exporters = exporters
        self._directory = directory
        self._is_tracked = is_tracked
        self._began = time.time()
        self._exported = -EXPORT_EVERY_S
        self._thread = WorkerThread("metrics") if exporters else None
        self._export: Future[None] | None = None
        self._is_slow = False
        self._refused: set[Exporter] = set()

    def __call__(self, coordinator: Coordinator) -> None:
        """Gives the state of now away, if it is time to; returns at once, but for the last time of a campaign."""
        now, has_ended = time.monotonic(), coordinator.ledger.stopped is not None
        if self._thread is None or (now - self._exported < EXPORT_EVERY_S and not has_ended):
            return
        if self._export is not None and not self._export.done() and not has_ended:
            if now - self._exported >= SPEAK_AFTER_S and not self._is_slow:
                logger.warning(
                    "metrics have not been given away for %.0f s; the campaign goes on", now - self._exported
                )
                self._is_slow = True
            return
        self._exported, self._is_slow = now, False
        found = samples(
            coordinator.ledger,
            *coordinator.staff(),
            coordinator.commits.durations,
            is_refused=coordinator.commits.disk_problem is not None,
        )
        self._export = self._thread.submit(lambda: self._give(found))
        if has_ended:
            wait([self._export], LAST_S)  # Ray is ended next

    def close(self) -> None:
        """Gives nothing away any more."""
        if self._thread is not None:
            self._thread.close()

    def _give(self, found: list[Sample]) -> None:
        found = [*found, *self._of_driver()]
        for exporter in self._exporters:
            try:
                exporter.export(found)
            except Exception as error:  # whatever it is, the campaign goes on without
                if exporter not in self._refused:
                    logger.warning(
                        "metrics cannot be given away: %s: %s; it is tried again", type(error).__name__, error
                    )
                self._refused.add(exporter)
            else:
                self._refused.discard(exporter)

    def _of_driver(self) -> list[Sample]:
        """What has to be looked up."""
        found = [
            Sample("alsys_driver_start_timestamp_seconds", self._began),
            Sample("alsys_update_timestamp_seconds", time.time()),
        ]
        try:
            disk = shutil.disk_usage(self._directory.path)
            found += [Sample("alsys_disk_free_bytes", disk.free), Sample("alsys_disk_size_bytes", disk.total)]
            if self._is_tracked:
                from alsys.tracking.outbox import Outbox

                found.append(Sample("alsys_delivery_backlog", Outbox.of(self._directory.path).n_waiting))
        except OSError as error:
            logger.info("no metrics of the disk: %s", error)
        return found
