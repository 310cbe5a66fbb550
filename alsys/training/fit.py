"""Fits one model: steps of Adam along a schedule made for a stream of refits, with averages and roll-backs.

A fit warms up, stays at its peak and decays, against the share used of a budget of seconds, steps or epochs, so that
it ends annealed wherever it stops (warm-up, stable, decay: S. Hu et al., arXiv:2404.06395). What is published is the
moving average of the weights, and a refit goes on from there with a warm-up of its own: going on from before the decay,
with Adam's moments, was worse (docs/design/025-stream-training.md). A loss that is not finite rolls back to the last
good average at half the learning rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from alsys.training.loss import Objective
from alsys.training.replay import Draw
from alsys.training.step import Step
from alsys.training.tensors import TrainingFrames

WARM_UP = 0.03
"""Share of the budget in which the learning rate rises."""
FINAL_RATE = 0.01
"""Last learning rate as a share of the peak."""
MAX_ROLLBACKS = 3
CLIP_NORM = 10.0
"""Largest norm of a gradient, where forces are in units of their root mean square."""


class DivergedError(Exception):
    """A member never got through its frames without a loss that is not finite."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a fit may use: the first limit that is reached ends it.

    Attributes:
        seconds: Of wall time.
        epochs: Passes through the frames.
        steps: Of the optimiser; None for any number.
    """

    seconds: float
    epochs: int
    steps: int | None = None

    def used(self, seconds: float, epochs: float, steps: int) -> float:
        """Share of the budget that is used; 1 and more at its end."""
        by_steps = 0.0 if self.steps is None else steps / self.steps
        return max(seconds / max(self.seconds, 1e-3), epochs / self.epochs, by_steps)


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How a fit descends.

    Attributes:
        objective: The loss.
        learning_rate: At the peak.
        ema: Decay of the moving average of the weights; 0 for none.
        decay_share: Share of the budget in which the learning rate falls.
        scale: Root mean square force, eV/Angstrom: gradients are those of the loss over its square.
    """

    objective: Objective
    learning_rate: float
    ema: float
    decay_share: float
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fitted model.

    Attributes:
        weights: ``(n_weights,)`` moving average after the decay.
        steps: Gradient steps taken.
        epochs: Frames seen over frames there are.
        seconds: Wall time.
        rollbacks: How often a loss was not finite.
    """

    weights: torch.Tensor
    steps: int
    epochs: float
    seconds: float
    rollbacks: int


def fit_model(
    step: Step,
    start: torch.Tensor,
    frames: TrainingFrames,
    draw: Draw,
    how: Optimisation,
    budget: Budget,
    clock: Callable[[], float] = time.perf_counter,
) -> FittedModel:
    """Trains a model.

    Args:
        step: Gives gradients.
        start: ``(n_weights,)``.
        frames: Training frames.
        draw: Which frames each batch holds.
        how: Loss and rates.
        budget: What may be used; at least one step is taken.
        clock: Seconds.

    Raises:
        DivergedError: There are no finite weights that were trained.
    """
    started = clock()
    weights = torch.nn.Parameter(start.clone())
    average = start.clone()
    good, has_good = average.clone(), False
    peak, rollbacks, steps, passes = how.learning_rate, 0, 0, 0
    optimizer = _optimizer(weights, peak)
    is_clean = True  # this pass had no loss that was not finite
    factor = 1.0 / how.scale**2
    while True:
        progress = budget.used(clock() - started, draw.epochs, steps)
        if progress >= 1.0 and (steps or rollbacks):
            break
        optimizer.param_groups[0]["lr"] = peak * rate_at(progress, how.decay_share)
        loss, gradient = step.gradient(weights.detach(), frames.batch(draw.next()), how.objective.weights(progress))
        gradient *= factor
        norm = float(gradient.norm())
        if math.isfinite(loss) and math.isfinite(norm):
            if norm > CLIP_NORM:
                gradient *= CLIP_NORM / norm
            weights.grad = gradient
            optimizer.step()
            steps += 1
            # early on the average follows the weights more closely, so that it forgets where they started
            decay = min(how.ema, (1 + steps) / (10 + steps))
            average.lerp_(weights.detach(), 1.0 - decay)
            if draw.passes > passes:
                if is_clean and bool(torch.isfinite(average).all()):
                    good.copy_(average)
                    has_good = True
                passes, is_clean = draw.passes, True
            continue
        rollbacks += 1
        is_clean = draw.passes > passes
        passes = draw.passes
        if rollbacks > MAX_ROLLBACKS:
            break
        with torch.no_grad():
            weights.copy_(good)
        average.copy_(good)
        peak *= 0.5
        optimizer = _optimizer(weights, peak)
    is_sound = rollbacks <= MAX_ROLLBACKS and bool(torch.isfinite(average).all())
    if not steps or not (is_sound or has_good):
        raise DivergedError(f"the loss was not finite {rollbacks} times")
    return FittedModel(
        weights=average if is_sound else good,
        steps=steps,
        epochs=draw.epochs,
        seconds=clock() - started,
        rollbacks=rollbacks,
    )


def rate_at(progress: float, decay_share: float) -> float:
    """Learning rate as a share of its peak.

    Args:
        progress: Share of the budget that is used.
        decay_share: Share of the budget in which it falls along a cosine; before, it rises and is constant.
    """
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.05)
    x = (min(progress, 1.0) - (1.0 - decay_share)) / max(decay_share, 1e-9)
    return 1.0 if x <= 0.0 else FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * x))


def _optimizer(weights: torch.nn.Parameter, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([weights], lr=rate, amsgrad=True, fused=True)
