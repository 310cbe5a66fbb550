"""One plain, fast model out of a large one: a difference to a baseline, a committee, a deep network.

The large model is the teacher. The small one learns its labels of the frames that the campaign has labelled, of frames
that the teacher's own dynamics passes, and then, round after round, of those that its own passes: it is taught where it
goes (S. Ross, G. J. Gordon, J. A. Bagnell, AISTATS 2011, arXiv:1011.0686), and its walkers cost a part of the
teacher's. All labels are of one level, so nothing has to be added to the small model and one member is enough. It is
done when its force error on the campaign's random arm is for sure at most `GOAL` times its teacher's, or when the
budget is used. How well it has learned is measured on walkers that it has not seen, too, and how much it has gained in
milliseconds on the same batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from ase.data import chemical_symbols

from alsys.config.models import EquivariantModel, NetworkModel
from alsys.config.schema import CampaignConfig
from alsys.errors import InputError
from alsys.frames import TRAINING_ARMS, Arm
from alsys.metrics import Metrics, Name
from alsys.potentials.architectures import build_model, kind_of
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import weights_of
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.compiled_steps import AUTO_FROM_S
from alsys.training.evaluate import batch_of, bootstrap_ratio, evaluate
from alsys.training.snapshots import joined
from alsys.training.start import pretraining_config
from alsys.training.teacher import CommitteeTeacher, relabelled, taught
from alsys.training.trainer import NequIPTrainer

GOAL = 1.15
"""Force error against labels over the teacher's, at most."""
SHARES = (1 / 7, 2 / 7, 4 / 7)
"""Of frames and budget, for each round."""
HELD_OUT = 8
"""One walker in so many is not learned from."""
TIMED_FRAMES = 8
FITTED: Final[Mapping[str, object]] = {
    "batch_size": 2, "ema": 0.999, "bootstrap": 1.0, "validation_share": 0.0, "renew_every": 0, "delta": None,
}  # fmt: skip
"""How it is fitted, whatever suits a campaign's few labels."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """A small model and how good it is.

    Attributes:
        state: Without a baseline.
        metrics: As of `alsys.metrics`; of the random arm where there is one.
    """

    state: CommitteeState
    metrics: Metrics

    @property
    def is_good(self) -> bool | None:
        """Whether the upper limit of its error over its teacher's is at most `GOAL`; None where nobody has measured."""
        high = self.metrics.get("force_mae_ratio_high")
        return None if high is None else high <= GOAL


def distil(
    state: CommitteeState,
    known: Snapshot,
    config: CampaignConfig,
    *,
    frames: int,
    temperatures: Sequence[float],
    members: int,
    budget_s: float,
    speed_up: float = 5.0,
) -> Distilled:
    """Trains a model on the labels of another.

    Args:
        state: The large model.
        known: Frames of the campaign with labels of its level, free atoms included. Walkers begin from those that are
            learned from, molecules and periodic frames; of the others only the random arm is used.
        config: ``model`` is the architecture of the small one, ``training`` how it is fitted, but for `FITTED`.
        frames: From dynamics, in all rounds.
        temperatures: Of the dynamics, K.
        members: Of the small one.
        budget_s: CPU seconds of training in all rounds; dynamics, labels and compiling come on top.
        speed_up: How many times as fast as the large one the small one is to be: it has fewer layers where it is not.

    Raises:
        InputError: The large model does not hold the frames together, or the fit diverged.
        EnvironmentProblem: A package that one of them needs is missing.
    """
    build = partial(build_committee, threads=config.training.threads, device=config.training.device)
    large = build(state)
    if state.kind == "pair":  # treats molecules only
        known = known.select(np.flatnonzero(~known.pbc.any(axis=1)))
    atoms = known.select(known.is_arm(Arm.ATOM))
    free = {int(z): float(energy) for z, energy in zip(atoms.numbers, atoms.energy, strict=True)} or None
    teacher = CommitteeTeacher(large, free)
    own = relabelled(teacher, known.select(known.is_arm(*TRAINING_ARMS)))
    random = known.select(known.is_arm(Arm.RANDOM) & (known.n_trusted > 0))
    rng = np.random.default_rng([config.seed, 4])
    train, test = _parts(taught(teacher, known, _part(frames, 0), temperatures, rng, field="systems"))
    molecules = np.flatnonzero(~train.is_arm(Arm.ATOM))
    timed = train.select(np.resize(molecules, TIMED_FRAMES))
    assert isinstance(config.model, NetworkModel), "as the command has checked"
    config = _fit_config(config, _fast_enough(config.model, build, large, timed, members, speed_up), budget_s)
    small: CommitteeState | None = None
    steps = 0.0
    for number, share in enumerate(SHARES, 1):
        order = TrainingOrder(state.version, joined(own, train), small, None, seed=config.seed)
        fit = _fitted(pretraining_config(config, share * budget_s), order)
        small, steps = fit.state, steps + fit.metrics["steps"]
        student = build(fit.state)
        metrics = Metrics({"rounds": number, "n_frames": fit.metrics["n_train"], "steps": steps})
        found = Distilled(fit.state, metrics | _errors(student, large, test, random))
        if found.is_good or number == len(SHARES):
            break
        guided = CommitteeTeacher(large, free, mover=student)
        count = _part(frames, number)
        try:
            walked = taught(guided, train, count, temperatures, rng)
        except InputError:  # it does not hold the frames together yet
            walked = taught(teacher, train, count, temperatures, rng, field="systems")
        more, unseen = _parts(walked)
        train, test = joined(train, more), joined(test, unseen)
    frame_ms, teacher_ms = _frame_ms(student, timed), _frame_ms(large, timed)
    speed = Metrics({"frame_ms": frame_ms, "teacher_frame_ms": teacher_ms, "speed_up": teacher_ms / frame_ms})
    return Distilled(found.state, found.metrics | speed)


def _part(frames: int, number: int) -> int:
    """Frames of a round, the first is 0."""
    return max(1, round(SHARES[number] * frames))


def _parts(walked: Snapshot) -> tuple[Snapshot, Snapshot]:
    """What is learned from, free atoms included, and what is not: frames of other walkers."""
    is_atom = walked.is_arm(Arm.ATOM)
    walkers = np.unique(walked.trajectory[~is_atom])
    is_test = ~is_atom & np.isin(walked.trajectory, walkers[HELD_OUT - 1 :: HELD_OUT])
    return walked.select(~is_test), walked.select(is_test)


def _fit_config(config: CampaignConfig, model: NetworkModel, budget_s: float) -> CampaignConfig:
    """A campaign's config for the fits of the small model: steps are compiled where all of them take long."""
    is_long = config.training.compile == "auto" and budget_s >= AUTO_FROM_S
    changes = {**FITTED, "compile": True if is_long else config.training.compile}
    return config.model_copy(update={"model": model, "training": config.training.model_copy(update=changes)})


def _fitted(config: CampaignConfig, order: TrainingOrder) -> TrainedCommittee:
    result = NequIPTrainer(config).run(order)
    if isinstance(result, TrainingFailure):
        raise InputError(f"the fit failed: {result.message}", field="--config", remedy="lower training.learning_rate")
    return result


def _errors(student: Committee, large: Committee, test: Snapshot, random: Snapshot) -> Metrics:
    """Of the student to its teacher on walkers that it has not seen, and of both to the random arm's labels."""
    metrics: dict[Name, float] = {}
    if test.n_frames:
        errors = evaluate(student, test)
        metrics |= {
            "force_mae_to_teacher": float(errors.force_mae.mean()),
            "energy_mae_to_teacher": float(errors.energy.mean()),
        }
        if np.isfinite(errors.stress).any():
            metrics["stress_mae_to_teacher"] = float(np.nanmean(errors.stress))
    if random.n_frames:
        mine, other = (evaluate(committee, random).force_mae for committee in (student, large))
        metrics |= {
            "force_mae_random_arm": float(mine.mean()),
            "teacher_force_mae_random_arm": float(other.mean()),
            "force_mae_ratio": float(mine.mean() / other.mean()),
        }
        if random.n_frames >= 2:
            low, high = bootstrap_ratio(mine, other)
            metrics |= {"force_mae_ratio_low": low, "force_mae_ratio_high": high}
    return Metrics(metrics)


def _fast_enough(
    model: NetworkModel,
    build: Callable[[CommitteeState], Committee],
    large: Committee,
    frames: Snapshot,
    members: int,
    speed_up: float,
) -> NetworkModel:
    """The network with so many members, and fewer layers where it is not `speed_up` times as fast as the large model.

    Networks of other packages are taken as they are.
    """
    model = model.model_copy(update={"members": members})
    aim = _frame_ms(large, frames) / speed_up
    elements = [chemical_symbols[z] for z in np.unique(frames.numbers)]
    while isinstance(model, EquivariantModel) and model.num_layers > 1:
        spec = {**model.spec(elements), "avg_num_neighbors": 1.0}
        weights = weights_of(build_model(spec))
        if _frame_ms(build(CommitteeState(0, kind_of(spec), spec, (weights,) * members)), frames) <= aim:
            break
        model = model.model_copy(update={"num_layers": model.num_layers - 1})
    return model


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
