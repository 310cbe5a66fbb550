"""Fits committees of pair potentials: each member on its own bootstrap, in milliseconds."""

from __future__ import annotations

import time

import numpy as np
from ase.data import chemical_symbols

from alsys.config.schema import CampaignConfig, PairModel
from alsys.errors import FailureKind
from alsys.potentials.base import CommitteeState
from alsys.potentials.pair import PairCommittee, fit_pair
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.dataset import atomic_energies, baseline_of, less_baseline, seen_states, seen_surroundings, split
from alsys.training.evaluate import batch_of, fit_metrics, predictions_of
from alsys.training.model_tests import ModelTester


class PairTrainer:
    """Fits `PairCommittee`s.

    Args:
        config: The campaign; its `model` section must be of kind ``pair``. Of `training`, the bootstrap, the validation
            share and the weights matter; the rest is about gradient descent.

    Raises:
        TypeError: Another kind of model (a bug of the caller).
    """

    def __init__(self, config: CampaignConfig) -> None:
        if not isinstance(config.model, PairModel):
            raise TypeError("PairTrainer needs model.kind pair")
        self._model = config.model
        self._config = config.training
        self._baseline = baseline_of(config)
        self._model_tester = ModelTester(config)

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Solves one ridge regression for each member; a linear fit needs no parent.

        Where the campaign learns the difference to a baseline, all numbers are of labels minus baseline, whose errors
        are those of the sum.
        """
        started = time.perf_counter()
        snapshot = order.snapshot if self._baseline is None else less_baseline(order.snapshot)
        parts = split(snapshot, self._config.validation_share)
        train = parts.train
        if train.n_frames < 1:
            return TrainingFailure(order.version, FailureKind.INTERNAL, "there is no frame to train on")
        energies = atomic_energies(parts.atoms, train, self._config.atomic_energies)
        shifts = list(energies.values())
        spec: dict[str, object] = {
            "elements": [chemical_symbols[z] for z in energies],
            "r_max": self._model.r_max,
            "n_basis": self._model.n_basis,
        }
        rows = []
        for i in range(self._model.members):
            rng = np.random.default_rng([order.seed, i])
            n_chosen = max(1, round(self._config.bootstrap * train.n_frames))
            rows.append(np.sort(rng.choice(train.n_frames, n_chosen, replace=False)))
        try:
            coefficients = fit_pair(
                spec,
                batch_of(train),
                train.energy,
                train.forces,
                shifts,
                self._model.ridge,
                rows=rows,
                energy_weight=self._config.energy_weight,
                force_weight=self._config.force_weight,
                mask=train.mask,
            )
        except np.linalg.LinAlgError as error:
            return TrainingFailure(order.version, FailureKind.INTERNAL, f"no fit: {error}")
        members = tuple({"coefficients": row, "shifts": np.array(shifts)} for row in coefficients)
        state = CommitteeState(
            order.version, "pair", spec, members,
            baseline=self._baseline, seen=seen_states(parts), surroundings=seen_surroundings(parts),
        )  # fmt: skip
        champion = order.champion if order.champion and order.champion.baseline == self._baseline else None
        committee = PairCommittee(state)
        metrics, calibration = fit_metrics(
            committee,
            None if champion is None else PairCommittee(champion),
            train,
            parts.validation,
            parts.random,
            wall_s=time.perf_counter() - started,
            epochs=1.0,
            seed=order.seed,
        )
        predictions = predictions_of(
            committee, order.snapshot, order.n_review, is_difference=self._baseline is not None
        )
        return self._model_tester.examine(TrainedCommittee(state, metrics, calibration, predictions), order, committee)
