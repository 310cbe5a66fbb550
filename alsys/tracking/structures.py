"""Drawings of structures as SVG text: atoms as shaded discs, bonds where two atoms are closer than their radii allow.

The view is along the direction of least extent (the principal axis of the positions with the smallest variance), so
that flat molecules lie flat. Bonds: distance below 1.2 times the sum of covalent radii (Cordero et al., Dalton Trans.
2832 (2008), as in ASE). Periodic images are not drawn.
"""

from __future__ import annotations

from html import escape

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from alsys.frames import FloatArray, Frame

SIZE = 240.0
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
    centre = 0.5 * (low + high)
    places = (positions - centre)[:, :2] * [scale, -scale] + SIZE / 2
    nearness = _nearness(positions[:, 2])
    shapes: list[tuple[float, str]] = []
    for i, j in _bonds(positions, radii):
        shapes.append((min(positions[i, 2], positions[j, 2]) - 1e-3, _bond(places[i], places[j], scale)))
    shapes += [
        (float(positions[i, 2]), _atom(int(numbers[i]), places[i], discs[i] * scale, nearness[i])) for i in range(n)
    ]
    body = "".join(shape for _, shape in sorted(shapes, key=lambda item: item[0]))
    return (
        f'<svg class="structure" viewBox="0 0 {SIZE:.0f} {SIZE:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


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


def _bond(first: FloatArray, second: FloatArray, scale: float) -> str:
    line = f'x1="{first[0]:.1f}" y1="{first[1]:.1f}" x2="{second[0]:.1f}" y2="{second[1]:.1f}"'
    width = max(1.5, 0.16 * scale)
    edge = f'<line class="bond-edge" {line} stroke-width="{width + 1.6:.1f}"/>'
    return f'{edge}<line class="bond" {line} stroke-width="{width:.1f}"/>'


def _atom(number: int, place: FloatArray, radius: float, nearness: float) -> str:
    color = np.asarray(jmol_colors[number])
    fill = _hex(color * (0.82 + 0.18 * nearness))
    edge = _hex(color * 0.45)
    light = _hex(1.0 - (1.0 - color) * 0.35)
    x, y = place
    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{fill}" stroke="{edge}" stroke-width="1"/>',
        f'<circle cx="{x - 0.3 * radius:.1f}" cy="{y - 0.32 * radius:.1f}" r="{0.3 * radius:.1f}" '
        f'fill="{light}" opacity="0.7"/>',
    ]
    if radius > 9:
        ink = "#000" if color @ [0.3, 0.59, 0.11] > 0.5 else "#fff"
        size = min(14.0, radius)
        text = f'x="{x:.1f}" y="{y + 0.35 * size:.1f}" style="font-size:{size:.1f}px;fill:{ink}"'
        parts.append(f'<text {text} text-anchor="middle">{chemical_symbols[number]}</text>')
    return "".join(parts)


def _hex(color: FloatArray) -> str:
    return "#" + "".join(f"{round(255 * min(max(float(c), 0.0), 1.0)):02x}" for c in color)
