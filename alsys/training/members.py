"""Fits of the members of a committee: one after another, or each in a process of its own.

Compiled steps hold Python's lock while they run, and eager ones most of the time, so threads fit members no faster than
one after another (two threads of a compiled step took 1.0 cores and three times the wall time of one). Members that are
fitted at the same time on CPUs, for long enough to be worth a process, therefore get one each. What a member learns
does not depend on where: its seed decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from alsys.config.training import TrainingConfig
from alsys.errors import EnvironmentProblem, WorkerUnfit
from alsys.potentials.devices import CPU
from alsys.potentials.nequip import blank_model, load_weights, prepare, weights_of
from alsys.store.base import Snapshot
from alsys.training.checkpoints import FitCheckpoint
from alsys.training.compiled_steps import StepSource
from alsys.training.final import held_out, plateau_on
from alsys.training.fit import Budget, DivergedError, FittedModel, Optimisation, Reached, fit_model
from alsys.training.replay import Draw, Replay, Shuffle
from alsys.training.step import Layout
from alsys.training.tensors import TrainingFrames
from alsys.worker_process import WorkerFailed, WorkerProcess

logger = logging.getLogger(__name__)

PROCESSES_FROM_S = 30.0
"""Seconds of one member's fit from which it is worth a process, which takes ten to start."""


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """How one member is fitted.

    Attributes:
        is_fresh: It begins anew.
        share: Shares of the budget.
        seed: Of its batches.
        rows: Frames that it may see.
        reached: Where a fit that was cut off had left it; None where it begins.
    """

    is_fresh: bool
    share: float
    seed: int
    rows: NDArray[np.int64]
    reached: Reached | None = None

    @property
    def done(self) -> FittedModel | None:
        """What its fit gave, where that ended before it was cut off."""
        return self.reached.fitted if self.reached is not None and self.reached.is_done else None

    @property
    def seconds(self) -> float:
        """What it has used before it was cut off."""
        return 0.0 if self.reached is None else self.reached.seconds


class Member(NamedTuple):
    """One member: its model, with shifts, scales and the weights that it starts from, and how it is fitted."""

    model: torch.nn.Module
    plan: MemberPlan


@dataclass(frozen=True, slots=True)
class MembersFit:
    """What the fits of all members have in common; can be sent to another process.

    Attributes:
        spec: Specification of the models.
        config: Section ``training``.
        how: Loss and rates.
        train: Training frames.
        validation: Validation frames, of a final fit where there are any.
        seen: ``(n_frames,)`` training frames that the parent has seen.
        batch_size: Frames of a batch.
        seconds: Of one share of the budget.
        is_final: No label comes any more.
    """

    spec: Mapping[str, object]
    config: TrainingConfig
    how: Optimisation
    train: Snapshot
    validation: Snapshot | None
    seen: NDArray[np.bool_]
    batch_size: int
    seconds: float
    is_final: bool

    def frames(self, snapshot: Snapshot, device: torch.device, *, is_on_pairs: bool) -> TrainingFrames:
        """Frames as tensors of a device."""
        weights = self.config.weights
        return TrainingFrames(snapshot, self.spec, weights, is_on_pairs=is_on_pairs, device=device)


class MemberFitter:
    """Fits members in this process.

    Args:
        fit: What their fits have in common.
        frames: Its training frames as tensors.
        steps: Prepared for its specification.
        clock: Seconds.
    """

    def __init__(self, fit: MembersFit, frames: TrainingFrames, steps: StepSource, clock: Callable[[], float]) -> None:
        self._fit, self._frames, self._steps, self._clock = fit, frames, steps, clock
        self._validation: TrainingFrames | None = None
        if fit.validation is not None:
            self._validation = fit.frames(fit.validation, frames.device, is_on_pairs=frames.is_on_pairs)

    def fit(self, member: Member, keep: Callable[[Reached], None] | None) -> FittedModel:
        """Fits a member.

        Args:
            member: It.
            keep: As of `alsys.training.fit.fit_model`.

        Raises:
            DivergedError: It has no weights to publish.
        """
        fit, config, (model, plan) = self._fit, self._fit.config, member
        rng = np.random.default_rng(plan.seed if plan.reached is None else [plan.seed, plan.reached.steps])
        draw: Draw = Shuffle(plan.rows, fit.batch_size, rng)
        new, old = plan.rows[~fit.seen[plan.rows]], plan.rows[fit.seen[plan.rows]]
        if not plan.is_fresh and not fit.is_final and new.size and old.size:
            draw = Replay(new, old, fit.train.system, config.new_share, fit.batch_size, rng)
        with self._steps.step(model, fit.spec) as step:
            plateau = None
            if fit.is_final:
                unseen = held_out(self._frames, self._validation, plan.rows)
                plateau = plateau_on(unseen, step, fit.how.objective)
            budget = Budget(fit.seconds * plan.share, config.max_epochs, config.max_gradient_steps)
            return fit_model(
                step, Layout.of(model).flat(model), self._frames, draw, fit.how, budget, self._clock,
                reached=plan.reached, keep=keep, plateau=plateau,
            )  # fmt: skip


def fit_members(
    members: Sequence[Member],
    fit: MembersFit,
    frames: TrainingFrames,
    steps: StepSource,
    clock: Callable[[], float],
    unfinished: FitCheckpoint | None,
    *,
    parallel: int,
    has_processes: bool,
) -> list[FittedModel]:
    """Fits members, `parallel` at a time.

    Args:
        members: They.
        fit: What their fits have in common.
        frames: Its training frames as tensors.
        steps: Prepared for its specification.
        clock: Seconds.
        unfinished: Where it is kept how far they are; None for nowhere.
        parallel: At a time.
        has_processes: Those that are fitted at the same time may have processes of their own.

    Raises:
        DivergedError: A member has no weights to publish.
    """
    here = MemberFitter(fit, frames, steps, clock)
    left = [fit.seconds * plan.share - plan.seconds for _, plan in members if plan.done is None]
    n_workers = min(parallel, max(len(left), 1))
    is_apart = has_processes and n_workers > 1 and max(left) >= PROCESSES_FROM_S
    of_thread = threading.local()  # a process dies with the thread that has started it
    started: list[WorkerProcess] = []

    def process_here() -> WorkerProcess:
        if not hasattr(of_thread, "process"):
            build = partial(SeparateFitter, fit, frames.is_on_pairs)
            of_thread.process = WorkerProcess(build, threads=fit.config.threads)
            started.append(of_thread.process)
        process: WorkerProcess = of_thread.process
        return process

    def one(i: int) -> FittedModel:
        model, plan = members[i]
        if (done := plan.done) is not None:
            return done
        try:
            if is_apart:
                try:
                    return _fitted_there(process_here(), members[i], unfinished, i)
                except (WorkerFailed, WorkerUnfit, OSError) as error:
                    logger.warning("member %d cannot be fitted in a process of its own: %s", i, error)
                if unfinished is not None and (reached := unfinished.latest(i, model)) is not None:
                    plan = replace(plan, reached=reached)  # what the process has kept
            keep = None if unfinished is None else partial(unfinished.keep, i, model)
            return here.fit(Member(model, plan), keep) if plan.done is None else plan.done
        except DivergedError as error:
            raise DivergedError(f"member {i}: {error}") from error

    if n_workers == 1:
        return [one(i) for i in range(len(members))]
    pool = ThreadPoolExecutor(n_workers)
    try:
        return [fitted.result() for fitted in [pool.submit(one, i) for i in range(len(members))]]
    finally:
        pool.shutdown(cancel_futures=True)  # those that have not begun are not wanted where one has failed
        for process in started:
            process.close()


def _fitted_there(process: WorkerProcess, member: Member, unfinished: FitCheckpoint | None, number: int) -> FittedModel:
    """What a process fitted.

    Raises:
        DivergedError: The fit diverged there.
        WorkerFailed: The process died, or the fit raised.
        WorkerUnfit: It cannot fit.
        OSError: It cannot be started.
    """
    order = SeparateOrder(weights_of(member.model), member.plan, unfinished, number)
    found = process.call("fit", order).value
    if isinstance(found, str):
        raise DivergedError(found)
    assert isinstance(found, FittedModel)
    return found


class SeparateOrder(NamedTuple):
    """What a process is to fit.

    Attributes:
        weights: State dict of the member's model.
        plan: How it is fitted.
        unfinished: Where it is kept how far it is; None for nowhere.
        number: Of the member.
    """

    weights: Mapping[str, NDArray[np.generic]]
    plan: MemberPlan
    unfinished: FitCheckpoint | None
    number: int


class SeparateFitter:
    """Fits members in a process of its own, on its CPU.

    Args:
        fit: What their fits have in common.
        is_on_pairs: Steps run compiled; the package is in the cache.

    Raises:
        EnvironmentProblem: The package cannot be used here.
    """

    def __init__(self, fit: MembersFit, is_on_pairs: bool) -> None:
        torch.set_num_threads(fit.config.threads)
        prepare()
        self._fit = fit
        steps = StepSource(fit.config, fit.how.objective)
        if is_on_pairs and not steps.prepare(fit.spec):
            raise EnvironmentProblem("the compiled step cannot be loaded")
        frames = fit.frames(fit.train, CPU, is_on_pairs=is_on_pairs)
        self._fitter = MemberFitter(fit, frames, steps, time.thread_time)

    def fit(self, order: SeparateOrder) -> FittedModel | str:
        """What `MemberFitter.fit` gives, or why it diverged."""
        model = blank_model(self._fit.spec)
        load_weights(model, order.weights)
        keep = None if order.unfinished is None else partial(order.unfinished.keep, order.number, model)
        try:
            return self._fitter.fit(Member(model, order.plan), keep)
        except DivergedError as error:
            return str(error)
