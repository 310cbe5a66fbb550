"""Plots of the report as inline SVG, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from alsys.events import Heartbeat, LabelAccepted, LabelFailed
from alsys.frames import FloatArray, Frame

matplotlib.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "alsys", "font.size": 9})
BLUE, RED, GREEN, GREY = "#2166ac", "#b2182b", "#1b7837", "#777777"


def learning_curve(models: Sequence[dict[str, Any]], champion: int | None) -> str:
    """Force MAE on the random arm against labels, with the 95 % interval."""
    rows = [m for m in models if m["force_mae_random_arm"] is not None]
    figure, axes = _figure("labels", "force MAE, meV/Angstrom")
    if rows:
        x = [m["n_labels"] for m in rows]
        y = [1e3 * m["force_mae_random_arm"] for m in rows]
        low = [1e3 * _or(m["force_mae_interval"][0], m["force_mae_random_arm"]) for m in rows]
        high = [1e3 * _or(m["force_mae_interval"][1], m["force_mae_random_arm"]) for m in rows]
        axes.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95 % interval")
        axes.plot(x, y, "o-", color=BLUE, markersize=4, label="random arm")
        rejected = [m for m in rows if m["promoted"] is False]
        if rejected:
            points = [1e3 * m["force_mae_random_arm"] for m in rejected]
            axes.plot([m["n_labels"] for m in rejected], points, "x", color=RED, label="rejected")
        for m in rows:
            if m["version"] == champion:
                axes.plot(
                    m["n_labels"], 1e3 * m["force_mae_random_arm"], "*", color=GREEN, markersize=12, label="champion"
                )
        axes.set_yscale("log")
        axes.legend(frameon=False)
    return _svg(figure)


def labels_over_time(accepted: Sequence[LabelAccepted], failed: Sequence[LabelFailed], start: float) -> str:
    """Accepted labels and failed attempts against time."""
    figure, axes = _figure("minutes", "count")
    for events, color, name in ((accepted, BLUE, "labels"), (failed, RED, "failed attempts")):
        times = sorted((e.t - start) / 60.0 for e in events)
        axes.step([0.0, *times], range(len(times) + 1), where="post", color=color, label=name)
    axes.legend(frameon=False)
    return _svg(figure)


def utilisation(beats: Sequence[Heartbeat], start: float) -> str:
    """Busy share of each kind of worker against time."""
    figure, axes = _figure("minutes", "busy share")
    roles = sorted({role for beat in beats for role in beat.busy_s})
    for role, color in zip(roles, (BLUE, GREEN, RED, GREY), strict=False):
        points = [
            ((beat.t - start) / 60.0, beat.busy_s[role] / (beat.wall_s * beat.workers[role]))
            for beat in beats
            if beat.wall_s > 0.5 and beat.workers.get(role)
        ]
        axes.plot([p[0] for p in points], [min(p[1], 1.0) for p in points], color=color, label=role)
    axes.set_ylim(-0.03, 1.05)
    if roles:
        axes.legend(frameon=False)
    return _svg(figure)


def deviation_against_error(calibration: Sequence[tuple[float, float]]) -> str:
    """The committee's force deviation against its true error, for each random-arm frame."""
    figure, axes = _figure("largest force deviation, meV/Angstrom", "force MAE of the frame, meV/Angstrom")
    if calibration:
        x, y = 1e3 * np.maximum(np.array(calibration).T, 1e-6)
        axes.loglog(x, y, "o", color=BLUE, markersize=4, alpha=0.7)
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.loglog(ends, ends, "--", color=GREY, linewidth=1)
    return _svg(figure)


def structure(frame: Frame) -> str:
    """A projection onto the two widest directions: atoms in their usual colours, bonds by covalent radii."""
    centred = frame.positions - frame.positions.mean(axis=0)
    projected: FloatArray = centred @ np.linalg.svd(centred, full_matrices=False)[2].T if frame.n_atoms > 1 else centred
    figure = Figure(figsize=(2.6, 2.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    radii = covalent_radii[frame.numbers]
    for i in range(frame.n_atoms):
        for j in range(i):
            if np.linalg.norm(centred[i] - centred[j]) < 1.3 * (radii[i] + radii[j]):
                axes.plot(*projected[[i, j], :2].T, color=GREY, linewidth=2, zorder=-10)
    for i in np.argsort(projected[:, 2]) if frame.n_atoms > 1 else [0]:
        color = jmol_colors[frame.numbers[i]]
        axes.plot(*projected[i, :2], "o", color=color, markeredgecolor="#444444", markersize=8 + 14 * radii[i])
        axes.annotate(chemical_symbols[frame.numbers[i]], tuple(projected[i, :2]), ha="center", va="center", fontsize=7)
    axes.margins(0.15)
    return _svg(figure)


def _figure(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
