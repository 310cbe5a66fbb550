"""The section Validation of the report: the champion's record, or that of the latest version that has one.

Reads `validation/vNNNN.json`; a campaign that was never validated has no such section, a damaged record is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from alsys.tracking import validation_plots as plots
from alsys.units import MEV
from alsys.validation.results import UnitResult, ValidationRecord, read_validation, record_path

MAX_SCANS = 12
"""Profiles that are drawn; those of the largest errors first."""
MAX_DISTANCES = 16
"""Distributions that are drawn: that of all pairs of every run first."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, and what is written above and below it."""

    title: str
    svg: Markup
    note: str


def validation_section(campaign_dir: Path, champion: int) -> Markup:
    """The section as HTML; empty where nothing was validated.

    Raises:
        InputError: The record is damaged.
    """
    record = _record_of(campaign_dir / "validation", champion)
    if record is None or not record.units:
        return Markup()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("alsys.tracking").joinpath("validation.html.j2").read_text(encoding="utf-8")
    return Markup(
        environment.from_string(text).render(
            version=f"v{record.version:04d}",
            is_champion=record.version == champion,
            n_labels=record.n_labels,
            figures=[figure for figure in _figures(record) if figure.svg],
            rows=[(unit.place, unit.status, _numbers_of(unit), "; ".join(unit.notes)) for unit in record.units],
        )
    )


def validation_page(campaign_dir: Path, version: int) -> str:
    """The section of one version as a page by itself, in the report's style; empty where it was never validated.

    Raises:
        InputError: The record is damaged.
    """
    if not record_path(campaign_dir / "validation", version).is_file():
        return ""
    section = validation_section(campaign_dir, version)
    if not section:
        return ""
    report = resources.files("alsys.tracking").joinpath("report.html.j2").read_text(encoding="utf-8")
    style = report[report.index("<style>") : report.index("</style>")] + "</style>"
    head = f'<meta charset="utf-8"><title>v{version:04d} · alsys validation</title>{style}'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{section}</main></body></html>'


def _record_of(folder: Path, champion: int) -> ValidationRecord | None:
    record = read_validation(record_path(folder, champion)) if champion else None
    if record is not None:
        return record
    others = sorted(folder.glob("v[0-9][0-9][0-9][0-9]*.json"))
    return read_validation(others[-1]) if others else None


def _figures(record: ValidationRecord) -> list[Figure]:
    by_check: dict[str, list[UnitResult]] = {}
    for unit in record.units:
        if unit.curves:
            by_check.setdefault(unit.check, []).append(unit)
    figures: list[Figure] = []
    for unit in by_check.get("parity", []):
        for name, what, key, label in (
            ("Parity of forces", "force component", "forces", "meV/Å"),
            ("Parity of energies", "energy per atom, less the mean of its composition", "energies", "meV"),
        ):
            svg = plots.parity(unit.curves[key], what.partition(",")[0], label)
            figures.append(Figure(name, Markup(svg), f"Random arm, {what}; the largest errors are always shown."))
    for unit in by_check.get("learning", []):
        svg = plots.learning(unit.curves["versions"], record.version)
        note = "Every version measured again on the random arm of today, so that all see the same frames."
        figures.append(Figure("Learning curve on the same frames", Markup(svg), note))
    for unit in by_check.get("calibration", []):
        note = "Cross-validated over trajectories. Below the diagonal errors are larger than claimed."
        figures.append(Figure("Calibration diagram", Markup(plots.calibration(unit.curves)), note))
    figures += _scans([*by_check.get("torsions", []), *by_check.get("bonds", [])])
    for unit in by_check.get("frequencies", []):
        note = f"Mean absolute error {_text(unit, 'mae_per_cm', '.1f')} 1/cm."
        figures.append(
            Figure(f"Vibrations of {unit.system}", Markup(plots.frequencies(unit.curves, unit.system)), note)
        )
    runs = [(f"{unit.system} {unit.temperature:g} K", unit.curves) for unit in by_check.get("stability", [])]
    note = "Kaplan-Meier estimate; bars are 95 % intervals."
    figures.append(Figure("Stability of dynamics", Markup(plots.survival(runs)), note))
    return figures + _distances(by_check.get("distances", []))


def _scans(units: Sequence[UnitResult]) -> list[Figure]:
    def error(curves: dict[str, list[float | None]]) -> float:
        pairs = zip(curves["model"], curves["reference"], strict=True)
        return max((abs(m - r) for m, r in pairs if m is not None and r is not None), default=0.0)

    found = [(error(curves), unit.system, curves) for unit in units for curves in unit.curves["scans"]]
    chosen = sorted(range(len(found)), key=lambda k: -found[k][0])[:MAX_SCANS]
    figures = []
    for k in sorted(chosen):
        largest, system, curves = found[k]
        title = f"{str(curves['kind']).capitalize()} {curves['name']} of {system}"
        note = f"Rigid scan. Largest error {largest / MEV:.1f} meV."
        figures.append(Figure(title, Markup(plots.scan(curves, system)), note))
    return figures


def _distances(units: Sequence[UnitResult]) -> list[Figure]:
    places = [(k, rank, pair) for k, unit in enumerate(units) for rank, pair in enumerate(unit.curves["model"])]
    chosen = sorted(places, key=lambda place: place[1])[:MAX_DISTANCES]
    figures = []
    for k, _, pair in sorted(chosen):
        unit = units[k]
        title = f"Distances {pair} of {unit.system}, {unit.temperature:g} K"
        svg = plots.distances(unit.curves, pair, title)
        figures.append(Figure(title, Markup(svg), _about_distances(unit)))
    return figures


def _about_distances(unit: UnitResult) -> str:
    """What is known of a distribution beside its picture."""
    drift, spread = _text(unit, "drift", ".3f"), _text(unit, "spread", ".3f")
    own = f"between the halves of the model's run {drift}, of its walkers {spread}"
    if "reference" not in unit.curves:
        return f"Nothing to compare with. Integrated difference over all pairs {own}."
    found, floor = _text(unit, "mae", ".3f"), _text(unit, "floor", ".3f")
    return f"Integrated difference over all pairs {found}; noise alone {floor}; {own}."


def _text(unit: UnitResult, name: str, form: str) -> str:
    """A number of a result; a dash where it has none."""
    return format(unit.metrics[name], form) if name in unit.metrics else "–"


_IN_MEV = (
    "energy_mae",
    "energy_rmse",
    "force_mae",
    "force_rmse",
    "error_mean",
    "error_max",
    "barrier",
    "strain",
    "zero",
)


def _numbers_of(unit: UnitResult) -> str:
    """The numbers of a result in one line, in meV where they are energies or forces."""
    parts = []
    for name, value in unit.metrics.items():
        if name.startswith(_IN_MEV) or name == "force_worst":
            parts.append(f"{name} {value / MEV:.4g} meV" + ("/Å" if name.startswith("force") else ""))
        else:
            parts.append(f"{name} {value:.4g}")
    return ", ".join(parts)
