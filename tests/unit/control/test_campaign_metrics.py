"""What a monitoring system is told of a campaign."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from alsys.control.campaign_metrics import EXPORTED, MetricKind, Sample, samples
from alsys.control.coordinator import Coordinator
from alsys.control.ports import PoolState, Role
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Durations
from alsys.errors import FailureKind
from alsys.store.memory import open_reader
from alsys.testing.fakes import FakeLabeler
from support.campaigns import FakeCampaign

Told = dict[tuple[str, ...], float | Durations]


def told_by(found: list[Sample]) -> Told:
    return {(sample.name, *sample.labels): sample.value for sample in found}


def run(labeler: Callable[[], Any] = FakeLabeler, **settings: Any) -> tuple[FakeCampaign, Told]:
    """A campaign, and what is told at its end."""
    last: list[Coordinator] = []
    campaign = FakeCampaign(**settings)
    campaign.run(labeler=labeler, observe=last.append)
    commits = last[-1].commits
    return campaign, told_by(samples(campaign.ledger, *last[-1].staff(), commits.durations, is_refused=False))


def failing_labeler() -> FakeLabeler:
    calls = iter(range(10_000))
    kinds = {1: FailureKind.SCF_NOT_CONVERGED, 3: FailureKind.TIMEOUT}
    return FakeLabeler(failure=lambda _: kinds.get(next(calls) % 6))


def test_labels_and_failures_are_counted() -> None:
    campaign, told = run(failing_labeler)
    ledger = campaign.ledger
    failed = {name[1]: n for name, n in told.items() if name[0] == "alsys_label_attempts_failed_total"}
    assert {kind for kind, n in failed.items() if n} == {"scf-not-converged", "timeout"}
    assert sum(n for n in failed.values() if isinstance(n, float | int)) == ledger.totals.failed > 0
    assert told["alsys_labels_accepted_total",] == len(set(campaign.acknowledged.label_ids)) == 60
    assert sum(n for name, n in told.items() if name[0] == "alsys_labels" and isinstance(n, int)) == 60
    assert told["alsys_labels", "random"] == 12
    assert (
        ledger.totals.quarantined == told["alsys_frames_quarantined_total",] == told["alsys_candidates", "quarantined"]
    )
    assert ledger.totals.quarantined > 0
    assert told["alsys_budget_fraction", "labels"] == 1.0
    assert (told["alsys_campaign_running",], told["alsys_labels_wanted",]) == (0.0, 0.0)
    durations = told["alsys_label_duration_seconds",]
    assert isinstance(durations, Durations)
    assert sum(durations.counts) == 60
    assert told["alsys_champion_version",] == ledger.champion > 0
    assert told["alsys_fits_total",] == len(ledger.models)
    assert (told["alsys_workers_up", "labelers"], told["alsys_workers_asked", "trainers"]) == (2, 1)


def test_what_grows_is_counted_over_all_drivers() -> None:
    campaign, told = run(failing_labeler)
    again = Ledger.fold(campaign.settings, open_reader(campaign.disk).iter_events())
    told_again = told_by(samples(again, PoolState(), {}, Durations((1.0,)), is_refused=False))
    own = ("alsys_commit_duration_seconds", "alsys_nodes_gone_total")
    growing = [name for name in told if EXPORTED[name[0]].kind is not MetricKind.GAUGE and name[0] not in own]
    assert len(growing) > 15
    assert {name: told_again[name] for name in growing} == {name: told[name] for name in growing}


def test_workers_are_told_of_by_role() -> None:
    staff = PoolState(
        asked=4,
        up=2,
        waiting={"trainer-0": "{GPU: 1}", "labeler-3": "{CPU: 1}"},
        asked_of={Role.TRAINER: 1, Role.LABELER: 3},
        up_of={Role.LABELER: 2},
        n_nodes=3,
        n_nodes_gone=1,
    )
    roles = {"trainer-0": Role.TRAINER, "labeler-3": Role.LABELER, "explorer-0": Role.EXPLORER}
    campaign = FakeCampaign()
    told = told_by(samples(campaign.ledger, staff, roles, Durations((1.0,)), is_refused=True))
    by_role = {role: tuple(told[f"alsys_workers_{what}", role] for what in ("asked", "up", "waiting")) for role in Role}
    assert by_role == {Role.TRAINER: (1, 0, 1), Role.LABELER: (3, 2, 1), Role.EXPLORER: (0, 0, 0)}
    assert (told["alsys_nodes",], told["alsys_nodes_gone_total",], told["alsys_disk_refusing",]) == (3, 1, 1.0)


def test_samples_are_of_the_table() -> None:
    _, told = run(failing_labeler, is_calibrated=True)
    for (name, *labels), value in told.items():
        metric = EXPORTED[name]
        assert len(labels) == len(metric.labels), name
        assert isinstance(value, Durations) is (metric.kind is MetricKind.HISTOGRAM), name
        assert isinstance(value, Durations) or value == value, f"{name} is no number"


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, metric in EXPORTED.items():
        assert re.fullmatch(r"alsys_[a-z_]+", name), name
        assert name.endswith("_total") is (metric.kind is MetricKind.COUNTER), name
        assert bool(metric.limits) is (metric.kind is MetricKind.HISTOGRAM), name
        assert list(metric.limits) == sorted(metric.limits)
        assert "campaign" not in metric.labels
        assert not re.search(r"_(ms|minutes|hours|mb|gb|percent)(_|$)", name) or name == "alsys_node_hours_total"


def test_durations_are_counted_between_limits() -> None:
    durations = Durations((1.0, 10.0))
    for seconds in (0.0, 1.0, 1.1, 10.0, 11.0, 1e9):
        durations.add(seconds)
    assert durations.counts == [2, 2, 2]
