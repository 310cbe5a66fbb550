"""Metrics through Ray: recorded in this process, sent by Ray to the agent of its node, which Prometheus asks.

Ray puts ``ray_`` before each name. It sends what was recorded every ten seconds; a gauge that is not recorded any more
is forgotten after twenty, so the values of a driver that is gone go too, but for what only grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import ray
from ray.util import metrics as ray_metrics

from alsys.control.campaign_metrics import EXPORTED, MetricKind, Sample
from alsys.control.state.records import Durations

MOST_OBSERVED: Final = 1000
"""Durations that are recorded one by one of what came since the last time; of more, a sample with the same shares."""

Series = tuple[str, tuple[str, ...]]


class RayMetrics:
    """Gives values to the Ray that this process has joined; while there is none, to nobody.

    Args:
        campaign: Its name.
    """

    def __init__(self, campaign: str) -> None:
        self._campaign = campaign
        self._place = ("", "")
        self._instruments: dict[str, ray_metrics.Metric] = {}
        self._told: dict[Series, float] = {}
        self._counted: dict[Series, list[int]] = {}

    def export(self, samples: Sequence[Sample]) -> None:
        """Records all values."""
        if not ray.is_initialized():
            return
        context = ray.get_runtime_context()
        place = context.get_node_id(), context.get_job_id()
        if place != self._place:  # another Ray, to which nothing was told
            self._place = place
            self._instruments, self._told = {}, {}
        for sample in samples:
            self._record(sample)

    def _record(self, sample: Sample) -> None:
        metric = EXPORTED[sample.name]
        instrument = self._instruments.get(sample.name) or self._instrument(sample.name)
        tags = dict(zip(("campaign", *metric.labels), (self._campaign, *sample.labels), strict=True))
        series = sample.name, sample.labels
        if isinstance(sample.value, Durations):
            assert isinstance(instrument, ray_metrics.Histogram)
            for seconds in self._new(series, sample.value):
                instrument.observe(seconds, tags)
        elif isinstance(instrument, ray_metrics.Counter):
            more = sample.value - self._told.get(series, 0.0)
            if more > 0.0:
                instrument.inc(more, tags)
            elif series not in self._told:
                instrument._record(0.0, tags)  # which `inc` refuses; without it there is no rate of the first ones
            self._told[series] = max(sample.value, self._told.get(series, 0.0))
        else:
            assert isinstance(instrument, ray_metrics.Gauge)
            instrument.set(float(sample.value), tags)

    def _new(self, series: Series, durations: Durations) -> list[float]:
        """Durations that came since the last time, each as the middle of its bucket; those before the first are old."""
        before = self._counted.get(series, durations.counts)
        self._counted[series] = durations.counts
        edges = (0.0, *durations.limits, 2.0 * durations.limits[-1])
        new = [now - then for now, then in zip(durations.counts, before, strict=True)]
        every = max(1, -(-sum(new) // MOST_OBSERVED))
        middles = [(low + high) / 2.0 for low, high in pairwise(edges)]
        return [middle for middle, n in zip(middles, new, strict=True) for _ in range(-(-n // every))]

    def _instrument(self, name: str) -> ray_metrics.Metric:
        metric = EXPORTED[name]
        tags = ("campaign", *metric.labels)
        instrument: ray_metrics.Metric
        if metric.kind is MetricKind.COUNTER:
            instrument = ray_metrics.Counter(name.removesuffix("_total"), metric.meaning, tags)  # Ray adds it
        elif metric.kind is MetricKind.HISTOGRAM:
            instrument = ray_metrics.Histogram(name, metric.meaning, list(metric.limits), tags)
        else:
            instrument = ray_metrics.Gauge(name, metric.meaning, tags)
        self._instruments[name] = instrument
        return instrument
