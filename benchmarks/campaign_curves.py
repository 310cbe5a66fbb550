"""Labels to a target error from error curves of several seeds, with 95 % intervals, and their plot.

A curve is one row for each model version: `train_labels`, `all_labels` and the errors in `METRICS`. Between versions a
curve is a straight line of log error over log labels; nothing is extrapolated, so a target that a curve does not reach
gives None. Intervals are those of Student's t over seeds, of logarithms where the quantity is a ratio; with three seeds
the factor is 4.3, so they are wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from alsys.tracking.chart import COLORS, HEIGHT, WIDTH, Axis, Chart

METRICS = {
    "hot_mae": "hot: force MAE",
    "hot_p95": "hot: 95th percentile of atoms' force error",
    "cold_mae": "cold: force MAE",
    "cold_p95": "cold: 95th percentile of atoms' force error",
}
Curve = Sequence[Mapping[str, float]]
STYLE = """
text { font-family: system-ui, sans-serif; } .paper { fill: #fbfbfa; } .title { font-weight: 600; font-size: 13px; }
"""


def labels_to(labels: Sequence[float], errors: Sequence[float], target: float) -> float | None:
    """Labels at which a curve first reaches a target: those of its first point where it begins there."""
    for i, error in enumerate(errors):
        if error <= target:
            if i == 0:
                return float(labels[0])
            x = (math.log(errors[i - 1]) - math.log(target)) / (math.log(errors[i - 1]) - math.log(error))
            return math.exp(math.log(labels[i - 1]) + x * (math.log(labels[i]) - math.log(labels[i - 1])))
    return None


def columns(curve: Curve, metric: str, axis: str = "train_labels") -> tuple[list[float], list[float]]:
    """Labels and errors of a curve."""
    return [row[axis] for row in curve], [row[metric] for row in curve]


def error_at(labels: Sequence[float], errors: Sequence[float], n: float) -> float:
    """Error at a number of labels within the curve."""
    return math.exp(float(np.interp(math.log(n), np.log(labels), np.log(errors))))


def interval(values: Sequence[float], *, is_ratio: bool = False) -> dict[str, Any]:
    """Mean (geometric for ratios) and 95 % t interval; no interval for one value."""
    array = np.log(values) if is_ratio else np.asarray(values, dtype=float)
    mean, low, high = float(array.mean()), math.nan, math.nan
    if len(array) > 1:
        half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
        low, high = mean - half, mean + half
    back = math.exp if is_ratio else float
    bounds = None if math.isnan(low) else [back(low), back(high)]
    return {"mean": back(mean), "interval": bounds, "values": [float(value) for value in values]}


def summary(curves: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    """Every metric over training labels, and the main one over all labels too."""
    found = {name: compare(curves, name, "train_labels") for name in METRICS}
    found["hot_mae_over_all_labels"] = compare(curves, "hot_mae", "all_labels")
    return found


def compare(curves: Mapping[str, Sequence[Curve]], metric: str, axis: str) -> dict[str, Any]:
    """One metric of all arms against `random`.

    Args:
        curves: Curves of each arm, in the order of seeds.
        metric: Column of the error.
        axis: Column of the labels.

    Returns:
        For the end and for half of the labels: the mean target over seeds (what `random` reached there), and for each
        arm the labels that each seed needs, their ratio to random's with each seed's own target, and the ratios of
        errors at that number of labels to those of `random` and `plain`.
    """
    xy = {arm: [columns(curve, metric, axis) for curve in of_arm] for arm, of_arm in curves.items()}
    n_end = min(labels[-1] for of_arm in xy.values() for labels, _ in of_arm)
    first = max(labels[0] for of_arm in xy.values() for labels, _ in of_arm)
    found: dict[str, Any] = {"labels_compared": n_end}
    for name, n in (("end", n_end), ("half", max(n_end / 2, first))):
        own = [error_at(labels, errors, n) for labels, errors in xy["random"]]
        target = float(np.mean(own))
        found[name] = {"labels": n, "target": target, "random_error": interval(own), "arms": {}}
        for arm, of_arm in xy.items():
            needed = [labels_to(labels, errors, target) for labels, errors in of_arm]
            errors_at = [error_at(labels, errors, n) for labels, errors in of_arm]
            row: dict[str, Any] = {
                "labels_to_target": needed,
                "seeds_that_reach_it": sum(value is not None for value in needed),
                "error": interval(errors_at),
            }
            if arm != "random":
                row["error_ratio"] = interval([a / b for a, b in zip(errors_at, own, strict=True)], is_ratio=True)
                row["label_ratio"] = _label_ratio(of_arm, own, n)
            if arm not in ("plain", "random") and "plain" in xy:
                plain = [error_at(labels, errors, n) for labels, errors in xy["plain"]]
                row["error_ratio_to_plain"] = interval(
                    [a / b for a, b in zip(errors_at, plain, strict=True)], is_ratio=True
                )
            found[name]["arms"][arm] = row
    return found


def _label_ratio(
    of_arm: Sequence[tuple[Sequence[float], Sequence[float]]], targets: Sequence[float], n: float
) -> dict[str, Any]:
    """Labels to what `random` reached with the same seed, over its labels; a mean only where all seeds reach it."""
    ratios: list[float | None] = []
    for (labels, errors), target in zip(of_arm, targets, strict=True):
        needed = labels_to(labels, errors, target)
        ratios.append(None if needed is None else needed / n)
    reached = [ratio for ratio in ratios if ratio is not None]
    if len(reached) == len(ratios):
        return {**interval(reached, is_ratio=True), "seeds_that_reach_it": len(reached)}
    return {"mean": None, "interval": None, "values": ratios, "seeds_that_reach_it": len(reached)}


def drawing(curves: Mapping[str, Sequence[Curve]], found: Mapping[str, Any]) -> str:
    """All metrics over training labels as one SVG file: each seed pale, their geometric mean strong."""
    parts = []
    for i, (metric, title) in enumerate(METRICS.items()):
        chart = _chart(curves, metric, title, found[metric]["end"]["target"])
        x, y = (i % 2) * (WIDTH + 20), (i // 2) * (HEIGHT + 34)
        place = f'<svg x="{x:.0f}" y="{y + 24:.0f}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}" '
        parts.append(f'<text class="title" x="{x + 62:.0f}" y="{y + 18:.0f}">{title}, meV/Angstrom</text>')
        parts.append(chart.render().replace("<svg ", place, 1))
    size = f"0 0 {2 * WIDTH + 20:.0f} {2 * (HEIGHT + 34):.0f}"
    paper = '<rect class="paper" width="100%" height="100%"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}"><style>{STYLE}</style>'
    return f"{head}{paper}{''.join(parts)}</svg>\n"


def _chart(curves: Mapping[str, Sequence[Curve]], metric: str, title: str, target: float) -> Chart:
    rows = [row for of_arm in curves.values() for curve in of_arm for row in curve]
    chart = Chart(
        Axis.fit([row["train_labels"] for row in rows], "training labels", is_log=True),
        Axis.fit([row[metric] for row in rows], "meV/Angstrom", is_log=True),
        title,
    )
    for color, (arm, of_arm) in zip(COLORS, curves.items(), strict=False):
        chart.legend(color, arm)
        for curve in of_arm:
            labels, errors = columns(curve, metric)
            chart.line(labels, errors, color, pale=True)
            chart.points(labels, errors, color, radius=2.0)
        low = max(curve[0]["train_labels"] for curve in of_arm)
        high = min(curve[-1]["train_labels"] for curve in of_arm)
        grid = np.geomspace(low, high, 40).tolist()
        means = [float(stats.gmean([error_at(*columns(curve, metric), n) for curve in of_arm])) for n in grid]
        chart.line(grid, means, color)
    chart.across(target, "s3", "random at the end")
    return chart
