"""Policies: what to label, when to train, explore, promote and stop. Pure functions of the ledger.

Each returns values (commands, events, names of frames) and changes nothing, so each can be tested by building a ledger
from a handful of events.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from alsys.control import pace, promotion
from alsys.control.commands import Command, Explore, Finish, Idle, LabelFrames, Train
from alsys.control.convergence import Convergence, convergence
from alsys.control.model_book import MAX_TRAINING_FAILURES
from alsys.control.settings import PolicySettings
from alsys.errors import FailureKind
from alsys.events import AlarmCleared, AlarmRaised, LabelDisputed, LabelFailed, ModelPromoted, ModelRejected
from alsys.exploration import bandit
from alsys.frames import Arm

if TYPE_CHECKING:
    from alsys.control.ledger import Ledger
    from alsys.control.records import FrameRecord, ModelRecord

N_SEEDS = 16
RESCORE_CHUNK = 256
COMPARE_CHUNK = 32
BLIND_CHUNKS = 200
"""Chunks of one walker without an uncertain frame, after which a committee of copies is not waited for."""
ALARM_SHARE = 0.5
"""Most that the random arm grows to while uncertainties cannot be believed."""
LEAST_GAIN = 0.01
"""Share of the error that a fit on unchanged data must take away for another to be worth its time."""
MOST_LOST_IN_A_ROW = 40
"""Quarantined frames one after another, without a label between, after which a campaign is given up."""
ALIKE = 0.9
"""Correlation of members' errors above which there is an alarm."""


def verdict(
    record: FrameRecord, event: LabelFailed | LabelDisputed, settings: PolicySettings
) -> tuple[FailureKind, str] | None:
    """Why a frame is quarantined after this failure; None where it is tried again.

    Chemistry has been up the labeler's rescue ladder already, so it is final. Lost computing is retried elsewhere, but
    a frame that takes down two workers, or fails `max_attempts` times, is not, nor one with two wrong labels.
    """
    if isinstance(event, LabelDisputed):
        if record.disputes < settings.max_disputes:
            return None
        return FailureKind.LABEL_DISPUTED, f"{record.disputes} labels of it were not confirmed at tighter settings"
    if not event.failure.is_lost_computing:
        return event.failure, event.message
    if record.kills >= settings.max_worker_kills:
        return event.failure, f"took down {record.kills} workers; last: {event.message}"
    if record.attempts >= settings.max_attempts:
        return event.failure, f"failed {record.attempts} times; last: {event.message}"
    return None


def to_quarantine(ledger: Ledger) -> dict[str, tuple[FailureKind, str]]:
    """Frames that are given up, and why."""
    verdicts = {f: verdict(ledger.frames[f], event, ledger.settings) for f, event in ledger.failed.items()}
    return {frame_id: found for frame_id, found in verdicts.items() if found is not None}


def evict(ledger: Ledger) -> list[str]:
    """Uncertain frames beyond the bound of the candidate set, least informative first."""
    excess = ledger.pending.count(Arm.UNCERTAIN) - ledger.settings.max_pending
    return ledger.pending.least(excess) if excess > 0 else []


def judge(ledger: Ledger, model: ModelRecord, now: float) -> ModelPromoted | ModelRejected:
    """Whether a version becomes champion; see `alsys.control.promotion`.

    One that was fitted from a champion which the user has taken back since does not bring it back. One that saw nothing
    that the champion has not must be better, not only no worse: a row of such fits would wander otherwise.
    """
    if ledger.champion and model.parent != ledger.champion:
        reason = f"was fitted from v{model.parent:04d} and compared with it; v{ledger.champion:04d} is champion now"
        return ModelRejected(t=now, version=model.version, reason=reason, reasons=(reason,))
    if ledger.champion:
        parent = ledger.models[ledger.champion]
        gain = _gain(ledger, model)
        if model.n_changes == parent.n_changes and not parent.is_probation and gain < 0:
            reason = f"was fitted to the same data as v{parent.version:04d}, and its error is {-gain:.1%} larger"
            return ModelRejected(t=now, version=model.version, reason=reason, reasons=(reason,))
    return promotion.judge(
        model.version,
        model.metrics,
        ledger.champion,
        [ledger.models[version].metrics for version in ledger.champions],
        ledger.settings.promotion,
        ledger.settings.probability,
        now,
    )


def converged(ledger: Ledger) -> Convergence:
    """How far the campaign is from its targets."""
    versions = [(model.version, model.metrics) for model in ledger.models.values()]
    return convergence(versions, ledger.champion, ledger.settings.targets)


def target_reached(ledger: Ledger) -> bool:
    """The champion and the latest versions in a row keep the user's targets, with confidence."""
    return ledger.settings.targets.are_set and converged(ledger).is_reached


def wants_labels(ledger: Ledger) -> bool:
    """False once a stop criterion asks for no further labels; a last fit may still follow."""
    settings = ledger.settings
    if ledger.n_labels >= settings.n_labels or target_reached(ledger) or _is_quiet(ledger):
        return False
    return settings.wall_s is None or ledger.totals.wall_s < settings.wall_s


def is_hopeless(ledger: Ledger) -> bool:
    """So many frames in a row were quarantined that labelling itself must be at fault."""
    return ledger.lost_in_a_row >= MOST_LOST_IN_A_ROW


def finish(ledger: Ledger, now: float) -> Finish | None:
    """The end of the campaign, once nothing is in flight and everything labelled has been learned from."""
    if ledger.stop_requested is not None:
        at_work = ledger.in_flight or ledger.training or ledger.exploring or ledger.assurance.is_busy
        if ledger.stop_requested.drain and at_work:
            return None
        return Finish("user", "stopped on request; run the same command to go on", is_final=False)
    if is_hopeless(ledger) and wants_labels(ledger):
        if ledger.in_flight or ledger.training or ledger.assurance.suspects or ledger.assurance.is_busy:
            return None
        remedy = "see the quarantine table of the report; the same command tries again"
        lost = f"{ledger.lost_in_a_row} frames in a row gave no label, the last one: {ledger.last_loss}"
        return Finish("failed", f"{lost}; {remedy}", is_final=False)
    if wants_labels(ledger):
        return None
    settings = ledger.settings
    if settings.wall_s is not None and ledger.totals.wall_s >= settings.wall_s:
        return Finish("wall-time", f"{settings.wall_s:.0f} s of running time are used up")
    if ledger.in_flight or ledger.training is not None or _wants_last_fit(ledger) or trains_on(ledger):
        return None
    if ledger.champion and (ledger.assurance.is_busy or ledger.assurance.waiting(settings.audit_share)):
        return None
    if not ledger.champion:
        message = f"there are labels but no model: every fit failed{_last_rejection(ledger)}"
        return Finish("failed", message, is_final=False)
    if target_reached(ledger):
        return Finish("target-reached", converged(ledger).text.removeprefix("reached: "))
    if _is_quiet(ledger):
        return Finish("nothing-uncertain", f"{settings.quiet_steps} walker-steps without an uncertain frame")
    return Finish("labels", f"{ledger.n_labels} labels")


def train(ledger: Ledger, trainers: Sequence[str]) -> Train | None:
    """The next fit: at `first_at` training labels, then after `refit_every` more, and once more at the end.

    In between, and after the end, a trainer that has nothing to do goes on with the data it has (`train_on`).
    A retracted label counts like a new one, and a fit after it waits for `first_at` labels as the first did. While no
    version was any good, a fit goes on from the latest, as long as that makes them better, and else begins anew.
    """
    if not trainers or ledger.training is not None or not (_fit_is_due(ledger) or trains_on(ledger)):
        return None
    return Train(
        worker=trainers[0],
        version=ledger.next_version,
        parent=ledger.champion or _latest_that_learns(ledger),
        champion=ledger.champion,
        n_labels=ledger.n_labels,
    )


def _latest_that_learns(ledger: Ledger) -> int:
    """The newest version, unless it went on from another and explains no more of the forces than that did; else 0."""
    version = max((v for v, model in ledger.models.items() if not model.is_lost), default=0)
    if not version:
        return 0
    own = ledger.models[version]
    before = ledger.models[own.parent].metrics.get("holdout_skill") if own.parent in ledger.models else None
    after = own.metrics.get("holdout_skill")
    return 0 if before is not None and after is not None and after <= before else version


def trains_on(ledger: Ledger) -> bool:
    """Whether another fit on unchanged data is worth its time: the last one was, or it would be the first."""
    settings = ledger.settings
    if not settings.train_on or settings.is_rounds or ledger.n_new or ledger.training_failures:
        return False
    same = _on_same_data(ledger)
    if not same or same[-1].version != ledger.champion or target_reached(ledger):
        return False
    n_done = len(same) - 1
    return n_done < settings.train_on and (not n_done or _gain(ledger, same[-1]) >= LEAST_GAIN)


def extra_fits(ledger: Ledger) -> int:
    """Versions after the first on the data there are now."""
    return max(len(_on_same_data(ledger)) - 1, 0)


def label(ledger: Ledger, idle: Idle, n_labelers: int) -> list[Command]:
    """Frames for idle labelers, and one call ahead for busy ones where labels are so fast that it pays.

    Labels that wait to be verified have their place in the budget.

    Args:
        ledger: The campaign.
        idle: Workers that are free; labelers that must not get a call ahead are left out.
        n_labelers: Labelers that there are, busy or not.
    """
    settings = ledger.settings
    atoms_left = ledger.pending.count(Arm.ATOM) > 0
    room = settings.n_labels - ledger.n_labels - ledger.n_in_flight - len(ledger.assurance.suspects)
    if not (atoms_left or (wants_labels(ledger) and room > 0)) or not len(ledger.pending):
        return []
    if is_hopeless(ledger) or (settings.is_rounds and _round_is_gathering(ledger)):
        return []
    mean = ledger.label_times.mean
    workers = list(idle.labelers)
    if mean is not None and mean < settings.prefetch_below_s and room > 4 * n_labelers:
        workers += idle.busy_labelers
    commands: list[Command] = []
    training = pace.training_room(ledger, n_labelers)
    chooser = _Chooser(ledger, idle, has_choice=n_labelers > 1, room=room, training=training)
    others = ledger.pending.count(Arm.ATOM, Arm.RANDOM)
    available = others + int(min(training, len(ledger.pending) - others))
    for k, worker in enumerate(workers):
        frame_ids = chooser.take(worker, _batch_size(mean, available, len(workers) - k, settings))
        if not frame_ids:
            continue
        available -= len(frame_ids)
        commands.append(LabelFrames(worker, frame_ids))
    return commands


def explore(ledger: Ledger, explorers: Sequence[str]) -> list[Command]:
    """Chunks for idle explorers, unless exploration is paused."""
    if not explorers or not ledger.champion or not wants_labels(ledger) or exploration_is_paused(ledger):
        return []
    settings = ledger.settings
    busy = ledger.exploring.values()
    wanted = _random_wanted(ledger) - sum(order.n_random for order in busy)
    being_rescored = {frame_id for order in busy for frame_id in order.rescored}
    stale = [frame_id for frame_id in ledger.stale if frame_id not in being_rescored]
    unseen = list(itertools.islice(ledger.to_compare, COMPARE_CHUNK * len(explorers)))
    trust, shares = trust_band(ledger), method_shares(ledger)
    commands: list[Command] = []
    for k, worker in enumerate(explorers):
        n_random = min(max(0, math.ceil(wanted / (len(explorers) - k))), 4)
        wanted -= n_random
        rescore, stale = stale[:RESCORE_CHUNK], stale[RESCORE_CHUNK:]
        compare, unseen = unseen[:COMPARE_CHUNK], unseen[COMPARE_CHUNK:]
        commands.append(
            Explore(
                worker=worker,
                version=ledger.champion,
                n_steps=settings.chunk_steps,
                n_random=n_random,
                max_candidates=settings.max_candidates,
                seeds=_seeds(ledger, worker),
                rescore=tuple(rescore),
                compare=tuple(compare),
                trust=trust,
                shares=shares,
            )
        )
    return commands


def trust_band(ledger: Ledger) -> tuple[float, float]:
    """Edges of the trust band as force deviations, eV/Angstrom: as stated, or as calibration has them now."""
    low, high = ledger.settings.trust
    if not ledger.settings.is_calibrated:
        return low, high
    band = ledger.calibration.band
    return band.deviation(low), band.deviation(high)


def method_shares(ledger: Ledger) -> dict[str, float]:
    """Share of the walkers for each exploration method, from what each had earned when the champion began to lead.

    The same until the next champion, so that walkers are left alone.
    """
    if len(ledger.tallies_then) < 2:
        return {}
    seed = ledger.settings.seed + ledger.champion
    return dict(_shares(tuple(ledger.tallies_then.items()), ledger.settings.method_floor, seed))


@functools.lru_cache(maxsize=8)
def _shares(tallies: tuple[tuple[str, bandit.Tally], ...], floor: float, seed: int) -> Mapping[str, float]:
    return bandit.shares(dict(tallies), floor, seed)


def random_share(ledger: Ledger) -> float:
    """Share of labels that the random arm gets: twice what was asked for, at most half, while there is an alarm.

    All of them once members that are copies of one another have found nothing for long: by them nothing ever is
    uncertain, and the campaign would stand still.
    """
    share = ledger.settings.random_share
    is_blind = "copies" in ledger.alarms and ledger.exploration.n_distinct == 1
    if is_blind and ledger.exploration.steps_since_above >= BLIND_CHUNKS * ledger.settings.chunk_steps:
        return 1.0
    return max(share, min(2.0 * share, ALARM_SHARE)) if ledger.alarms else share


def alarms(ledger: Ledger, now: float) -> list[AlarmRaised | AlarmCleared]:
    """What changed about whether uncertainties can be believed."""
    current: dict[str, str] = {}
    message = ledger.calibration.alarm
    if message is not None:
        current["calibration"] = message
    seen = ledger.exploration
    if seen.n_distinct < seen.n_members:
        current["copies"] = f"of {seen.n_members} members of the committee only {seen.n_distinct} differ"
    elif not seen.n_members and "copies" in ledger.alarms:
        current["copies"] = ledger.alarms["copies"]  # the new champion has not been seen yet
    correlation = ledger.models[ledger.champion].metrics.get("error_correlation") if ledger.champion else None
    if correlation is not None and correlation > ALIKE:
        current["alike"] = (
            f"errors of two members of v{ledger.champion:04d} have a correlation of {correlation:.2f}: "
            f"above {ALIKE} their spread says little about them"
        )
    new = [name for name in current if name not in ledger.alarms]
    raised = [AlarmRaised(t=now, name=name, message=current[name]) for name in new]
    return [*raised, *(AlarmCleared(t=now, name=name) for name in ledger.alarms if name not in current)]


def exploration_is_paused(ledger: Ledger) -> bool:
    """Pause while the candidate set is full of frames that the champion has seen, and the pool has been searched."""
    settings = ledger.settings
    if settings.is_rounds and (ledger.training is not None or ledger.in_flight or not _round_is_gathering(ledger)):
        return True
    if ledger.pending.count(Arm.UNCERTAIN) < settings.max_pending:
        return False
    is_paced = settings.max_ahead == "auto"  # each model searches for itself, and a random arm that lags is served
    if is_paced and _random_wanted(ledger) and not ledger.pending.count(Arm.RANDOM):
        return False
    if (is_paced or settings.pool > 1.0) and ledger.exploration.n_candidates < settings.pool * settings.max_pending:
        return False
    return not ledger.stale


def is_stuck(ledger: Ledger, idle: Idle) -> bool:
    """True where nothing is in flight, nothing can be started although all workers are there, and nothing will come."""
    working = ledger.in_flight or ledger.exploring or ledger.training is not None or ledger.assurance.is_busy
    return not working and bool(idle.labelers and idle.explorers and idle.trainers)


def stuck_message(ledger: Ledger) -> str:
    """What a user should do about a campaign that cannot go on."""
    if not ledger.champion:
        quarantined = sum(record.status == "quarantined" for record in ledger.frames.values())
        return (
            f"only {ledger.n_train} frames could be labelled, {quarantined} are quarantined and no model "
            f"could be fitted{_last_rejection(ledger)}; see the quarantine table of the report"
        )
    return "nothing is left to label, explore or train; see the report"


def _last_rejection(ledger: Ledger) -> str:
    """Why the latest version was no model; empty where there is none."""
    latest = ledger.models.get(max(ledger.models, default=0))
    if latest is None:
        return ""
    remedy = "check the labels, or give fits more time (training.budget_s)"
    return f" or was rejected, v{latest.version:04d} because it {latest.reason}; {remedy}"


def _is_quiet(ledger: Ledger) -> bool:
    limit = ledger.settings.quiet_steps
    if limit is None or ledger.pending.count(Arm.UNCERTAIN, Arm.INITIAL):
        return False
    return ledger.exploration.steps_since_above >= limit


def _fit_is_due(ledger: Ledger) -> bool:
    settings = ledger.settings
    if settings.is_rounds and (ledger.in_flight or ledger.exploring):
        return False
    new = ledger.n_new
    if new <= 0 or (ledger.training_failures >= MAX_TRAINING_FAILURES and new < settings.refit_every):
        return False
    if ledger.pending.count(Arm.ATOM) or ledger.flying[Arm.ATOM]:
        return False
    if _wants_last_fit(ledger):
        return True
    if not ledger.champion:
        starved = not len(ledger.pending) and not ledger.in_flight
        if starved and ledger.n_train >= 2:
            return True
        return ledger.n_train >= settings.first_at and not pace.first_fit_waits(ledger)
    if ledger.retracted and ledger.n_train < settings.first_at:
        return False  # little is left: the champion leads until others are labelled in their place
    return new >= pace.next_batch(settings, ledger.n_train_at_fit)


def _wants_last_fit(ledger: Ledger) -> bool:
    return (
        not wants_labels(ledger)
        and not ledger.in_flight
        and ledger.n_new > 0
        and ledger.n_train > 0
        and ledger.training_failures < MAX_TRAINING_FAILURES
    )


def _on_same_data(ledger: Ledger) -> list[ModelRecord]:
    return [model for model in ledger.models.values() if model.n_changes == ledger.n_changes]


def _gain(ledger: Ledger, model: ModelRecord) -> float:
    """Share of its parent's error that a version takes away: on the random arm, or on what both were trained on."""
    new, old = model.metrics.get("force_mae_random_arm"), model.metrics.get("champion_force_mae_random_arm")
    if new is None or old is None:
        parent = ledger.models.get(model.parent)
        new = model.metrics.get("force_mae_train")
        old = parent.metrics.get("force_mae_train") if parent is not None else None
    return 1.0 - new / old if new is not None and old else 0.0


def _round_is_gathering(ledger: Ledger) -> bool:
    """Rounds: True while frames are gathered, False while the gathered ones are labelled."""
    if ledger.in_flight or ledger.pending.count(Arm.ATOM, Arm.INITIAL):
        return False
    if ledger.exploring:
        return True
    room = ledger.settings.n_labels - ledger.n_labels
    if ledger.n_new and not _fit_is_due(ledger):
        return len(ledger.pending) == 0
    return len(ledger.pending) < min(ledger.settings.refit_every, room)


def _batch_size(mean: float | None, available: int, n_workers: int, settings: PolicySettings) -> int:
    """Frames in one call: as many as `batch_s` holds, but never so many that another worker stays idle."""
    if mean is None or settings.batch_s <= 0 or mean * 2 > settings.batch_s:
        return 1
    size = min(settings.max_batch, int(settings.batch_s / max(mean, 1e-5)))
    return max(1, min(size, math.ceil(available / max(1, n_workers))))


def _random_wanted(ledger: Ledger) -> int:
    """Random-arm frames to gather, so that a few always wait for a labeler."""
    settings, share = ledger.settings, random_share(ledger)
    if share <= 0:
        return 0
    stock = max(1, math.ceil(share * min(settings.max_pending, settings.refit_every)))
    have = ledger.pending.count(Arm.RANDOM)
    done = ledger.accepted[Arm.RANDOM] + ledger.flying[Arm.RANDOM]
    if settings.max_ahead == "auto":
        stock = max(stock, math.ceil(share * (ledger.n_labels + ledger.n_in_flight)) - done)
    missing = pace.random_total(settings, share) - done - have
    return max(0, min(stock - have, missing))


def _seeds(ledger: Ledger, worker: str) -> tuple[str, ...]:
    """Labelled frames for walkers to start from: the newest half, the rest drawn from all."""
    labelled = ledger.labelled
    if len(labelled) <= N_SEEDS:
        return tuple(labelled)
    rng = random.Random(f"{ledger.settings.seed}/{worker}/{ledger.totals.walker_steps}/{len(labelled)}")
    newest = labelled[-N_SEEDS // 2 :]
    older = rng.sample(range(len(labelled) - len(newest)), N_SEEDS - len(newest))
    return tuple([labelled[i] for i in older] + newest)


class _Chooser:
    """Walks the candidate set in the order of labelling without changing it.

    Free atoms first; then a frame of the random arm whenever its share of the labels is below the wanted one; then
    initial frames; then, in turn, the most uncertain one and the oldest one of the stratum that has the fewest labels.
    A frame whose computing was lost goes to another worker than the one that lost it.

    Args:
        ledger: The campaign.
        idle: Workers that are free.
        has_choice: Whether there is more than one labeler, idle or not; a single one gets every frame.
        room: Labels that the budget has left.
        training: Training labels that may be sent out before the next model.
    """

    def __init__(self, ledger: Ledger, idle: Idle, *, has_choice: bool, room: int, training: float) -> None:
        self._ledger = ledger
        self._has_choice = has_choice
        self._room, self._training = room, training
        self._share = random_share(ledger)
        self._kept = pace.random_kept(ledger, self._share)
        self._unseen = pace.unseen(ledger, idle)
        self._n_random = ledger.accepted[Arm.RANDOM] + ledger.flying[Arm.RANDOM]
        self._n_all = ledger.n_labels + ledger.n_in_flight
        self._atoms = ledger.pending.queued(Arm.ATOM)
        self._random = ledger.pending.queued(Arm.RANDOM)
        self._rest = itertools.chain(ledger.pending.queued(Arm.INITIAL), self._uncertain())
        self._waiting: deque[str] = deque()

    def _uncertain(self) -> Iterator[str]:
        """Uncertain frames, each once."""
        pending = self._ledger.pending
        ranked = (f for f in pending.ranked() if f not in self._unseen)
        if not self._ledger.settings.is_diverse or self._ledger.settings.is_random:
            yield from ranked
            return
        labelled, strata = dict(self._ledger.strata), pending.strata()
        taken: set[str] = set(self._unseen)
        turn = self._ledger.accepted[Arm.UNCERTAIN] + self._ledger.flying[Arm.UNCERTAIN]
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
                break
            record = self._ledger.frames[frame_id]
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
            if frame_id is None and self._room > 0 and not self._ledger.champion:
                frame_id = next(self._random, None)
        self._n_all += frame_id is not None
        return frame_id
