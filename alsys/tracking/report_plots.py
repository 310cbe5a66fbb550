"""The charts of the report, from plain values to one ``svg`` element; an empty text where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from alsys.frames import Arm
from alsys.metrics import Name
from alsys.tracking.chart import Axis, Chart, bars
from alsys.tracking.summary import Summary
from alsys.units import MEV

N_BINS = 60
"""Intervals of the utilisation chart."""
AUDIT_FLOOR = 1e-3
"""Least difference that is drawn, meV/Angstrom; the axis is logarithmic."""
_ROLE_COLORS = {"labelers": "s1", "explorers": "s2", "trainers": "s4"}


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which a span of time reads best, s, and its name."""
    for limit, size, name in ((3 * 60, 1.0, "s"), (3 * 3600, 60.0, "min"), (3 * 86400, 3600.0, "h")):
        if seconds < limit:
            return size, name
    return 86400.0, "days"


def learning_curve(summary: Summary, target: float | None) -> str:
    """Force MAE on the random arm against labels, with 95 % intervals; champion and target marked.

    Args:
        summary: The campaign.
        target: Force MAE at which it was to stop, eV/Angstrom.
    """
    models = [model for model in summary.models if math.isfinite(model.error[0])]
    if not models:
        return ""
    errors = [[e / MEV for e in model.error] for model in models]
    series = {name: [_in_mev(m.metrics.get(name)) for m in models] for name in _OTHER_ERRORS}
    values = [v for row in [*errors, *series.values()] for v in row if math.isfinite(v) and v > 0]
    if target is not None:
        values.append(target / MEV)
    is_log = max(values, default=1.0) > 8 * min(values, default=1.0)
    labels = [float(model.n_labels) for model in models]
    chart = Chart(
        Axis.fit(labels, "labels", zero=True),
        Axis.fit(values, "force MAE, meV/Å", is_log=is_log, zero=True),
        "Force MAE on the random arm against labels",
    )
    if target is not None:
        chart.across(target / MEV, "s6", "target")
    for name, (text, color) in _OTHER_ERRORS.items():
        if sum(math.isfinite(v) for v in series[name]) > 1:
            chart.line(labels, series[name], color, dashed=True)
            chart.legend(color, text, "dash")
    chart.line(labels, [row[0] for row in errors], "s1")
    for x, (_, low, high) in zip(labels, errors, strict=True):
        chart.interval(x, low, high, "s1")
    titles = [
        f"v{model.version:04d}: {row[0]:.1f} [{row[1]:.1f}, {row[2]:.1f}] meV/Å on {int(x)} labels; {model.reason}"
        for model, x, row in zip(models, labels, errors, strict=True)
    ]
    for is_rejected in (False, True):
        mine = [i for i, model in enumerate(models) if (model.promoted is False) is is_rejected]
        chart.points(
            [labels[i] for i in mine],
            [errors[i][0] for i in mine],
            "s1",
            radius=4,
            hollow=is_rejected,
            titles=[titles[i] for i in mine],
        )
    for model, x, row in zip(models, labels, errors, strict=True):
        if model.version == summary.champion:
            chart.points([x], [row[0]], "s3", radius=8, hollow=True)
            chart.text(x, row[0], f"champion v{model.version:04d}")
    chart.legend("s1", "random arm, 95 %", "dot")
    if any(model.promoted is False for model in models):
        chart.legend("s1", "rejected", "ring")
    return chart.render()


def _in_mev(value: float | None) -> float:
    return math.nan if value is None else value / MEV


_OTHER_ERRORS: dict[Name, tuple[str, str]] = {
    "force_mae_train": ("training", "s5"),
    "force_mae_validation": ("validation", "s2"),
    "champion_force_mae_random_arm": ("champion then", "s3"),
}
"""Further errors by metric; the last is that of the champion of that time on the same frames."""


def labels_over_time(summary: Summary) -> str:
    """Labels, random-arm labels and failed attempts against running time; restarts and new models marked."""
    labels = [label for label in summary.labels if label.arm is not Arm.ATOM]
    if not labels and not summary.failures:
        return ""
    unit, _ = time_unit(summary.running_s)
    end = summary.running_s / unit
    series = {
        "labels": ([label.time for label in labels], "s1"),
        "random arm": ([label.time for label in labels if label.arm is Arm.RANDOM], "s2"),
        "failed attempts": ([failure.time for failure in summary.failures], "s6"),
    }
    top = max(len(times) for times, _ in series.values())
    chart = Chart(
        _running_time(summary),
        replace(Axis.fit([float(top)], "count", zero=True), is_count=True),
        "Labels and failures over time",
    )
    for model in summary.models:
        chart.upright(summary.published[model.version] / unit, "s4", f"v{model.version:04d} published")
    for restart in summary.restarts:
        chart.upright(restart / unit, "s6", "restart")
    for text, (times, color) in series.items():
        if times:
            xs = [0.0, *(t / unit for t in times), end]
            chart.steps(xs, [*range(len(times) + 1), len(times)], color, fill=text == "labels")
            chart.legend(color, text)
    if summary.models:
        chart.legend("s4", "new model", "dash")
    if summary.restarts:
        chart.legend("s6", "restart", "dash")
    return chart.render()


def _running_time(summary: Summary) -> Axis:
    unit, name = time_unit(summary.running_s)
    return Axis(0.0, max(summary.running_s / unit, 1e-6), f"running time, {name}")


def utilisation(summary: Summary) -> str:
    """Busy share of each kind of worker over running time, in at most `N_BINS` intervals."""
    roles = sorted({role for beat in summary.beats for role, capacity in beat.capacity_s.items() if capacity > 0})
    if not roles or summary.running_s <= 0:
        return ""
    unit, _ = time_unit(summary.running_s)
    n_bins = max(1, min(N_BINS, len(summary.beats)))
    edges = np.linspace(0.0, summary.running_s, n_bins + 1)
    chart = Chart(
        _running_time(summary),
        Axis(0.0, 1.0, "busy", is_percent=True),
        "Utilisation of workers over time",
    )
    totals = summary.utilisation
    for role in roles:
        busy, capacity = np.zeros(n_bins), np.zeros(n_bins)
        for beat in summary.beats:
            middle = beat.time - 0.5 * beat.wall_s
            k = min(max(int(np.searchsorted(edges, middle, side="right")) - 1, 0), n_bins - 1)
            busy[k] += beat.busy_s.get(role, 0.0)
            capacity[k] += beat.capacity_s.get(role, 0.0)
        known = capacity > 0
        share = np.minimum(busy[known] / capacity[known], 1.0)
        starts = edges[:-1][known] / unit
        color = _ROLE_COLORS.get(role, "s5")
        chart.steps([*starts, float(summary.running_s / unit)], [*share, float(share[-1])], color)
        chart.legend(color, f"{role} {totals.get(role, 0.0):.0%}")
    return chart.render()


def deviation_against_error(pairs: Sequence[tuple[float, float]], accurate_below: float, failed_above: float) -> str:
    """Force deviation of random-arm frames against their true force MAE, on logarithmic axes.

    Args:
        pairs: ``(deviation, error)`` of each frame, eV/Angstrom.
        accurate_below: Lower edge of the trust band, eV/Angstrom.
        failed_above: Upper edge; NaN where an edge is not known.
    """
    drawable = [(d / MEV, e / MEV) for d, e in pairs if d > 0 and e > 0 and math.isfinite(d + e)]
    if len(drawable) < 2:
        return ""
    deviations, errors = [d for d, _ in drawable], [e for _, e in drawable]
    chart = Chart(
        Axis.fit(deviations, "largest force deviation, meV/Å", is_log=True),
        Axis.fit(errors, "true force MAE, meV/Å", is_log=True),
        "Deviation of the committee against its true error",
    )
    low = max(chart.x.low, chart.y.low)
    high = min(chart.x.high, chart.y.high)
    if high > low:
        chart.line([low, high], [low, high], "s5", dashed=True)
        chart.legend("s5", "equal", "dash")
    for edge, title in ((accurate_below, "trust band: accurate below"), (failed_above, "trust band: failed above")):
        if math.isfinite(edge):
            chart.upright(edge / MEV, "s3", title)
    titles = [f"deviation {d:.1f}, error {e:.1f} meV/Å" for d, e in drawable]
    chart.points(deviations, errors, "s1", radius=3.5, titles=titles)
    chart.legend("s1", "random-arm frame", "dot")
    if any(chart.x.low <= edge / MEV <= chart.x.high for edge in (accurate_below, failed_above)):
        chart.legend("s3", "trust band", "dash")
    return chart.render()


def coverage(summary: Summary, probability: float) -> str:
    """Share of atoms whose true force error lay within the calibrated band, over the frames compared.

    Args:
        summary: The campaign.
        probability: What the band is to cover.
    """
    if len(summary.coverage) < 2:
        return ""
    frames, shares = [float(n) for n, _ in summary.coverage], [share for _, share in summary.coverage]
    chart = Chart(
        Axis(0.0, max(frames), "labelled frames compared", is_count=True),
        Axis(min(0.5, *shares), 1.0, "share covered", is_percent=True),
        "Coverage of the calibrated force error",
    )
    chart.across(probability, "s3", "wanted")
    chart.line(frames, shares, "s1")
    chart.legend("s1", "latest 50 frames", "dot")
    chart.legend("s3", "wanted", "dash")
    return chart.render()


def audits(summary: Summary) -> str:
    """Distribution of force differences between labels and their audits: the share of audits up to each difference."""
    values = sorted(max(audit.force_mae / MEV, AUDIT_FLOOR) for audit in summary.audits)
    if not values:
        return ""
    shares = [(i + 1) / len(values) for i in range(len(values))]
    chart = Chart(
        Axis.fit([*values, 2.0 * values[-1]], "mean force difference, meV/Å", is_log=True),
        Axis(0.0, 1.0, "share of audits"),
        "Force differences between labels and their audits",
    )
    chart.line(values, shares, "s1")
    for is_confirmed, color in ((True, "s1"), (False, "s6")):
        rows = [
            (max(a.force_mae / MEV, AUDIT_FLOOR), f"{a.frame_id[:8]}, {a.reason}: {a.force_difference / MEV:.2f} meV/Å")
            for a in summary.audits
            if a.is_confirmed is is_confirmed
        ]
        if rows:
            ys = [shares[values.index(value)] for value, _ in rows]
            chart.points([value for value, _ in rows], ys, color, radius=4, titles=[title for _, title in rows])
            chart.legend(color, "confirmed" if is_confirmed else "rejected", "dot")
    return chart.render()


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's rank correlation (average ranks for ties); NaN for fewer than three pairs or constant data."""
    if len(pairs) < 3:
        return math.nan
    first, second = (_ranks(np.array([pair[k] for pair in pairs])) for k in (0, 1))
    if first.std() == 0 or second.std() == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def exploration(summary: Summary, accurate_below: float, failed_above: float) -> str:
    """Mean and largest force deviation that walkers met under each version.

    Args:
        summary: The campaign.
        accurate_below: Lower edge of the trust band, eV/Angstrom.
        failed_above: Upper edge.
    """
    seen = [e for _, e in sorted(summary.exploration.items()) if e.walker_steps and e.deviation_mean > 0]
    if not seen:
        return ""
    versions = [float(e.version) for e in seen]
    means, tops = [e.deviation_mean / MEV for e in seen], [e.deviation_max / MEV for e in seen]
    band = [edge / MEV for edge in (accurate_below, failed_above) if math.isfinite(edge)]
    chart = Chart(
        Axis(min(versions) - 1.0, max(versions) + 1.0, "model version", is_count=True),
        Axis.fit([*means, *tops, *band], "force deviation, meV/Å", is_log=True),
        "Force deviation during exploration by model version",
    )
    for edge, title in zip(band, ("accurate below", "failed above"), strict=False):
        chart.across(edge, "s3", title)
    for name, values, color in (("mean of walkers", means, "s1"), ("largest", tops, "s2")):
        chart.line(versions, values, color)
        titles = [f"v{e.version:04d}, {name}: {v:.1f} meV/Å" for e, v in zip(seen, values, strict=True)]
        chart.points(versions, values, color, radius=4, titles=titles)
        chart.legend(color, name, "dot")
    return chart.render()


def counts(values: Mapping[str, int], title: str, color: str) -> str:
    """Horizontal bars of counts, largest first."""
    rows = sorted(values.items(), key=lambda item: -item[1])
    return bars([(name, float(count), f"{count:,}") for name, count in rows], title, color) if rows else ""


def _ranks(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    _, inverse, numbers = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(numbers)
    average = ends - 0.5 * (numbers - 1)
    return np.asarray(average[inverse], dtype=np.float64)
