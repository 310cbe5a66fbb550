"""Fits committees of NequIP models within a budget, again and again, as labels come.

Each member has its own seed, its own bootstrap, which a frame never leaves, and its share of the budget. A refit goes
on from the parent's weights; frames that the parent has not seen and old ones share each batch (`alsys.training.fit`,
`alsys.training.replay`). A member that began anew (`alsys.training.renewal`) is taken where it is not much worse than
the old one on frames that neither has seen. What ran out of budget is published, annealed. A fit that is cut off goes
on where it was (`alsys.training.checkpoints`); several trainers may share its members (`alsys.training.shared_fits`).

A fresh member's energy shifts are free-atom energies from the same labeler plus one constant per atom, the mean
atomisation energy of the training set, so that the network learns differences of a few eV and not thousands; its
energy scale is the root mean square force (docs/design/004-training.md). A warm start keeps its parent's shifts and
scales: the weights were learnt with them.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from alsys.config.load import config_hash
from alsys.config.schema import CampaignConfig, EquivariantModel, NetworkModel
from alsys.config.training import TrainingConfig
from alsys.errors import FailureKind
from alsys.frames import Arm
from alsys.metrics import Metrics
from alsys.potentials.accelerations import kernels_for
from alsys.potentials.architectures import architecture_of, is_own, kind_of, states_of
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.devices import CPU
from alsys.potentials.factory import build_committee, device_of
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
from alsys.store.base import Snapshot
from alsys.training.accelerated_models import AcceleratedModels
from alsys.training.base import (
    APART,
    FittedMember,
    MemberOrder,
    MemberShare,
    TrainedCommittee,
    TrainingFailure,
    TrainingOrder,
)
from alsys.training.bootstrap import is_drawn
from alsys.training.checkpoints import FitCheckpoint
from alsys.training.compiled_steps import StepSource
from alsys.training.constants import first_constants, force_scale, set_buffers
from alsys.training.curvature import pairs_among, with_curvature
from alsys.training.dataset import Split, baseline_of, less_baseline, seen_states, seen_surroundings, split
from alsys.training.evaluate import evaluate, fit_metrics, half_batches, predictions_of, thinned
from alsys.training.final import EAGER, SLOW_AVERAGE, batch_size, final_model
from alsys.training.fit import DivergedError, FittedModel, Optimisation
from alsys.training.growth import as_large_as, grown
from alsys.training.loss import Objective
from alsys.training.members import Member, MemberFitter, MemberPlan, MembersFit, fit_members
from alsys.training.model_tests import ModelTester
from alsys.training.renewal import Renewal
from alsys.training.shared_fits import Beginning, cost_elsewhere, cost_here, cost_of, given_spec, taken
from alsys.training.states import knows_states, states_for
from alsys.training.step import Layout
from alsys.training.tensors import TrainingFrames

logger = logging.getLogger(__name__)

MOST_WORSE = 1.25
"""Error of a renewed member over that of the one it replaces, at most."""
COMPILE_FROM_S = 300.0
"""CPU seconds from which a final fit waits for a compiler."""
MIN_UNSEEN = 3
"""Frames that neither has seen from which they are compared on those, not on the training set."""


class NequIPTrainer:
    """Fits committees of the architecture in the config.

    Args:
        config: ``model`` (a network) and ``training`` are read.
        clock: Seconds that the budget counts; default CPU seconds of the thread that fits, so that a fit beside other
            work takes longer and is no worse.
        folder: Where the fit that is running is kept, so that one that is cut off goes on; None for nowhere.
    """

    def __init__(
        self, config: CampaignConfig, clock: Callable[[], float] = time.thread_time, folder: Path | None = None
    ) -> None:
        if not isinstance(config.model, NetworkModel):
            raise TypeError("NequIPTrainer needs a network")
        torch.set_num_threads(config.training.threads)
        if isinstance(config.model, EquivariantModel):
            prepare()
        self._model_config: NetworkModel = config.model
        self._campaign = config
        self._config: TrainingConfig = config.training
        self._objective = Objective.of(config.training)
        self._device, self._kernels = CPU, None  # networks of others may make tensors of the host
        if isinstance(config.model, EquivariantModel):
            self._device = device_of(config.training.device)
            self._kernels = kernels_for(config.training.accelerate, config.model.kind, self._device, is_trained=True)
        if self._kernels is not None:
            self._config = config.training.model_copy(update={"compile": False})
        self._fast_models = AcceleratedModels(self._kernels, self._objective, self._device)
        self._steps = StepSource(self._config, self._objective, self._device)
        self._score = config.exploration.uncertainty
        self._baseline = baseline_of(config)
        self._model_tester = ModelTester(config, clock)
        self._clock = clock
        self._folder = folder
        self._identity = config_hash(config)
        self._committee: NequIPCommittee | None = None

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Fits all members, as many at a time as the config allows, then measures and examines the committee.

        Members that other trainers have fitted are taken as they are. Where the campaign learns the difference to a
        baseline, all numbers are of labels minus baseline, whose errors are those of the sum.
        """
        begun = time.perf_counter()
        fit = self._begin(order)
        if isinstance(fit, TrainingFailure):
            return fit
        order, parts, spec, unfinished = fit.order, fit.parts, fit.spec, fit.unfinished
        members = [self._member(fit, i) for i in range(self._model_config.members)]
        try:
            fits = taken(members, order.fitted) if order.fitted else self._fit_members(members, fit)
        except DivergedError as error:
            return _failed(order.version, str(error), unfinished)
        if not order.fitted:
            self._steps.after_fit(spec, sum(one.seconds for one in fits))
        weights, n_renewed = self._settle(members, fits, spec, fit.parent, parts)
        state = CommitteeState(
            order.version,
            kind_of(spec),
            spec,
            weights,
            baseline=self._baseline,
            seen=seen_states(parts, is_told_apart=bool(states_of(spec))),
            surroundings=seen_surroundings(parts),
        )
        committee = self._committee_of(state)
        champion = self._champion(order, parts.random)
        if self._score != COMMITTEE:
            (first, first_masks), (second, second_masks) = (half_batches(thinned(parts.train), k) for k in (0, 1))
            score_state = fit_score(self._score, committee, first, second, (first_masks, second_masks))
            state = replace(state, score=self._score, score_state=score_state)
        metrics, calibration = fit_metrics(
            committee,
            champion,
            parts.train,
            parts.validation,
            parts.random,
            wall_s=time.perf_counter() - begun,
            epochs=float(np.mean([one.epochs for one in fits])),
            seed=order.seed,
        )
        metrics |= cost_of(fits) | Metrics({"members_renewed": float(n_renewed)})
        if order.fitted:
            metrics |= cost_elsewhere(order.fitted)
        else:
            metrics |= cost_here(members, self._steps.compiling_s, is_compiled=fit.is_on_pairs)
        if not all(math.isfinite(value) for value in metrics.values()):
            return _failed(order.version, "the committee predicts NaN", unfinished)
        predictions = predictions_of(
            committee, order.snapshot, order.n_review, is_difference=self._baseline is not None
        )
        trained = TrainedCommittee(state, metrics, calibration, predictions)
        examined = self._model_tester.examine(trained, order, committee, champion)
        if isinstance(examined, TrainingFailure) and unfinished is not None:
            unfinished.clear()
        return examined

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        """Fits a single member, as `run` would, and keeps how far it is in a folder of its own."""
        share = order.share
        fit = self._begin(order.fit, share)
        if isinstance(fit, TrainingFailure):
            return fit
        model, plan = member = self._member(fit, share.number)
        found = plan.done
        try:
            if found is None:
                keep = None if fit.unfinished is None else partial(fit.unfinished.keep, 0, model)
                common = self._in_common(fit, force_scale(self._model(fit, 0)), share.n_workers)
                found = MemberFitter(common, fit.frames, self._steps, self._clock).fit(member, keep)
        except DivergedError as error:
            return _failed(order.fit.version, f"member {share.number}: {error}", fit.unfinished)
        self._steps.after_fit(fit.spec, found.seconds)
        Layout.of(model).write(found.weights, model)
        return FittedMember(
            order.fit.version, share.number, fit.spec, weights_of(model), found.steps, found.epochs, found.seconds,
            found.rollbacks, plan.seconds, fit.is_on_pairs, self._steps.compiling_s,
        )  # fmt: skip

    def _begin(self, order: TrainingOrder, share: MemberShare | None = None) -> Beginning | TrainingFailure:
        """What a fit begins with, the same for whoever fits one of its members."""
        started = self._clock()
        snapshot = order.snapshot if self._baseline is None else less_baseline(order.snapshot)
        parts = split(snapshot, self._config.validation_share)
        if parts.train.n_frames < 1:
            return TrainingFailure(order.version, FailureKind.INTERNAL, "there is no frame to train on")
        learned = replace(parts, train=with_curvature(parts.train, order.snapshot, order.hessians, self._baseline))
        if order.parent is not None:
            wanted = self._wanted(order, parts, elements_of(order.parent.spec))
            order = replace(order, parent=grown(order.parent, order, parts, self._campaign, wanted))
        spec, edges = self._prepare(order, parts)
        spec = given_spec(order, share) or spec
        unfinished = None if order.fitted else self._unfinished(order, share, spec, learned.train.frame_ids)
        spec = spec if unfinished is None else unfinished.spec
        parent = order.parent if order.parent is not None and dict(order.parent.spec) == spec else None
        if parent is not None and parent.baseline != self._baseline:
            parent = None
        renewal = Renewal(self._config, order, parent, self._model_config.members)
        constants = first_constants(spec, parts, edges, self._config.atomic_energies)
        before, is_on_pairs, frames = self._clock(), False, edges
        if not order.fitted:
            n_at_once = self._parallel(order) if share is None else 1
            is_on_pairs = self._steps.prepare(spec, n_at_once, waits=self._waits(order))
            if self._steps.compiling_s > 0.0:  # no part of the budget
                started += self._clock() - before
            if is_on_pairs or learned.train is not parts.train:
                frames = self._frames(learned.train, spec, is_on_pairs=is_on_pairs)
        return Beginning(
            order, share, parts, learned, spec, parent, renewal, constants, frames, is_on_pairs, started, unfinished
        )

    def _unfinished(
        self,
        order: TrainingOrder,
        share: MemberShare | None,
        spec: Mapping[str, object],
        frame_ids: Sequence[str],
    ) -> FitCheckpoint | None:
        """Where it is kept how far the fit is, or that of a member that is fitted apart from others."""
        if self._folder is None:
            return None
        parent_version = None if order.parent is None else order.parent.version
        identity: dict[str, object] = {
            "version": order.version, "parent": parent_version, "config": self._identity,
        }  # fmt: skip
        if order.is_final:
            identity["is_final"] = True
        if order.attempt:
            identity["attempt"] = order.attempt
        if share is None:
            return FitCheckpoint(self._folder, identity, spec, frame_ids)
        folder = self._folder / APART.format(share.number)
        return FitCheckpoint(folder, identity, spec, frame_ids, is_exact=share.spec is not None)

    def _member(self, fit: Beginning, number: int) -> Member:
        """A member, its share of the budget, and where it was when it was cut off."""
        train, model = fit.learned.train, self._model(fit, number)
        is_pair = pairs_among(train)[0] >= 0  # which every member sees, and as a whole
        is_label = ~train.is_arm(Arm.CURVATURE)
        rows = np.flatnonzero((is_drawn(train.frame_ids, number, self._config.bootstrap) & is_label) | is_pair)
        place = number if fit.share is None else 0
        reached = None if fit.unfinished is None else fit.unfinished.reached(place, model)
        is_warm, share = fit.renewal.is_warm(number), fit.renewal.share(number)
        return Member(model, MemberPlan(not is_warm, share, _seed(fit.order, number), rows, reached))

    def _model(self, fit: Beginning, number: int) -> torch.nn.Module:
        """What a member starts from."""
        if fit.parent is not None and fit.renewal.is_warm(number):
            model = blank_model(fit.spec).to(self._device)
            load_weights(model, fit.parent.members[number])
        else:
            model = build_model(fit.spec, seed=_seed(fit.order, number)).to(self._device)
            set_buffers(model, *fit.constants)
        return self._fast_models.of(model, fit.spec)

    def _fit_members(self, members: list[Member], fit: Beginning) -> list[FittedModel]:
        """Fits the members, `parallel` at a time; those that are done already are as they were.

        Raises:
            DivergedError: A member has no weights to publish.
        """
        n_workers = min(self._parallel(fit.order), len(members))
        return fit_members(
            members,
            self._in_common(fit, force_scale(members[0].model), n_workers),
            fit.frames,
            self._steps,
            self._clock,
            fit.unfinished,
            parallel=n_workers,
            has_processes=self._device == CPU and self._clock is time.thread_time and is_own(fit.spec),
        )

    def _in_common(self, fit: Beginning, scale: float, n_workers: int) -> MembersFit:
        """What the fits of all members share, so many of which run at the same time."""
        config, order, train = self._config, fit.order, fit.learned.train
        is_final, validation = order.is_final, fit.learned.validation
        given = order.seconds(config) - self._model_tester.budget_s(order)
        left = max(given - (self._clock() - fit.started), 1e-3)
        shares = fit.renewal.shares
        is_curvature = train.is_arm(Arm.CURVATURE)
        ema = max(config.ema, SLOW_AVERAGE) if is_final and config.ema else config.ema
        return MembersFit(
            spec=fit.spec,
            config=config,
            how=Optimisation(self._objective, config.learning_rate, ema, config.decay_share, scale),
            train=train,
            validation=validation if is_final and validation.n_frames else None,
            seen=np.array([frame_id in order.known for frame_id in train.frame_ids]) | is_curvature,
            batch_size=batch_size(config, train.n_frames) if is_final else config.batch_size,
            # the longest fit is no longer than all of it
            seconds=min(left * n_workers / sum(shares), left / max(shares)),
            is_final=is_final,
        )

    def _settle(
        self,
        members: list[Member],
        fits: list[FittedModel],
        spec: Mapping[str, object],
        parent: CommitteeState | None,
        parts: Split,
    ) -> tuple[tuple[Mapping[str, NDArray[np.generic]], ...], int]:
        """Weights to publish, and how many renewed members were taken."""
        weights: list[Mapping[str, NDArray[np.generic]]] = []
        n_renewed = 0
        for i, ((model, plan), fit) in enumerate(zip(members, fits, strict=True)):
            Layout.of(model).write(fit.weights, model)
            fitted = weights_of(model)
            old = parent.members[i] if parent is not None and plan.is_fresh and i < parent.n_members else None
            if old is not None and self._is_worse(spec, fitted, old, parts, i):
                weights.append({name: np.array(value) for name, value in old.items()})
                continue
            n_renewed += old is not None
            weights.append(fitted)
        return tuple(weights), n_renewed

    def _is_worse(
        self,
        spec: Mapping[str, object],
        new: Mapping[str, NDArray[np.generic]],
        old: Mapping[str, NDArray[np.generic]],
        parts: Split,
        member: int,
    ) -> bool:
        """Whether a renewed member errs much more than the one it would replace, on frames neither has seen."""
        is_unseen = ~is_drawn(parts.train.frame_ids, member, self._config.bootstrap)
        unseen = parts.train.select(is_unseen)
        if parts.validation.n_frames >= max(unseen.n_frames, MIN_UNSEEN):
            unseen = parts.validation
        unseen = thinned(parts.train if unseen.n_frames < MIN_UNSEEN else unseen)
        errors = []
        for weights in (new, old):
            alone = self._networks(CommitteeState(0, kind_of(spec), spec, (weights,)))
            errors.append(float(evaluate(alone, unseen).force_mae.mean()))
        return not errors[0] <= MOST_WORSE * errors[1]

    def _frames(self, train: Snapshot, spec: Mapping[str, object], *, is_on_pairs: bool = False) -> TrainingFrames:
        return TrainingFrames(train, spec, self._config.weights, is_on_pairs=is_on_pairs, device=self._device)

    def _prepare(self, order: TrainingOrder, parts: Split) -> tuple[dict[str, object], TrainingFrames]:
        """Builder arguments and frames; the parent's neighbour count is kept, since its weights depend on it."""
        elements = [chemical_symbols[z] for z in sorted({int(z) for z in order.snapshot.numbers})]
        parent = order.parent
        spec = self._wanted(order, parts, elements)
        if parent is not None:
            spec = as_large_as(spec, parent.spec)
        known = () if parent is None else states_of(parent.spec)
        if states := states_for(self._campaign, order.snapshot, known):
            spec["states"] = [[state.charge, state.multiplicity] for state in states]
        frames = self._frames(parts.train, spec)
        if parent is not None:
            neighbours = {"avg_num_neighbors": parent.spec.get("avg_num_neighbors")}
            if architecture_of({**spec, **neighbours}) == architecture_of(parent.spec):
                return dict(parent.spec), frames
        return {**spec, "avg_num_neighbors": round(max(frames.mean_neighbours, 1e-3), 6)}, frames

    def _wanted(self, order: TrainingOrder, parts: Split, elements: list[str]) -> dict[str, object]:
        """Builder arguments of the config's network, or of the larger one that a final fit has seconds for.

        What has learned from another source first (`training.start`) would have to learn that anew, and stays.
        """
        model = self._model_config
        if order.is_final and self._config.start is None:
            seconds = order.seconds(self._config) / model.members / (1.0 if self._waits(order) else EAGER)
            model = final_model(model, seconds, float(parts.train.n_atoms.mean()))
        return model.spec(elements)

    def _waits(self, order: TrainingOrder) -> bool:
        """Whether the fit is long enough to wait for a compiler."""
        is_long = order.seconds(self._config) >= COMPILE_FROM_S
        return order.is_final and is_long and self._config.compile is not False

    def _parallel(self, order: TrainingOrder) -> int:
        """Members fitted at the same time; in the final fit as many as a machine of its own has cores."""
        config = self._config
        if not order.is_final or self._campaign.runtime.address is not None:
            return config.parallel
        n_cores = len(os.sched_getaffinity(0)) // config.threads
        return max(config.parallel, min(n_cores, self._model_config.members))

    def _committee_of(self, state: CommitteeState) -> NequIPCommittee:
        """The committee of the last fit with new weights: copies of models take longer than a short fit's metrics."""
        if self._committee is None:
            self._committee = self._networks(state)
        else:
            self._committee.load(state)
        return self._committee

    def _networks(self, state: CommitteeState) -> NequIPCommittee:
        return NequIPCommittee(state, self._config.threads, self._device, self._kernels)

    def _champion(self, order: TrainingOrder, random: Snapshot) -> Committee | None:
        """The committee to measure beside the new one, where it knows the elements and has learned the same thing."""
        if order.champion is None or not random.n_frames or order.champion.baseline != self._baseline:
            return None
        if not knows_states(order.champion, random):
            return None
        known = order.champion.spec.get("elements")
        symbols = {chemical_symbols[z] for z in random.numbers}
        if not isinstance(known, list | tuple) or not symbols <= set(known):
            return None
        champion = replace(order.champion, baseline=None)
        config = self._config
        return build_committee(champion, config.threads, device=config.device, accelerate=config.accelerate)


def _seed(order: TrainingOrder, number: int) -> int:
    """Of a member."""
    return order.seed * 97 + number


def _failed(version: int, message: str, unfinished: FitCheckpoint | None) -> TrainingFailure:
    """A fit that gave nothing, which the next one is not to go on from."""
    if unfinished is not None:
        unfinished.clear()
    return TrainingFailure(version, FailureKind.INTERNAL, message)
