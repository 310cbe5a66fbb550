"""Fits committees of NequIP models within a budget of seconds.

Each member has its own seed, its own bootstrap of the training frames and its share of the budget. A fit starts from
the parent's weights where there are any. The learning rate warms up and then falls along a cosine of the time used, so
a fit always ends annealed, however slow the machine; what is published is the moving average of the weights. A loss
that is not finite rolls the member back to its last good average at half the learning rate.

Energy shifts are free-atom energies from the same labeler plus one constant per atom, the mean atomisation energy of
the training set, so that the network learns differences of a few eV and not thousands (docs/design/004-training.md).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from alsys.config.schema import CampaignConfig, NequIPModel, TrainingConfig
from alsys.errors import FailureKind
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import NequIPCommittee, build_model, input_of, load_weights, type_lookup, weights_of
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.dataset import atomic_energies, split
from alsys.training.evaluate import batch_of, fit_metrics

WARM_UP = 0.03
"""Share of the budget in which the learning rate rises."""
FINAL_RATE = 0.01
"""Last learning rate as a share of the first."""
MAX_ROLLBACKS = 3
CLIP_NORM = 10.0
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
SCALES = "model.func.per_type_energy_scale_shift.scales"


class DivergedError(Exception):
    """A member kept losing its weights to NaN."""


class NequIPTrainer:
    """Fits committees of the architecture in the config."""

    def __init__(self, config: CampaignConfig) -> None:
        if not isinstance(config.model, NequIPModel):
            raise TypeError("NequIPTrainer needs model.kind nequip")
        torch.set_num_threads(config.training.threads)
        self._model_config: NequIPModel = config.model
        self._config: TrainingConfig = config.training

    def fit(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Fits all members, one after another, then measures the committee."""
        started = time.perf_counter()
        parts = split(order.snapshot, self._config.validation_share)
        if parts.train.n_frames < 1:
            return TrainingFailure(order.version, FailureKind.INTERNAL, "there is no frame to train on")
        energies = atomic_energies(parts.atoms, parts.train)
        spec = self._spec(parts.train, order.parent)
        shifts, scales = _shifts_and_scales(parts.train, energies)
        frames = _Frames(parts.train, spec)
        members, epochs = [], []
        parent = order.parent if order.parent is not None and dict(order.parent.spec) == spec else None
        for i in range(self._model_config.members):
            seed = order.seed * 97 + i
            model = build_model(spec, seed=seed)
            if parent is not None and i < parent.n_members:
                load_weights(model, parent.members[i])
            _set_buffers(model, shifts, scales)
            left = self._config.budget_s - (time.perf_counter() - started)
            budget_s = left / (self._model_config.members - i)
            try:
                average, n_epochs = self._fit_member(model, frames, seed, budget_s)
            except DivergedError as error:
                return TrainingFailure(order.version, FailureKind.INTERNAL, f"member {i}: {error}")
            members.append(weights_of(average))
            epochs.append(n_epochs)
        state = CommitteeState(order.version, "nequip", spec, tuple(members))
        committee = NequIPCommittee(state, threads=self._config.threads)
        champion = None
        if order.champion is not None and parts.random.n_frames:
            champion = NequIPCommittee(order.champion, threads=self._config.threads)
        metrics, calibration = fit_metrics(
            committee,
            champion,
            parts.train,
            parts.validation,
            parts.random,
            wall_s=time.perf_counter() - started,
            epochs=float(np.mean(epochs)),
            seed=order.seed,
        )
        if not math.isfinite(metrics["force_mae_train"]):
            return TrainingFailure(order.version, FailureKind.INTERNAL, "the committee predicts NaN")
        return TrainedCommittee(state, metrics, calibration)

    def _spec(self, train: Snapshot, parent: CommitteeState | None) -> dict[str, object]:
        """Builder arguments; the parent's neighbour count is kept, since weights depend on it."""
        model = self._model_config
        spec: dict[str, object] = {
            "elements": [chemical_symbols[z] for z in sorted({int(z) for z in train.numbers})],
            "r_max": model.r_max,
            "num_layers": model.num_layers,
            "l_max": model.l_max,
            "num_features": model.num_features,
            "parity": model.parity,
            "dtype": model.dtype,
        }
        if parent is not None and all(parent.spec.get(key) == value for key, value in spec.items()):
            return dict(parent.spec)
        lookup = type_lookup([str(e) for e in spec["elements"]])  # type: ignore[attr-defined]
        edges = input_of(batch_of(train), lookup, model.r_max)["edge_index"].shape[1]
        return {**spec, "avg_num_neighbors": round(max(edges / int(train.n_atoms.sum()), 1e-3), 6)}

    def _fit_member(
        self, model: torch.nn.Module, frames: _Frames, seed: int, budget_s: float
    ) -> tuple[torch.nn.Module, float]:
        config = self._config
        rng = np.random.default_rng(seed)
        n_chosen = max(1, round(config.bootstrap * frames.n_frames))
        chosen = rng.choice(frames.n_frames, n_chosen, replace=False)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, amsgrad=True)
        average = copy.deepcopy(model)
        good = copy.deepcopy(average.state_dict())
        rate, rollbacks, step, epoch = config.learning_rate, 0, 0, 0
        started = time.perf_counter()
        progress = 0.0
        model.train()
        while progress < 1.0 and epoch < config.max_epochs:
            shuffled = rng.permutation(chosen)
            for start in range(0, n_chosen, config.batch_size):
                progress = max((time.perf_counter() - started) / max(budget_s, 1e-3), epoch / config.max_epochs)
                if progress >= 1.0:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = rate * _schedule(progress)
                loss = self._loss(model, frames.batch(shuffled[start : start + config.batch_size]))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                if not (torch.isfinite(loss) and torch.isfinite(norm)):
                    rollbacks += 1
                    if rollbacks > MAX_ROLLBACKS:
                        raise DivergedError(f"the loss was not finite {rollbacks} times")
                    model.load_state_dict(good)
                    rate *= 0.5
                    optimizer = torch.optim.Adam(parameters, lr=rate, amsgrad=True)
                    continue
                optimizer.step()
                step += 1
                _update_average(average, model, min(config.ema, (1 + step) / (10 + step)))
            else:
                good = copy.deepcopy(average.state_dict())
            epoch += 1
        return average.eval(), step * config.batch_size / n_chosen

    def _loss(self, model: torch.nn.Module, batch: _Batch) -> torch.Tensor:
        """Weighted mean squares of force components and of the energy per atom."""
        out = model(dict(batch.data))
        force = torch.nn.functional.mse_loss(out["forces"].double(), batch.forces)
        energy_error = (out["total_energy"].reshape(-1).double() - batch.energy) / batch.n_atoms
        return self._config.force_weight * force + self._config.energy_weight * torch.square(energy_error).mean()


class _Batch:
    """Model input and targets of some frames."""

    def __init__(self, data: dict[str, torch.Tensor], energy: torch.Tensor, forces: torch.Tensor) -> None:
        self.data = data
        self.energy = energy
        self.forces = forces
        self.n_atoms = data["num_atoms"].double()


class _Frames:
    """Training frames as tensors, neighbour lists included, built once for a fit."""

    def __init__(self, train: Snapshot, spec: dict[str, object]) -> None:
        lookup = type_lookup([str(e) for e in spec["elements"]])  # type: ignore[attr-defined]
        self._inputs = [
            input_of(batch_of(train.select(np.array([i]))), lookup, float(str(spec["r_max"])))
            for i in range(train.n_frames)
        ]
        offsets = train.offsets
        self._forces = [
            torch.from_numpy(train.forces[offsets[i] : offsets[i + 1]].copy()) for i in range(train.n_frames)
        ]
        self._energy = torch.from_numpy(train.energy.copy())
        self._is_periodic = any("cell" in data for data in self._inputs)

    @property
    def n_frames(self) -> int:
        return len(self._inputs)

    def batch(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> _Batch:
        """Concatenates frames."""
        inputs = [self._inputs[i] for i in rows]
        counts = [int(data["pos"].shape[0]) for data in inputs]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        data = {name: torch.cat([item[name] for item in inputs]) for name in ("pos", "atom_types", "num_atoms")}
        data["edge_index"] = torch.cat(
            [item["edge_index"] + int(start) for item, start in zip(inputs, starts, strict=True)], dim=1
        )
        data["batch"] = torch.repeat_interleave(torch.arange(len(inputs)), torch.tensor(counts))
        if self._is_periodic:
            data["cell"] = torch.cat([item.get("cell", torch.zeros(1, 3, 3, dtype=torch.float64)) for item in inputs])
            data["edge_cell_shift"] = torch.cat(
                [
                    item.get("edge_cell_shift", torch.zeros(item["edge_index"].shape[1], 3, dtype=torch.float64))
                    for item in inputs
                ]
            )
        return _Batch(data, self._energy[list(rows)], torch.cat([self._forces[i] for i in rows]))


def _schedule(progress: float) -> float:
    """Learning rate as a share of its peak, against the share of the budget used."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.05)
    x = (progress - WARM_UP) / (1.0 - WARM_UP)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * x))


@torch.no_grad()
def _update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Moves the average towards the model: ``average = decay average + (1 - decay) model``."""
    targets: list[torch.Tensor] = list(average.parameters())
    torch._foreach_lerp_(targets, [p.detach() for p in model.parameters()], 1.0 - decay)


def _shifts_and_scales(train: Snapshot, energies: dict[int, float]) -> tuple[list[float], list[float]]:
    """Energy shift (eV) and scale (eV, from the root mean square force per Angstrom) of each element."""
    free = np.array([energies[int(z)] for z in train.numbers])
    binding = train.energy - np.add.reduceat(free, train.offsets[:-1])
    constant = float(binding.sum() / train.n_atoms.sum())
    scale = float(np.sqrt(np.square(train.forces).mean()))
    return [e + constant for e in energies.values()], [max(scale, 1e-3)] * len(energies)


def _set_buffers(model: torch.nn.Module, shifts: list[float], scales: list[float]) -> None:
    state = model.state_dict()
    for name, values in ((SHIFTS, shifts), (SCALES, scales)):
        state[name].copy_(torch.tensor(values, dtype=state[name].dtype).reshape(state[name].shape))
