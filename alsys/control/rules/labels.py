"""Which frames are labelled next and by whom, and which are given up or left out."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from typing import Final

from alsys.control.commands import Command, Idle, LabelFrames
from alsys.control.rules import pace
from alsys.control.rules.exploration import round_is_gathering
from alsys.control.rules.goals import is_hopeless, wants_labels
from alsys.control.rules.trust import random_share
from alsys.control.settings import PolicySettings
from alsys.control.state.campaign import CampaignState
from alsys.control.state.records import FrameRecord
from alsys.errors import FailureKind
from alsys.events import LabelFailed, LabelNotReproduced
from alsys.frames import Arm

GROW_S: Final = 20.0
"""Seconds in which labelers should get through what waits: more of them are wanted where they would not."""


def verdict(
    record: FrameRecord, event: LabelFailed | LabelNotReproduced, settings: PolicySettings
) -> tuple[FailureKind, str] | None:
    """Why a frame is quarantined after this failure; None where it is tried again.

    Chemistry has been up the labeler's rescue ladder already, so it is final. Lost computing is retried elsewhere, but
    a frame that takes down two workers, or fails `max_attempts` times, is not, nor one with two wrong labels.
    """
    if isinstance(event, LabelNotReproduced):
        if record.n_not_reproduced < settings.max_not_reproduced:
            return None
        return (
            FailureKind.LABEL_NOT_REPRODUCED,
            f"{record.n_not_reproduced} labels of it were not reproduced",
        )
    if not event.failure.is_lost_computing:
        return event.failure, event.message
    if record.kills >= settings.max_worker_kills:
        return event.failure, f"took down {record.kills} workers; last: {event.message}"
    if record.attempts >= settings.max_attempts:
        return event.failure, f"failed {record.attempts} times; last: {event.message}"
    return None


def to_quarantine(state: CampaignState) -> dict[str, tuple[FailureKind, str]]:
    """Frames that are given up, and why."""
    verdicts = {f: verdict(state.frames[f], event, state.settings) for f, event in state.failed.items()}
    return {frame_id: found for frame_id, found in verdicts.items() if found is not None}


def evict(state: CampaignState) -> list[str]:
    """Uncertain frames beyond the bound of the candidate set, least informative first."""
    excess = state.pending.count(Arm.UNCERTAIN) - state.settings.max_pending
    return state.pending.least(excess) if excess > 0 else []


def label(state: CampaignState, idle: Idle, n_labelers: int) -> list[Command]:
    """Frames for idle labelers, and one call ahead for busy ones where labels are so fast that it pays.

    Args:
        state: The campaign.
        idle: Workers that are free.
        n_labelers: Labelers that there are, busy or not.
    """
    settings, room = state.settings, _room(state)
    if not has_frames(state):
        return []
    mean = state.label_times.mean
    workers = list(idle.labelers)
    if mean is not None and mean < settings.prefetch_below_s and room > 4 * n_labelers:
        workers += _ahead(state, idle)
    if not workers:
        return []
    commands: list[Command] = []
    training = pace.training_room(state, n_labelers, has_trainer=idle.has_trainer)
    chooser = _Chooser(state, idle, has_choice=n_labelers > 1, room=room, training=training)
    available = _available(state, training)
    for k, worker in enumerate(workers):
        frame_ids = chooser.take(worker, _batch_size(mean, available, len(workers) - k, settings))
        if not frame_ids:
            if chooser.is_exhausted:
                break
            continue
        available -= len(frame_ids)
        commands.append(LabelFrames(worker, frame_ids))
    return commands


def has_frames(state: CampaignState) -> bool:
    """Whether frames may be handed out to labelers, if their pace allows it."""
    if not len(state.pending) or is_hopeless(state):
        return False
    if not state.pending.count(Arm.ATOM) and (_room(state) <= 0 or not wants_labels(state)):
        return False
    return not (state.settings.is_rounds and round_is_gathering(state))


def _room(state: CampaignState) -> int:
    """Labels that the budget has left, after those that wait to be verified and those of minima to come."""
    kept = len(state.audits.to_verify) + state.hessians.n_minima_left
    return state.settings.n_labels - state.n_labels - state.n_in_flight - kept


def _ahead(state: CampaignState, idle: Idle) -> list[str]:
    """Busy labelers that may get a call ahead: not those that compute a Hessian, or are to be checked first."""
    computing, every = state.hessians.computing, state.settings.reference_every
    return [w for w in idle.busy_labelers if w not in computing and not state.audits.needs_check(w, every)]


def wants_labelers(state: CampaignState) -> bool:
    """Whether there is anything for a labeler to do."""
    audits = state.audits
    waits = audits.to_verify or state.hessians.waiting or audits.waiting(state.settings.audit_share)
    return bool(waits) or has_frames(state)


def n_wanted(state: CampaignState, n_labelers: int, *, n_slow: int = 0, has_trainer: bool) -> int:
    """Labelers that have something to do: enough to label what waits within `GROW_S`, one at least where any does.

    Args:
        state: The campaign.
        n_labelers: Labelers that there are.
        n_slow: Those that have been at one call for longer than `GROW_S`.
        has_trainer: Whether there is a trainer.
    """
    audits, hessians = state.audits, state.hessians
    n_frames = state.n_in_flight + len(audits.to_verify) + len(audits.auditing)
    n_frames += len(audits.waiting(state.settings.audit_share))
    if state.stop_requested is None and has_frames(state):
        training = pace.training_room(state, n_labelers, has_trainer=has_trainer)
        n_frames += min(_available(state, training), max(_room(state), state.pending.count(Arm.ATOM)))
    mean = state.label_times.mean
    share = 1.0 if mean is None else min(mean / GROW_S, 1.0)
    n = math.ceil(n_frames * share)
    return min(n_frames, n + n_slow * (share < 1.0)) + len(hessians.waiting) + len(hessians.computing)


def _available(state: CampaignState, training: float) -> int:
    """Frames that may be sent to labelers, as far as the pace of training goes."""
    others = state.pending.count(Arm.ATOM, Arm.RANDOM)
    return others + int(min(training, len(state.pending) - others))


def _batch_size(mean: float | None, available: int, n_workers: int, settings: PolicySettings) -> int:
    """Frames in one call: as many as `batch_s` holds, but never so many that another worker stays idle."""
    if mean is None or settings.batch_s <= 0 or mean * 2 > settings.batch_s:
        return 1
    size = min(settings.max_batch, int(settings.batch_s / max(mean, 1e-5)))
    return max(1, min(size, math.ceil(available / max(1, n_workers))))


class _Chooser:
    """Walks the candidate set in the order of labelling without changing it.

    Free atoms first; then a frame of the random arm whenever its share of the labels is below the wanted one; then
    initial frames; then, in turn, the most uncertain one and the oldest one of the stratum that has the fewest labels.
    A frame whose computing was lost goes to another worker than the one that lost it.

    Args:
        state: The campaign.
        idle: Workers that are free.
        has_choice: Whether there is more than one labeler, idle or not; a single one gets every frame.
        room: Labels that the budget has left.
        training: Training labels that may be sent out before the next model.
    """

    def __init__(self, state: CampaignState, idle: Idle, *, has_choice: bool, room: int, training: float) -> None:
        self._state = state
        self._has_choice = has_choice
        self._room, self._training = room, training
        self._share = random_share(state)
        self._kept = pace.random_kept(state, self._share)
        self._unseen = pace.unseen(state, idle)
        self._n_random = state.accepted[Arm.RANDOM] + state.in_flight_by_arm[Arm.RANDOM]
        self._n_all = state.n_labels + state.n_in_flight
        self._atoms = state.pending.queued(Arm.ATOM)
        self._random = state.pending.queued(Arm.RANDOM)
        self._rest = itertools.chain(state.pending.queued(Arm.INITIAL), self._uncertain())
        self._waiting: deque[str] = deque()
        self._has_more = True

    @property
    def is_exhausted(self) -> bool:
        """Whether no labeler can be given anything more."""
        return not (self._has_more or self._waiting)

    def _uncertain(self) -> Iterator[str]:
        """Uncertain frames, each once."""
        pending = self._state.pending
        ranked = (f for f in pending.ranked() if f not in self._unseen)
        if not self._state.settings.is_diverse or self._state.settings.is_random:
            yield from ranked
            return
        labelled, strata = dict(self._state.strata), pending.strata()
        taken: set[str] = set(self._unseen)
        turn = self._state.accepted[Arm.UNCERTAIN] + self._state.in_flight_by_arm[Arm.UNCERTAIN]
        while len(taken) < pending.count(Arm.UNCERTAIN):
            frame_id: str | None = None
            if turn % 2:
                while frame_id is None and strata:
                    stratum = min(strata, key=lambda name: labelled.get(name, 0))
                    frame_id = next((f for f in strata[stratum] if f not in taken), None)
                    if frame_id is None:
                        del strata[stratum]
                    else:
                        labelled[stratum] = labelled.get(stratum, 0) + 1
            else:
                frame_id = next((f for f in ranked if f not in taken), None)
            turn += 1
            if frame_id is not None:
                taken.add(frame_id)
                yield frame_id

    def take(self, worker: str, size: int) -> tuple[str, ...]:
        """At most `size` frames for one call to `worker`, within what the budget and the pace allow."""
        chosen: list[str] = []
        for_others: list[str] = []
        while len(chosen) < size:
            frame_id = self._waiting.popleft() if self._waiting else self._next()
            if frame_id is None:
                self._has_more = False
                break
            record = self._state.frames[frame_id]
            is_lost_here = self._has_choice and record.last_worker == worker
            if is_lost_here or not self._has_room(record.arm):
                for_others.append(frame_id)
                continue
            # A frame that failed before travels alone, or it would take others down with it.
            if record.attempts and chosen:
                self._waiting.appendleft(frame_id)
                break
            self._use(record.arm)
            chosen.append(frame_id)
            if record.attempts:
                break
        self._waiting.extendleft(reversed(for_others))
        return tuple(chosen)

    def _has_room(self, arm: Arm) -> bool:
        if arm is Arm.ATOM:
            return True
        if arm is Arm.RANDOM:
            return self._room > 0
        return self._room > self._kept and self._training > 0

    def _use(self, arm: Arm) -> None:
        self._room -= arm is not Arm.ATOM
        if arm is Arm.RANDOM:
            self._kept = max(self._kept - 1, 0)
        elif arm is not Arm.ATOM:
            self._training -= 1

    def _next(self) -> str | None:
        """The next frame; None where there is none, or no room for what there is."""
        frame_id = next(self._atoms, None)
        if frame_id is not None:
            return frame_id
        if self._room > 0 and self._n_random < self._share * (self._n_all + 1):
            frame_id = next(self._random, None)
        if frame_id is not None:
            self._n_random += 1
        else:
            frame_id = next(self._rest, None) if self._has_room(Arm.UNCERTAIN) else None
            is_all = not self._state.champion or self._state.settings.is_rounds  # a round labels what it has gathered
            if frame_id is None and self._room > 0 and is_all:
                frame_id = next(self._random, None)
        self._n_all += frame_id is not None
        return frame_id
