"""The pair trainer: what it learns, what it never sees, and spread that means something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.errors import FailureKind
from alsys.frames import ARMS, Arm
from alsys.potentials.base import FrameBatch
from alsys.potentials.pair import PairCommittee
from alsys.potentials.xtb import XTBMethod
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.pair import PairTrainer

METHANOL = molecule("CH3OH")
ALWAYS = {"wall_s", "n_train", "n_validation", "n_random", "epochs", "force_mae_train"}
RANDOM_ARM = {
    "force_mae_random_arm", "force_mae_random_arm_low", "force_mae_random_arm_high", "force_rmse_random_arm",
    "energy_mae_random_arm", "force_deviation_random_arm", "error_correlation",
}  # fmt: skip
DELTA = {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}}
CHAMPION = {"champion_force_mae_random_arm", "difference_low", "difference_high"}


def exponentials(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """A pair potential that the basis cannot represent exactly."""
    i, j = np.triu_indices(len(positions), k=1)
    vector = positions[i] - positions[j]
    distance = np.linalg.norm(vector, axis=1)
    forces = np.zeros_like(positions)
    pull = (2.0 * np.exp(-2.0 * (distance - 1.2)) * (1 - np.exp(-2.0 * (distance - 1.2))) / distance)[:, None] * vector
    np.add.at(forces, i, -4.0 * pull)
    np.add.at(forces, j, 4.0 * pull)
    return float((4.0 * ((1 - np.exp(-2.0 * (distance - 1.2))) ** 2 - 1)).sum()), forces


def snapshot(arms: list[Arm], stdev: float = 0.08, seed: int = 0) -> Snapshot:
    rng = np.random.default_rng(seed)
    n = len(arms)
    positions = [METHANOL.positions + rng.normal(0, stdev, (6, 3)) for _ in arms]
    labels = [exponentials(p) for p in positions]
    return Snapshot(
        seq=1,
        systems=("m",),
        frame_ids=tuple(f"{k:032x}" for k in range(n)),
        n_atoms=np.full(n, 6),
        numbers=np.tile(METHANOL.numbers, n).astype(np.int32),
        positions=np.concatenate(positions),
        cell=np.zeros((n, 3, 3)),
        pbc=np.zeros((n, 3), dtype=np.bool_),
        charge=np.zeros(n, dtype=np.int32),
        multiplicity=np.ones(n, dtype=np.int32),
        energy=np.array([e for e, _ in labels]),
        forces=np.concatenate([f for _, f in labels]),
        stress=np.full((n, 3, 3), np.nan),
        mask=np.ones(6 * n, dtype=np.bool_),
        arm=np.array([ARMS.index(a) for a in arms], dtype=np.uint8),
        system=np.zeros(n, dtype=np.int32),
        trajectory=np.arange(n),
        model_version=np.zeros(n, dtype=np.int32),
        deviation=np.full(n, np.nan, dtype=np.float32),
    )


def trainer(labeling: Any = None, **training: Any) -> PairTrainer:
    return PairTrainer(
        parse_config(
            {
                "name": "t",
                "systems": [{"name": "m", "molecule": "CH3OH"}],
                "labeling": labeling or {"kind": "analytic"},
                "model": {"kind": "pair", "members": 4, "n_basis": 24},
                "training": {"validation_share": 0.0, **training},
                "promotion": {"examine": False},
            }
        )
    )


def fit(data: Snapshot, champion: Any = None, seed: int = 3, **training: Any) -> TrainedCommittee:
    result = trainer(**training).run(TrainingOrder(2, data, None, champion, seed))
    assert isinstance(result, TrainedCommittee), result
    return result


MIXED = [Arm.INITIAL] * 30 + [Arm.UNCERTAIN] * 30 + [Arm.RANDOM] * 20


def test_metrics_are_those_promised_and_more_data_is_better() -> None:
    few = fit(snapshot([Arm.INITIAL] * 8 + [Arm.RANDOM] * 20))
    assert few.metrics.keys() == ALWAYS | RANDOM_ARM
    data = snapshot(MIXED)
    many = fit(data, champion=few.state)
    assert many.metrics.keys() == ALWAYS | RANDOM_ARM | CHAMPION
    assert all(np.isfinite(v) for v in many.metrics.values())
    assert many.metrics["n_train"] == 60
    assert many.metrics["force_mae_random_arm"] < 0.7 * many.metrics["champion_force_mae_random_arm"]
    assert many.metrics["difference_high"] < 0
    assert many.state.version == 2
    assert many.state.n_members == 4


def test_the_random_arm_is_never_trained_on() -> None:
    data = snapshot(MIXED)
    forces = np.array(data.forces)
    forces[60 * 6 :] += 7.0
    spoiled = replace(data, forces=forces, energy=data.energy + np.where(np.arange(80) >= 60, 9.0, 0.0))
    for a, b in zip(fit(data).state.members, fit(spoiled).state.members, strict=True):
        np.testing.assert_array_equal(a["coefficients"], b["coefficients"])


def test_spread_is_there_grows_away_from_the_data_and_ranks_errors() -> None:
    trained = fit(snapshot(MIXED))
    committee = PairCommittee(trained.state)
    means = []
    deviations: list[float] = []
    errors: list[float] = []
    for stdev in (0.05, 0.15, 0.30):
        test = snapshot([Arm.INITIAL] * 60, stdev=stdev, seed=9)
        batch = FrameBatch(test.n_atoms, test.numbers, test.positions, test.cell, test.pbc)
        prediction = committee.evaluate(batch)
        means.append(float(prediction.frame_deviation.mean()))
        deviations += prediction.frame_deviation.tolist()
        errors += np.abs(prediction.forces - test.forces).reshape(60, 18).max(axis=1).tolist()
    assert 0 < means[0] < means[1] < means[2]
    ranks = [np.argsort(np.argsort(x)) for x in (deviations, errors)]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.6


def test_same_seed_same_committee_and_another_seed_another() -> None:
    data = snapshot(MIXED)
    first, second, other = fit(data), fit(data), fit(data, seed=4)
    np.testing.assert_array_equal(first.state.members[1]["coefficients"], second.state.members[1]["coefficients"])
    assert np.abs(first.state.members[1]["coefficients"] - other.state.members[1]["coefficients"]).max() > 0


def test_failures_are_values() -> None:
    none = trainer().run(TrainingOrder(1, snapshot([Arm.RANDOM] * 5), None, None, 0))
    assert isinstance(none, TrainingFailure)
    assert "no frame to train on" in none.message
    data = snapshot(MIXED)
    forces = np.array(data.forces)
    forces[0] = np.nan
    broken = trainer().run(TrainingOrder(1, replace(data, forces=forces), None, None, 0))
    assert isinstance(broken, TrainingFailure)
    assert broken.kind is FailureKind.INTERNAL
    assert "not finite" in broken.message


def test_weights_of_the_config_reach_the_fit() -> None:
    data = snapshot(MIXED)
    heavy = fit(data, energy_weight=1e4)
    light = fit(data, energy_weight=1e-4)
    assert heavy.metrics["energy_mae_random_arm"] < light.metrics["energy_mae_random_arm"]
    assert heavy.metrics["force_mae_train"] > light.metrics["force_mae_train"]


def test_another_kind_of_model_is_a_bug_of_the_caller() -> None:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "nequip"},
        }
    )
    with pytest.raises(TypeError, match="pair"):
        PairTrainer(config)


def with_baseline(data: Snapshot, missing: Sequence[int] = ()) -> Snapshot:
    """Labels with noise that no model can learn, and that noise as the baseline; NaN for frames `missing` one."""
    rng = np.random.default_rng(9)
    noise = rng.normal(size=data.forces.shape)
    energy = data.energy + rng.normal(size=data.n_frames)
    baseline_energy, baseline_forces = energy - data.energy, noise.copy()
    baseline_energy[list(missing)] = np.nan
    for row in missing:
        baseline_forces[6 * row : 6 * row + 6] = np.nan
    return replace(
        data,
        energy=energy,
        forces=data.forces + noise,
        baseline_energy=baseline_energy,
        baseline_forces=baseline_forces,
    )


def test_what_is_learned_is_the_difference_to_the_baseline_and_errors_are_those_of_the_sum() -> None:
    data = with_baseline(snapshot(MIXED))
    plain, delta = fit(data), fit(data, labeling=DELTA, delta="gfn2-xtb")
    assert plain.state.baseline is None
    assert delta.state.baseline == XTBMethod("GFN2-xTB").spec
    assert plain.metrics["force_mae_random_arm"] > 0.5, "noise cannot be learned"
    assert delta.metrics["force_mae_random_arm"] < 0.1 * plain.metrics["force_mae_random_arm"]
    test = data.select(data.is_arm(Arm.RANDOM))
    batch = FrameBatch(test.n_atoms, test.numbers, test.positions, test.cell, test.pbc)
    model = PairCommittee(delta.state).evaluate(batch)
    assert test.baseline_forces is not None
    assert test.baseline_energy is not None
    total = test.baseline_forces + model.forces
    assert delta.metrics["force_mae_random_arm"] == pytest.approx(np.abs(total - test.forces).mean())
    energy_error = np.abs(test.baseline_energy + model.energy - test.energy) / 6
    assert delta.metrics["energy_mae_random_arm"] == pytest.approx(energy_error.mean())


def test_frames_without_a_baseline_are_left_out() -> None:
    data = snapshot(MIXED)
    whole, part = with_baseline(data), with_baseline(data, missing=[0, 31, 79])
    rows = np.setdiff1d(np.arange(80), [0, 31, 79])
    metrics = fit(part, labeling=DELTA, delta="gfn2-xtb").metrics
    assert (metrics["n_train"], metrics["n_random"]) == (58, 19)
    expected = fit(whole.select(rows), labeling=DELTA, delta="gfn2-xtb").metrics
    assert metrics["force_mae_random_arm"] == expected["force_mae_random_arm"]
    with pytest.raises(ValueError, match="no baseline"):
        fit(data, labeling=DELTA, delta="gfn2-xtb")


def test_a_rival_that_learned_something_else_is_not_compared() -> None:
    data = with_baseline(snapshot(MIXED))
    plain = fit(data)
    delta = fit(data, labeling=DELTA, delta="gfn2-xtb")
    assert not CHAMPION & fit(data, champion=plain.state, labeling=DELTA, delta="gfn2-xtb").metrics.keys()
    assert not CHAMPION & fit(data, champion=delta.state).metrics.keys()
    again = fit(data, champion=delta.state, labeling=DELTA, delta="gfn2-xtb")
    assert again.metrics["champion_force_mae_random_arm"] == delta.metrics["force_mae_random_arm"]
