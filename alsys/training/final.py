"""The final fit: what it does otherwise than fits while labels come.

Explorers need a fast committee, and a fit while labels come a short one. Once the last label is there nothing waits but
the user: the final fit has a larger network, where its seconds carry one, small batches, a slow average, and an end of
its own, when held-out frames gain no more. Sizes and limits were measured (`benchmarks/accuracy.py`,
docs/design/044-budgets.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from alsys.config.models import NequIPModel, NetworkModel
from alsys.config.training import TrainingConfig
from alsys.training.fit import Plateau
from alsys.training.growth import GROWING
from alsys.training.loss import Objective
from alsys.training.step import Step
from alsys.training.tensors import TrainingFrames

SIZES: Final = ((60.0, {"l_max": 2}), (120.0, {"num_layers": 4}))
"""CPU seconds a member and molecule of `N_ATOMS` from which a network has at least so much.

With 50 frames of ethanol three layers err by 47.6 meV/Angstrom at l_max 2 after 100 s and by 58.6 at l_max 1, which is
the better one after less; four layers by 40.7 after 120 s and 37.9 after 240 s, three by 41.8 and 39.3.
"""
EAGER: Final = 4.5
"""Times that an eager step takes of a compiled one, with which `SIZES` were measured (docs/measurements.md)."""
N_ATOMS: Final = 9.0
"""Of ethanol, on which the seconds were measured; of larger molecules a step takes longer in proportion."""
SMALL_BATCH, SMALL_UP_TO = 2, 600
"""Frames of a batch, and training frames from which batches are as the config has them."""
SLOW_AVERAGE = 0.999
"""Decay of the moving average of the weights, at least, unless there is none."""
LEAST_HELD_OUT = 4
"""Held-out frames without which a final fit goes on to the end of its seconds."""


def final_model(model: NetworkModel, seconds: float, mean_atoms: float) -> NetworkModel:
    """The network that the final fit is worth: at least the config's.

    Args:
        model: The config's. Only NequIP with one number of features grows.
        seconds: CPU seconds of one member.
        mean_atoms: Atoms of a training frame.
    """
    if not isinstance(model, NequIPModel) or not isinstance(model.num_features, int):
        return model
    seconds *= N_ATOMS / max(mean_atoms, 1.0)
    size = {name: getattr(model, name) for name in GROWING}
    for least, wanted in SIZES:
        if seconds >= least:
            size |= {name: max(value, size[name]) for name, value in wanted.items()}
    return model.model_copy(update=size)


def batch_size(config: TrainingConfig, n_train: int) -> int:
    """Frames of a batch."""
    return min(config.batch_size, SMALL_BATCH) if n_train < SMALL_UP_TO else config.batch_size


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Frames that a member does not learn from, to see when it gains no more.

    Attributes:
        frames: Validation frames, or training frames of which `rows` are out of its bootstrap.
        rows: Which of them.
    """

    frames: TrainingFrames
    rows: NDArray[np.int64]

    def loss(self, step: Step, objective: Objective, at_once: int = 8) -> Callable[[torch.Tensor], float]:
        """Their loss with given weights, of the objective as it is at the end.

        Args:
            step: Of the member.
            objective: Its loss.
            at_once: Frames of a batch.
        """
        weights = objective.weights(1.0)
        chunks = [self.rows[k : k + at_once] for k in range(0, self.rows.size, at_once)]

        def measure(of: torch.Tensor) -> float:
            losses = [step.gradient(of, self.frames.batch(rows), weights)[0] * rows.size for rows in chunks]
            return sum(losses) / self.rows.size

        return measure


def held_out(frames: TrainingFrames, validation: TrainingFrames | None, rows: NDArray[np.int64]) -> list[HeldOut]:
    """What a member does not learn from.

    Args:
        frames: Training frames.
        validation: Validation frames, where there are any.
        rows: Training frames that it learns from.
    """
    parts = [HeldOut(frames, np.setdiff1d(np.flatnonzero(frames.is_drawn), rows))]
    return parts if validation is None else [*parts, HeldOut(validation, np.arange(validation.n_frames))]


def plateau_on(parts: list[HeldOut], step: Step, objective: Objective) -> Plateau | None:
    """Sees on held-out frames when a member gains no more; None where there are fewer than `LEAST_HELD_OUT`."""
    parts = [part for part in parts if part.rows.size]
    n = sum(part.rows.size for part in parts)
    if n < LEAST_HELD_OUT:
        return None
    measures = [(part.rows.size / n, part.loss(step, objective)) for part in parts]
    return Plateau(lambda of: sum(share * measure(of) for share, measure in measures))
