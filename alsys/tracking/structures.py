"""Drawings of structures: atoms as shaded discs, bonds where two atoms are closer than their radii allow.

The view is along the direction of least extent (the principal axis of the positions with the smallest variance), so
that flat molecules lie flat. Bonds: distance below 1.2 times the sum of covalent radii (Cordero et al., Dalton Trans.
2832 (2008), as in ASE). Periodic images are not drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alsys.frames import FloatArray, Frame
from alsys.tracking.chart import COLORS, INK, to_svg

SIZE = 240
MAX_ATOMS = 500
"""Atoms drawn; of larger frames, the first ones."""
BOND_FACTOR = 1.2


def formula(frame: Frame) -> str:
    """Hill formula with charge, for example ``CH4O`` or ``H3O (+1)``."""
    counts: dict[str, int] = {}
    for number in frame.numbers:
        symbol = chemical_symbols[int(number)]
        counts[symbol] = counts.get(symbol, 0) + 1
    first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    order = first + sorted(s for s in counts if s not in first)
    text = "".join(symbol + (str(counts[symbol]) if counts[symbol] > 1 else "") for symbol in order)
    return f"{text} ({frame.charge:+d})" if frame.charge else text


def draw(frame: Frame, title: str) -> str:
    """One drawing, `SIZE` by `SIZE`."""
    n = min(frame.n_atoms, MAX_ATOMS)
    numbers = frame.numbers[:n]
    positions = _turned(frame.positions[:n])
    radii = np.asarray(covalent_radii)[numbers]
    discs = 0.5 * radii + 0.08
    low, high = (positions - discs[:, None]).min(axis=0), (positions + discs[:, None]).max(axis=0)
    scale = min((SIZE - 16) / max(float((high - low)[:2].max()), 1e-6), 62.0)
    places = (positions - 0.5 * (low + high))[:, :2] * scale + SIZE / 2
    depth = positions[:, 2]
    figure = Figure(figsize=(SIZE / 72, SIZE / 72), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE), ylim=(0, SIZE))
    axes.axis("off")
    width = max(1.5, 0.16 * scale)
    for i, j in _bonds(positions, radii):
        ends, rank = places[[i, j]].T, float(min(depth[i], depth[j])) - 1e-3
        for color, w in ((INK, width + 1.6), (COLORS["s5"], width)):
            axes.plot(*ends, color=color, linewidth=w, solid_capstyle="round", zorder=rank)
    for i in np.argsort(depth):
        _atom(axes, int(numbers[i]), places[i], discs[i] * scale, _nearness(depth)[i], float(depth[i]))
    return to_svg(figure, title, {}, "structure")


def _turned(positions: FloatArray) -> FloatArray:
    """Positions along their principal axes, widest first; axes are signed so that the picture is always the same."""
    centred = positions - positions.mean(axis=0)
    _, columns = np.linalg.eigh(centred.T @ centred)
    axes = columns.T[::-1].copy()
    for axis in axes:
        if axis[np.argmax(np.abs(axis))] < 0:
            axis *= -1
    if np.linalg.det(axes) < 0:  # a mirrored molecule is another one
        axes[2] *= -1
    return np.asarray(centred @ axes.T, dtype=np.float64)


def _nearness(depth: FloatArray) -> FloatArray:
    span = float(depth.max() - depth.min())
    return np.ones_like(depth) if span < 1e-9 else (depth - depth.min()) / span


def _bonds(positions: FloatArray, radii: FloatArray) -> list[tuple[int, int]]:
    i, j = np.triu_indices(len(positions), k=1)
    distance = np.linalg.norm(positions[i] - positions[j], axis=1)
    near = distance < BOND_FACTOR * (radii[i] + radii[j])
    return list(zip(i[near].tolist(), j[near].tolist(), strict=True))


def _atom(axes: Axes, number: int, place: FloatArray, radius: float, nearness: float, depth: float) -> None:
    """A disc with a rim and a light, and its symbol where there is room."""
    color = np.asarray(jmol_colors[number])
    x, y = place
    style: dict[str, Any] = {"marker": "o", "zorder": depth, "linestyle": "none"}
    fill, rim = color * (0.82 + 0.18 * nearness), color * 0.45
    axes.plot([x], [y], markersize=2 * radius, markerfacecolor=fill, markeredgecolor=rim, markeredgewidth=1, **style)
    light, place_of_light = 1.0 - (1.0 - color) * 0.35, (x - 0.3 * radius, y + 0.32 * radius)
    axes.plot(
        *[[v] for v in place_of_light], markersize=0.6 * radius, color=light, alpha=0.7, markeredgewidth=0, **style
    )
    if radius > 9:
        ink = "#000000" if color @ [0.3, 0.59, 0.11] > 0.5 else "#ffffff"
        axes.text(
            x, y, chemical_symbols[number], color=ink, fontsize=min(14.0, radius), ha="center", va="center_baseline",
            weight="bold", zorder=depth,
        )  # fmt: skip
