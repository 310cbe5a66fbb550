"""Fits committees of NequIP models within a budget of seconds.

Each member has its own seed, its own bootstrap of the training frames and its share of the budget. A fit starts from
the parent's weights where there are any. The learning rate warms up and then falls along a cosine of the time used, so
a fit always ends annealed, however slow the machine; what is published is the moving average of the weights. A loss
that is not finite rolls the member back to its last good average at half the learning rate.

A fresh member's energy shifts are free-atom energies from the same labeler plus one constant per atom, the mean
atomisation energy of the training set, so that the network learns differences of a few eV and not thousands; its
energy scale is the root mean square force (docs/design/004-training.md). A warm start keeps its parent's shifts and
scales: the weights were learnt with them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from alsys.config.schema import CampaignConfig, NetworkModel, TrainingConfig
from alsys.errors import FailureKind
from alsys.potentials.architectures import architecture_of, kind_of
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import (
    NequIPCommittee,
    blank_model,
    build_model,
    elements_of,
    load_weights,
    prepare,
    weights_of,
)
from alsys.potentials.scored import COMMITTEE, fit_score
from alsys.potentials.tracing import evaluating
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.dataset import Split, atomic_energies, baseline_of, less_baseline, split
from alsys.training.evaluate import batch_of, chunks_of, fit_metrics, predictions_of
from alsys.training.examination import Examiner
from alsys.training.loss import Objective
from alsys.training.tensors import TrainingBatch, TrainingFrames

WARM_UP = 0.03
"""Share of the budget in which the learning rate rises."""
FINAL_RATE = 0.01
"""Last learning rate as a share of the peak."""
MAX_ROLLBACKS = 3
CLIP_NORM = 10.0
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
SCALES = "model.func.per_type_energy_scale_shift.scales"


class DivergedError(Exception):
    """A member never got through its frames without a loss that is not finite."""


@dataclass(frozen=True, slots=True)
class MemberFit:
    """A fitted member.

    Attributes:
        weights: Its state dict, with the average weights.
        steps: Gradient steps taken.
        epochs: Passes through its bootstrap.
    """

    weights: dict[str, NDArray[np.generic]]
    steps: int
    epochs: float


class NequIPTrainer:
    """Fits committees of the architecture in the config.

    Args:
        config: ``model`` (kind nequip or allegro) and ``training`` are read.
    """

    def __init__(self, config: CampaignConfig) -> None:
        if not isinstance(config.model, NetworkModel):
            raise TypeError("NequIPTrainer needs model.kind nequip or allegro")
        torch.set_num_threads(config.training.threads)
        prepare()
        self._model_config: NetworkModel = config.model
        self._config: TrainingConfig = config.training
        self._objective = Objective.of(config.training)
        self._score = config.exploration.uncertainty
        self._baseline = baseline_of(config)
        self._examiner = Examiner(config)

    def fit(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Fits all members, one after another, then measures the committee.

        Where the campaign learns the difference to a baseline, all numbers are of labels minus baseline, whose errors
        are those of the sum.
        """
        started = time.perf_counter()
        snapshot = order.snapshot if self._baseline is None else less_baseline(order.snapshot)
        parts = split(snapshot, self._config.validation_share)
        if parts.train.n_frames < 1:
            return TrainingFailure(order.version, FailureKind.INTERNAL, "there is no frame to train on")
        spec, frames = self._prepare(order, parts)
        parent = order.parent if order.parent is not None and dict(order.parent.spec) == spec else None
        if parent is not None and parent.baseline != self._baseline:
            parent = None
        shifts, scale = self._shifts_and_scale(spec, parts, frames)
        working = None if parent is None else blank_model(spec)
        fits = []
        for i in range(self._model_config.members):
            seed = order.seed * 97 + i
            if working is not None and parent is not None and i < parent.n_members:
                model = working
                load_weights(model, parent.members[i])
            else:
                model = build_model(spec, seed=seed)
                _set_buffers(model, shifts, scale)
            left = self._config.budget_s - self._examiner.budget_s - (time.perf_counter() - started)
            try:
                fits.append(self._fit_member(model, frames, seed, left / (self._model_config.members - i)))
            except DivergedError as error:
                return TrainingFailure(order.version, FailureKind.INTERNAL, f"member {i}: {error}")
        weights = tuple(fit.weights for fit in fits)
        state = CommitteeState(order.version, kind_of(spec), spec, weights, baseline=self._baseline)
        committee = NequIPCommittee(state, threads=self._config.threads)
        if self._score != COMMITTEE:
            (first, first_masks), (second, second_masks) = (_batches(parts.train, k) for k in (0, 1))
            learned = fit_score(self._score, committee, first, second, (first_masks, second_masks))
            state = replace(state, score=self._score, score_state=learned)
        metrics, calibration = fit_metrics(
            committee,
            self._champion(order, parts.random),
            parts.train,
            parts.validation,
            parts.random,
            wall_s=time.perf_counter() - started,
            epochs=float(np.mean([fit.epochs for fit in fits])),
            seed=order.seed,
        )
        if not all(math.isfinite(value) for value in metrics.values()):
            return TrainingFailure(order.version, FailureKind.INTERNAL, "the committee predicts NaN")
        predictions = predictions_of(
            committee, order.snapshot, order.n_review, is_difference=self._baseline is not None
        )
        return self._examiner.examine(TrainedCommittee(state, metrics, calibration, predictions), order, committee)

    def _prepare(self, order: TrainingOrder, parts: Split) -> tuple[dict[str, object], TrainingFrames]:
        """Builder arguments and frames; the parent's neighbour count is kept, since its weights depend on it."""
        elements = [chemical_symbols[z] for z in sorted({int(z) for z in order.snapshot.numbers})]
        spec = self._model_config.spec(elements)
        frames = TrainingFrames(parts.train, spec, self._config.weights)
        parent = order.parent
        if parent is not None:
            neighbours = {"avg_num_neighbors": parent.spec.get("avg_num_neighbors")}
            if architecture_of({**spec, **neighbours}) == architecture_of(parent.spec):
                return dict(parent.spec), frames
        return {**spec, "avg_num_neighbors": round(max(frames.mean_neighbours, 1e-3), 6)}, frames

    def _shifts_and_scale(
        self, spec: Mapping[str, object], parts: Split, frames: TrainingFrames
    ) -> tuple[list[float], float]:
        """See `shifts_and_scale`; of what is left for the network to learn where a repulsion of nuclei is added."""
        train = parts.train if not spec.get("zbl") else less_repulsion(parts.train, frames, spec)
        energies = atomic_energies(parts.atoms, train, self._config.atomic_energies)
        return shifts_and_scale(train, elements_of(spec), energies)

    def _champion(self, order: TrainingOrder, random: Snapshot) -> Committee | None:
        """The committee to measure beside the new one, where it knows the elements and has learned the same thing."""
        if order.champion is None or not random.n_frames or order.champion.baseline != self._baseline:
            return None
        known = order.champion.spec.get("elements")
        symbols = {chemical_symbols[z] for z in random.numbers}
        if not isinstance(known, list | tuple) or not symbols <= set(known):
            return None
        return build_committee(replace(order.champion, baseline=None), threads=self._config.threads)

    def _fit_member(self, model: torch.nn.Module, frames: TrainingFrames, seed: int, budget_s: float) -> MemberFit:
        """Trains `model` from its weights; they are lost."""
        config = self._config
        started = time.perf_counter()
        rng = np.random.default_rng(seed)
        n_chosen = max(1, round(config.bootstrap * frames.n_frames))
        chosen = rng.choice(frames.n_frames, n_chosen, replace=False)
        parameters = [p for p in model.parameters() if p.requires_grad]
        average = [p.detach().clone() for p in parameters]
        good = [p.clone() for p in average]
        peak, rollbacks, steps, epoch, progress, has_good = config.learning_rate, 0, 0, 0, 0.0, False
        optimizer = _optimizer(parameters, peak)
        model.train()
        while progress < 1.0 and epoch < config.max_epochs:
            shuffled, rollbacks_before = rng.permutation(chosen), rollbacks
            for start in range(0, n_chosen, config.batch_size):
                share_of_epochs = (epoch + start / n_chosen) / config.max_epochs
                progress = max((time.perf_counter() - started) / max(budget_s, 1e-3), share_of_epochs)
                if progress >= 1.0 and (steps or rollbacks):
                    break
                for group in optimizer.param_groups:
                    group["lr"] = peak * schedule(min(progress, 1.0))
                loss = self._loss(model, frames.batch(shuffled[start : start + config.batch_size]), progress)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                if torch.isfinite(loss) and torch.isfinite(norm):
                    optimizer.step()
                    steps += 1
                    # early on the average follows the weights more closely, so that it forgets where they started
                    decay = min(config.ema, (1 + steps) / (10 + steps))
                    torch._foreach_lerp_(average, [p.detach() for p in parameters], 1.0 - decay)
                    continue
                rollbacks += 1
                if rollbacks > MAX_ROLLBACKS:
                    progress = 1.0
                    break
                _copy(good, parameters)
                _copy(good, average)
                peak *= 0.5
                optimizer = _optimizer(parameters, peak)
            else:
                if rollbacks == rollbacks_before and _is_finite(average):
                    _copy(average, good)
                    has_good = True
            epoch += 1
        is_sound = rollbacks <= MAX_ROLLBACKS and _is_finite(average)
        if not steps or not (is_sound or has_good):
            raise DivergedError(f"the loss was not finite {rollbacks} times")
        _copy(average if is_sound else good, parameters)
        return MemberFit(weights_of(model), steps, steps * config.batch_size / n_chosen)

    def _loss(self, model: torch.nn.Module, batch: TrainingBatch, progress: float = 0.0) -> torch.Tensor:
        """The loss of a batch (`alsys.training.loss`) at `progress`, the share of the fit that is done."""
        with evaluating():
            out = model(dict(batch.data))
        return self._objective(out, batch, progress)


def schedule(progress: float) -> float:
    """Learning rate as a share of its peak, against the share of the budget used."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.05)
    x = (progress - WARM_UP) / (1.0 - WARM_UP)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * x))


def shifts_and_scale(train: Snapshot, elements: list[str], energies: dict[int, float]) -> tuple[list[float], float]:
    """Energy shift of each element (eV) and one scale (eV: the root mean square force times 1 Angstrom).

    An element with neither a free atom nor a training frame gets a shift of zero. Masked atoms and the energies of
    frames that hold any do not enter; where all frames do, shifts are the energies of free atoms.
    """
    whole, forces = train.select(train.is_whole), train.forces[train.mask]
    constant = 0.0
    if whole.n_frames:
        free = np.array([energies[int(z)] for z in whole.numbers])
        constant = float((whole.energy.sum() - free.sum()) / whole.n_atoms.sum())
    scale = max(float(np.sqrt(np.square(forces).mean())), 1e-3) if forces.size else 1e-3
    by_symbol = {chemical_symbols[z]: energy + constant for z, energy in energies.items()}
    return [by_symbol.get(symbol, 0.0) for symbol in elements], scale


def less_repulsion(train: Snapshot, frames: TrainingFrames, spec: Mapping[str, object]) -> Snapshot:
    """The labels of `train`, whose tensors are `frames`, less a model's ZBL term, by a model of scale zero."""
    model = build_model(spec)
    _set_buffers(model, [0.0] * len(elements_of(spec)), 0.0)
    model.eval()
    energies, forces = [], []
    for rows in chunks_of(train):
        with evaluating():
            out = model(dict(frames.batch(rows).data))
        energies.append(out["total_energy"].detach().double().numpy().reshape(-1))
        forces.append(out["forces"].detach().double().numpy())
    return replace(train, energy=train.energy - np.concatenate(energies), forces=train.forces - np.concatenate(forces))


def _batches(train: Snapshot, first: int) -> tuple[list[FrameBatch], list[NDArray[np.bool_]]]:
    """Every other frame, from `first` on, in batches, and the atoms of each that were learned from."""
    half = train.select(np.arange(first, train.n_frames, 2))
    parts = [half.select(rows) for rows in chunks_of(half)]
    return [batch_of(part) for part in parts], [part.mask for part in parts]


def _set_buffers(model: torch.nn.Module, shifts: list[float], scale: float) -> None:
    state = model.state_dict()
    for name, values in ((SHIFTS, shifts), (SCALES, [scale] * len(shifts))):
        state[name].copy_(torch.tensor(values, dtype=state[name].dtype).reshape(state[name].shape))


def _optimizer(parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, amsgrad=True, fused=True)


@torch.no_grad()
def _copy(source: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> None:
    for value, place in zip(source, target, strict=True):
        place.copy_(value)


def _is_finite(tensors: Sequence[torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
