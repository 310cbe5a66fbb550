"""The charts of a validation, from curves to one ``svg`` element; an empty text where there is nothing to draw.

What `alsys.validation.checks` documents as curves comes in, in eV, Angstrom and fs; charts are in meV, percent and ps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alsys.tracking.chart import Axis, Chart
from alsys.units import MEV

PS = 1e3
"""fs per ps."""
_COLORS = ("s1", "s2", "s3", "s4", "s6", "s5")


def parity(pairs: Sequence[Sequence[float]], what: str, unit: str) -> str:
    """Model against label, with the diagonal.

    Args:
        pairs: (label, model) in eV and Angstrom, drawn in meV.
        what: Quantity, as ``force component``.
        unit: Its unit in meV.
    """
    points = _numbers(pairs)
    if not points:
        return ""
    labels, models = [x / MEV for x, _ in points], [y / MEV for _, y in points]
    axis = Axis.fit([*labels, *models], f"label, {unit}")
    chart = Chart(axis, replace(axis, label=f"model, {unit}"), f"Model against label: {what}")
    chart.line([axis.low, axis.high], [axis.low, axis.high], "s5", dashed=True)
    chart.points(labels, models, "s1", radius=2.2)
    chart.legend("s1", what, "dot")
    chart.legend("s5", "equal", "dash")
    return chart.render()


def learning(rows: Sequence[Sequence[float | None]], version: int) -> str:
    """Errors of all versions on the same frames against labels, on logarithmic axes.

    Args:
        rows: Version, labels, force MAE and its interval, eV/Angstrom.
        version: The one that is validated: marked.
    """
    known = [(int(r[0] or 0), float(r[1] or 0), *(_number(x) / MEV for x in r[2:])) for r in rows]
    known = [row for row in known if row[1] > 0 and row[2] > 0]
    if len(known) < 2:
        return ""
    values = [v for row in known for v in row[2:] if math.isfinite(v) and v > 0]
    chart = Chart(
        Axis.fit([row[1] for row in known], "labels", is_log=True),
        Axis.fit(values, "force MAE, meV/Å", is_log=True),
        "Errors of all versions on the same frames against labels",
    )
    chart.line([row[1] for row in known], [row[2] for row in known], "s1")
    for row in known:
        chart.interval(row[1], row[3], row[4], "s1")
        interval = f" [{row[3]:.1f}, {row[4]:.1f}]" if math.isfinite(row[3] + row[4]) else ""
        title = f"v{row[0]:04d}: {row[2]:.1f}{interval} meV/Å on {row[1]:.0f} labels"
        chart.points([row[1]], [row[2]], "s1", radius=4, titles=[title])
        if row[0] == version:
            chart.points([row[1]], [row[2]], "s3", radius=8, hollow=True)
            chart.text(row[1], row[2], f"v{version:04d}")
    chart.legend("s1", "today's random arm, 95 %", "dot")
    return chart.render()


def calibration(curves: Mapping[str, Any]) -> str:
    """Share of atoms covered against what was claimed, of the calibrated band and of the raw deviation."""
    nominal = [_number(x) for x in curves.get("nominal", ())]
    if not nominal:
        return ""
    chart = Chart(
        Axis(0.0, 1.0, "claimed", is_percent=True),
        Axis(0.0, 1.0, "covered", is_percent=True),
        "Share of force errors within what was claimed",
    )
    chart.line([0.0, 1.0], [0.0, 1.0], "s5", dashed=True)
    covered, errors = ([_number(x) for x in curves[name]] for name in ("calibrated", "error"))
    chart.line(nominal, covered, "s1")
    for x, y, error in zip(nominal, covered, errors, strict=True):
        chart.interval(x, max(0.0, y - 2.0 * error), min(1.0, y + 2.0 * error), "s1")
    chart.points(
        nominal,
        covered,
        "s1",
        radius=3.5,
        titles=[f"{y:.0%} of {x:.0%}" for x, y in zip(nominal, covered, strict=True)],
    )
    chart.line(nominal, [_number(x) for x in curves["raw"]], "s2", dashed=True)
    chart.legend("s1", "calibrated band", "dot")
    chart.legend("s2", "deviation as it is", "dash")
    chart.legend("s5", "as claimed", "dash")
    return chart.render()


def scan(curves: Mapping[str, Any], system: str) -> str:
    """One energy profile: model, with two standard deviations of its members, and reference."""
    x = [_number(v) for v in curves["x"]]
    reference, model, band = ([_number(v) / MEV for v in curves[name]] for name in ("reference", "model", "band"))
    if len(x) < 2:
        return ""
    edges = [y + sign * 2.0 * b for y, b in zip(model, band, strict=True) for sign in (1.0, -1.0) if math.isfinite(b)]
    top = 3.0 * max(max(reference), 1.0)  # a model that breaks down must not hide the reference
    shown = [v for v in [*reference, *model, *edges] if -top <= v <= top]
    label = "angle, degrees" if curves["kind"] == "torsion" else "bond length, Å"
    axis = Axis.fit(shown, "energy, meV")
    chart = Chart(Axis.fit(x, label), axis, f"{curves['kind']} {curves['name']} of {system}")
    for value, y, b in zip(x, model, band, strict=True):
        chart.interval(value, y - 2.0 * b, y + 2.0 * b, "s1", cap=3.0)
    chart.line(x, model, "s1")
    titles = [f"{v:.1f} meV" for v in reference]
    chart.points(x, reference, "s2", radius=3.5, titles=titles)
    chart.legend("s1", "model, 2 std. of members")
    chart.legend("s2", "reference", "dot")
    return chart.render()


def frequencies(curves: Mapping[str, Any], system: str) -> str:
    """Wavenumbers of the model against those of the reference; imaginary ones are negative."""
    reference, model = ([_number(v) for v in curves.get(name, ())] for name in ("reference", "model"))
    if not reference:
        return ""
    axis = Axis.fit([*reference, *model], "reference, 1/cm", zero=True)
    chart = Chart(axis, replace(axis, label="model, 1/cm"), f"Vibrations of {system}")
    chart.line([axis.low, axis.high], [axis.low, axis.high], "s5", dashed=True)
    titles = [f"{y:.0f} for {x:.0f} 1/cm" for x, y in zip(reference, model, strict=True)]
    chart.points(reference, model, "s1", radius=4, titles=titles)
    chart.legend("s1", "normal mode", "dot")
    chart.legend("s5", "equal", "dash")
    return chart.render()


def survival(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Share of walkers that are still sound against time, of several runs, with 95 % intervals where one failed.

    Args:
        runs: Name and curves of each; the first six are drawn.
    """
    if not runs:
        return ""
    end = max(_number(curves["end"]) / PS for _, curves in runs)
    if not end > 0:
        return ""
    chart = Chart(
        Axis(0.0, end, "time, ps"), Axis(0.0, 1.0, "still sound", is_percent=True), "Survival of walkers over time"
    )
    for (name, curves), color in zip(runs, _COLORS, strict=False):
        times = [_number(t) / PS for t in curves["times"]]
        shares, low, high = ([_number(v) for v in curves[key]] for key in ("survival", "low", "high"))
        chart.steps([0.0, *times, _number(curves["end"]) / PS], [1.0, *shares, shares[-1] if shares else 1.0], color)
        for row in zip(times, low, high, strict=True):
            chart.interval(*row, color, cap=2.0)
        chart.legend(color, name)
    return chart.render()


def distances(curves: Mapping[str, Any], pair: str, title: str) -> str:
    """One distribution of distances in the model's dynamics over the true one, or over the halves of its own run."""
    r = [_number(v) for v in curves["r"]]
    others = [name for name in ("reference", "first", "second") if pair in curves.get(name, {})]
    model, *beside = ([_number(v) for v in curves[name][pair]] for name in ("model", *others))
    used = [k for k in range(len(r)) if model[k] > 0 or any(values[k] > 0 for values in beside)]
    if len(used) < 2:
        return ""
    part = slice(max(0, used[0] - 2), used[-1] + 3)
    label = "g(r)" if curves.get("is_periodic") else "density, 1/Å"
    shown = [v for values in (model, *beside) for v in values[part]]
    chart = Chart(Axis.fit(r[part], "distance, Å"), Axis.fit(shown, label, zero=True), title)
    names = {"reference": str(curves.get("against", "reference")), "first": "first half", "second": "second half"}
    colors = {"reference": "s2", "first": "s5", "second": "s4"}
    for name, values in zip(others, beside, strict=True):
        chart.line(r[part], values[part], colors[name])
        chart.legend(colors[name], names[name])
    chart.line(r[part], model[part], "s1", dashed=True)
    chart.legend("s1", "model", "dash")
    return chart.render()


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _numbers(pairs: Sequence[Sequence[Any]]) -> list[tuple[float, float]]:
    known = [(_number(x), _number(y)) for x, y in pairs]
    return [(x, y) for x, y in known if math.isfinite(x) and math.isfinite(y)]
