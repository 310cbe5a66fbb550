"""Metrics as a file in Prometheus' text format, for the textfile collector of its node exporter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from alsys.control.campaign_metrics import EXPORTED, MetricKind, Sample
from alsys.control.state.records import Durations

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class MetricsFile:
    """Writes all values of a campaign, atomically.

    Args:
        path: The file; the collector takes those that end with ``.prom``.
        campaign: Its name.
    """

    def __init__(self, path: Path, campaign: str) -> None:
        self._path = path
        self._campaign = campaign
        self._samples: Sequence[Sample] = ()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def export(self, samples: Sequence[Sample]) -> None:
        """Writes the file.

        Raises:
            OSError: It cannot be written.
        """
        self._samples = samples
        write_to_textfile(str(self._path), self._registry)

    def collect(self) -> Iterator[Metric]:
        """As a collector of `prometheus_client`."""
        families: dict[str, Family] = {}
        for sample in self._samples:
            family = families[sample.name] = families.get(sample.name) or self._family(sample.name)
            labels = (self._campaign, *sample.labels)
            if isinstance(sample.value, Durations):
                assert isinstance(family, HistogramMetricFamily)
                limits = [*(f"{limit:g}" for limit in sample.value.limits), "+Inf"]
                buckets = list(zip(limits, accumulate(sample.value.counts), strict=True))
                family.add_metric(labels, buckets, sample.value.total_s)
            else:
                assert not isinstance(family, HistogramMetricFamily)
                family.add_metric(labels, sample.value)
        yield from families.values()

    def _family(self, name: str) -> Family:
        metric = EXPORTED[name]
        labels = ("campaign", *metric.labels)
        match metric.kind:
            case MetricKind.COUNTER:
                return CounterMetricFamily(name, metric.meaning, labels=labels)
            case MetricKind.HISTOGRAM:
                return HistogramMetricFamily(name, metric.meaning, labels=labels)
            case MetricKind.GAUGE:
                return GaugeMetricFamily(name, metric.meaning, labels=labels)
