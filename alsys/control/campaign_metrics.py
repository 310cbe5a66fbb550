"""What a monitoring system is told of a campaign: every metric's name, kind, unit and meaning, and their values now.

Names follow Prometheus' conventions: base units at the end of the name, ``_total`` for what only grows. Values come
from the ledger, so what grows is counted over the whole campaign, however many drivers ran it; commits and nodes are
those of this driver. Labels take few values: roles, arms, states, kinds of failure, budgets. What is not known yet has
no sample. Who exports them adds the label ``campaign``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from alsys.control.group_commit import COMMIT_TIMES
from alsys.control.ports import PoolState, Role
from alsys.control.rules.goals import wants_labels
from alsys.control.rules.spending import spendings
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import LABEL_TIMES, Durations
from alsys.errors import FailureKind


class MetricKind(StrEnum):
    """What a value does."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class ExportedMetric(NamedTuple):
    """One metric.

    Attributes:
        kind: What its values do.
        meaning: In one line; the unit is in the name.
        labels: Beside ``campaign``.
        limits: Of the buckets of a histogram.
    """

    kind: MetricKind
    meaning: str
    labels: tuple[str, ...] = ()
    limits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of now.

    Attributes:
        name: As in `EXPORTED`.
        value: Of a counter, all since the campaign began; of a histogram, all durations.
        labels: Values of the metric's labels, in their order.
    """

    name: str
    value: float | Durations
    labels: tuple[str, ...] = ()


_LOST: Final = (FailureKind.WORKER_LOST, FailureKind.WORKER_PREEMPTED, FailureKind.NODE_LOST)
"""Kinds of failure of a worker that are told of before there was any."""
_GAUGE, _COUNTER, _HISTOGRAM = MetricKind.GAUGE, MetricKind.COUNTER, MetricKind.HISTOGRAM

EXPORTED: Final[dict[str, ExportedMetric]] = {
    "alsys_campaign_running": ExportedMetric(_GAUGE, "1 while a driver runs the campaign, 0 once it has stopped"),
    "alsys_driver_start_timestamp_seconds": ExportedMetric(_GAUGE, "Unix time at which this driver began"),
    "alsys_update_timestamp_seconds": ExportedMetric(_GAUGE, "Unix time of these values"),
    "alsys_driver_starts_total": ExportedMetric(_COUNTER, "Drivers that have opened the campaign"),
    "alsys_running_seconds_total": ExportedMetric(_COUNTER, "Seconds that drivers have run"),
    "alsys_labels": ExportedMetric(_GAUGE, "Labels that are data, by arm: retracted ones are none", ("arm",)),
    "alsys_labels_accepted_total": ExportedMetric(_COUNTER, "Labels ever accepted; free atoms are among them"),
    "alsys_labels_target": ExportedMetric(_GAUGE, "stop.labels"),
    "alsys_labels_wanted": ExportedMetric(_GAUGE, "1 while labels are to be made, 0 while only fits are"),
    "alsys_labels_retracted_total": ExportedMetric(_COUNTER, "Labels taken out of the data"),
    "alsys_labels_failed_gate_total": ExportedMetric(_COUNTER, "Labels that the gate had verified or made again"),
    "alsys_label_attempts_failed_total": ExportedMetric(_COUNTER, "Attempts at labels that failed, by kind", ("kind",)),
    "alsys_label_duration_seconds": ExportedMetric(_HISTOGRAM, "Wall time of accepted labels", limits=LABEL_TIMES),
    "alsys_last_label_timestamp_seconds": ExportedMetric(_GAUGE, "Unix time of the last accepted label"),
    "alsys_candidates": ExportedMetric(_GAUGE, "Frames proposed, by what became of them", ("state",)),
    "alsys_frames_quarantined_total": ExportedMetric(_COUNTER, "Frames that came into quarantine"),
    "alsys_fits_total": ExportedMetric(_COUNTER, "Model versions published"),
    "alsys_fit_running": ExportedMetric(_GAUGE, "1 while a committee is fitted"),
    "alsys_promotions_total": ExportedMetric(_COUNTER, "Times that a version became champion"),
    "alsys_champion_version": ExportedMetric(_GAUGE, "Version that explorers use; 0 for none"),
    "alsys_champion_force_mae_ev_per_angstrom": ExportedMetric(
        _GAUGE, "Force MAE of the champion on held-out frames of the random arm"
    ),
    "alsys_champion_force_mae_low_ev_per_angstrom": ExportedMetric(_GAUGE, "Lower end of its 95 % interval"),
    "alsys_champion_force_mae_high_ev_per_angstrom": ExportedMetric(_GAUGE, "Upper end of its 95 % interval"),
    "alsys_uncertainty_coverage_ratio": ExportedMetric(_GAUGE, "Share of atoms whose error is within the band"),
    "alsys_uncertainty_coverage_error_ratio": ExportedMetric(_GAUGE, "Standard error of that share"),
    "alsys_uncertainty_nominal_coverage_ratio": ExportedMetric(_GAUGE, "What that share is meant to be"),
    "alsys_alarms": ExportedMetric(_GAUGE, "Alarms of `alsys status` that hold"),
    "alsys_walker_steps_total": ExportedMetric(_COUNTER, "MD steps of all walkers"),
    "alsys_workers_asked": ExportedMetric(_GAUGE, "Workers that are to be there", ("role",)),
    "alsys_workers_up": ExportedMetric(_GAUGE, "Workers that are there", ("role",)),
    "alsys_workers_waiting": ExportedMetric(_GAUGE, "Workers that have had no place for a while", ("role",)),
    "alsys_workers_lost_total": ExportedMetric(_COUNTER, "Workers that died, by kind of failure", ("role", "kind")),
    "alsys_lost_work_seconds_total": ExportedMetric(_COUNTER, "Work of calls that were lost with their workers"),
    "alsys_worker_busy_seconds_total": ExportedMetric(_COUNTER, "Seconds that workers had a call", ("role",)),
    "alsys_worker_available_seconds_total": ExportedMetric(_COUNTER, "Seconds that workers were there", ("role",)),
    "alsys_nodes": ExportedMetric(_GAUGE, "Living nodes of the Ray cluster; 0 without Ray"),
    "alsys_nodes_gone_total": ExportedMetric(_COUNTER, "Nodes that left under this driver, dead or given back"),
    "alsys_commit_duration_seconds": ExportedMetric(_HISTOGRAM, "Commits of the store", limits=COMMIT_TIMES),
    "alsys_disk_refusing": ExportedMetric(_GAUGE, "1 while the disk or the mirror takes nothing"),
    "alsys_disk_free_bytes": ExportedMetric(_GAUGE, "Free on the disk of the campaign's folder"),
    "alsys_disk_size_bytes": ExportedMetric(_GAUGE, "Size of that disk"),
    "alsys_delivery_backlog": ExportedMetric(_GAUGE, "Changes that the model registry has not taken yet"),
    "alsys_node_seconds_total": ExportedMetric(_COUNTER, "Seconds times machines"),
    "alsys_cost_total": ExportedMetric(_COUNTER, "Money for machines, as far as launch.prices has their prices"),
    "alsys_budget_fraction": ExportedMetric(_GAUGE, "Share of a budget that is used up", ("budget",)),
}
"""All metrics by name."""


def samples(
    ledger: Ledger, staff: PoolState, roles: Mapping[str, Role], commits: Durations, *, is_refused: bool
) -> list[Sample]:
    """Values of now, but for what has to be looked up on a disk.

    Args:
        ledger: Of a live campaign.
        staff: Its workers.
        roles: What each of them is for.
        commits: Of this driver.
        is_refused: Whether a commit is waited for that the disk refuses.
    """
    return [
        *_of_labels(ledger),
        *_of_models(ledger),
        *_of_work(ledger),
        *_of_workers(staff, roles),
        *_of_budgets(ledger),
        Sample("alsys_campaign_running", float(ledger.stopped is None)),
        Sample("alsys_driver_starts_total", ledger.totals.openings),
        Sample("alsys_running_seconds_total", ledger.totals.wall_s),
        Sample("alsys_commit_duration_seconds", _copied(commits)),
        Sample("alsys_disk_refusing", float(is_refused)),
    ]


def _of_labels(ledger: Ledger) -> Iterator[Sample]:
    for arm, n in ledger.accepted.items():
        yield Sample("alsys_labels", n, (str(arm),))
    for state, n in ledger.counts.items():
        yield Sample("alsys_candidates", n, (str(state),))
    for kind in FailureKind:
        yield Sample("alsys_label_attempts_failed_total", ledger.totals.failed_by.get(kind, 0), (str(kind),))
    yield Sample("alsys_labels_accepted_total", sum(ledger.label_durations.counts))
    yield Sample("alsys_label_duration_seconds", _copied(ledger.label_durations))
    yield Sample("alsys_labels_target", ledger.settings.n_labels)
    yield Sample("alsys_labels_wanted", float(wants_labels(ledger)))
    yield Sample("alsys_labels_retracted_total", len(ledger.retracted))
    yield Sample("alsys_labels_failed_gate_total", ledger.audits.n_failed_gate)
    yield Sample("alsys_frames_quarantined_total", ledger.totals.quarantined)
    if ledger.last_label is not None:
        yield Sample("alsys_last_label_timestamp_seconds", ledger.last_label)


def _of_models(ledger: Ledger) -> Iterator[Sample]:
    yield Sample("alsys_fits_total", len(ledger.models))
    yield Sample("alsys_fit_running", float(ledger.training is not None))
    yield Sample("alsys_promotions_total", len(ledger.champions))
    yield Sample("alsys_champion_version", ledger.champion)
    yield Sample("alsys_alarms", len(ledger.alarms))
    ends = ("", "_low", "_high")
    for end, value in zip(ends, ledger.models[ledger.champion].error, strict=True) if ledger.champion else ():
        if math.isfinite(value):
            yield Sample(f"alsys_champion_force_mae{end}_ev_per_angstrom", value)
    coverage = ledger.calibration.coverage
    if ledger.settings.is_calibrated:
        yield Sample("alsys_uncertainty_nominal_coverage_ratio", ledger.settings.probability)
    if ledger.settings.is_calibrated and coverage.n_frames:
        yield Sample("alsys_uncertainty_coverage_ratio", coverage.share)
        if math.isfinite(coverage.standard_error):
            yield Sample("alsys_uncertainty_coverage_error_ratio", coverage.standard_error)


def _of_work(ledger: Ledger) -> Iterator[Sample]:
    totals = ledger.totals
    yield Sample("alsys_walker_steps_total", totals.walker_steps)
    yield Sample("alsys_lost_work_seconds_total", totals.lost_s)
    lost = {(str(role), kind): 0 for role in Role for kind in _LOST} | totals.lost_by
    for (role, kind), n in lost.items():
        yield Sample("alsys_workers_lost_total", n, (role, str(kind)))
    for role in Role:
        yield Sample("alsys_worker_busy_seconds_total", totals.busy_s.get(role, 0.0), (str(role),))
        yield Sample("alsys_worker_available_seconds_total", totals.capacity_s.get(role, 0.0), (str(role),))


def _of_workers(staff: PoolState, roles: Mapping[str, Role]) -> Iterator[Sample]:
    waiting = [roles.get(name) for name in staff.waiting]
    for role in Role:
        yield Sample("alsys_workers_asked", staff.asked_of.get(role, 0), (str(role),))
        yield Sample("alsys_workers_up", staff.up_of.get(role, 0), (str(role),))
        yield Sample("alsys_workers_waiting", waiting.count(role), (str(role),))
    yield Sample("alsys_nodes", staff.n_nodes)
    yield Sample("alsys_nodes_gone_total", staff.n_nodes_gone)


def _of_budgets(ledger: Ledger) -> Iterator[Sample]:
    settings = ledger.settings
    yield Sample("alsys_budget_fraction", ledger.n_labels / max(settings.n_labels, 1), ("labels",))
    if settings.wall_s is not None:
        yield Sample("alsys_budget_fraction", ledger.totals.wall_s / settings.wall_s, ("wall-time",))
    for one in spendings(ledger):
        if one.used is not None:
            yield Sample("alsys_budget_fraction", one.used, (one.name,))
    yield Sample("alsys_node_seconds_total", ledger.totals.node_s)
    yield Sample("alsys_cost_total", ledger.totals.cost)


def _copied(durations: Durations) -> Durations:
    """As they are now: they are exported by another thread."""
    return Durations(durations.limits, list(durations.counts), durations.total_s)
