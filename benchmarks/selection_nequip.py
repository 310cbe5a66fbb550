"""The model of the selection study with `--model nequip`: committees fitted by the product's own trainer.

Each round starts from the committee of the round before and takes a fixed number of gradient steps a member, so a busy
machine changes nothing but the duration. Deviation, features and their scale are those that explorers select by
(`alsys.selection.chunks`): features of the first member, averaged over the atoms of each element, with unit
variance among the frames that may be chosen and the labelled ones. The first fit is the same for all strategies of a
seed and done once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from fitted import config_of, snapshot_of
from selection_pools import Pool

from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.ani import AniCommittee, ani1x_state
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.nequip import NequIPCommittee
from alsys.selection.batches import standardised
from alsys.selection.frame_features import frame_features
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer

CHUNK = 200
"""Frames evaluated at once."""
FOREVER = 1e9


@dataclass(frozen=True, slots=True)
class Fits:
    """What is fitted, and for how long.

    Attributes:
        members: Of the committee.
        num_layers: Message-passing layers.
        l_max: Largest angular momentum of features.
        num_features: Channels.
        batch_size: Frames of a gradient step.
        learning_rate: Its peak in each fit.
        first_steps: Gradient steps of each member in the first round.
        steps: The same in all others; whole passes, so about.
    """

    members: int = 3
    num_layers: int = 2
    l_max: int = 1
    num_features: int = 16
    batch_size: int = 5
    learning_rate: float = 0.02
    first_steps: int = 450
    steps: int = 300


def committees(pool: Pool, fits: Fits) -> Callable[[int], Committee]:
    """A committee without labels for a seed; those of one seed share their first fit."""
    first: dict[int, tuple[bytes, CommitteeState]] = {}
    return lambda seed: Committee(pool, fits, seed, first)


def passes(n_frames: int, batch_size: int, steps: int) -> int:
    """Whole passes through the frames that come nearest to a number of gradient steps; at least one."""
    return max(1, round(steps / -(-n_frames // batch_size)))


@cache
def ani1x() -> AniCommittee:
    """The teacher; its weights are those of the extra `teacher`."""
    return AniCommittee(ani1x_state())


class Committee:
    """Is fitted anew, from its own weights, each time labels come in.

    Args:
        pool: The frames and their labels.
        fits: How it is fitted.
        seed: Of initial weights, bootstraps and the order of frames.
        first: Labels and state of the first fit of each seed, filled here.
    """

    def __init__(self, pool: Pool, fits: Fits, seed: int, first: dict[int, tuple[bytes, CommitteeState]]) -> None:
        self._pool, self._fits, self._seed, self._first = pool, fits, seed, first
        self._labelled = np.zeros(0, dtype=np.int64)
        self._state: CommitteeState | None = None

    def learn(self, frames: IntArray) -> None:
        """Takes the labels of these frames in."""
        self._labelled = np.concatenate([self._labelled, frames])
        if self._state is not None:
            self._state = self._fitted(self._fits.steps)
            return
        key = self._labelled.tobytes()
        known = self._first.get(self._seed)
        if known is None or known[0] != key:
            known = self._first[self._seed] = key, self._fitted(self._fits.first_steps)
        self._state = known[1]

    def errors(self, frames: IntArray) -> FloatArray:
        """``(n,)`` force MAE of the committee's mean, eV/Angstrom."""
        found = np.concatenate([prediction.forces for _, prediction in self._evaluate(frames)])
        wanted = self._pool.forces[frames]
        error: FloatArray = np.abs(found.reshape(wanted.shape) - wanted).mean(axis=(1, 2))
        return error

    def look(self, frames: IntArray, kernel: str = "committee") -> tuple[FloatArray, FloatArray]:
        """``(n,)`` largest force deviation over atoms, and ``(n, d)`` features with unit variance in every column."""
        found = self._evaluate(frames)
        deviation = np.concatenate([prediction.frame_deviation for _, prediction in found])
        if kernel == "ani-1x":
            found = [(batch, ani1x().evaluate(batch, [0])) for batch, _ in found]
        rows = []
        for batch, prediction in found:
            assert prediction.features is not None
            rows.append(frame_features(prediction.features, batch.numbers, batch.n_atoms))
        return deviation, standardised(np.concatenate(rows))[0]

    def _evaluate(self, frames: IntArray) -> list[tuple[FrameBatch, CommitteePrediction]]:
        assert self._state is not None, "nothing was learned yet"
        committee = NequIPCommittee(self._state)
        batches = [FrameBatch.of(self._frames(frames[k : k + CHUNK])) for k in range(0, len(frames), CHUNK)]
        return [(batch, committee.evaluate(batch)) for batch in batches]

    def _frames(self, frames: IntArray) -> list[Frame]:
        return [Frame.molecule(self._pool.numbers, self._pool.positions[i]) for i in frames]

    def _fitted(self, steps: int) -> CommitteeState:
        fits, pool = self._fits, self._pool
        base = config_of(
            "CCO",
            model={
                "members": fits.members,
                "num_layers": fits.num_layers,
                "l_max": fits.l_max,
                "num_features": fits.num_features,
            },
            budget_s=FOREVER,
        )
        n_seen = max(1, round(base.training.bootstrap * len(self._labelled)))
        training = base.training.model_copy(
            update={
                "batch_size": fits.batch_size,
                "learning_rate": fits.learning_rate,
                "max_epochs": passes(n_seen, fits.batch_size, steps),
            }
        )
        trainer = NequIPTrainer(base.model_copy(update={"training": training}))
        frames = self._frames(self._labelled)
        labelled = [(f, float(pool.energy[i]), pool.forces[i]) for f, i in zip(frames, self._labelled, strict=True)]
        version = 1 if self._state is None else self._state.version + 1
        # no free atoms: all frames have one composition, so they would only move energies by a constant
        order = TrainingOrder(version, snapshot_of(labelled, []), self._state, None, 1000 * self._seed + version)
        trained = trainer.run(order)
        if not isinstance(trained, TrainedCommittee):
            raise RuntimeError(f"the fit on {len(labelled)} labels failed: {trained.message}")
        return trained.state
