"""Fits learn, go on from a parent, keep to their budget, never see the random arm and never publish NaN."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.errors import FailureKind
from alsys.frames import Arm, Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.testing.potentials import CommitteeContract
from alsys.training import members as members_module
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.bootstrap import is_drawn
from alsys.training.dataset import split
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer
from alsys.training.fit import Budget, FittedModel
from alsys.training.replay import Replay
from alsys.training.step import SCALES, SHIFTS
from alsys.training.trainer import NequIPTrainer

MakeSnapshot = Callable[..., Snapshot]
NEQUIP = {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2}
PAIR = {"kind": "pair", "n_basis": 24, "members": 2}


def config(model: dict[str, Any] = NEQUIP, **training: Any) -> Any:
    """A budget that only epochs exhaust, so that fits are reproducible."""
    settings = {
        "budget_s": 1e6,
        "max_epochs": 12,
        "learning_rate": 0.02,
        "validation_share": 0.0,
        "compile": False,
        **training,
    }
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
            "model": model,
            "training": settings,
            "promotion": {"examine": False},
        }
    )


def fit(
    data: Snapshot,
    parent: CommitteeState | None = None,
    version: int = 1,
    model: dict[str, Any] = NEQUIP,
    **training: Any,
) -> TrainedCommittee:
    result = build_trainer(config(model, **training)).run(TrainingOrder(version, data, parent, parent, seed=version))
    assert isinstance(result, TrainedCommittee), result
    return result


@pytest.fixture(scope="module")
def data(make_snapshot: MakeSnapshot) -> Snapshot:
    return make_snapshot()


@pytest.fixture(scope="module")
def first(data: Snapshot) -> TrainedCommittee:
    return fit(data)


@pytest.fixture(scope="module")
def second(data: Snapshot, first: TrainedCommittee) -> TrainedCommittee:
    return fit(data, parent=first.state, version=2)


class TestTrainedPairCommittee(CommitteeContract):
    @pytest.fixture(autouse=True)
    def _data(self, data: Snapshot) -> None:
        self.data = data

    def build(self, state: CommitteeState) -> Any:
        return build_committee(state)

    def states(self) -> tuple[CommitteeState, CommitteeState]:
        return fit(self.data, model=PAIR).state, fit(self.data, version=2, model=PAIR, bootstrap=0.5).state

    def frames(self) -> list[Frame]:
        return [self.data.frame(4), self.data.frame(3)]

    def unknown_frame(self) -> Frame:
        return Frame.molecule([7, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_a_fit_learns_and_a_warm_start_goes_on(
    data: Snapshot, first: TrainedCommittee, second: TrainedCommittee
) -> None:
    random = data.select(data.is_arm(Arm.RANDOM))
    untrained = float(np.abs(random.forces).mean())
    assert first.metrics["force_mae_random_arm"] < 0.8 * untrained
    assert second.metrics["force_mae_random_arm"] < 0.8 * first.metrics["force_mae_random_arm"]
    assert second.metrics["force_mae_train"] < first.metrics["force_mae_train"]
    assert second.metrics["champion_force_mae_random_arm"] == first.metrics["force_mae_random_arm"]
    assert second.metrics["difference_high"] < 0


def test_metrics_are_those_that_are_promised(first: TrainedCommittee, second: TrainedCommittee) -> None:
    promised = {
        "wall_s", "n_train", "n_validation", "n_random", "epochs", "force_mae_train", "force_mae_random_arm",
        "force_mae_random_arm_low", "force_mae_random_arm_high", "force_rmse_random_arm", "energy_mae_random_arm",
        "force_deviation_random_arm", "steps", "step_ms", "is_compiled", "compiling_s", "rollbacks",
        "members_renewed", "error_correlation", "resumed_s",
    }  # fmt: skip
    champion = {"champion_force_mae_random_arm", "difference_low", "difference_high"}
    assert set(first.metrics) == promised
    assert set(second.metrics) == promised | champion
    assert np.isfinite(list(second.metrics.values())).all()
    assert (first.metrics["n_train"], first.metrics["n_random"], first.metrics["n_validation"]) == (20, 8, 0)
    assert first.metrics["epochs"] == pytest.approx(12, rel=0.2)
    assert len(first.calibration) == 8
    assert all(deviation > 0 and error > 0 for deviation, error in first.calibration)


def test_members_differ(first: TrainedCommittee) -> None:
    a, b = first.state.members
    assert any(not np.array_equal(a[name], b[name]) for name in a)
    np.testing.assert_array_equal(a[SHIFTS], b[SHIFTS])


def test_the_random_arm_and_the_validation_set_are_never_trained_on(make_snapshot: MakeSnapshot) -> None:
    """Other labels there give the same weights, bit for bit."""
    data = make_snapshot(12, 4)
    validation = set(split(data, 0.4).validation.frame_ids)
    assert validation
    is_hidden = data.is_arm(Arm.RANDOM) | np.array([frame_id in validation for frame_id in data.frame_ids])
    changed = dataclasses.replace(
        data,
        energy=data.energy + 100.0 * is_hidden,
        forces=data.forces + 50.0 * np.repeat(is_hidden, data.n_atoms)[:, None],
    )
    a, b = (fit(d, max_epochs=2, validation_share=0.4) for d in (data, changed))
    for mine, theirs in zip(a.state.members, b.state.members, strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert b.metrics["force_mae_validation"] > 10 > a.metrics["force_mae_validation"]


def test_the_energy_scale_does_not_matter(make_snapshot: MakeSnapshot) -> None:
    """Energies of thousands of eV, as from DFT, give the field that energies of a few eV give."""
    data = make_snapshot(8, 4)
    energies = {1: -13.6234567, 6: -1029.456789, 8: -2041.876543}
    offset = np.add.reduceat(np.array([energies[int(z)] for z in data.numbers]), data.offsets[:-1])
    a = fit(data, max_epochs=3)
    b = fit(dataclasses.replace(data, energy=data.energy + offset), max_epochs=3)
    for name in ("force_mae_random_arm", "energy_mae_random_arm"):
        assert b.metrics[name] == pytest.approx(a.metrics[name], rel=1e-3)
    shifts = b.state.members[0][SHIFTS].ravel() - a.state.members[0][SHIFTS].ravel()
    np.testing.assert_allclose(shifts, list(energies.values()), atol=1e-9)


def test_a_warm_start_keeps_shifts_scales_and_neighbour_count(
    make_snapshot: MakeSnapshot, first: TrainedCommittee
) -> None:
    """The weights were learnt with them; another would spoil the parent's energies and forces."""
    warm = fit(make_snapshot(6, 2, spread=0.2), parent=first.state, max_epochs=1)
    assert warm.state.spec == first.state.spec
    for name in (SHIFTS, SCALES):
        np.testing.assert_array_equal(warm.state.members[0][name], first.state.members[0][name])


def test_a_parent_of_another_architecture_is_left_aside(data: Snapshot, first: TrainedCommittee) -> None:
    fresh = fit(data, parent=first.state, model={**NEQUIP, "num_features": 4}, max_epochs=1)
    assert fresh.state.spec["num_features"] == 4
    assert fresh.metrics["champion_force_mae_random_arm"] == first.metrics["force_mae_random_arm"]


def test_elements_of_the_random_arm_are_known_before_they_are_trained_on(
    make_snapshot: MakeSnapshot, first: TrainedCommittee
) -> None:
    data = make_snapshot(6, 4, n_nitrogen=2)
    trained = fit(data, parent=first.state, max_epochs=1)
    assert trained.state.spec["elements"] == ["H", "C", "N", "O"]
    assert trained.metrics["n_random"] == 4
    assert "difference_low" not in trained.metrics, "compared with a champion that does not know nitrogen"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_frames_are_enough_to_begin(make_snapshot: MakeSnapshot, n: int) -> None:
    trained = fit(make_snapshot(n, 2), max_epochs=2, validation_share=0.5)
    assert trained.metrics["n_train"] >= 1
    assert np.isfinite(trained.metrics["force_mae_random_arm"])


def test_without_free_atoms_energies_still_fit(data: Snapshot) -> None:
    energies = {1: -13.6, 6: -1029.4, 8: -2041.8}
    offset = np.add.reduceat(np.array([energies[int(z)] for z in data.numbers]), data.offsets[:-1])
    bare = dataclasses.replace(data, energy=data.energy + offset).select(~data.is_arm(Arm.ATOM))
    assert fit(bare, max_epochs=3).metrics["energy_mae_random_arm"] < 2.0


@pytest.mark.parametrize("budget_s", [1e-3, 2.0])
def test_a_fit_keeps_to_its_budget(data: Snapshot, budget_s: float) -> None:
    trainer = build_trainer(config(budget_s=budget_s, max_epochs=1_000_000))
    started = time.perf_counter()
    result = trainer.run(TrainingOrder(1, data, None, None, 0))
    assert isinstance(result, TrainedCommittee), result
    building_and_measuring = 8.0
    assert time.perf_counter() - started < 1.5 * budget_s + building_and_measuring
    assert result.metrics["wall_s"] >= min(budget_s, 1.0)
    assert result.metrics["epochs"] > 0


def test_nothing_to_train_on_is_a_failure(data: Snapshot) -> None:
    result = NequIPTrainer(config()).run(TrainingOrder(4, data.select(data.is_arm(Arm.RANDOM)), None, None, 0))
    assert result == TrainingFailure(4, FailureKind.INTERNAL, "there is no frame to train on")


@pytest.mark.parametrize("place", ["forces", "energy"])
def test_nan_labels_are_a_failure_and_not_a_model(data: Snapshot, place: str) -> None:
    spoilt = dataclasses.replace(data, **{place: np.full_like(getattr(data, place), np.nan)})
    result = build_trainer(config()).run(TrainingOrder(3, spoilt, None, None, 0))
    assert isinstance(result, TrainingFailure)
    assert (result.version, result.kind) == (3, FailureKind.INTERNAL)
    assert "finite" in result.message


def test_an_absurd_learning_rate_publishes_no_nan(data: Snapshot) -> None:
    """The network may die, which promotion sees; it may not be NaN, which nothing downstream could compare."""
    result = build_trainer(config(learning_rate=1e30)).run(TrainingOrder(1, data, None, None, 0))
    if isinstance(result, TrainedCommittee):
        assert np.isfinite(list(result.metrics.values())).all()
        assert all(np.isfinite(value).all() for member in result.state.members for value in member.values())


def test_a_difference_to_a_baseline_is_learned_and_its_weights_are_no_start_for_labels(
    make_snapshot: MakeSnapshot,
) -> None:
    """The baseline is the label with a constant and a strong field along x, which leaves next to nothing to learn."""
    data = make_snapshot(12, 6)
    field = np.tile([30.0, 0.0, 0.0], (len(data.numbers), 1))
    data = dataclasses.replace(
        data,
        energy=data.energy + 500.0,
        forces=data.forces + field,
        baseline_energy=np.full(data.n_frames, 500.0),
        baseline_forces=field,
    )
    difference, labels = fit(data, delta="gfn1-xtb"), fit(data)
    assert difference.state.baseline == {"engine": "tblite", "method": "GFN1-xTB", "accuracy": 0.1}
    assert labels.state.baseline is None
    assert difference.metrics["force_mae_random_arm"] < 3.0 < labels.metrics["force_mae_random_arm"]
    test = data.select(data.is_arm(Arm.RANDOM))
    batch = FrameBatch(test.n_atoms, test.numbers, test.positions, test.cell, test.pbc)
    model = build_committee(dataclasses.replace(difference.state, baseline=None)).evaluate(batch)
    assert test.baseline_forces is not None
    error = np.abs(model.forces + test.baseline_forces - test.forces).sum(axis=1)
    per_frame = np.add.reduceat(error, test.offsets[:-1]) / (3 * test.n_atoms)
    assert difference.metrics["force_mae_random_arm"] == pytest.approx(per_frame.mean())
    warm = fit(data, parent=difference.state, version=2, delta="gfn1-xtb", max_epochs=1)
    assert warm.metrics["champion_force_mae_random_arm"] == pytest.approx(difference.metrics["force_mae_random_arm"])
    cold = fit(data, parent=labels.state, version=2, delta="gfn1-xtb", max_epochs=1)
    fresh = fit(data, version=2, delta="gfn1-xtb", max_epochs=1)
    assert cold.metrics["force_mae_random_arm"] == fresh.metrics["force_mae_random_arm"], "labels are no start either"
    assert "champion_force_mae_random_arm" not in cold.metrics
    assert warm.metrics["force_mae_random_arm"] != fresh.metrics["force_mae_random_arm"]


def test_a_member_begins_anew_in_turn_and_is_taken_where_it_is_not_worse(
    data: Snapshot, first: TrainedCommittee
) -> None:
    """Version 4 of `renew_every: 2` renews member 0; against a trained parent one step is far too little."""
    renewed = fit(data, parent=first.state, version=4, renew_every=2, max_epochs=40)
    assert renewed.metrics["members_renewed"] == 1
    refused = fit(data, parent=first.state, version=4, renew_every=2, max_gradient_steps=1)
    assert refused.metrics["members_renewed"] == 0
    old, kept = first.state.members[0], refused.state.members[0]
    assert all(np.array_equal(old[name], kept[name]) for name in old)
    assert any(not np.array_equal(first.state.members[1][n], refused.state.members[1][n]) for n in old)


def test_a_parent_of_fewer_members_is_added_to(data: Snapshot, first: TrainedCommittee) -> None:
    grown = fit(data, parent=first.state, version=2, model={**NEQUIP, "members": 3}, max_epochs=1)
    assert grown.state.n_members == 3
    assert grown.metrics["members_renewed"] == 0


def test_members_fitted_at_the_same_time_are_those_fitted_one_after_another(data: Snapshot) -> None:
    one, two = (fit(data, max_epochs=2, parallel=n, cpus=n) for n in (1, 2))
    for mine, theirs in zip(one.state.members, two.state.members, strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_what_the_parent_has_not_learned_is_drawn_more_often(
    make_snapshot: MakeSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer of any age is told what the parent knows; a fresh member, and one without news, take all alike."""
    data = make_snapshot(24, 6)
    early = data.select(np.r_[:15, 27 : data.n_frames])
    parent = fit(early)
    drawn: list[Any] = []

    class Recorded(Replay):
        def __init__(self, new: Any, old: Any, *others: Any) -> None:
            drawn.append((new, old))
            super().__init__(new, old, *others)

    monkeypatch.setattr(members_module, "Replay", Recorded)
    known = frozenset(early.frame_ids)
    train = split(data, 0.0).train
    result = NequIPTrainer(config(max_epochs=6)).run(TrainingOrder(2, data, parent.state, None, 2, known=known))
    assert isinstance(result, TrainedCommittee)
    assert len(drawn) == 2, "one of each member"
    for member, (new, old) in enumerate(drawn):
        own = set(np.flatnonzero(is_drawn(train.frame_ids, member, 0.9)))
        is_known = {row for row in own if train.frame_ids[row] in known}
        assert set(old) == is_known
        assert set(new) == own - is_known
        assert new.size
    assert result.metrics["force_mae_random_arm"] < parent.metrics["force_mae_random_arm"]
    drawn.clear()
    everything = frozenset(data.frame_ids)
    for order in (
        TrainingOrder(2, data, None, None, 2, known=known),
        TrainingOrder(2, data, parent.state, None, 2),
        TrainingOrder(2, data, parent.state, None, 2, known=everything),
    ):
        assert isinstance(NequIPTrainer(config(max_epochs=1)).run(order), TrainedCommittee)
    assert drawn == []


def test_a_parent_learns_new_elements_and_forgets_nothing(data: Snapshot) -> None:
    """Of every other training frame the oxygen is sulphur; a rate of next to nothing shows where the fit begins."""
    parent = fit(data)
    rows = np.flatnonzero(data.is_arm(Arm.INITIAL))[::2]
    is_new = np.isin(np.repeat(np.arange(data.n_frames), data.n_atoms), rows) & (data.numbers == 8)
    changed = dataclasses.replace(data, numbers=np.where(is_new, 16, data.numbers).astype(np.int32))
    begun = fit(changed, parent.state, 2, max_gradient_steps=1, learning_rate=1e-12)
    assert begun.state.spec["elements"] == ["H", "C", "O", "S"]
    assert begun.state.spec["avg_num_neighbors"] == parent.state.spec["avg_num_neighbors"]
    random = split(data, 0.0).random
    before, after = (evaluate(build_committee(state), random) for state in (parent.state, begun.state))
    np.testing.assert_allclose(after.force_mae, before.force_mae, rtol=1e-4)
    np.testing.assert_allclose(after.energy, before.energy, atol=1e-5)
    for old, new in zip(parent.state.members, begun.state.members, strict=True):
        np.testing.assert_array_equal(new[SHIFTS].ravel()[:3], old[SHIFTS].ravel())
        assert new[SCALES].ravel()[3] == pytest.approx(old[SCALES].mean(), rel=1e-6)
        assert np.isfinite(new[SHIFTS]).all()
    grown = fit(changed, parent.state, 2)
    scratch = fit(changed, None, 2)
    assert grown.metrics["force_mae_train"] < 0.8 * scratch.metrics["force_mae_train"]


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_no_member_takes_longer_than_the_budget(data: Snapshot, monkeypatch: pytest.MonkeyPatch, parallel: int) -> None:
    """In version 5 member 1 begins anew, with four shares."""
    budgets: list[float] = []

    def fit_model(step: Any, start: Any, frames: Any, draw: Any, how: Any, budget: Budget, *_: Any, **__: Any) -> Any:
        budgets.append(budget.seconds)
        return FittedModel(start, 1, 1.0, 0.0, 0)

    monkeypatch.setattr(members_module, "fit_model", fit_model)
    monkeypatch.setattr(members_module, "PROCESSES_FROM_S", np.inf)
    model = {**NEQUIP, "members": 4}
    settings = config(model, budget_s=700.0, parallel=parallel, cpus=parallel)
    parent = fit(data, version=4, model=model, max_epochs=1)
    budgets.clear()
    result = NequIPTrainer(settings).run(TrainingOrder(5, data, parent.state, None, 5))
    assert isinstance(result, TrainedCommittee)
    small, large = sorted(budgets)[0], sorted(budgets)[-1]
    assert sorted(budgets) == pytest.approx([small] * 3 + [4 * small])
    assert large == pytest.approx({1: 400.0, 2: 700.0, 4: 700.0}[parallel], abs=5.0)


def test_metrics_of_later_fits_of_a_trainer_are_those_of_their_own_weights(data: Snapshot) -> None:
    trainer = build_trainer(config())
    parent = None
    for version in (1, 2, 3):
        result = trainer.run(TrainingOrder(version, data, parent, parent, seed=version, n_review=100))
        assert isinstance(result, TrainedCommittee), result
        alone = build_committee(result.state)
        errors = evaluate(alone, split(data, 0.0).random)
        assert result.metrics["force_mae_random_arm"] == pytest.approx(errors.force_mae.mean(), rel=1e-5)
        if parent is not None:
            old = evaluate(build_committee(parent), split(data, 0.0).random)
            assert result.metrics["champion_force_mae_random_arm"] == pytest.approx(old.force_mae.mean(), rel=1e-5)
        assert {prediction.model_version for prediction in result.predictions.values()} == {version}
        parent = result.state


def test_the_wait_for_a_compiler_is_no_part_of_the_budget(data: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    late = 0.0

    def never_compiles(*_: object, **__: object) -> None:
        nonlocal late
        late += 1000.0
        raise RuntimeError("no compiler")

    monkeypatch.setattr("alsys.training.compiled_steps.is_compiled", lambda *_, **__: False)
    monkeypatch.setattr("alsys.training.compiled_steps.compile_step", never_compiles)
    trainer = NequIPTrainer(config(compile=True, budget_s=100.0, max_epochs=3), lambda: time.perf_counter() + late)
    fitted = trainer.run(TrainingOrder(1, data, None, None, seed=1))
    assert isinstance(fitted, TrainedCommittee)
    assert fitted.metrics["compiling_s"] > 0.0
    assert fitted.metrics["epochs"] == 3
    again = trainer.run(TrainingOrder(2, data, fitted.state, None, seed=2))
    assert isinstance(again, TrainedCommittee)
    assert again.metrics["compiling_s"] == 0.0
