"""With each committee a small network learns whole labels, goes on from the one before, and is never required."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.config.schema import ExplorationConfig
from alsys.errors import FailureKind, InputError
from alsys.frames import Arm
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import (
    MemberOrder,
    MemberShare,
    TrainedCommittee,
    Trainer,
    TrainingFailure,
    TrainingOrder,
)
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer
from alsys.training.inner import InnerModelTrainer, inner_config

RAW: dict[str, Any] = {
    "name": "t",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
    "model": {"kind": "pair", "members": 2},
    "training": {"delta": "gfn1-xtb", "validation_share": 0.0, "budget_s": 40.0},
    "promotion": {"examine": False},
    "exploration": {"multiple_time_step": {"num_features": 4, "num_layers": 1}},
}
NETWORK = {"kind": "nequip", "num_layers": 2, "num_features": 8, "r_max": 4.0, "members": 2, "cutoffs": {"H-H": 3.0}}


@pytest.fixture(scope="module")
def data(make_snapshot: Any) -> Snapshot:
    """A field along x is the baseline: labels less it are forces of Morse bonds."""
    snapshot: Snapshot = make_snapshot(24, 6)
    field = np.tile([0.5, 0.0, 0.0], (len(snapshot.numbers), 1))
    return replace(
        snapshot, energy=snapshot.energy + 7.0, baseline_energy=np.full(snapshot.n_frames, 7.0), baseline_forces=field
    )


def fit(data: Snapshot, parent: Any = None, **changes: Any) -> TrainedCommittee:
    trained = build_trainer(parse_config({**RAW, **changes})).run(TrainingOrder(2, data, parent, None, 0))
    assert isinstance(trained, TrainedCommittee)
    return trained


def test_a_committee_carries_one_member_that_knows_whole_labels(data: Snapshot) -> None:
    trained = fit(data)
    inner = trained.state.inner
    assert inner is not None
    assert (inner.baseline, inner.n_members, trained.state.n_members) == (None, 1, 2)
    frames = data.select(data.is_arm(Arm.INITIAL))
    error = float(evaluate(build_committee(inner), frames).force_mae.mean())
    assert error == pytest.approx(trained.metrics["inner_force_mae_train"])
    assert error < 0.02, "of pairs, which bonds of Morse are"


def test_networks_go_on_from_the_one_before(data: Snapshot) -> None:
    config = parse_config({**RAW, "model": NETWORK, "exploration": {"multiple_time_step": {}}})
    assert inner_config(config).model.spec(["C", "H", "O"]) == {  # type: ignore[union-attr]
        "elements": ["C", "H", "O"], "r_max": 4.0, "num_layers": 2, "l_max": 1, "num_features": 16, "parity": False,
        "dtype": "float32", "cutoffs": {"H-H": 3.0},
    }  # fmt: skip
    steps = {**RAW["training"], "max_gradient_steps": 8, "compile": False}
    first = fit(data, model=NETWORK, training=steps)
    assert first.state.inner is not None
    second = fit(data, first.state, model=NETWORK, training=steps)
    fresh = fit(data, replace(first.state, inner=None), model=NETWORK, training=steps)
    errors = [result.metrics["inner_force_mae_train"] for result in (first, second, fresh)]
    assert errors[1] < errors[0]
    assert errors[2] == pytest.approx(errors[0], rel=1e-3)


class Recording:
    """Notes the seconds of fits."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.budgets: list[float | None] = []

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        self.budgets.append(order.budget_s)
        return self._trainer.run(order)


class Refusing:
    """A trainer whose fits fail."""

    def run(self, order: TrainingOrder) -> TrainingFailure:
        return TrainingFailure(order.version, FailureKind.INTERNAL, "the loss was not finite")


def test_a_network_that_cannot_be_fitted_costs_no_committee(data: Snapshot, caplog: pytest.LogCaptureFixture) -> None:
    first = fit(data)
    config = parse_config(RAW)
    committees = build_trainer(config.model_copy(update={"exploration": ExplorationConfig()}))
    asked = Recording(committees)
    trainer = InnerModelTrainer(config, asked, Refusing())
    result = trainer.run(TrainingOrder(3, data, first.state, None, 0, budget_s=80.0))
    assert asked.budgets == [60.0], "the rest is the network's"
    assert isinstance(result, TrainedCommittee)
    assert result.state.inner is first.state.inner
    assert "v0003 goes without a new network for inner steps: the loss was not finite" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {}}, "exploration.multiple_time_step needs training.delta"),
        ({"exploration": {"multiple_time_step": {}, "uncertainty_every": 2}}, "uncertainty_every must be 1 with"),
        (
            {"model": NETWORK, "exploration": {"multiple_time_step": {}, "pressure": 1.0}},
            "the barostat needs a stress at each step",
        ),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_config({**RAW, **changes})


def test_trainers_that_share_members_fit_the_small_network_once(data: Snapshot) -> None:
    network = {**NETWORK, "num_layers": 1, "num_features": 4}
    settings = {**RAW["training"], "workers": 2, "max_gradient_steps": 5, "compile": False}
    config = parse_config({**RAW, "model": network, "training": settings})
    trainer: Any = build_trainer(config)
    order = TrainingOrder(2, data, None, None, 0)
    fitted = tuple(trainer.run(MemberOrder(order, MemberShare(i, 2))) for i in range(2))
    shared = trainer.run(replace(order, fitted=fitted))
    whole = trainer.run(order)
    assert isinstance(shared, TrainedCommittee), shared
    for one, other in ((shared.state, whole.state), (shared.state.inner, whole.state.inner)):
        for a, b in zip(one.members, other.members, strict=True):
            for name, values in a.items():
                np.testing.assert_array_equal(b[name], values)
