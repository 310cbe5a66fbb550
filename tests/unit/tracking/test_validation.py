from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from alsys.errors import InputError
from alsys.tracking import validation_plots as plots
from alsys.tracking.validation_section import validation_page, validation_section
from alsys.validation.results import DONE, PARTIAL, UnitResult, ValidationRecord, record_path, write_validation

pytestmark = pytest.mark.thorough

EVIL = '<script>alert(1)</script><img src="http://example.org/x.png">'
SCAN = {
    "name": "C0-O1", "kind": "bond", "x": [1.3, 1.4, 1.5], "reference": [0.1, 0.0, 0.2], "model": [0.3, 0.0, 0.2],
    "band": [0.05, 0.0, None],
}  # fmt: skip
CURVES: dict[str, dict[str, Any]] = {
    "parity": {"forces": [[0.1, 0.2], [-0.1, -0.1]], "energies": [[0.01, 0.02], [0.0, 0.0]]},
    "learning": {"versions": [[1, 10, 0.2, 0.1, 0.3], [2, 20, 0.1, None, None]]},
    "calibration": {"nominal": [0.1, 0.9], "calibrated": [0.2, 0.85], "error": [0.01, 0.02], "raw": [0.0, 0.3]},
    "torsions": {"scans": [SCAN | {"kind": "torsion", "name": "H0-C1-O2-H3"}]},
    "bonds": {"scans": [SCAN]},
    "frequencies": {"reference": [300.0, 1000.0], "model": [-50.0, 1010.0]},
    "stability": {"times": [100.0], "survival": [0.5], "low": [0.1], "high": [0.8], "end": 2000.0},
    "distances": {
        "r": [0.5, 1.0, 1.5, 2.0], "model": {"all": [0.0, 1.0, 0.5, 0.0]}, "reference": {"all": [0.0, 0.9, 0.6, 0.0]},
        "is_periodic": False,
    },
}  # fmt: skip


def write(folder: Path, version: int, units: list[UnitResult]) -> None:
    record = ValidationRecord(version, 3, {"engine": "morse"}, tuple(units), 17, 1.5e9)
    write_validation(record_path(folder / "validation", version), record)


def full(system: str = "water") -> list[UnitResult]:
    return [
        UnitResult(
            check,
            "k",
            DONE,
            "" if check in ("parity", "learning", "calibration") else system,
            300.0 if check in ("stability", "distances") else math.nan,
            {"force_mae": 0.0123, "mae": 0.1, "error_max": 0.2, "floor": 0.05},
            curves,
        )
        for check, curves in CURVES.items()
    ]


def test_every_check_has_its_picture_and_its_numbers(tmp_path: Path) -> None:
    write(tmp_path, 2, full())
    html = validation_section(tmp_path, 2)
    titles = re.findall(r"<h3>([^<]*)</h3>", html)
    assert titles == [
        "Parity of forces",
        "Parity of energies",
        "Learning curve on the same frames",
        "Calibration diagram",
        "Torsion H0-C1-O2-H3 of water",
        "Bond C0-O1 of water",
        "Vibrations of water",
        "Stability of dynamics",
        "Distances all of water, 300 K",
    ]
    assert html.count("<svg") == len(titles)
    assert "nan" not in html
    assert "17 reference calculations" in html
    assert "force_mae 12.3 meV/Å" in html
    assert "Largest error 200.0 meV" in html
    assert "not the champion" not in html


def test_distances_without_a_comparison_are_drawn_with_the_halves_of_the_run(tmp_path: Path) -> None:
    own = {"all": [0.0, 1.0, 0.5, 0.0], "H-O": [0.0, 2.0, 1.0, 0.0]}
    curves = {"r": [0.5, 1.0, 1.5, 2.0], "is_periodic": True, "model": own, "first": own, "second": own}
    numbers = {"drift": 0.123, "spread": 0.045, "n_failed": 0.0}
    units = [
        UnitResult("distances", "k", DONE, f"s{k}", temperature, numbers, curves, ("model only: labels are dear",))
        for k in range(5)
        for temperature in (300.0, 500.0)
    ]
    write(tmp_path, 2, units)
    html = validation_section(tmp_path, 2)
    titles = re.findall(r"<h3>([^<]*)</h3>", html)
    assert len(titles) == 16
    assert sum(title.startswith("Distances all of") for title in titles) == 10, "every run has one picture at least"
    assert titles[:2] == ["Distances all of s0, 300 K", "Distances H-O of s0, 300 K"]
    assert "Nothing to compare with" in html
    assert "between the halves of the model&#39;s run 0.123, of its walkers 0.045" in html
    assert "model only: labels are dear" in html
    svg = plots.distances(curves, "H-O", "t")
    assert "first half" in svg
    assert "second half" in svg
    assert "g(r)" in svg
    against = {**curves, "reference": own, "against": "imported trajectory"}
    assert "imported trajectory" in plots.distances(against, "all", "t")


def test_a_page_of_one_version_stands_by_itself(tmp_path: Path) -> None:
    assert validation_page(tmp_path, 2) == ""
    write(tmp_path, 2, full())
    page = validation_page(tmp_path, 2)
    assert page.startswith("<!doctype html>")
    assert page.count("<style>") == page.count("</style>") == 1
    assert page.count("<svg") == 9
    assert "{{" not in page
    assert validation_page(tmp_path, 3) == "", "never another version's"


def test_there_is_no_section_without_a_record_and_another_version_is_named(tmp_path: Path) -> None:
    assert validation_section(tmp_path, 3) == ""
    write(tmp_path, 2, full())
    assert "v0002 (not the champion)" in validation_section(tmp_path, 3)
    write(tmp_path, 3, [UnitResult("torsions", "k", PARTIAL, "water", notes=("the budget is spent",))])
    html = validation_section(tmp_path, 3)
    assert "the budget is spent" in html
    assert "<svg" not in html


def test_names_are_escaped(tmp_path: Path) -> None:
    write(tmp_path, 1, full(EVIL))
    html = validation_section(tmp_path, 1)
    assert "<script" not in html
    assert "<img" not in html
    assert "alert(1)" in html


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "v0001.json").write_text("{")
    with pytest.raises(InputError, match=r"v0001\.json"):
        validation_section(tmp_path, 1)


def test_a_model_that_breaks_down_does_not_hide_the_reference() -> None:
    broken = SCAN | {"model": [300.0, 0.0, None]}
    svg = plots.scan(broken, "water")
    top = max(float(tick.replace(",", "")) for tick in re.findall(r"text-anchor: end[^>]*>([\d,.]+)</text>", svg))
    assert top <= 600.0, "meV; the reference ends at 200"


def test_nothing_to_draw_is_an_empty_string() -> None:
    assert plots.parity([], "x", "meV") == ""
    assert plots.learning([[1, 10, None, None, None]], 1) == ""
    assert plots.calibration({}) == ""
    assert plots.frequencies({}, "water") == ""
    assert plots.survival([]) == ""
    assert plots.survival([("a", {"times": [], "survival": [], "low": [], "high": [], "end": 0.0})]) == ""
    empty = {"r": [1.0, 2.0], "model": {"all": [0.0, 0.0]}, "reference": {"all": [0.0, 0.0]}}
    assert plots.distances(empty, "all", "t") == ""


def test_walkers_that_all_live_are_a_full_line() -> None:
    svg = plots.survival([("water 300 K", {"times": [], "survival": [], "low": [], "high": [], "end": 2000.0})])
    assert "water 300 K" in svg
    assert svg.count("fill: none; stroke: var(--blue") == 2, "the curve and its entry above"
