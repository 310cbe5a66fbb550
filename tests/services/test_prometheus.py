"""A real Prometheus scrapes a campaign on Ray: each query of the dashboard has data, each alert can be evaluated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from alsys.control.campaign_metrics import EXPORTED
from services.prometheus import DEPLOYED, NAME, PATIENCE_S, ROOT, Prometheus, campaign, free_port, prometheus

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed (Debian: apt-get install prometheus)",
)
DASHBOARD = json.loads((ROOT / "deploy/grafana/alsys.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
RULES = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((DEPLOYED / "alsys.rules.yml").read_text())["groups"]
    for rule in group["rules"]
}


@dataclass(frozen=True)
class Watched:
    """A campaign that runs, who watches it, and where."""

    server: Prometheus
    folder: Path
    endpoint: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder, port = tmp_path_factory.mktemp("fleet"), free_port()
    with prometheus(folder / "prometheus", [f"127.0.0.1:{port}"]) as server, campaign(folder, port) as directory:
        yield Watched(server, directory, f"http://127.0.0.1:{port}/metrics")


def of_panel(expression: str) -> str:
    """As Grafana would ask."""
    return expression.replace("$campaign", NAME).replace("$__rate_interval", "1m")


@pytest.mark.timeout(600)
def test_every_query_of_the_dashboard_returns_data(watched: Watched) -> None:
    lacking, deadline = dict(QUERIES), time.monotonic() + PATIENCE_S
    while lacking and time.monotonic() < deadline:
        lacking = {name: query for name, query in lacking.items() if not watched.server.values(of_panel(query))}
        time.sleep(2.0)
    assert lacking == {}
    assert len(QUERIES) > 40


@pytest.mark.timeout(600)
def test_every_alert_can_be_evaluated_and_knows_its_metrics(watched: Watched) -> None:
    names = {name for expression in RULES.values() for name in re.findall(r"\balsys_[a-z_]+", expression)}
    missing = [name for name in sorted(names) if not watched.server.values(f'{name}{{campaign="{NAME}"}}')]
    assert missing == []
    for expression in RULES.values():
        watched.server.ask("query", query=expression)
    groups = watched.server.ask("rules")["groups"]
    told = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert told.keys() == RULES.keys()
    assert {name: rule.get("lastError") for name, rule in told.items() if rule["health"] != "ok"} == {}
    assert {name for name, rule in told.items() if rule["state"] == "firing"} == set()


@pytest.mark.timeout(600)
def test_prometheus_knows_what_the_status_says(watched: Watched) -> None:
    live = json.loads((watched.folder / "logs" / "live.json").read_text())
    selector = f'{{campaign="{NAME}"}}'
    deadline = time.monotonic() + PATIENCE_S
    accepted = live["labels"]["accepted"] + live["labels"]["free_atoms"]
    while max(watched.server.values(f"alsys_labels_accepted_total{selector}"), default=0.0) < accepted:
        assert time.monotonic() < deadline
        time.sleep(1.0)
    now = json.loads((watched.folder / "logs" / "live.json").read_text())
    n_labels = now["labels"]["accepted"] + now["labels"]["free_atoms"]
    assert max(watched.server.values(f"alsys_labels_accepted_total{selector}")) <= n_labels + 8, "a second's labels"
    assert max(watched.server.values(f"alsys_walker_steps_total{selector}")) > 1000
    with urllib.request.urlopen(watched.endpoint, timeout=30.0) as answer:
        families = {family.name: family.type for family in text_string_to_metric_families(answer.read().decode())}
    exported = {name: str(metric.kind) for name, metric in EXPORTED.items()}
    assert {name: families.get(f"ray_{name.removesuffix('_total')}") for name in exported} == exported


@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules alsys.rules.yml", "test rules alsys.rules.test.yml"]
)
def test_promtool_finds_nothing(command: str) -> None:
    done = subprocess.run(["promtool", *command.split()], cwd=DEPLOYED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
