"""The dashboard, the alerts and their table in docs/ name what campaigns export, and all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alsys.control.campaign_metrics import EXPORTED, MetricKind

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy/prometheus"
DOCS = (ROOT / "docs/monitoring.md").read_text()


def dashboard() -> dict[str, Any]:
    return json.loads((ROOT / "deploy/grafana/alsys.json").read_text())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alsys.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def series_of(name: str) -> set[str]:
    """Names of the time series of a metric."""
    kinds = ("_bucket", "_sum", "_count") if EXPORTED[name].kind is MetricKind.HISTOGRAM else ("",)
    return {f"{name}{kind}" for kind in kinds}


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for rule in rules():
        yield rule["expr"]


def named(expression: str) -> set[str]:
    return set(re.findall(r"\balsys_[a-z_]+", expression))


def test_whatever_is_asked_for_is_exported() -> None:
    exported = {series for name in EXPORTED for series in series_of(name)}
    for expression in expressions():
        assert named(expression) <= exported, expression
        assert named(expression), expression


def test_what_is_exported_is_shown_or_watched_and_all_of_it_is_documented() -> None:
    asked = {name for expression in expressions() for name in named(expression)}
    assert [name for name in EXPORTED if not series_of(name) & asked] == []
    rows = re.findall(r"^\| `(alsys_[a-z_]+)` \| (\w+) \| ([^|]*) \| (.*) \|$", DOCS, re.MULTILINE)
    documented = {name: (kind, re.findall(r"`(\w+)`", labels), meaning) for name, kind, labels, meaning in rows}
    assert documented == {name: (str(m.kind), list(m.labels), m.meaning) for name, m in EXPORTED.items()}


def test_rates_are_of_what_grows_and_only_of_that() -> None:
    growing = {s for name, m in EXPORTED.items() if m.kind is not MetricKind.GAUGE for s in series_of(name)}
    n_found = 0
    for expression in expressions():
        for name in re.findall(r"\b(?:rate|increase)\((alsys_[a-z_]+)", expression):
            n_found += 1
            assert name in growing, expression
    assert n_found > 10


def test_labels_that_are_asked_for_are_there() -> None:
    for expression in expressions():
        for name, matchers in re.findall(r"(alsys_[a-z_]+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)[=!]", matchers)) - {"campaign"}
            metric = EXPORTED.get(name) or EXPORTED[re.sub("_(bucket|sum|count)$", "", name)]
            assert asked <= set(metric.labels), expression
        for labels, name in re.findall(r"by \(([^)]*)\) \((?:\w+\()?(alsys_[a-z_]+)", expression):
            metric = EXPORTED.get(name) or EXPORTED[re.sub("_(bucket|sum|count)$", "", name)]
            assert set(labels.split(", ")) <= {"campaign", "le", *metric.labels}, expression


def test_each_alert_is_documented_and_tried() -> None:
    tried = (PROMETHEUS / "alsys.rules.test.yml").read_text()
    for rule in rules():
        assert f"`{rule['alert']}`" in DOCS
        assert f'alertname="{rule["alert"]}", campaign="bad"' in tried or rule["alert"] == "AlsysDriverGone"
        assert rule["annotations"].keys() == {"summary", "remedy"}
        assert "{{ $labels.campaign }}" in rule["annotations"]["summary"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
