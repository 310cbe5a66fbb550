"""The pace of labels and models: how far labels may run ahead of the next model, and the plan that follows from it.

While a fit runs, labels are chosen by the model before. With `training.max_ahead: auto` none are where labels are
quick, so that waiting costs next to nothing; else at most half of the next batch of training labels may be, and one
more for each labeler, so that none of them waits long for a fit (docs/design/031-pace.md). Pure functions of the state
and of settings; the plan is arithmetic and knows no luck.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from alsys.control.commands import Idle
from alsys.control.settings import PolicySettings
from alsys.control.state.campaign import CampaignState
from alsys.frames import Arm

AHEAD_SHARE = 0.5
"""Share of the next batch of training labels that may be chosen while its model is still being fitted."""
QUICK_SHARE = 0.1
"""Share of a fit's time below which labels are quick enough to wait for it."""
LEAST_RANDOM = 10
"""Frames of the random arm below which errors measured on it say little."""
MAX_FITS = 10_000
"""Fits that a plan follows one by one."""
MAX_SHOWN = 9
"""Models of a plan that are named one by one."""


def next_batch(settings: PolicySettings, n_train_at_fit: int) -> int:
    """New training labels that make the next fit due."""
    return max(settings.refit_every, math.ceil(settings.refit_growth * n_train_at_fit))


def is_quick(n_labels: int, n_labelers: int, label_s: float | None, fit_s: float) -> bool:
    """Whether so many labels take less than a tenth of a fit; False where no label has been timed yet."""
    return label_s is not None and n_labels * label_s / max(n_labelers, 1) < QUICK_SHARE * fit_s


def most_ahead(
    settings: PolicySettings, batch: int, n_labelers: int, label_s: float | None, fit_s: float
) -> int | None:
    """Training labels that may come, or be in flight, while a fit runs; None for any number.

    Args:
        settings: Of the campaign.
        batch: New training labels that make the next fit due.
        n_labelers: Labels computed at the same time.
        label_s: Seconds of one label; None where unknown.
        fit_s: Seconds of one fit.
    """
    if settings.max_ahead != "auto":
        return settings.max_ahead
    return 0 if is_quick(batch, n_labelers, label_s, fit_s) else math.ceil(AHEAD_SHARE * batch) + n_labelers


def training_room(state: CampaignState, n_labelers: int, *, has_trainer: bool = True) -> float:
    """Training labels that may be sent out now; infinite where nothing bounds them.

    While no fit runs, the next batch may be filled, and what may be ahead of its model besides. Rounds have a pace of
    their own, and sampled frames do not wait for the first model. Without a trainer no more labels are made than the
    next fit takes.
    """
    settings = state.settings
    batch = next_batch(settings, state.n_train_at_fit)
    ahead = most_ahead(settings, batch, n_labelers, state.label_times.mean, state.fit_s)
    if settings.is_rounds:
        return math.inf
    if ahead is None or not state.champion:
        if has_trainer:
            return math.inf
        ahead, batch = 0, batch if state.n_train_at_fit else settings.first_at
    coming = state.n_new + state.in_flight_by_arm[Arm.UNCERTAIN] + state.in_flight_by_arm[Arm.INITIAL]
    return max(ahead + (batch if state.training is None else 0) - coming, 0)


def first_fit_waits(state: CampaignState) -> bool:
    """Whether the first fit waits for sampled frames that are on their way: where their labels are quick."""
    waiting = state.pending.count(Arm.INITIAL) + state.in_flight_by_arm[Arm.INITIAL]
    room = state.settings.n_labels - state.n_labels - random_kept(state, state.settings.random_share)
    if state.settings.max_ahead != "auto" or state.settings.is_rounds or min(waiting, room) <= 0:
        return False
    return is_quick(waiting, 1, state.label_times.mean, state.fit_s)


def unseen(state: CampaignState, idle: Idle) -> Collection[str]:
    """Uncertain frames that wait until the champion has looked at them.

    Only where labels are faster than a chunk of exploration: of slower ones no labeler gets more than one in the
    meantime, and it would stand idle.
    """
    label_s, chunk_s = state.label_times.mean, state.chunk_times.mean
    is_fast = label_s is not None and chunk_s is not None and label_s < chunk_s
    is_looked_at = bool(state.exploring or idle.explorers)
    if state.settings.max_ahead != "auto" or state.settings.is_random or not (is_fast and is_looked_at):
        return ()
    return state.to_rescore


def random_total(settings: PolicySettings, share: float) -> int:
    """Labels of the whole budget that the random arm gets."""
    return math.ceil(share * settings.n_labels)


def random_kept(state: CampaignState, share: float) -> int:
    """Labels of the budget that no other arm may take, so that the random arm is as large as planned at the end.

    The first model comes first: without one there are no frames to take at random. Frames of a target ensemble come
    later than others, so their place is kept at any pace.
    """
    settings = state.settings
    if not (settings.max_ahead == "auto" or settings.has_target) or settings.is_rounds:
        return 0
    n_train = state.n_train + state.in_flight_by_arm[Arm.INITIAL] + state.in_flight_by_arm[Arm.UNCERTAIN]
    if not state.champion and n_train < settings.first_at:
        return 0
    return max(0, random_total(settings, share) - state.accepted[Arm.RANDOM] - state.in_flight_by_arm[Arm.RANDOM])


def fits_left(settings: PolicySettings, n_train_at_fit: int, target: int, n_train: int = 0) -> int:
    """Fits that are still to come: one whenever a batch is full, and a last one of what is left.

    Args:
        settings: Of the campaign.
        n_train_at_fit: Training labels of the last fit; 0 for none.
        target: Training labels at the end.
        n_train: Training labels that are there already, all of which the next fit learns.
    """
    at_fit, n_fits = n_train_at_fit, 0
    while n_fits < MAX_FITS:
        due = at_fit + next_batch(settings, at_fit) if at_fit else settings.first_at
        if due >= target:
            break
        at_fit, n_fits = max(due, n_train), n_fits + 1
    return n_fits + (target > at_fit)


@dataclass(frozen=True, slots=True)
class ChosenLabels:
    """Labels that one model chooses; those of version 0 are sampled before there is any.

    Attributes:
        n_training: Labels for training.
        n_random: Labels of the random arm, taken from where its walkers are.
    """

    version: int
    n_training: int
    n_random: int = 0


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """What a campaign will do if nothing fails and every model is promoted.

    Attributes:
        chosen: Labels a model, in order.
        n_fits: All fits, the last one included, which learns from the last labels.
        n_fits_before: Fits that have ended when the last label is chosen.
        fits_s: CPU seconds of all fits but the final one.
        final_s: CPU seconds of the final one, at most; 0 where there is none.
    """

    chosen: tuple[ChosenLabels, ...]
    n_fits: int
    n_fits_before: int
    fits_s: float
    final_s: float

    @property
    def n_random(self) -> int:
        """Labels of the random arm."""
        return sum(part.n_random for part in self.chosen)

    @property
    def text(self) -> str:
        """Which labels come from which model, in one line; random-arm labels in brackets."""
        parts = [_part(part) for part in self.chosen[:MAX_SHOWN]]
        if rest := self.chosen[MAX_SHOWN:]:
            n, n_random = sum(part.n_training + part.n_random for part in rest), sum(part.n_random for part in rest)
            parts.append(f"v{rest[0].version} to v{rest[-1].version} {n} ({n_random})")
        return ", ".join(parts)


def label_plan(
    settings: PolicySettings, *, n_initial: int, n_initial_random: int, n_labelers: int, label_s: float
) -> LabelPlan:
    """Which labels come from which model.

    Args:
        settings: Of the campaign.
        n_initial: Training frames that are sampled before there is a model.
        n_initial_random: Random-arm frames among those that are sampled.
        n_labelers: Labels computed at the same time.
        label_s: Seconds of one label.
    """
    is_rounds = settings.is_rounds
    is_auto = settings.max_ahead == "auto" and not is_rounds
    n_random = max(random_total(settings, settings.random_share), min(n_initial_random, settings.n_labels))
    target = settings.n_labels - n_random
    sampled = min(n_initial, target) if is_auto else min(n_initial, settings.n_labels - n_initial_random)
    target = max(target, sampled)
    n_random = settings.n_labels - target
    final_s = settings.final_budget(target, label_s)
    waits = is_rounds or (is_auto and is_quick(sampled, 1, label_s, settings.fit_budget(sampled, label_s)))
    at_fit = sampled if waits else min(settings.first_at, sampled)
    fits_s = fit_s = settings.fit_budget(at_fit, label_s)

    def during() -> float:
        """Labels that could come during the fit."""
        return 0.0 if is_rounds else n_labelers * fit_s / max(label_s, 1e-9)

    n_train = int(min(sampled, at_fit + during()))
    counts, sent = [sampled], sampled
    n_fits, n_before = 1, 1  # fits that have ended: at all, and when the last label is chosen
    while sent < target or max(n_train, at_fit + next_batch(settings, at_fit)) < target:
        batch = next_batch(settings, at_fit)
        due = max(n_train, at_fit + batch)
        limit = most_ahead(settings, batch, n_labelers, label_s, fit_s)
        most = math.inf if limit is None or is_rounds else limit
        in_flight = 0 if is_rounds or is_quick(batch, n_labelers, label_s, fit_s) else n_labelers
        share = 1.0 - settings.random_share
        if sent < target:
            end = target if due >= target else min(target, int(due + min(share * (during() + in_flight), most)))
            counts.append(max(end - sent, 0))
            sent, n_before = max(end, sent), n_fits
        if due >= target:
            break
        if n_fits >= MAX_FITS:  # the rest alike, uncounted
            n_before = n_fits + max(target - due, 0) // batch
            counts.append(target - sent)
            chosen = _with_random(counts, n_initial_random, n_random, settings)
            fits_s += (n_before + 1 - n_fits) * fit_s
            return LabelPlan(chosen, n_before + 1, n_before, fits_s, final_s)
        fit_s = settings.fit_budget(due, label_s)
        fits_s += fit_s
        n_train, at_fit, n_fits = min(target, int(due + min(share * during(), most))), due, n_fits + 1
    chosen = _with_random(counts if len(counts) > 1 else [*counts, 0], n_initial_random, n_random, settings)
    has_last = target > at_fit and not final_s
    fits_s += settings.fit_budget(target, label_s) if has_last else 0.0
    return LabelPlan(chosen, n_fits + (has_last or final_s > 0.0), n_before, fits_s, final_s)


def _with_random(
    counts: list[int], n_sampled: int, n_random: int, settings: PolicySettings
) -> tuple[ChosenLabels, ...]:
    """The random arm beside training labels: it catches up as soon as there is a model, and keeps its share.

    It gets the next label while ``r < share (n + 1)``, with r of n labels so far.
    """
    share, n_train, done = settings.random_share, counts[0], min(n_sampled, n_random)
    chosen = [ChosenLabels(0, n_train, done)]
    for version, count in enumerate(counts[1:], start=1):
        n_train += count
        is_last = version == len(counts) - 1
        now = n_random if is_last else min(n_random, math.ceil((share * n_train + 1.0) / (1.0 - share)) - 1)
        chosen.append(ChosenLabels(version, count, max(now - done, 0)))
        done = max(now, done)
    return tuple(chosen)


def _part(part: ChosenLabels) -> str:
    text = "sampled" if part.version == 0 else f"v{part.version}"
    return f"{text} {part.n_training + part.n_random}" + (f" ({part.n_random})" if part.n_random else "")
