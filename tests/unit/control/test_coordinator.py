"""The whole loop in one process on fakes: the permanent specification of how a campaign behaves."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.control.status import lost_text, status_of
from alsys.errors import CampaignFailed, FailureKind
from alsys.events import ErrorsObserved, LabelAccepted, StopRequested
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.frames import Arm, Frame
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.store.base import Snapshot
from alsys.store.encoding import to_hex
from alsys.store.memory import open_reader
from alsys.testing.fakes import FAKE_LEVEL, FakeExplorer, FakeLabeler, FakeTrainer
from alsys.testing.policies import policy_settings
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from support.campaigns import FakeCampaign as Campaign


def test_a_thousand_labels_in_under_ten_seconds() -> None:
    campaign = Campaign(n_labels=1000, refit_every=100)
    started = time.perf_counter()
    stopped = campaign.run(explorer=lambda: FakeExplorer(n_candidates=16))
    assert time.perf_counter() - started < 10.0
    assert stopped.reason == "labels"
    assert campaign.ledger.n_labels == 1000
    assert len(set(campaign.acknowledged.label_ids)) == len(campaign.acknowledged.label_ids) == 1000


def test_every_label_is_learned_from_and_the_best_model_is_champion() -> None:
    campaign = Campaign()
    assert campaign.run().reason == "labels"
    ledger = campaign.ledger
    last = ledger.models[max(ledger.models)]
    assert last.n_labels == 60
    assert ledger.champion == max(ledger.models)
    assert campaign.registry.published == sorted(ledger.models)
    assert campaign.registry.promoted[-1] == ledger.champion
    assert sorted(campaign.bundles.states) == sorted(ledger.models)


def test_random_arm_gets_its_share() -> None:
    campaign = Campaign(n_labels=200, random_share=0.25)
    campaign.run()
    assert abs(campaign.ledger.accepted[Arm.RANDOM] - 50) <= 4


def test_walkers_never_start_from_the_test_set() -> None:
    campaign = Campaign(n_labels=100, random_share=0.4)
    campaign.run()
    ledger = campaign.ledger
    assert ledger.accepted[Arm.RANDOM] > 20
    assert len(ledger.labelled) == ledger.n_train
    assert all(ledger.frames[frame_id].arm is not Arm.RANDOM for frame_id in ledger.labelled)


def test_log_folds_to_the_state_of_the_campaign_that_wrote_it() -> None:
    campaign = Campaign()
    campaign.run()
    reader = open_reader(campaign.disk)
    folded = Ledger.fold(campaign.settings, reader.events())
    assert folded.counts == campaign.ledger.counts
    assert folded.champion == campaign.ledger.champion
    assert folded.is_balanced
    assert reader.verify().problems == []


def test_rounds_mode_never_explores_or_trains_beside_labels() -> None:
    campaign = Campaign(is_rounds=True)
    assert campaign.run().reason == "labels"
    assert campaign.ledger.n_labels == 60
    assert len(campaign.ledger.models) >= 3


@pytest.mark.parametrize(("n_labels", "share"), [(86, 0.2), (89, 0.3)])
def test_a_round_with_frames_of_the_random_arm_left_over_is_no_end(n_labels: int, share: float) -> None:
    """Too few labels for a fit, and the random arm has its share: nobody was given anything any more."""
    campaign = Campaign(is_rounds=True, n_labels=n_labels, refit_every=7, random_share=share)
    assert campaign.run().reason == "labels"
    assert campaign.ledger.n_labels == n_labels


def test_failed_labels_are_retried_or_quarantined_and_stop_nothing() -> None:
    calls = {"n": 0}

    def failure(_: object) -> FailureKind | None:
        calls["n"] += 1
        kinds = {0: FailureKind.SCF_NOT_CONVERGED, 3: FailureKind.TIMEOUT}
        return kinds.get(calls["n"] % 7)

    campaign = Campaign()
    assert campaign.run(labeler=lambda: FakeLabeler(failure=failure)).reason == "labels"
    ledger = campaign.ledger
    assert ledger.n_labels == 60
    assert ledger.counts[Status.QUARANTINED] > 0
    assert ledger.totals.failed > ledger.counts[Status.QUARANTINED]


def test_a_labeler_that_raises_is_replaced() -> None:
    calls = {"n": 0}

    class Fragile(FakeLabeler):
        def label(self, frame: Any) -> Any:
            calls["n"] += 1
            if calls["n"] % 10 == 0:
                raise RuntimeError("bug")
            return super().label(frame)

    campaign = Campaign()
    assert campaign.run(labeler=Fragile).reason == "labels"
    assert campaign.ledger.totals.workers_lost > 0
    assert campaign.ledger.n_labels == 60


@pytest.mark.parametrize("use_threads", [False, True])
def test_an_explorer_that_cannot_be_built_anew_at_once_is_so_later(use_threads: bool) -> None:
    """As where a GPU is still full of the one that raised."""
    built: list[FakeExplorer] = []

    class Full(FakeExplorer):
        def __init__(self) -> None:
            built.append(self)
            if len(built) in (2, 3):
                raise RuntimeError("CUDA out of memory")
            super().__init__()

        def run(self, order: ExplorationOrder) -> ExplorationReport:
            if len(built) == 1:
                raise RuntimeError("CUDA out of memory")
            return super().run(order)

    campaign = Campaign()
    assert campaign.run(explorer=Full, use_threads=use_threads).reason == "labels"
    assert campaign.ledger.totals.workers_lost == 3


def test_an_explorer_that_can_never_be_built_anew_fails_the_campaign_with_its_last_words() -> None:
    built: list[FakeExplorer] = []

    class Broken(FakeExplorer):
        def __init__(self) -> None:
            built.append(self)
            if built[1:]:
                raise RuntimeError(f"no GPU {len(built)}")
            super().__init__()

        def run(self, order: ExplorationOrder) -> ExplorationReport:
            raise RuntimeError("CUDA out of memory")

    with pytest.raises(CampaignFailed, match="its last words: RuntimeError: no GPU 3"):
        Campaign().run(explorer=Broken, restarts=2)


def test_work_that_is_lost_with_a_worker_is_counted() -> None:
    calls = iter(range(10**6))

    class Fragile(FakeExplorer):
        def run(self, order: ExplorationOrder) -> ExplorationReport:
            if next(calls) == 3:
                time.sleep(0.2)
                raise RuntimeError("bug")
            return super().run(order)

    campaign = Campaign()
    assert campaign.run(explorer=Fragile).reason == "labels"
    assert campaign.ledger.totals.lost_s >= 0.2
    again = Ledger.fold(campaign.settings, open_reader(campaign.disk).events())
    assert again.totals.lost_s == campaign.ledger.totals.lost_s
    status = status_of(again, state="finished", head_seq=0)
    assert status["lost_work_s"] == pytest.approx(again.totals.lost_s, abs=1e-3)
    assert lost_text(status) == "1 worker lost, and 0 s of work"


def test_labelers_that_always_die_fail_the_campaign_with_their_last_words() -> None:
    def build() -> FakeLabeler:
        class Broken(FakeLabeler):
            def label(self, frame: Any) -> Any:
                raise RuntimeError("no licence")

        return Broken()

    with pytest.raises(CampaignFailed, match="no licence"):
        Campaign(max_attempts=1000, max_worker_kills=1000).run(labeler=build, restarts=2)


def test_failed_fits_are_tried_again() -> None:
    failures = iter([FailureKind.INTERNAL, FailureKind.OUT_OF_MEMORY])
    campaign = Campaign()
    assert campaign.run(trainer=lambda: FakeTrainer(failure=lambda _: next(failures, None))).reason == "labels"
    assert campaign.ledger.champion > 0


def test_stop_and_resume_go_on_where_it_was() -> None:
    campaign = Campaign(n_labels=100_000)
    deadline = time.monotonic() + 1.0

    def request() -> StopRequested | None:
        return StopRequested(t=time.time(), drain=True) if time.monotonic() > deadline else None

    stopped = campaign.run(stop_request=request)
    assert stopped.reason == "user"
    assert not stopped.is_final
    before = campaign.ledger.n_labels
    assert before > 0
    campaign.settings = policy_settings(n_labels=before + 50, refit_every=1000)
    assert campaign.run().reason == "labels"
    assert campaign.ledger.n_labels == before + 50
    accepted = [e.label_id for e in open_reader(campaign.disk).events() if isinstance(e, LabelAccepted)]
    assert len(set(accepted)) == len(accepted) == before + 50


def test_target_error_stops_early_and_only_with_enough_random_frames() -> None:
    campaign = Campaign(n_labels=2000, refit_every=20, target_force_mae=0.12, min_random=10, versions_in_a_row=1)
    assert campaign.run().reason == "target-reached"
    champion = campaign.ledger.models[campaign.ledger.champion]
    assert champion.metrics["force_mae_random_arm_high"] <= 0.12
    assert campaign.ledger.accepted[Arm.RANDOM] >= 10


def test_quiet_exploration_stops_the_campaign() -> None:
    campaign = Campaign(n_labels=2000, quiet_steps=2000)
    stopped = campaign.run(explorer=lambda: FakeExplorer(n_candidates=0))
    assert stopped.reason == "nothing-uncertain"


def test_conflicting_repeated_labels_are_events_not_data() -> None:
    campaign = Campaign()
    campaign.run()
    reader = open_reader(campaign.disk)
    assert reader.verify().duplicate_labels == 0
    assert campaign.ledger.totals.conflicts == 0


def test_labels_are_compared_with_what_the_committee_said_also_after_a_restart() -> None:
    campaign = Campaign(trust=(0.15, 1.0), is_calibrated=True)
    campaign.run()
    observed = campaign.ledger.calibration.n_frames
    assert observed > 30
    assert campaign.ledger.calibration.is_fitted
    campaign.settings = dataclasses.replace(campaign.settings, n_labels=90)
    campaign.run()
    assert campaign.ledger.calibration.n_frames > observed + 15
    events = [e for e in open_reader(campaign.disk).events() if isinstance(e, ErrorsObserved)]
    assert len({e.model_version for e in events}) > 1
    random_arm = set(campaign.ledger.random_labelled)
    assert sum(len(random_arm & set(e.frame_ids)) for e in events) > len(random_arm), "with each champion anew"


BASELINE = LevelOfTheory({"engine": "fake", "potential": "half as strong"})


class WithBaseline(FakeLabeler):
    """Harmonic labels; every fifth call gives none of the baseline, every ninth one of a wrong shape."""

    calls = 0

    def label(self, frame: Frame) -> Label | LabelFailure:
        label = super().label(frame)
        assert isinstance(label, Label)
        WithBaseline.calls += 1
        if WithBaseline.calls % 5 == 0:
            return label
        forces = np.zeros((1, 3)) if WithBaseline.calls % 9 == 0 else 0.5 * label.forces
        return replace(label, baseline=Label(frame.frame_id, BASELINE.level_id, 0.5 * label.energy, forces))


def test_baselines_are_stored_beside_labels_and_reach_the_trainer_also_after_a_restart() -> None:
    campaign = Campaign()
    campaign.baseline = BASELINE
    seen: list[Snapshot] = []

    class Watching(FakeTrainer):
        def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
            seen.append(order.snapshot)
            return super().run(order)

    assert campaign.run(labeler=WithBaseline, trainer=Watching).reason == "labels"
    n_fits = len(seen)
    campaign.settings = dataclasses.replace(campaign.settings, n_labels=90)
    assert campaign.run(labeler=WithBaseline, trainer=Watching).reason == "labels"
    assert len(seen) > n_fits
    reader = open_reader(campaign.disk)
    assert reader.verify().problems == []
    assert [level.level_id for level in reader.levels()] == [BASELINE.level_id, FAKE_LEVEL.level_id]
    accepted = [e for e in reader.events() if isinstance(e, LabelAccepted)]
    assert len(accepted) == 90, "a baseline is no label of its own"
    with_baseline = [e for e in accepted if e.baseline_id]
    assert 50 < len(with_baseline) < 90
    for snapshot in (seen[-1], reader.snapshot(FAKE_LEVEL.level_id, baseline_id=BASELINE.level_id)):
        assert snapshot.baseline_energy is not None
        assert snapshot.baseline_forces is not None
        known = np.isfinite(snapshot.baseline_energy)
        np.testing.assert_array_equal(snapshot.baseline_energy[known], 0.5 * snapshot.energy[known])
        rows = np.repeat(known, snapshot.n_atoms)
        np.testing.assert_array_equal(snapshot.baseline_forces[rows], 0.5 * snapshot.forces[rows])
        assert np.isnan(snapshot.baseline_forces[~rows]).all()
    assert known.sum() == len(with_baseline)
    assert campaign.ledger.totals.failed > 0, "a label whose baseline has a wrong shape is tried again"


class Masking(FakeExplorer):
    """Every other candidate has an atom whose force may not be learned from."""

    def run(self, order: ExplorationOrder) -> ExplorationReport:
        report = super().run(order)
        masks = (None, np.array([True, False]))
        candidates = tuple(replace(c, mask=masks[i % 2]) for i, c in enumerate(report.candidates))
        return replace(report, candidates=candidates)


def test_the_log_holds_a_digest_of_every_label_with_its_baseline_and_mask() -> None:
    """Also of frames that were loaded again after a restart; what changes in the arrays is found."""
    campaign = Campaign()
    campaign.baseline = BASELINE
    for n_labels in (40, 60):
        campaign.settings = dataclasses.replace(campaign.settings, n_labels=n_labels)
        campaign.run(labeler=WithBaseline, explorer=Masking)
    reader = open_reader(campaign.disk)
    assert not reader.column("atoms/mask").all()
    report = reader.verify()
    assert (report.problems, report.n_without_digest) == ([], 0)
    events = [event for event in reader.events() if isinstance(event, LabelAccepted)]
    assert len({event.digest for event in events}) == 60
    row_of = {label_id: row for row, label_id in enumerate(to_hex(reader.column("labels/label_id")))}
    row = row_of[next(event.baseline_id for event in events if event.baseline_id)]
    energy = campaign.disk.read("labels/energy", row, row + 1)
    campaign.disk.write("labels/energy", row, energy + 1e-9)
    (problem,) = reader.verify().problems
    assert "its baseline" in problem
    campaign.disk.write("labels/energy", row, energy)
    frame = int(reader.column("labels/frame")[row_of[events[-1].label_id]])
    campaign.disk.write("atoms/mask", 2 * frame, 1 - campaign.disk.read("atoms/mask", 2 * frame, 2 * frame + 1))
    (problem,) = reader.verify().problems
    assert events[-1].label_id in problem


def test_a_fit_is_told_what_its_parent_has_learned_also_after_a_restart() -> None:
    campaign = Campaign(n_labels=40)
    orders: list[TrainingOrder] = []

    class Watching(FakeTrainer):
        def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
            orders.append(order)
            return super().run(order)

    assert campaign.run(trainer=Watching).reason == "labels"
    campaign.settings = dataclasses.replace(campaign.settings, n_labels=70)
    assert campaign.run(trainer=Watching).reason == "labels"
    snapshots = {order.version: set(order.snapshot.frame_ids) for order in orders}
    assert len(orders) >= 3
    assert orders[0].known == frozenset()
    for order in orders[1:]:
        assert order.parent is not None
        assert order.known == snapshots[order.parent.version] < snapshots[order.version]


def test_a_fit_that_failed_is_not_tried_again_in_the_very_same_way() -> None:
    campaign = Campaign()
    seeds: list[tuple[int, int]] = []

    class Watching(FakeTrainer):
        def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
            seeds.append((order.version, order.seed))
            return super().run(order)

    failures = iter([FailureKind.INTERNAL, FailureKind.INTERNAL])
    campaign.run(trainer=lambda: Watching(failure=lambda version: next(failures, None)))
    assert [version for version, _ in seeds[:3]] == [1, 1, 1]
    assert len({seed for _, seed in seeds}) == len(seeds)


def test_a_baseline_that_nobody_asked_for_is_not_data() -> None:
    campaign = Campaign(n_labels=30, max_attempts=1)
    campaign.run(labeler=WithBaseline)
    assert campaign.ledger.totals.failed > 0
    reader = open_reader(campaign.disk)
    assert reader.verify().problems == []
    assert reader.snapshot(BASELINE.level_id).n_frames == 0
