"""Metrics of a campaign as a file, and exporters that fail or hang."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.metrics_export import Exporter, MetricsExport, exporters_of
from alsys.campaign.metrics_file import MetricsFile
from alsys.config import parse_config
from alsys.control.campaign_metrics import EXPORTED, Sample
from alsys.errors import InputError
from support.campaigns import FakeCampaign


def run(exporters: Sequence[Exporter], folder: Path) -> FakeCampaign:
    campaign = FakeCampaign(n_labels=20)
    export = MetricsExport(exporters, CampaignFolder(folder), is_tracked=True)
    campaign.run(observe=export)
    export.close()
    return campaign


def test_a_file_holds_the_campaign_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "000001-publish-v0001.json").write_text("{}")
    path = tmp_path / "toy.prom"
    campaign = run([MetricsFile(path, "toy")], tmp_path)
    families = {family.name: family for family in text_string_to_metric_families(path.read_text())}
    found = {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key != "campaign")): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert all(sample.labels["campaign"] == "toy" for family in families.values() for sample in family.samples)
    assert found["alsys_campaign_running",] == 0.0
    assert found["alsys_labels_accepted_total",] == len(campaign.acknowledged.label_ids) == 20
    assert found["alsys_label_duration_seconds_count",] == found["alsys_label_duration_seconds_bucket", "+Inf"] == 20
    assert found["alsys_commit_duration_seconds_sum",] > 0.0
    assert found["alsys_delivery_backlog",] == 1.0
    assert 0.0 < found["alsys_disk_free_bytes",] < found["alsys_disk_size_bytes",]
    for name, family in families.items():
        full = name if name in EXPORTED else f"{name}_total"
        assert (family.type, family.documentation) == (str(EXPORTED[full].kind), EXPORTED[full].meaning)


class Failing:
    """Refuses everything."""

    def __init__(self) -> None:
        self.n_asked = 0

    def export(self, samples: Sequence[Sample]) -> None:
        self.n_asked += 1
        raise OSError("no space")


def test_an_exporter_that_fails_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alsys.campaign.metrics_export.EXPORT_EVERY_S", 0.0)
    failing, path = Failing(), tmp_path / "toy.prom"
    with caplog.at_level(logging.WARNING):
        export = MetricsExport([failing, MetricsFile(path, "toy")], CampaignFolder(tmp_path), is_tracked=False)
        FakeCampaign(n_labels=20).run(observe=export)
        FakeCampaign(n_labels=20).run(observe=export)
        export.close()
    assert failing.n_asked >= 2
    assert [r.getMessage() for r in caplog.records].count(
        "metrics cannot be given away: OSError: no space; it is tried again"
    ) == 1
    assert path.is_file(), "the other one has got them"


class Hanging:
    """Takes what it gets when it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def export(self, samples: Sequence[Sample]) -> None:
        self.let_go.wait(60.0)


def test_an_exporter_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alsys.campaign.metrics_export.LAST_S", 0.05)
    hanging = Hanging()
    campaign = run([hanging], tmp_path)
    hanging.let_go.set()
    assert len(campaign.acknowledged.label_ids) == 20


TOY = {
    "name": "toy",
    "systems": [{"smiles": "O"}],
    "labeling": {"kind": "xtb"},
    "model": {"kind": "pair"},
    "stop": {"labels": 10},
}


def test_who_asks_for_none_has_none() -> None:
    assert exporters_of(parse_config(TOY, source=None)) == []
    file = {**TOY, "runtime": {"kind": "in-process", "metrics_file": "/var/lib/node_exporter/toy.prom"}}
    assert [type(exporter) for exporter in exporters_of(parse_config(file, source=None))] == [MetricsFile]


@pytest.mark.parametrize(
    ("path", "said"), [("toy.prom", "must be a path from / or ~"), ("/var/toy.txt", "runtime.metrics_file")]
)
def test_a_file_that_no_collector_reads_is_refused(path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_config({**TOY, "runtime": {"metrics_file": path}}, source=None)
