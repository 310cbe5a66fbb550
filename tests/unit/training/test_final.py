"""The final fit has the network that its seconds carry, small batches, and an end of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alsys.config import parse_config
from alsys.config.models import AllegroModel, NequIPModel
from alsys.config.training import TrainingConfig
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training import members as members_module
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.final import batch_size, final_model, held_out, plateau_on
from alsys.training.fit import Budget, FittedModel, Plateau
from alsys.training.growth import as_large_as
from alsys.training.loss import LossWeights, Objective
from alsys.training.step import EagerStep, Layout
from alsys.training.tensors import TrainingFrames
from alsys.training.trainer import NequIPTrainer

MakeSnapshot = Callable[..., Snapshot]
SMALL = {"kind": "nequip", "num_layers": 2, "l_max": 1, "num_features": 8}


@pytest.mark.parametrize(
    ("seconds", "atoms", "size"),
    [(50, 9, (2, 1)), (60, 9, (2, 2)), (120, 9, (4, 2)), (120, 18, (2, 2)), (120, 27, (2, 1)), (1e6, 900, (4, 2))],
)
def test_a_network_grows_with_the_seconds_of_a_member(seconds: float, atoms: float, size: tuple[int, int]) -> None:
    model = NequIPModel.model_validate(SMALL)
    grown = final_model(model, seconds, atoms)
    assert isinstance(grown, NequIPModel)
    assert (grown.num_layers, grown.l_max) == size
    assert grown.model_copy(update={"num_layers": 2, "l_max": 1}) == model


@pytest.mark.parametrize("changes", [{"num_layers": 6, "l_max": 3}, {"num_features": [8, 4]}])
def test_what_a_user_made_larger_stays(changes: dict[str, object]) -> None:
    model = NequIPModel.model_validate({**SMALL, **changes})
    assert final_model(model, 1e6, 9.0) == model
    allegro = AllegroModel.model_validate({"kind": "allegro"})
    assert final_model(allegro, 1e6, 9.0) is allegro


def test_a_network_that_grew_stays_large_and_no_other_is_taken_for_it() -> None:
    spec = NequIPModel.model_validate(SMALL).spec(["H", "O"])
    large = {**spec, "num_layers": 4, "l_max": 2, "avg_num_neighbors": 3.0}
    assert as_large_as(spec, large) == {**spec, "num_layers": 4, "l_max": 2}
    assert as_large_as(large, spec) == large
    assert as_large_as(spec, {**large, "num_features": 16}) == spec
    assert as_large_as({**spec, "l_max": 3}, large) == {**spec, "l_max": 3}, "neither is the larger one"
    assert as_large_as({"architecture": "mine"}, large) == {"architecture": "mine"}


def test_batches_are_small_while_frames_are_few() -> None:
    config = TrainingConfig.model_validate({"batch_size": 5})
    assert [batch_size(config, n) for n in (1, 599, 600)] == [2, 2, 5]
    assert batch_size(TrainingConfig.model_validate({"batch_size": 1}), 10) == 1


def config(**training: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {**SMALL, "num_layers": 1, "r_max": 4.0, "members": 2},
            "training": {"max_epochs": 4, "compile": False, "validation_share": 0.2, "bootstrap": 0.6, **training},
            "promotion": {"examine": False},
        }
    )


def test_the_final_fit_grows_holds_out_what_it_did_not_learn_and_later_ones_go_on(
    make_snapshot: MakeSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network with seconds for l_max 2; the fit after it keeps that."""
    seen: list[tuple[Budget, Plateau | None, float, int]] = []

    def fit_model(step: Any, start: Any, frames: Any, draw: Any, how: Any, budget: Any, *rest: Any, **more: Any) -> Any:
        seen.append((budget, more["plateau"], how.ema, draw.next().size))
        return FittedModel(start, 1, 1.0, 0.1, 0)

    monkeypatch.setattr(members_module, "fit_model", fit_model)
    monkeypatch.setattr(members_module, "PROCESSES_FROM_S", np.inf)
    data = make_snapshot()
    trainer = NequIPTrainer(config(budget_s=5.0, batch_size=5))
    first = trainer.run(TrainingOrder(1, data, None, None, seed=1))
    assert isinstance(first, TrainedCommittee)
    assert [(b.seconds < 3.0, plateau, ema, n) for b, plateau, ema, n in seen] == [(True, None, 0.99, 5)] * 2
    seen.clear()
    order = TrainingOrder(2, data, first.state, first.state, seed=2, budget_s=600.0, is_final=True)
    final = trainer.run(order)
    assert isinstance(final, TrainedCommittee)
    assert (final.state.spec["num_layers"], final.state.spec["l_max"]) == (1, 2)
    for budget, plateau, ema, n in seen:
        assert budget.seconds > 240.0
        assert plateau is not None
        assert (ema, n) == (0.999, 2)
    after = trainer.run(dataclasses.replace(order, version=3, parent=final.state, is_final=False))
    assert isinstance(after, TrainedCommittee)
    assert after.state.spec == final.state.spec


def test_held_out_are_validation_and_what_the_bootstrap_left(make_snapshot: MakeSnapshot) -> None:
    data = make_snapshot()
    spec = {**NequIPModel.model_validate({**SMALL, "num_layers": 1}).spec(["H", "C", "O"]), "avg_num_neighbors": 4.0}
    frames = TrainingFrames(data, spec)
    objective = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))
    model = build_model(spec, seed=0)
    weights = Layout.of(model).flat(model)
    rows = np.arange(data.n_frames - 6)
    step, rest = EagerStep(model, objective), np.arange(data.n_frames - 6, data.n_frames)
    plateau = plateau_on(held_out(frames, None, rows), step, objective)
    assert plateau is not None
    loss, _ = step.gradient(weights, frames.batch(rest), objective.weights(1.0))
    assert plateau.measure(weights) == pytest.approx(loss, rel=1e-5)
    assert plateau_on(held_out(frames, None, np.arange(data.n_frames - 3)), step, objective) is None
    both = plateau_on(held_out(frames, frames, rows), step, objective)
    assert both is not None
    assert both.measure(weights) != plateau.measure(weights)
