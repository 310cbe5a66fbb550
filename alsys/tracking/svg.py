"""Small charts as SVG text: axes, ticks, lines, points, bars. No matplotlib, no script, light and dark by CSS.

Colours are the classes ``s1`` to ``s6`` of the page's style sheet, text takes the page's font and colour. Data that is
not finite is left out. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 14.0, 30.0, 44.0
MAX_POINTS = 600
"""Points of one line; longer series are thinned."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of data along one direction.

    Attributes:
        low: Data at its start.
        high: Data at its end; larger than `low`.
        label: Quantity and unit.
        is_log: Logarithmic; then `low` is above zero.
        is_percent: Ticks as percentages.
        is_count: Ticks at whole numbers only.
    """

    low: float
    high: float
    label: str
    is_log: bool = False
    is_percent: bool = False
    is_count: bool = False

    @classmethod
    def fit(cls, values: Sequence[float], label: str, *, is_log: bool = False, zero: bool = False) -> Axis:
        """An axis that holds all finite `values`, rounded outwards to ticks; from zero where `zero`."""
        finite = [v for v in values if math.isfinite(v) and (v > 0 or not is_log)] or [1.0]
        low, high = min(finite), max(finite)
        if is_log:
            return cls(low / 1.25, high * 1.25, label, is_log=True)
        if zero:
            low = min(0.0, low)
        if high <= low:
            high = low + (abs(low) or 1.0)
        step = tick_step(high - low)
        first = math.floor(low / step + 1e-9) * step
        return cls(first, max(math.ceil(high / step - 1e-9) * step, first + step), label)

    def share(self, value: float) -> float:
        """Position between 0 and 1."""
        if self.is_log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        """Whether a value can be drawn."""
        return math.isfinite(value) and (value > 0 or not self.is_log)

    def ticks(self) -> list[float]:
        """Round values within the range."""
        if not self.is_log:
            step = tick_step(self.high - self.low)
            step = max(1.0, step) if self.is_count else step
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [i * step for i in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        n_decades = math.log10(self.high / self.low)
        factors = (1, 2, 3, 5, 7) if n_decades < 0.8 else (1, 2, 5) if n_decades < 2.5 else (1,)
        values = [f * 10.0**d for d in decades for f in factors]
        every = max(1, math.ceil(n_decades / 6)) if factors == (1,) else 1
        return [v for v in values if self.low <= v <= self.high][::every]

    def text(self, value: float) -> str:
        """A tick's text."""
        if self.is_percent:
            return f"{value:.0%}"
        if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
            return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
        return f"{value:,.6g}"


def tick_step(span: float, n: int = 5) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts `span` into about `n` parts."""
    raw = span / n
    power = 10.0 ** math.floor(math.log10(raw))
    return next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= raw * 0.999)


@dataclass(slots=True)
class Chart:
    """One chart; draw on it, then `render`.

    Attributes:
        title: Text for screen readers.
    """

    x: Axis
    y: Axis
    title: str
    _parts: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, str]] = field(default_factory=list)

    def legend(self, color: str, text: str, mark: str = "line") -> None:
        """An entry above the plot; `mark` is ``line``, ``dash``, ``dot`` or ``ring``."""
        self._legend.append((color, text, mark))

    def line(self, xs: Sequence[float], ys: Sequence[float], color: str, *, dashed: bool = False) -> None:
        """Points joined by straight lines."""
        pairs = _thin(self._pairs(xs, ys))
        if len(pairs) > 1:
            points = " ".join(f"{px:.1f},{py:.1f}" for px, py in pairs)
            self._parts.append(f'<polyline class="line {color}{" dash" if dashed else ""}" points="{points}"/>')

    def steps(self, xs: Sequence[float], ys: Sequence[float], color: str, *, fill: bool = False) -> None:
        """A staircase: each value holds from its `x` on."""
        pairs = _thin(self._pairs(xs, ys))
        if len(pairs) < 2:
            return
        path = f"M{pairs[0][0]:.1f},{pairs[0][1]:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in pairs[1:])
        if fill:
            bottom = HEIGHT - BOTTOM
            area = f"{path}V{bottom:.1f}H{pairs[0][0]:.1f}Z"
            self._parts.append(f'<path class="area {color}" d="{area}"/>')
        self._parts.append(f'<path class="line {color}" d="{path}"/>')

    def points(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        color: str,
        *,
        radius: float = 3.0,
        hollow: bool = False,
        titles: Sequence[str] = (),
    ) -> None:
        """Round marks, each with a text that shows when it is pointed at."""
        for i, (value_x, value_y) in enumerate(zip(xs, ys, strict=True)):
            if not (self.x.holds(value_x) and self.y.holds(value_y)):
                continue
            px, py = self._at(value_x, value_y)
            title = f"<title>{escape(titles[i])}</title>" if titles else ""
            kind = "ring" if hollow else "dot"
            self._parts.append(
                f'<circle class="{kind} {color}" cx="{px:.1f}" cy="{py:.1f}" r="{radius}">{title}</circle>'
            )

    def interval(self, x: float, low: float, high: float, color: str, *, cap: float = 4.0) -> None:
        """A vertical bar with caps."""
        if not (self.x.holds(x) and self.y.holds(low) and self.y.holds(high)):
            return
        px, top = self._at(x, high)
        _, bottom = self._at(x, low)
        path = (
            f"M{px:.1f},{bottom:.1f}V{top:.1f}M{px - cap:.1f},{top:.1f}h{2 * cap}M{px - cap:.1f},{bottom:.1f}h{2 * cap}"
        )
        self._parts.append(f'<path class="line thin {color}" d="{path}"/>')

    def across(self, y: float, color: str, text: str) -> None:
        """A dashed horizontal line with a text."""
        if self.y.holds(y) and self.y.low <= y <= self.y.high:
            _, py = self._at(self.x.low, y)
            self._parts.append(f'<path class="line thin dash {color}" d="M{LEFT},{py:.1f}H{WIDTH - RIGHT}"/>')
            self._parts.append(
                f'<text class="note" x="{WIDTH - RIGHT - 3}" y="{py - 4:.1f}" text-anchor="end">{escape(text)}</text>'
            )

    def upright(self, x: float, color: str, text: str = "") -> None:
        """A dashed vertical line with a text."""
        if self.x.holds(x) and self.x.low <= x <= self.x.high:
            px, _ = self._at(x, self.y.high)
            title = f"<title>{escape(text)}</title>" if text else ""
            self._parts.append(
                f'<path class="line thin dash {color}" d="M{px:.1f},{TOP}V{HEIGHT - BOTTOM}">{title}</path>'
            )

    def text(self, x: float, y: float, text: str) -> None:
        """A short text above a point."""
        if self.x.holds(x) and self.y.holds(y):
            px, py = self._at(x, y)
            anchor = "end" if px > WIDTH - 110 else "start"
            shift = -9 if anchor == "end" else 9
            self._parts.append(
                f'<text class="tag" x="{px + shift:.1f}" y="{py - 8:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
            )

    def render(self) -> str:
        """The chart as one ``svg`` element."""
        body = "".join([self._grid(), *self._parts, self._legend_text()])
        return f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(self.title)}">{body}</svg>'

    def _at(self, x: float, y: float) -> tuple[float, float]:
        px = LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT)
        py = HEIGHT - BOTTOM - min(max(self.y.share(y), -0.02), 1.02) * (HEIGHT - TOP - BOTTOM)
        return px, py

    def _pairs(self, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
        return [self._at(x, y) for x, y in zip(xs, ys, strict=True) if self.x.holds(x) and self.y.holds(y)]

    def _grid(self) -> str:
        bottom = HEIGHT - BOTTOM
        parts = []
        for value in self.y.ticks():
            _, py = self._at(self.x.low, value)
            parts.append(f'<path class="grid" d="M{LEFT},{py:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{self.y.text(value)}</text>'
            )
        for value in self.x.ticks():
            px, _ = self._at(value, self.y.low)
            parts.append(f'<path class="grid" d="M{px:.1f},{bottom}v4"/>')
            place = f'x="{px:.1f}" y="{bottom + 16:.1f}" text-anchor="middle"'
            parts.append(f'<text class="tick" {place}>{self.x.text(value)}</text>')
        middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2
        parts.append(f'<path class="frame" d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="label" x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x.label)}</text>'
        )
        turn = f'transform="translate(13,{middle_y}) rotate(-90)"'
        parts.append(f'<text class="label" {turn} text-anchor="middle">{escape(self.y.label)}</text>')
        return "".join(parts)

    def _legend_text(self) -> str:
        parts, px = [], LEFT
        for color, text, mark in self._legend:
            if mark in ("dot", "ring"):
                parts.append(f'<circle class="{mark} {color}" cx="{px + 8}" cy="12" r="4"/>')
            else:
                dash = " dash" if mark == "dash" else ""
                parts.append(f'<path class="line {color}{dash}" d="M{px},12h16"/>')
            parts.append(f'<text class="key" x="{px + 21}" y="16">{escape(text)}</text>')
            px += 36 + 6.8 * len(text)
        return "".join(parts)


def bars(rows: Sequence[tuple[str, float, str]], title: str, color: str) -> str:
    """Horizontal bars: ``(name, value, text)`` each, the largest full width."""
    top = max((value for _, value, _ in rows), default=0.0) or 1.0
    height = 26 * len(rows) + 6
    parts = []
    for i, (name, value, text) in enumerate(rows):
        y = 6 + 26 * i
        width = 290 * value / top
        parts.append(f'<text class="tick" x="150" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar {color}" x="158" y="{y}" width="{width:.1f}" height="18" rx="3"/>')
        parts.append(f'<text class="tick" x="{164 + width:.1f}" y="{y + 14}">{escape(text)}</text>')
    return f'<svg viewBox="0 0 {WIDTH:.0f} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _thin(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(pairs) <= MAX_POINTS:
        return pairs
    stride = math.ceil(len(pairs) / MAX_POINTS)
    kept = pairs[::stride]
    return kept if kept[-1] == pairs[-1] else [*kept, pairs[-1]]
