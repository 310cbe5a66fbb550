"""What a campaign's first fit starts from: a committee that was taught, or one of another campaign.

`StartingTrainer` wraps a trainer and gives its first fit a parent. It learns a teacher's labels first, or imported ones
of another level of theory (`alsys.training.pretraining`). The parent's energy shifts are moved to the level of theory
of the campaign's labels (`rebased`): free atoms there, plus the mean energy per atom that is left; weights and scales
stay. A taught committee is kept in a folder under the digest of all that it depends on, so a restart does not teach it
again, and teaching that was cut off begins anew. Where frames of another campaign are replayed, they are in every fit,
before the campaign's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from alsys.config.schema import CampaignConfig, NetworkModel
from alsys.config.start import ImportedStart, ModelStart, TeacherStart
from alsys.config.training import TrainingConfig
from alsys.errors import AlsysError, FailureKind, InputError
from alsys.files import replace_file, replacing
from alsys.frames import FloatArray
from alsys.potentials.architectures import STATE_ENERGIES, architecture_of, states_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.baseline import Baseline
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.elements import cutoffs_among
from alsys.potentials.nequip import NequIPCommittee, elements_of
from alsys.store.base import Snapshot
from alsys.training.base import FittedMember, MemberOrder, TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.dataset import atomic_energies, baseline_of, less_baseline, split
from alsys.training.evaluate import batch_of, chunks_of, thinned
from alsys.training.pretraining import beside_baseline, read_pretraining
from alsys.training.snapshots import columns_of, joined, snapshot_from
from alsys.training.states import energies_of_states, places_of, reference_of, states_for, with_states
from alsys.training.step import SHIFTS
from alsys.training.teacher import build_teacher, taught
from alsys.training.trainer import NequIPTrainer

logger = logging.getLogger(__name__)

PARENT = "parent"
"""Folder of the bundle that the first fit goes on from."""
NOTE = "start.json"
"""What is known of it: ``is_same_level``."""
FREE_FIELDS = ("elements", "avg_num_neighbors", "cutoffs")
"""Entries of a specification that a parent may have otherwise: more elements, and what follows from them."""


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What is given to a trainer that goes on from another campaign's model.

    Attributes:
        state: The committee.
        is_same_level: Whether its labels are of the campaign's level of theory; its shifts are kept then.
        replay: Labelled frames of that level; None for none.
    """

    state: CommitteeState
    is_same_level: bool
    replay: Snapshot | None = None


class StartingTrainer:
    """A trainer whose first fit has a parent.

    Args:
        config: ``training.start`` says which.
        folder: Where taught committees are kept, and a starting point (`write_starting_point`) or pretraining data
            (`write_pretraining`) has been put.
        fit: Where the fit that is running is kept; None for nowhere.

    Raises:
        InputError: There is no starting point in `folder`, or it is damaged.
    """

    def __init__(self, config: CampaignConfig, folder: Path | None, fit: Path | None = None) -> None:
        start = config.training.start
        if start is None:
            raise TypeError("StartingTrainer needs training.start")
        self._config, self._start, self._folder = config, start, folder
        self._trainer = NequIPTrainer(config, folder=fit)
        self._first = self._trainer
        if start.learning_rate is not None:
            self._first = NequIPTrainer(_with_training(config, learning_rate=start.learning_rate), folder=fit)
        self._point: StartingPoint | None = None
        if folder is None and not isinstance(start, TeacherStart):
            raise InputError("goes on from what a run has put into a folder", field="training.start")
        if isinstance(start, ModelStart) and folder is not None:
            self._point = read_starting_point(folder)

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """Fits; an order without a parent is given one first."""
        order = self._replayed(order)
        if order.parent is not None:
            return self._trainer.run(order)
        try:
            parent = self._taught(order) if self._point is None else self._point.state
            if isinstance(parent, TrainingFailure):
                return replace(parent, version=order.version)
            elements = [chemical_symbols[z] for z in sorted({int(z) for z in order.snapshot.numbers})]
            snapshot = order.snapshot if baseline_of(self._config) is None else less_baseline(order.snapshot)
            train = split(snapshot, self._config.training.validation_share).train
            states = states_for(self._config, snapshot, states_of(parent.spec))
            # the campaign's own elements are known, those of imported frames may be new
            parent = with_states(parent, elements, states, train, order.seed)
        except AlsysError as error:
            return TrainingFailure(order.version, FailureKind.INTERNAL, f"training.start: {error}")
        if self._point is None or not self._point.is_same_level:
            parent = rebased(parent, snapshot, self._config.training)
        return self._first.run(replace(order, parent=parent))

    def fit_member(self, order: MemberOrder) -> FittedMember | TrainingFailure:
        """Of a fit that has a parent: the first one is a single trainer's, which is taught once."""
        assert order.fit.parent is not None
        return self._trainer.fit_member(replace(order, fit=self._replayed(order.fit)))

    def _replayed(self, order: TrainingOrder) -> TrainingOrder:
        """The order with replayed frames before its own: a new draw for each version, the same after a restart."""
        replay = None if self._point is None else self._point.replay
        if replay is None or not isinstance(self._start, ModelStart) or self._start.replay is None:
            return order
        share, own = self._start.replay.share, split(order.snapshot, 0.0).train.n_frames
        count = min(replay.n_frames, round(share / (1.0 - share) * own))
        own_frames = set(order.snapshot.frame_ids)
        drawn = np.random.default_rng([self._config.seed, order.version, 3]).permutation(replay.n_frames)
        rows = [row for row in drawn.tolist() if replay.frame_ids[row] not in own_frames][:count]
        chosen = replay.select(np.sort(np.array(rows, dtype=np.int64)))
        known = order.known.union(chosen.frame_ids)
        return replace(order, snapshot=joined(chosen, order.snapshot), known=known)

    def _taught(self, order: TrainingOrder) -> CommitteeState | TrainingFailure:
        """The committee that was pretrained, from the folder where it is there."""
        start, config = self._start, self._config
        assert not isinstance(start, ModelStart)
        source = self._imported() if isinstance(start, ImportedStart) else self._teachers(start, order.snapshot)
        place = None if self._folder is None else self._folder / source.name
        if place is not None and place.exists():
            try:
                return read_bundle(place)
            except InputError as error:
                logger.warning("%s; it is taught again", error)
        labels = source.labels()
        trainer = NequIPTrainer(pretraining_config(config, start.budget_s))
        result = trainer.run(TrainingOrder(0, labels, None, None, seed=config.seed))
        if isinstance(result, TrainingFailure):
            return replace(result, message=f"teaching: {result.message}")
        logger.info(
            "taught by %s on %d frames: force MAE %.4f eV/Angstrom to its labels",
            source.labelled_by, labels.n_frames, result.metrics["force_mae_train"],
        )  # fmt: skip
        if place is not None:
            card = {"teacher": source.labelled_by, "n_labels": labels.n_frames, "metrics": dict(result.metrics.items())}
            try:
                write_bundle(place, result.state, card)
            except OSError as error:
                logger.warning("%s cannot be kept, so a restart teaches it again: %s", place, error)
        return result.state

    def _teachers(self, start: TeacherStart, known: Snapshot) -> _PretrainingLabels:
        """Labels of a teacher, of frames from its dynamics, begun from the campaign's."""
        config = self._config

        def labels() -> Snapshot:
            baseline = baseline_of(config)
            return taught(
                build_teacher(start.teacher, config.runtime.python_of("teachers"), config.training.threads),
                known,
                start.frames,
                start.temperatures,
                np.random.default_rng([config.seed, 2]),
                None if baseline is None else Baseline(baseline),
            )

        elements = sorted({int(z) for z in known.numbers})
        digest = _digest(config, elements=elements, systems=list(known.systems))
        return _PretrainingLabels(f"teacher-{digest}", str(start.teacher), labels)

    def _imported(self) -> _PretrainingLabels:
        """Imported labels of another level, less the baseline where the campaign learns a difference."""
        assert self._folder is not None
        data = read_pretraining(self._folder)
        name = f"imported-{_digest(self._config, lesson=data.digest)}"  # `lesson`: as folders of before have it
        baseline = baseline_of(self._config)
        return _PretrainingLabels(name, data.level.canonical, partial(beside_baseline, data.snapshot, baseline))


@dataclass(frozen=True, slots=True)
class _PretrainingLabels:
    """Labels to pretrain on: folder of the committee that has learned them, what gave them, and how they are got."""

    name: str
    labelled_by: str
    labels: Callable[[], Snapshot]


def pretraining_config(config: CampaignConfig, budget_s: float) -> CampaignConfig:
    """A campaign's config for a fit to labels that are not its own: no weights of arms, no score, no model tests."""
    sections = {
        "exploration": config.exploration.model_copy(update={"uncertainty": "committee"}),
        "promotion": config.promotion.model_copy(update={"examine": False}),
    }
    return _with_training(config, budget_s=budget_s, weights={}, start=None).model_copy(update=sections)


def _with_training(config: CampaignConfig, **changes: Any) -> CampaignConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def _digest(config: CampaignConfig, **content: object) -> str:
    """Of what a taught committee depends on.

    Of a teacher's, `content` is elements and systems, not the frames that it began from, which change between tries.
    """
    start, model = config.training.start, config.model
    assert start is not None
    depends = {
        "start": start.model_dump(mode="json", exclude={"budget_s", "learning_rate"}),
        "model": model.model_dump(mode="json"),
        "baseline": baseline_of(config),
        "seed": config.seed,
        **content,
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


# --- a parent's energies


def rebased(state: CommitteeState, snapshot: Snapshot, training: TrainingConfig) -> CommitteeState:
    """A committee whose energy shifts are those of the level of theory of a snapshot.

    A member's shifts become the energies of free atoms there plus one constant per atom: what the snapshot's training
    frames have on average beyond those and beyond what the member's network says. Scales and weights stay. Where states
    are told apart, the constant is that of frames in the one nearest to neutral singlets, and each other's energy is
    what its frames have beyond it on average.

    Args:
        state: The committee; its elements and states are those of the snapshot.
        snapshot: Labels, less the baseline where the committee learned a difference.
        training: How it is split, and where energies of free atoms come from.
    """
    parts = split(snapshot, training.validation_share)
    energies = atomic_energies(parts.atoms, parts.train, training.atomic_energies)
    elements, states = elements_of(state.spec), states_of(state.spec)
    free = np.array([energies.get(atomic_numbers[symbol], 0.0) for symbol in elements])
    whole = thinned(parts.train.select(parts.train.is_whole))
    if not whole.n_frames:
        members = [{**member, **_shifted(member, free, 0.0, len(states))} for member in state.members]
        return replace(state, members=tuple(members))
    committee = NequIPCommittee(replace(state, baseline=None, score="committee", score_state={}))
    chunks = [committee.evaluate_members(batch_of(whole.select(rows))).energies for rows in chunks_of(whole)]
    predicted = np.concatenate(chunks, axis=1)
    frame_of_atom = np.repeat(np.arange(whole.n_frames), whole.n_atoms)
    counts = np.stack(
        [np.bincount(frame_of_atom, whole.numbers == atomic_numbers[symbol], whole.n_frames) for symbol in elements],
        axis=1,
    )
    places = places_of(whole, states) if states else np.zeros(whole.n_frames, dtype=np.int64)
    reference = reference_of(states) if states else 0
    chosen = places == reference
    chosen = chosen if chosen.any() else np.ones_like(chosen)
    members = []
    for said, member in zip(predicted, state.members, strict=True):
        shifts = np.asarray(member[SHIFTS], dtype=np.float64).reshape(-1, len(elements))[0]
        network = said - counts @ shifts
        if states:
            network = network - np.asarray(member[STATE_ENERGIES])[places]
        left = whole.energy - network - counts @ free
        constant = float(left[chosen].sum() / counts[chosen].sum())
        changed = _shifted(member, free, constant, len(states))
        if states:
            of_states = energies_of_states(left - constant * counts.sum(axis=1), places, len(states))
            is_there = np.bincount(places, minlength=len(states)) > 0
            of_states = np.where(is_there, of_states, np.asarray(member[STATE_ENERGIES]))
            of_states[reference] = 0.0
            changed[STATE_ENERGIES] = of_states
        members.append({**member, **changed})
    return replace(state, members=tuple(members))


def _shifted(
    member: Mapping[str, NDArray[np.generic]], free: FloatArray, constant: float, n_states: int
) -> dict[str, NDArray[np.generic]]:
    """A member's shifts: energies of free atoms and a constant, in all states."""
    old = member[SHIFTS]
    return {SHIFTS: np.tile(free + constant, max(n_states, 1)).astype(old.dtype).reshape(old.shape)}


# --- a starting point on disk


def check_parent(config: CampaignConfig, state: CommitteeState, elements: Sequence[str], source: str) -> None:
    """Refuses a committee that a campaign cannot go on from.

    Args:
        config: The campaign.
        state: The committee.
        elements: Of the campaign's systems.
        source: Where it is from.

    Raises:
        InputError: One line that names what differs.
    """
    place: dict[str, Any] = {"source": source, "field": "training.start.model"}
    assert isinstance(config.model, NetworkModel)
    if state.kind == "pair":
        raise InputError("is no committee of networks", value=state.kind, **place)
    wanted = architecture_of({**config.model.spec(list(elements)), "avg_num_neighbors": None})
    given = architecture_of(state.spec)
    free = {*FREE_FIELDS, *(("states",) if config.tells_states_apart else ())}
    names = sorted((wanted.keys() | given.keys()) - free)
    if different := [name for name in names if wanted.get(name) != given.get(name)]:
        is_ = ", ".join(
            f"{name} {given.get(name, 'default')} and not {wanted.get(name, 'default')}" for name in different
        )
        raise InputError(f"is of another architecture: {is_}", remedy="set `model` to it", **place)
    if state.n_members < config.model.members:
        raise InputError(
            f"has {state.n_members} members, the campaign wants {config.model.members}",
            remedy="set `model.members`",
            **place,
        )
    known = elements_of(state.spec)
    if missing := sorted(set(elements) - set(known)):
        raise InputError(f"does not know {' '.join(missing)}, only {' '.join(known)}", **place)
    cutoffs = given.get("cutoffs")
    inherited = cutoffs_among(cutoffs if isinstance(cutoffs, Mapping) else {}, elements)
    if inherited != config.model.cutoffs_among(list(elements)):
        raise InputError("is of another architecture: cutoffs differ", remedy="set `model` to it", **place)
    if state.baseline != baseline_of(config):
        names_ = [None if spec is None else spec.get("method") for spec in (state.baseline, baseline_of(config))]
        raise InputError(
            f"has learned {_learned(names_[0])}, the campaign learns {_learned(names_[1])}",
            remedy="set `training.delta` to match", **place,
        )  # fmt: skip


def _learned(baseline: object) -> str:
    return "labels" if baseline is None else f"differences to {baseline}"


def write_starting_point(folder: Path, point: StartingPoint, source: str) -> None:
    """Puts a starting point where `StartingTrainer` finds it, durably; one that is there already stays."""
    if (folder / NOTE).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(folder / PARENT, point.state, {"source": source})
    if point.replay is not None:
        with replacing(folder / "replay.npz", has_one_writer=True) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **columns_of(point.replay))  # type: ignore[arg-type]
    note = {"source": source, "is_same_level": point.is_same_level, "has_replay": point.replay is not None}
    replace_file(folder / NOTE, json.dumps(note), has_one_writer=True)


def read_starting_point(folder: Path) -> StartingPoint:
    """What `write_starting_point` wrote.

    Raises:
        InputError: It is not there, or damaged.
    """
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        replay = None
        if note["has_replay"]:
            with np.load(folder / "replay.npz", allow_pickle=False) as arrays:
                replay = snapshot_from(arrays)
        return StartingPoint(read_bundle(folder / PARENT), bool(note["is_same_level"]), replay)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"is no starting point: {error}", source=str(folder), field="training.start") from error
