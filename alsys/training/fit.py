"""Fits one model: steps of Adam along a schedule made for a stream of refits, with averages and roll-backs.

A fit warms up, stays at its peak and decays, against the share used of a budget of seconds, steps or epochs, so that
it ends annealed wherever it stops (warm-up, stable, decay: S. Hu et al., arXiv:2404.06395). What is published is the
moving average of the weights, and a refit goes on from there with a warm-up of its own: going on from before the decay,
with Adam's moments, was worse (docs/design/025-stream-training.md). A loss that is not finite rolls back to the last
good average at half the learning rate. Where a fit is can be kept (`Reached`), and a fit that was cut off goes on from
there: along the same schedule, with Adam's moments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from alsys.potentials.devices import number
from alsys.training.loss import Objective
from alsys.training.replay import Draw
from alsys.training.step import Step
from alsys.training.tensors import TrainingFrames

WARM_UP = 0.03
"""Share of the budget in which the learning rate rises."""
FINAL_RATE = 0.01
"""Last learning rate as a share of the peak."""
MAX_ROLLBACKS = 3
KEEP_EVERY_S = 30.0
"""Seconds after which it is kept again where a fit is."""
CLIP_NORM = 10.0
"""Largest norm of a gradient, where forces are in units of their root mean square."""


class DivergedError(Exception):
    """A member never got through its frames without a loss that is not finite."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a fit may use: the first limit that is reached ends it.

    Attributes:
        seconds: Of the clock that counts: CPU seconds of the thread, unless another is given.
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


@dataclass(slots=True)
class Plateau:
    """Sees when held-out frames gain no more, so that a fit decays and ends before its budget is used.

    Attributes:
        measure: Loss of weights on held-out frames.
        every: Share of the budget after which it is measured again, and a measurement may take of what was used.
        patience: Share of what was used, at least of the budget `least`, that must pass without a gain.
        gain: Share of the loss that is one.
        least: See there.
    """

    measure: Callable[[torch.Tensor], float]
    every: float = 0.01
    patience: float = 0.25
    gain: float = 0.01
    least: float = 0.05
    _best: float = field(default=math.inf, init=False)
    _best_at: float = field(default=0.0, init=False)
    _asked_at: float = field(default=0.0, init=False)

    def is_reached(self, progress: float, average: torch.Tensor) -> bool:
        """Whether nothing was gained for long enough.

        Args:
            progress: Share of the budget that is used.
            average: ``(n_weights,)`` what would be published.
        """
        if progress - self._asked_at < self.every:
            return False
        self._asked_at = progress
        loss = self.measure(average)
        if loss < (1.0 - self.gain) * self._best:
            self._best, self._best_at = loss, progress
            return False
        return progress - self._best_at >= max(self.patience * progress, self.least)


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a fit is: all that another process needs to go on.

    Attributes:
        weights: ``(n_weights,)``.
        average: ``(n_weights,)`` their moving average.
        good: ``(n_weights,)`` the average after the last pass without a loss that was not finite.
        moments: Of Adam, by name.
        has_good: There was such a pass.
        peak: Learning rate at the peak: half of the configured one after each roll-back.
        steps: Gradient steps taken.
        rollbacks: How often a loss was not finite.
        epochs: Frames seen over frames there are.
        seconds: Used.
        end: Share of the budget at which the fit ends: smaller than 1 once held-out frames gained no more.
        is_done: The fit ended; `average` is what it gave.
    """

    weights: torch.Tensor
    average: torch.Tensor
    good: torch.Tensor
    moments: Mapping[str, torch.Tensor] = field(default_factory=dict)
    has_good: bool = False
    peak: float = 0.0
    steps: int = 0
    rollbacks: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    end: float = 1.0
    is_done: bool = False

    def on(self, device: torch.device) -> Reached:
        """The same with its tensors on a device."""
        return replace(
            self,
            weights=self.weights.to(device),
            average=self.average.to(device),
            good=self.good.to(device),
            moments={name: value.to(device) for name, value in self.moments.items()},
        )

    @property
    def fitted(self) -> FittedModel:
        """What the fit gave, where it is done."""
        return FittedModel(self.average, self.steps, self.epochs, self.seconds, self.rollbacks)


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fitted model.

    Attributes:
        weights: ``(n_weights,)`` moving average after the decay.
        steps: Gradient steps taken.
        epochs: Frames seen over frames there are.
        seconds: Of that clock.
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
    clock: Callable[[], float] = time.thread_time,
    *,
    reached: Reached | None = None,
    keep: Callable[[Reached], None] | None = None,
    plateau: Plateau | None = None,
) -> FittedModel:
    """Trains a model.

    Args:
        step: Gives gradients.
        start: ``(n_weights,)``.
        frames: Training frames.
        draw: Which frames each batch holds.
        how: Loss and rates.
        budget: What may be used, by the part before `reached` too; at least one step is taken.
        clock: Seconds.
        reached: Where an earlier fit of the same model was; `start` is not read then.
        keep: Is given every `KEEP_EVERY_S` where the fit is, and at its end.
        plateau: Begins the decay where it sees one, in proportion to what was used until then; None: the budget does.

    Raises:
        DivergedError: There are no finite weights that were trained.
    """
    if reached is None:
        reached = Reached(start, start, start, peak=how.learning_rate)
    started, epochs_before = clock() - reached.seconds, reached.epochs
    weights = torch.nn.Parameter(reached.weights.clone())
    average, good, has_good = reached.average.clone(), reached.good.clone(), reached.has_good
    peak, rollbacks, steps, passes = reached.peak, reached.rollbacks, reached.steps, 0
    optimizer = _optimizer(weights, peak)
    if reached.moments:
        optimizer.state[weights] = {name: value.clone() for name, value in reached.moments.items()}
    is_clean = True  # this pass had no loss that was not finite
    factor = 1.0 / how.scale**2
    kept, end = reached.seconds, reached.end

    def here() -> Reached:
        moments = optimizer.state[weights] if steps else {}
        return Reached(
            weights.detach(), average, good, moments, has_good, peak, steps, rollbacks,
            epochs_before + draw.epochs, clock() - started, end,
        )  # fmt: skip

    while True:
        seconds = clock() - started
        used = budget.used(seconds, epochs_before + draw.epochs, steps)
        if plateau is not None and end == 1.0 and used < 1.0 - how.decay_share and plateau.is_reached(used, average):
            end = used / (1.0 - how.decay_share)
        progress = used / end
        if progress >= 1.0 and (steps or rollbacks):
            break
        if keep is not None and seconds - kept >= KEEP_EVERY_S:
            keep(here())
            kept = seconds
        optimizer.param_groups[0]["lr"] = peak * rate_at(progress, how.decay_share)
        loss, gradient = step.gradient(weights.detach(), frames.batch(draw.next()), how.objective.weights(progress))
        gradient *= factor
        norm = number(gradient.norm())
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
                if is_clean and _is_finite(average):
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
    is_sound = rollbacks <= MAX_ROLLBACKS and _is_finite(average)
    if not steps or not (is_sound or has_good):
        raise DivergedError(f"the loss was not finite {rollbacks} times")
    last = replace(here(), average=average if is_sound else good, is_done=True)
    if keep is not None:
        keep(last)
    return last.fitted


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


def _is_finite(weights: torch.Tensor) -> bool:
    return not number((~torch.isfinite(weights)).any())


def _optimizer(weights: torch.nn.Parameter, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([weights], lr=rate, amsgrad=True, fused=not weights.is_meta)
