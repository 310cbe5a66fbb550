"""The style of all pictures, and charts in it: what report and validation draw, by matplotlib's SVG backend.

`to_svg` makes one self-contained ``svg`` element: text is text, the same picture gives the same bytes, colours are the
variables of the page's style sheet (light and dark) with a colour of their own where there is none, and each titled
mark shows its text when it is pointed at. No pyplot: no figure outlives its picture. Data that is not finite is left
out; long series are thinned.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from alsys.frames import FloatArray

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 30, 44
MAX_POINTS = 600
"""Points of one line, and marks of one kind; longer series are thinned."""
COLORS = {"s1": "#2f6fd0", "s2": "#c8741a", "s3": "#24845a", "s4": "#7d55c7", "s5": "#8a93a1", "s6": "#c8413b"}
INK, FAINT, RULE, CARD = "#1d2129", "#667085", "#e2e5ea", "#fefefe"
_NAMES = ("blue", "orange", "green", "violet", "grey", "red", "ink", "faint", "rule", "card")
_VARIABLES = dict(zip((*COLORS.values(), INK, FAINT, RULE, CARD), _NAMES, strict=True))
_DASHED: dict[str, Any] = {"linestyle": (0, (4.0, 3.0)), "linewidth": 1.3}
_DOT: dict[str, Any] = {"linestyle": "none", "marker": "o"}
_RING = _DOT | {"markerfacecolor": "none", "markeredgewidth": 2.0}
_MARKS: dict[str, dict[str, Any]] = {"line": {}, "dash": _DASHED, "dot": _DOT, "ring": _RING}
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "alsys", "text.parse_math": False, "font.size": 12, "figure.dpi": 72,
    "figure.facecolor": "none", "axes.facecolor": "none", "axes.edgecolor": FAINT, "axes.labelcolor": FAINT,
    "axes.linewidth": 1.0, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "axes.labelsize": 12, "grid.color": RULE, "grid.linewidth": 1.0,
    "text.color": INK, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelsize": 11.5, "ytick.labelsize": 11.5,
    "ytick.major.size": 0, "ytick.minor.size": 0, "xtick.minor.size": 0, "legend.frameon": False,
    "legend.fontsize": 12, "lines.solid_joinstyle": "round", "path.simplify": False,
}  # fmt: skip


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
        ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
        return cls(float(ticks[0]), float(ticks[-1]), label)

    def holds(self, value: float) -> bool:
        """Whether a value can be drawn."""
        return math.isfinite(value) and (value > 0 or not self.is_log)

    def clamped(self, values: Sequence[float]) -> FloatArray:
        """Values, those far outside moved just beyond the end that they are at: what breaks down is seen to."""
        margin = 0.02 * (self.high - self.low)
        low, high = (self.low, self.high * 1.02) if self.is_log else (self.low - margin, self.high + margin)
        return np.clip(np.asarray(values, dtype=np.float64), low, high)

    def apply(self, axis: Any) -> None:
        """Scale, range, ticks and label of an axis of matplotlib."""
        axis._set_axes_scale("log" if self.is_log else "linear")
        if self.is_log:
            decades = math.log10(self.high / self.low)
            subs = (1, 2, 3, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 2.5 else (1,)
            axis.set_major_locator(LogLocator(subs=subs, numticks=7 if subs == (1,) else 12))
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=self.is_count))
        axis.set_major_formatter("{x:.0%}" if self.is_percent else "{x:,.6g}")
        axis.set_label_text(self.label)
        axis.set_view_interval(self.low, self.high, ignore=True)


@dataclass(slots=True)
class Chart:
    """One chart; draw on it, then `render`.

    Attributes:
        title: Text for screen readers.
    """

    x: Axis
    y: Axis
    title: str
    _artists: list[Artist] = field(default_factory=list)
    _areas: list[tuple[FloatArray, FloatArray, str]] = field(default_factory=list)
    _tags: list[tuple[float, float, str, str]] = field(default_factory=list)
    _legend: list[Line2D] = field(default_factory=list)
    _titles: dict[str, Sequence[str]] = field(default_factory=dict)

    def legend(self, color: str, text: str, mark: str = "line") -> None:
        """An entry above the plot; `mark` is ``line``, ``dash``, ``dot`` or ``ring``."""
        self._legend.append(Line2D([], [], color=COLORS[color], label=text, **_MARKS[mark]))

    def line(
        self, xs: Sequence[float], ys: Sequence[float], color: str, *, dashed: bool = False, pale: bool = False
    ) -> None:
        """Points joined by straight lines."""
        x, y = _thin(*self._known(xs, ys))
        if len(x) > 1:
            style = _DASHED if dashed else {"linewidth": 1.0, "alpha": 0.45} if pale else {}
            self._add(x, y, color, **style)

    def steps(self, xs: Sequence[float], ys: Sequence[float], color: str, *, fill: bool = False) -> None:
        """A staircase: each value holds from its `x` on."""
        x, y = _thin(*self._known(xs, ys), MAX_POINTS // 2)
        if len(x) < 2:
            return
        if fill:
            self._areas.append((x, y, color))
        self._add(x, y, color, drawstyle="steps-post")

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
        rows = [i for i, (x, y) in enumerate(zip(xs, ys, strict=True)) if self.x.holds(x) and self.y.holds(y)]
        rows = rows[:: max(1, math.ceil(len(rows) / MAX_POINTS))]
        if not rows:
            return
        style = _RING if hollow else _DOT | {"markeredgecolor": CARD, "markeredgewidth": 0.8, "alpha": 0.85}
        x, y = self.x.clamped([xs[i] for i in rows]), self.y.clamped([ys[i] for i in rows])
        own = [titles[i] for i in rows] if titles else ()
        self._add(x, y, color, titles=own, markersize=2 * radius, **style)

    def interval(self, x: float, low: float, high: float, color: str, *, cap: float = 4.0) -> None:
        """A vertical bar with caps."""
        if self.x.holds(x) and self.y.holds(low) and self.y.holds(high):
            self._add([x, x], self.y.clamped([low, high]), color, linewidth=1.2, marker="_", markersize=2 * cap)

    def across(self, y: float, color: str, text: str) -> None:
        """A dashed horizontal line with a text."""
        if self.y.holds(y) and self.y.low <= y <= self.y.high:
            self._add([self.x.low, self.x.high], [y, y], color, **_DASHED)
            self._tags.append((self.x.low, y, text, "normal"))

    def upright(self, x: float, color: str, text: str = "") -> None:
        """A dashed vertical line with a text that shows when it is pointed at."""
        if self.x.holds(x) and self.x.low <= x <= self.x.high:
            ends, titles = [self.y.low, self.y.high], [text] if text else ()
            self._add([x, x], ends, color, titles=titles, **_DASHED)

    def text(self, x: float, y: float, text: str) -> None:
        """A short text beside a point."""
        if self.x.holds(x) and self.y.holds(y):
            self._tags.append((x, y, text, "bold"))

    def render(self) -> str:
        """The chart as one ``svg`` element."""
        with rc_context(STYLE):
            return to_svg(self.figure(), self.title, self._titles)

    def figure(self) -> Figure:
        """The chart as matplotlib's figure; `to_svg` or ``savefig`` draws it, in the style of whoever calls."""
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        place = (LEFT / WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + RIGHT) / WIDTH, 1 - (TOP + BOTTOM) / HEIGHT)
        axes = figure.add_axes(place)
        axes.set_autoscale_on(False)
        self.x.apply(axes.xaxis)
        self.y.apply(axes.yaxis)
        axes.yaxis.set_label_coords(-54 / (WIDTH - LEFT - RIGHT), 0.5)  # beside the longest ticks
        for x, y, color in self._areas:
            axes.fill_between(x, y, step="post", color=COLORS[color], alpha=0.1, linewidth=0)
        for artist in self._artists:
            axes.add_artist(artist)
            artist.set_clip_on(False)
        for tag in self._tags:
            _tag(axes, *tag)
        if self._legend:
            axes.legend(
                handles=self._legend, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=len(self._legend),
                borderaxespad=0, borderpad=0.2, handlelength=1.3, handletextpad=0.4, columnspacing=1.2,
            )  # fmt: skip
        return figure

    def _add(self, x: Any, y: Any, color: str, *, titles: Sequence[str] = (), **style: Any) -> None:
        line = Line2D(x, y, color=COLORS[color], **{"linewidth": 2.0, **style})
        if titles:
            gid = f"titles{len(self._titles)}"
            line.set_gid(gid)
            self._titles[gid] = titles
        self._artists.append(line)

    def _known(self, xs: Sequence[float], ys: Sequence[float]) -> tuple[FloatArray, FloatArray]:
        known = [(x, y) for x, y in zip(xs, ys, strict=True) if self.x.holds(x) and self.y.holds(y)]
        return self.x.clamped([x for x, _ in known]), self.y.clamped([y for _, y in known])


def bars(rows: Sequence[tuple[str, float, str]], title: str, color: str) -> str:
    """Horizontal bars: ``(name, value, text)`` each, the largest full width."""
    height = 26 * len(rows) + 6
    top = max((value for _, value, _ in rows), default=0.0) or 1.0
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        axes = figure.add_axes((158 / WIDTH, 0, 290 / WIDTH, 1))
        axes.set(xlim=(0, top), ylim=(height, 0))
        axes.axis("off")
        for i, (name, value, text) in enumerate(rows):
            y = 15 + 26 * i
            axes.barh(y, value, 18, color=COLORS[color], alpha=0.85)
            axes.annotate(name, (0, y), (-8, 0), textcoords="offset points", ha="right", va="center", color=FAINT)
            axes.annotate(text, (value, y), (6, 0), textcoords="offset points", va="center", color=FAINT)
        return to_svg(figure, title)


def to_svg(figure: Figure, title: str, titles: dict[str, Sequence[str]] | None = None, kind: str = "") -> str:
    """A figure as one ``svg`` element for a page.

    Args:
        figure: Of one pixel a point.
        title: Text for screen readers.
        titles: By the identity of an artist, the texts of its marks, or of the line that it is.
        kind: Class of the element.
    """
    content = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(content.getvalue().encode())
    _tidy(root)
    for group in root.iter("g"):
        texts = (titles or {}).get(group.attrib.pop("id", ""))
        if texts:
            marks = list(group.iter("use")) or list(group.iter("path"))
            for mark, text in zip(marks, texts, strict=True):
                ElementTree.SubElement(mark, "title").text = text
    width, height = (72 * size for size in figure.get_size_inches())
    root.attrib = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img", "aria-label": title}
    if kind:
        root.attrib["class"] = kind
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(root: ElementTree.Element) -> None:
    """Takes out what a page has or must not have: names of spaces and fonts, rules for all of it, long numbers."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        names = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib = {name: _short(name, value) for name, value in names.items() if name != "clip-path"}
        element.text, element.tail = (element.text or "").strip() or None, None
    for element in root.iter("defs"):
        for unused in [*element.findall("style"), *element.findall("clipPath")]:
            element.remove(unused)
    for facts in root.findall("metadata"):
        root.remove(facts)


def _short(name: str, value: str) -> str:
    if name == "style":
        value = re.sub(r"font-family: [^;]*; ", "", value)
        return re.sub("|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found[0]]}, {found[0]})", value)
    value = " ".join(value.split())
    return re.sub(r"-?\d+\.\d{2,}", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), value)


def _tag(axes: Axes, x: float, y: float, text: str, weight: str) -> None:
    is_right = axes.transData.transform((x, y))[0] > WIDTH - 110
    axes.annotate(
        text, (x, y), xytext=(-9 if is_right else 9, 5), textcoords="offset points",
        ha="right" if is_right else "left", annotation_clip=False, weight=weight,
    )  # fmt: skip


def _thin(x: FloatArray, y: FloatArray, most: int = MAX_POINTS) -> tuple[FloatArray, FloatArray]:
    if len(x) <= most:
        return x, y
    rows = np.unique(np.append(np.arange(0, len(x), math.ceil(len(x) / most)), len(x) - 1))
    return x[rows], y[rows]
