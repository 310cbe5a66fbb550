"""One plain, fast model out of a large one: a difference to a baseline, a committee, a deep network.

The large model is the teacher: it moves walkers and labels what they pass (`alsys.training.teacher`), and the frames
that the campaign has labelled besides. The small one learns labels of this one level, so nothing has to be added to it
and one member is enough. How well it has learned is measured on walkers that it has not seen, and on the campaign's
random arm against the labels themselves; how much it has gained, in milliseconds on the same batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alsys.config.schema import CampaignConfig
from alsys.errors import InputError
from alsys.frames import TRAINING_ARMS, Arm
from alsys.metrics import Metrics, Name
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import TrainingFailure, TrainingOrder
from alsys.training.evaluate import batch_of, evaluate
from alsys.training.snapshots import joined
from alsys.training.start import pretraining_config
from alsys.training.teacher import CommitteeTeacher, relabelled, taught
from alsys.training.trainer import NequIPTrainer

HELD_OUT = 8
"""One walker in so many is not learned from."""
TIMED_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Distilled:
    """A small model and how good it is.

    Attributes:
        state: Without a baseline.
        metrics: As of `alsys.metrics`; of the random arm where there is one.
    """

    state: CommitteeState
    metrics: Metrics


def distil(
    state: CommitteeState,
    known: Snapshot,
    config: CampaignConfig,
    *,
    frames: int,
    temperatures: Sequence[float],
    members: int,
    budget_s: float,
) -> Distilled:
    """Trains a model on the labels of another.

    Args:
        state: The large model.
        known: Frames of the campaign with labels of its level, free atoms included. Walkers begin from those that are
            learned from, molecules and periodic frames; of the others only the random arm is used.
        config: ``model`` is the architecture of the small one, ``training`` how it is fitted.
        frames: From dynamics.
        temperatures: Of the dynamics, K.
        members: Of the small one.
        budget_s: Seconds of training.

    Raises:
        InputError: The large model does not hold the frames together, or the fit diverged.
        EnvironmentProblem: A package that one of them needs is missing.
    """
    large = build_committee(state, threads=config.training.threads)
    atoms = known.select(known.is_arm(Arm.ATOM))
    free = {int(z): float(energy) for z, energy in zip(atoms.numbers, atoms.energy, strict=True)}
    teacher = CommitteeTeacher(large, free or None)
    if state.kind == "pair":  # treats molecules only
        known = known.select(np.flatnonzero(~known.pbc.any(axis=1)))
    rng = np.random.default_rng([config.seed, 4])
    labelled = taught(teacher, known, frames, temperatures, rng, field="systems")
    is_atom, walkers = labelled.is_arm(Arm.ATOM), np.unique(labelled.trajectory[~labelled.is_arm(Arm.ATOM)])
    is_test = ~is_atom & np.isin(labelled.trajectory, walkers[HELD_OUT - 1 :: HELD_OUT])
    test, labelled = labelled.select(is_test), labelled.select(~is_test)
    own = relabelled(teacher, known.select(known.is_arm(*TRAINING_ARMS)))
    labelled = joined(own, labelled)
    small = pretraining_config(config, budget_s)
    small = small.model_copy(
        update={
            "model": config.model.model_copy(update={"members": members}),
            "training": small.training.model_copy(update={"delta": None, "bootstrap": 1.0}),
        }
    )
    result = NequIPTrainer(small).run(TrainingOrder(state.version, labelled, None, None, seed=config.seed))
    if isinstance(result, TrainingFailure):
        raise InputError(f"the fit failed: {result.message}", field="--config", remedy="lower training.learning_rate")
    student = build_committee(result.state, threads=config.training.threads)
    metrics: dict[Name, float] = {"n_frames": result.metrics["n_train"], "steps": result.metrics["steps"]}
    if test.n_frames:
        errors = evaluate(student, test)
        metrics |= {
            "force_mae_to_teacher": float(errors.force_mae.mean()),
            "energy_mae_to_teacher": float(errors.energy.mean()),
        }
        if np.isfinite(errors.stress).any():
            metrics["stress_mae_to_teacher"] = float(np.nanmean(errors.stress))
    random = known.select(known.is_arm(Arm.RANDOM) & (known.n_trusted > 0))
    if random.n_frames:
        metrics |= {
            "force_mae_random_arm": float(evaluate(student, random).force_mae.mean()),
            "teacher_force_mae_random_arm": float(evaluate(large, random).force_mae.mean()),
        }
    timed = labelled.select(~labelled.is_arm(Arm.ATOM)).select(np.arange(TIMED_FRAMES))
    metrics |= {"frame_ms": _frame_ms(student, timed), "teacher_frame_ms": _frame_ms(large, timed)}
    metrics["speed_up"] = metrics["teacher_frame_ms"] / metrics["frame_ms"]
    return Distilled(result.state, Metrics(metrics))


def _frame_ms(committee: Committee, frames: Snapshot) -> float:
    """Milliseconds for a frame in a batch: the fastest of five."""
    batch = batch_of(frames)
    committee.evaluate(batch)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        committee.evaluate(batch)
        seconds.append(time.perf_counter() - started)
    return 1e3 * min(seconds) / frames.n_frames
