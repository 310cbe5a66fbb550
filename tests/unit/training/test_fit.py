"""Fits end annealed within their budget, roll back what is not finite, and go on from where they were."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alsys.frames import Arm
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.fit import (
    KEEP_EVERY_S,
    Budget,
    DivergedError,
    FittedModel,
    Optimisation,
    Plateau,
    Reached,
    fit_model,
    rate_at,
)
from alsys.training.loss import LossWeights, Objective
from alsys.training.replay import Shuffle
from alsys.training.step import EagerStep, Layout
from alsys.training.tensors import TrainingBatch, TrainingFrames

MakeSnapshot = Callable[..., Snapshot]
SPEC = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float32", "avg_num_neighbors": 4.0,
}  # fmt: skip
OBJECTIVE = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))
HOW = Optimisation(OBJECTIVE, learning_rate=0.02, ema=0.9, decay_share=0.5)


class FlakyFrames(TrainingFrames):
    """Gives NaN forces in some of its batches."""

    def __init__(self, train: Snapshot, bad: Callable[[int], bool]) -> None:
        super().__init__(train, SPEC)
        self._bad = bad
        self.n_batches = 0

    def batch(self, rows: NDArray[np.integer]) -> TrainingBatch:
        batch = super().batch(rows)
        self.n_batches += 1
        return dataclasses.replace(batch, forces=batch.forces * np.nan) if self._bad(self.n_batches) else batch


@pytest.fixture(scope="module")
def train(make_snapshot: MakeSnapshot) -> Snapshot:
    data = make_snapshot()
    return data.select(data.is_arm(Arm.INITIAL))


def fit(
    train: Snapshot,
    bad: Callable[[int], bool] = lambda n: False,
    budget: Budget | None = None,
    start: torch.Tensor | None = None,
    keep: Callable[[Reached], None] | None = None,
) -> tuple[FittedModel, int]:
    """Ten epochs of four batches; half a minute goes by between two looks at the clock, so that each step is kept."""
    clock = itertools.count(0.0, KEEP_EVERY_S + 1.0).__next__
    model = build_model(SPEC, seed=0)
    frames = FlakyFrames(train, bad)
    draw = Shuffle(np.arange(train.n_frames), 5, np.random.default_rng(0))
    begin = Layout.of(model).flat(model) if start is None else start
    budget = budget or Budget(1e6, 10)
    fitted = fit_model(EagerStep(model, OBJECTIVE), begin, frames, draw, HOW, budget, clock, keep=keep)
    return fitted, frames.n_batches


def test_a_loss_that_is_not_finite_is_rolled_back(train: Snapshot) -> None:
    fitted, n_batches = fit(train, lambda n: n in (6, 17))
    assert (fitted.steps, fitted.rollbacks, n_batches) == (38, 2, 40)
    assert bool(torch.isfinite(fitted.weights).all())


def test_a_member_that_keeps_diverging_falls_back_on_its_last_good_weights(train: Snapshot) -> None:
    """Those after the last whole pass: 20 of the 22 batches before it went wrong."""
    fitted, n_batches = fit(train, lambda n: n > 22)
    assert (fitted.steps, fitted.rollbacks, n_batches) == (22, 4, 26)

    class StopError(Exception):
        pass

    averages: list[torch.Tensor] = []

    def stop(reached: Reached) -> None:
        averages.append(reached.average.clone())
        if reached.steps == 20:
            raise StopError

    with pytest.raises(StopError):
        fit(train, keep=stop)
    assert torch.equal(fitted.weights, averages[-1])
    assert not torch.equal(averages[-1], averages[-2])


def test_a_member_that_never_gets_through_its_frames_is_given_up(train: Snapshot) -> None:
    with pytest.raises(DivergedError, match="4 times"):
        fit(train, lambda n: n % 4 == 3)


@pytest.mark.parametrize(
    ("budget", "steps"), [(Budget(1e6, 3), 12), (Budget(1e6, 1000, 7), 7), (Budget(1e-9, 1000), 1)]
)
def test_the_first_limit_ends_a_fit(train: Snapshot, budget: Budget, steps: int) -> None:
    assert fit(train, budget=budget)[0].steps == steps


def test_a_refit_goes_on_from_weights(train: Snapshot) -> None:
    first, _ = fit(train, budget=Budget(1e6, 1000, 20))
    kept = first.weights.clone()
    second, _ = fit(train, budget=Budget(1e6, 1000, 1), start=first.weights)
    assert torch.equal(first.weights, kept), "what was handed over is not written to"
    assert float((second.weights - kept).norm()) < 0.1 * float(kept.norm())


def test_the_same_seed_gives_the_same_weights(train: Snapshot) -> None:
    assert torch.equal(fit(train)[0].weights, fit(train)[0].weights)


def test_rates_warm_up_stay_and_decay() -> None:
    rates = [rate_at(x, 0.4) for x in np.linspace(0.0, 1.0, 201)]
    assert 0.0 < rates[0] < 0.1
    assert rates[10:120] == [1.0] * 110
    assert (np.diff(rates[120:]) < 0).all()
    assert rates[-1] == pytest.approx(0.01)
    assert rate_at(1.7, 0.4) == pytest.approx(0.01), "a step that ends late"


def test_time_in_which_others_compute_is_not_of_the_budget(train: Snapshot) -> None:
    """A step that waits, as on a machine with other work, uses nothing of the budget: the fit is longer, not worse."""

    class Waiting(EagerStep):
        def gradient(
            self, weights: torch.Tensor, batch: TrainingBatch, balance: LossWeights
        ) -> tuple[float, torch.Tensor]:
            time.sleep(0.05)
            return super().gradient(weights, batch, balance)

    model = build_model(SPEC)
    step, rng = Waiting(model, OBJECTIVE), np.random.default_rng(0)
    frames, draw = TrainingFrames(train, SPEC), Shuffle(np.arange(train.n_frames), 2, rng)
    start = Layout.of(model).flat(model)
    began = time.perf_counter()
    fitted = fit_model(step, start, frames, draw, HOW, Budget(0.5, 10**6))
    wall_s = time.perf_counter() - began
    assert fitted.seconds >= 0.5
    assert wall_s - fitted.seconds >= 0.05 * fitted.steps


class Losses:
    """Held-out losses that were measured one after another: each asked for, the last one again and again."""

    def __init__(self, *losses: float) -> None:
        self.left = list(losses)
        self.n_asked = 0

    def __call__(self, weights: torch.Tensor) -> float:
        self.n_asked += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def test_a_plateau_needs_patience_in_proportion_to_what_was_used() -> None:
    plateau = Plateau(Losses(1.0, 0.9, 0.895, 0.892, 0.5), every=0.09, patience=0.25, gain=0.01, least=0.15)
    seen = [plateau.is_reached(share, torch.zeros(1)) for share in (0.1, 0.2, 0.3, 0.35, 0.4)]
    assert seen == [False, False, False, False, True], "0.9 at 0.2 was the last gain of a hundredth"


@pytest.mark.parametrize(("losses", "steps"), [((1.0,), 50), (tuple(0.9**k for k in range(200)), 100)])
def test_a_fit_that_gains_no_more_decays_and_ends(train: Snapshot, losses: tuple[float, ...], steps: int) -> None:
    """Nothing is gained from the first look on: a quarter of the 100 steps, then as many to anneal."""
    model = build_model(SPEC, seed=0)
    frames, rates = TrainingFrames(train, SPEC), []

    def keep(reached: Reached) -> None:
        rates.append(reached.end)

    clock = itertools.count(0.0, KEEP_EVERY_S + 1.0).__next__
    draw = Shuffle(np.arange(train.n_frames), 5, np.random.default_rng(0))
    fitted = fit_model(
        EagerStep(model, OBJECTIVE), Layout.of(model).flat(model), frames, draw, HOW, Budget(1e9, 10_000, 100), clock,
        keep=keep, plateau=Plateau(Losses(*losses), every=0.01, patience=0.25, gain=0.01, least=0.24),
    )  # fmt: skip
    assert abs(fitted.steps - steps) <= 2
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(steps / 100, abs=0.03)


def test_a_fit_that_was_cut_off_on_its_plateau_ends_where_it_would_have(train: Snapshot) -> None:
    model = build_model(SPEC, seed=0)
    start = Layout.of(model).flat(model)
    reached = Reached(start, start, start, has_good=True, peak=0.02, steps=30, seconds=30.0, end=0.5)
    draw = Shuffle(np.arange(train.n_frames), 5, np.random.default_rng(0))
    losses = Losses(1.0)
    fitted = fit_model(
        EagerStep(model, OBJECTIVE), start, TrainingFrames(train, SPEC), draw, HOW, Budget(1e9, 10_000, 100),
        reached=reached, plateau=Plateau(losses),
    )  # fmt: skip
    assert (fitted.steps, losses.n_asked) == (50, 0)
