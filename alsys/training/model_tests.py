"""Model tests of a new committee: on frames it has not seen and in dynamics. What follows is decided elsewhere.

Weights or metrics that are not finite make a fit a failure. Otherwise the metrics ``holdout_...``, ``stability_...``,
of blind spots and of single systems are added, each where it can be measured (`alsys.metrics` says what they are,
`alsys.control.rules.promotion` reads them):

- skill, below `MIN_PAIRS` frames of the random arm, on validation or, for want of that, the training set;
- errors and differences of each system where there are several, and ``p_worse`` from `MIN_PAIRS` frames on;
- energies and stresses beside the champion's where the loss has such a term, from `MIN_PAIRS` frames on, for all of
  the random arm that both know and, of several systems, for each;
- coverage from `MIN_FRAMES` frames on, blind spots from twice as many: the band is calibrated on four fifths of them
  and applied to the rest, in turn;
- the bound on force errors that goes with the model, from `MIN_FRAMES` frames on (`alsys.potentials.force_bound`);
- trial runs. One that lost no walker and was too short to say anything gives its length and walkers only. Frames with
  masked atoms are parts of larger ones, and start no dynamics.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.config.exploration import CalibratedTrust
from alsys.config.exploration_methods import RampMethod, ReplicaExchangeMethod
from alsys.config.schema import CampaignConfig
from alsys.dynamics.geometry import is_sound
from alsys.dynamics.stopping import Limits
from alsys.errors import FailureKind
from alsys.frames import Arm
from alsys.metrics import Metrics, Name, PartName
from alsys.potentials.architectures import states_of
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.force_bound import PROBABILITY, ForceBound
from alsys.potentials.scored import scored
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.dataset import baseline_of, less_baseline, split
from alsys.training.evaluate import thinned
from alsys.training.model_errors import MIN_PAIRS, atom_errors, blind_spots, by_system, coverage, losses, skill
from alsys.training.stability_runs import StabilityWalker, run_trial, shortest_run
from alsys.training.states import places_of

MIN_FRAMES = 8
"""Frames from which coverage is measured on them; blind spots need twice as many."""
N_TRIES = 4
"""Draws of a start frame before a system goes without this walker."""


class ModelTester:
    """Examines committees as a campaign wants it.

    Args:
        config: ``promotion``, ``exploration`` and ``training`` are read.
        clock: Seconds that budgets count; default CPU seconds of the thread.
    """

    def __init__(self, config: CampaignConfig, clock: Callable[[], float] = time.thread_time) -> None:
        self._config = config
        self._promotion = config.promotion
        self._baseline = baseline_of(config)
        trust = config.exploration.trust
        self._trust = trust if isinstance(trust, CalibratedTrust) else None
        self._clock = clock

    def budget_s(self, order: TrainingOrder) -> float:
        """Seconds of a fit's budget that the dynamics may take."""
        return self._config.model_tests_s(order.seconds(self._config.training))

    def examine(
        self,
        trained: TrainedCommittee,
        order: TrainingOrder,
        committee: Committee | None = None,
        champion: Committee | None = None,
    ) -> TrainedCommittee | TrainingFailure:
        """The committee with the metrics of its model tests, or why it is none.

        Args:
            trained: Newly fitted.
            order: What it was fitted to.
            committee: The same, ready to be evaluated, without baseline and score; default builds it.
            champion: The order's champion, likewise.
        """
        started = time.perf_counter()
        problem = broken(trained)
        if problem is not None:
            return TrainingFailure(order.version, FailureKind.INTERNAL, problem)
        if not self._promotion.examine:
            return trained
        bare = committee or self._build(trained.state)
        snapshot = order.snapshot if self._baseline is None else less_baseline(order.snapshot)
        metrics = self._errors(scored(bare, trained.state), order, snapshot, champion)
        metrics |= self._dynamics(bare, trained.state, order)
        metrics |= Metrics({"model_tests_wall_s": time.perf_counter() - started})
        if not all(math.isfinite(value) for value in metrics.values()):
            return TrainingFailure(order.version, FailureKind.INTERNAL, "the committee predicts NaN")
        return replace(trained, metrics=trained.metrics | metrics)

    def _build(self, state: CommitteeState) -> Committee:
        training = self._config.training
        bare = replace(state, baseline=None)
        return build_committee(bare, training.threads, device=training.device, accelerate=training.accelerate)

    def _errors(
        self, committee: Committee, order: TrainingOrder, snapshot: Snapshot, built: Committee | None
    ) -> Metrics:
        parts = split(snapshot, self._config.training.validation_share)
        new = atom_errors(committee, parts.random)
        unseen = new
        if parts.random.n_frames < MIN_PAIRS:
            rest = parts.validation if parts.validation.n_frames >= MIN_PAIRS else parts.train
            unseen = atom_errors(committee, thinned(rest))
        metrics = skill(unseen, order.seed)
        if not parts.random.n_frames:
            return metrics
        champion = self._champion(order, built)
        known = parts.random.select(_known_frames(parts.random, order.champion if champion else None))
        old = None if champion is None or not known.n_frames else atom_errors(champion, known)
        metrics |= by_system(
            parts.random, new, known, old, tolerated_loss=self._promotion.tolerated_loss, seed=order.seed
        )
        if old is not None:
            training = self._config.training
            weights = {
                "energy": max(training.energy_weight, training.energy_weight_final or 0.0),
                "stress": max(training.stress_weight, training.stress_weight_final or 0.0),
            }
            learned = [quantity for quantity, weight in weights.items() if weight > 0.0]
            metrics |= losses(parts.random, new, known, old, learned, order.seed)
        if parts.random.n_frames < MIN_FRAMES:
            return metrics
        probability = PROBABILITY if self._trust is None else self._trust.probability
        bound = ForceBound.measured(new.deviation, new.error, probability)
        if bound is not None:
            metrics |= bound.metrics()
        if order.band is not None:
            share, error = coverage(new, order.band)
            metrics |= Metrics({"holdout_coverage": share, "holdout_coverage_high": min(1.0, share + 2.0 * error)})
            if old is not None and known.n_frames >= MIN_FRAMES:
                metrics |= Metrics({"holdout_champion_coverage": coverage(old, order.band)[0]})
        if self._trust is not None and parts.random.n_frames >= 2 * MIN_FRAMES:
            metrics |= blind_spots(new, self._trust.tolerated_error, self._trust.probability)
        return metrics

    def _champion(self, order: TrainingOrder, built: Committee | None) -> Committee | None:
        """The champion, where it has learned the same thing."""
        if order.champion is None or order.champion.baseline != self._baseline:
            return None
        return scored(built or self._build(order.champion), order.champion)

    def _dynamics(self, bare: Committee, state: CommitteeState, order: TrainingOrder) -> Metrics:
        exploration, promotion = self._config.exploration, self._promotion
        hot = promotion.hot_factor * highest_temperature(self._config)
        walkers = self._walkers(order, hot)
        if not walkers:
            return Metrics()
        committee = bare
        if state.baseline is not None:
            from alsys.potentials.baseline import DeltaCommittee

            committee = DeltaCommittee(bare, state)
        n_steps = max(2, round(promotion.length / exploration.timestep))
        outcome = run_trial(
            committee,
            walkers,
            timestep=exploration.timestep,
            n_steps=n_steps,
            budget_s=self.budget_s(order),
            limits=Limits(exploration.max_temperature_ratio, exploration.min_distance, exploration.reactive),
            seed=order.seed,
            clock=self._clock,
            hydrogen_mass=exploration.hydrogen_mass,
        )
        metrics: dict[Name, float] = {
            "stability_steps": outcome.n_steps,
            "stability_ps": outcome.n_steps * exploration.timestep * 1e-3,
            "stability_walkers": outcome.n_constant,
        }
        lost = Counter([*outcome.lost_constant.values(), *outcome.lost_hot.values()])
        if not lost and outcome.n_steps < min(shortest_run(exploration.timestep), n_steps):
            return Metrics(metrics)
        metrics |= {
            "stability_survival": 1.0 - len(outcome.lost_constant) / outcome.n_constant,
            "stability_hot_survival": 1.0 - len(outcome.lost_hot) / outcome.n_hot,
            "stability_hot_temperature": hot,
        }
        parts: dict[tuple[PartName, str], float] = {("stability_lost", r): n for r, n in sorted(lost.items())}
        if outcome.drift:
            metrics["stability_drift"] = max(outcome.drift.values())
            metrics["stability_drift_low"] = max(outcome.drift_low.values())
        if len(outcome.drift) > 1:
            parts |= {("stability_drift", system): drift for system, drift in sorted(outcome.drift.items())}
        return Metrics(metrics, parts)

    def _walkers(self, order: TrainingOrder, hot: float) -> list[StabilityWalker]:
        """Pairs of a walker at constant energy and a hot one, systems in turn, from labelled frames drawn at random.

        Of frames of the same atoms the half of higher energy is left out: what they would set free heats walkers.
        """
        snapshot, exploration = order.snapshot, self._config.exploration
        is_start = ~snapshot.is_arm(Arm.ATOM) & snapshot.is_whole & (snapshot.n_atoms > 1)
        references = _references(snapshot, np.flatnonzero(is_start))
        rows_of: dict[int, list[int]] = {}
        for row in references:
            rows_of.setdefault(int(snapshot.system[row]), []).append(row)
        rng = np.random.default_rng([order.seed, 1])
        systems = rng.permutation(sorted(rows_of)).tolist()
        temperatures = ((highest_temperature(self._config), False), (hot, True))
        walkers: list[StabilityWalker] = []
        n_atoms = 0
        for k in range(max(self._promotion.walkers, len(systems)) if systems else 0):
            system = systems[k % len(systems)]
            pair = []
            for temperature, is_hot in temperatures:
                for row in rng.choice(rows_of[system], N_TRIES):
                    lowest = references[int(row)]
                    start, reference = snapshot.frame(int(row)), snapshot.frame(lowest)
                    if is_sound(reference, start, exploration.min_distance, exploration.reactive):
                        name = snapshot.systems[system]
                        excess = float(snapshot.energy[row] - snapshot.energy[lowest])
                        pair.append(StabilityWalker(name, start, reference, temperature, is_hot, excess))
                        break
            if len(pair) < len(temperatures):
                continue
            n_atoms += sum(walker.start.n_atoms for walker in pair)
            if walkers and n_atoms > self._promotion.max_atoms:
                break
            walkers += pair
        return walkers


def broken(trained: TrainedCommittee) -> str | None:
    """Why a committee is none: weights or metrics that are not finite; None where there is nothing."""
    for k, member in enumerate(trained.state.members):
        for name, array in member.items():
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                return f"weights of member {k} are not finite ({name})"
    wrong = [name for name, value in trained.metrics.items() if not math.isfinite(value)]
    return f"the committee predicts NaN ({', '.join(wrong[:3])})" if wrong else None


def highest_temperature(config: CampaignConfig) -> float:
    """Of all thermostats of the explorers, K."""
    temperatures = [*config.exploration.temperatures]
    for method in config.exploration.methods:
        if isinstance(method, RampMethod):
            temperatures += [temperature for _, temperature in method.points]
        elif isinstance(method, ReplicaExchangeMethod):
            temperatures.append(method.highest)
        else:
            temperatures += method.temperatures or ()
    return max(temperatures)


def _known_frames(snapshot: Snapshot, state: CommitteeState | None) -> NDArray[np.bool_]:
    """``(n_frames,)`` frames all of whose elements, and whose state, a committee knows; none for None."""
    symbols = None if state is None else state.spec.get("elements")
    if not isinstance(symbols, list | tuple):
        return np.zeros(snapshot.n_frames, dtype=np.bool_)
    is_known = np.isin(snapshot.numbers, [atomic_numbers[str(symbol)] for symbol in symbols])
    is_known = np.logical_and.reduceat(is_known, snapshot.offsets[:-1])
    if state is not None and (states := states_of(state.spec)):
        is_known = is_known & (places_of(snapshot, states) >= 0)
    return is_known


def _references(snapshot: Snapshot, rows: NDArray[np.int64]) -> dict[int, int]:
    """Rows that may start dynamics, each with the one that says what is bonded.

    Of frames of one system that have the same atoms in the same order these are the half of lower energy, and the
    lowest.
    """
    groups: dict[tuple[int, bytes], list[int]] = {}
    offsets = snapshot.offsets
    for row in rows.tolist():
        key = (int(snapshot.system[row]), snapshot.numbers[offsets[row] : offsets[row + 1]].tobytes())
        groups.setdefault(key, []).append(row)
    references: dict[int, int] = {}
    for group in groups.values():
        ordered = sorted(group, key=lambda row: float(snapshot.energy[row]))
        references |= dict.fromkeys(ordered[: (len(ordered) + 1) // 2], ordered[0])
    return references
