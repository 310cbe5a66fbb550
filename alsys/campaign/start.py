"""What a campaign starts from: looked up and checked before it starts, and put into its directory when it does.

A registered name is resolved once: the bundle is copied into the campaign, so that neither an alias that moves nor a
server that is away changes what a restart does. Imported labels are chosen anew by each run until the campaign has a
model, since more of them may have come.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from alsys.campaign.folder import CampaignFolder
from alsys.config import CampaignConfig
from alsys.config.start import ImportedStart, ModelStart, ReplayConfig, TeacherStart
from alsys.errors import InputError
from alsys.frames import ARMS, TRAINING_ARMS, Arm, Frame
from alsys.labels import LevelOfTheory
from alsys.states import CompositionStates, ElectronicState, SeenStates, StateConflict, formula_of
from alsys.store.base import Snapshot

if TYPE_CHECKING:
    from alsys.training.pretraining import PretrainingData
    from alsys.training.start import StartingPoint


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of theory of a campaign: of its labels, and of the baseline beside them where it learns differences."""

    labels: LevelOfTheory
    baseline: LevelOfTheory | None


def starting_point(
    config: CampaignConfig, directory: CampaignFolder, frames: Mapping[str, Frame], levels: Levels, base: Path
) -> StartingPoint | PretrainingData | None:
    """What the trainer is given; None where the config names nothing, or it is in the campaign's directory already.

    Args:
        config: The campaign.
        directory: Its directory.
        frames: What a labeler gets to see of each system.
        levels: Its levels of theory.
        base: Folder that relative paths are relative to: that of the campaign file.

    Raises:
        InputError: The model, the teacher, the imported labels or the frames to replay do not suit the campaign.
        EnvironmentProblem: A package or the tracking server is missing.
    """
    start = config.training.start
    if isinstance(start, TeacherStart):
        from alsys.training.teacher import check_teacher

        check_teacher(start, frames, config.runtime.python_of("teachers"))
    if isinstance(start, ImportedStart):
        return _pretraining_data(config, start, directory, frames, levels)
    if not isinstance(start, ModelStart):
        return None
    from alsys.training.start import NOTE, StartingPoint, check_parent

    if (directory.start / NOTE).is_file():
        return None
    from alsys.interop.model_sources import read_model

    is_registered = start.model.startswith("models:/")
    where = start.model if is_registered else str(base / start.model)
    try:
        if not is_registered and not os.path.isdir(where):
            raise InputError("no such folder")
        state, card = read_model(where, tracking_uri=config.tracking.uri)
    except InputError as error:
        if error.field == "tracking_uri":
            raise InputError(error.message, field="tracking.uri", value=error.value, remedy=error.remedy) from error
        remedy = "give the folder of a bundle (paths are relative to the campaign file), or models:/NAME@champion"
        file = f"{error.field} " if error.field and not is_registered else ""
        raise InputError(
            f"{file}{error.message}", field="training.start.model", value=start.model, remedy=error.remedy or remedy
        ) from error
    elements = [chemical_symbols[z] for z in sorted({int(z) for frame in frames.values() for z in frame.numbers})]
    replay = None if start.replay is None else _replay(start.replay, levels, base)
    if replay is not None:
        elements = [
            symbol
            for z, symbol in enumerate(chemical_symbols)
            if symbol in elements or z in set(replay.numbers.tolist())
        ]
    check_parent(config, state, elements, start.model)
    if not config.tells_states_apart:
        _check_states(frames, "training.start.model", start.model, state.seen, replay)
    given = card.get("level_of_theory")
    is_same = isinstance(given, dict) and LevelOfTheory(given).level_id == levels.labels.level_id
    return StartingPoint(state, is_same, replay)


def _pretraining_data(
    config: CampaignConfig,
    start: ImportedStart,
    directory: CampaignFolder,
    frames: Mapping[str, Frame],
    levels: Levels,
) -> PretrainingData | None:
    """Imported labels to learn first; None where the campaign has a model that has learned them.

    Raises:
        InputError: There are none, they are of the campaign's own level or its baseline's, or lack an element.
    """
    from alsys.store.damage import sound_snapshot
    from alsys.store.zarr import open_reader
    from alsys.training.pretraining import PRETRAINING, choose_pretraining

    if (directory.start / PRETRAINING).is_file() and any(directory.models.glob("v*/model.json")):
        return None
    place: dict[str, Any] = {"field": "training.start.level", "value": start.level}
    remedy = "take them in first: `alsys data import CAMPAIGN FILE --level LEVEL`"
    if not (directory.store / "HEAD").is_file():
        raise InputError("the campaign holds no imported labels yet", remedy=remedy, **place)
    reader = open_reader(directory.store)
    try:
        level = stored_level(start.level, reader.levels(), levels, remedy)
        labels = sound_snapshot(reader, directory.path, level.level_id)
    finally:
        reader.close()
    rng = np.random.default_rng([config.seed, 5])
    pretraining_data = choose_pretraining(level, labels, start.frames, rng, is_difference=levels.baseline is not None)
    if not pretraining_data.n_frames:
        raise InputError("no frame of this level can be learned from", remedy=remedy, **place)
    snapshot = pretraining_data.snapshot
    learned = snapshot.select(~snapshot.is_arm(Arm.ATOM))
    if not config.tells_states_apart:
        _check_states(frames, "training.start.level", start.level, None, learned)
    wanted = {int(z) for frame in frames.values() for z in frame.numbers}
    if missing := sorted(wanted - set(learned.numbers.tolist())):
        raise InputError(
            f"imported frames of this level hold no {' '.join(chemical_symbols[z] for z in missing)}",
            remedy="import frames that hold all elements of its systems, or leave training.start out",
            **place,
        )
    return pretraining_data


def _check_states(
    frames: Mapping[str, Frame], field: str, value: str, seen: SeenStates | None, labels: Snapshot | None
) -> None:
    """Refuses a composition that a start has learned, or brings, in another state than the campaign's.

    Args:
        frames: What a labeler gets to see of each system.
        field: What says where the first fit starts from.
        value: What it says.
        seen: States that the model has learned.
        labels: Labels that come with it.

    Raises:
        InputError: Names the system.
    """
    known, remedy = CompositionStates(), "start from labels of the campaign's own states"
    for name, frame in frames.items():
        known.add(frame.numbers, frame.charge, frame.multiplicity, f"system {name}")
        state = ElectronicState(frame.charge, frame.multiplicity)
        learned = () if seen is None else seen.by_formula.get(formula_of(frame.numbers), ())
        if learned and learned != (state,):
            conflict = StateConflict(formula_of(frame.numbers), learned[0], "the model", state, f"system {name}")
            raise InputError(str(conflict), field=field, value=value, remedy=remedy)
    if labels is not None:
        conflict_ = known.add_all(labels.n_atoms, labels.numbers, labels.charge, labels.multiplicity, "what is learned")
        if conflict_ is not None:
            raise InputError(str(conflict_), field=field, value=value, remedy=remedy)


def stored_level(text: str, known: Sequence[LevelOfTheory], levels: Levels, remedy: str) -> LevelOfTheory:
    """The level of imported labels that a user means.

    Args:
        text: See `is_meant`.
        known: Levels in the store.
        levels: Of the campaign.
        remedy: Where there is no such level.

    Raises:
        InputError: There is none, there are several, or it is the campaign's own or its baseline's.
    """
    place: dict[str, Any] = {"field": "training.start.level", "value": text}
    own = [level.level_id for level in (levels.labels, levels.baseline) if level is not None]
    found = [level for level in known if is_meant(text, level)]
    if not found:
        others = [f"{level.level_id[:8]} {level.canonical}" for level in known if level.level_id not in own]
        holds = f"; it holds {', '.join(others)}" if others else ""
        raise InputError(f"the campaign holds no imported labels of this level{holds}", remedy=remedy, **place)
    if len(found) > 1:
        raise InputError("is the beginning of several levels", remedy="give more of the identity", **place)
    [level] = found
    if level.level_id == levels.labels.level_id:
        raise InputError(
            "is the campaign's own level",
            remedy="leave training.start out: imported labels of it are trained on as they are",
            **place,
        )
    if levels.baseline is not None and _is_method(level, levels.baseline):
        raise InputError(
            "is the baseline of training.delta: there is no difference to learn",
            remedy="name another level, or leave training.start out",
            **place,
        )
    return level


def is_meant(text: str, level: LevelOfTheory) -> bool:
    """Whether a user means a level.

    Args:
        text: Its identity or the first eight characters of it at least, or a name or JSON as in `alsys data import`.
        level: A level.

    Raises:
        InputError: It begins like JSON and is none.
    """
    from alsys.interop.import_reader import named_level

    if len(text) >= 8 and level.level_id.startswith(text.lower()):
        return True
    try:
        return named_level(text).level_id == level.level_id
    except InputError as error:
        raise InputError(error.message, field="training.start.level", value=text) from None


def _is_method(level: LevelOfTheory, baseline: LevelOfTheory) -> bool:
    """Whether both are one method, however a file may call it."""
    names = [str(one.spec.get("method", "")).lower() for one in (level, baseline)]
    return level.level_id == baseline.level_id or (names[0] == names[1] != "")


def _replay(replay: ReplayConfig, levels: Levels, base: Path) -> Snapshot:
    """Labels of the other campaign that are learned from.

    Raises:
        InputError: It has none at this campaign's level of theory.
    """
    from alsys.store.damage import sound_snapshot
    from alsys.store.zarr import open_reader

    field = "training.start.replay.campaign"
    try:
        reader = open_reader(CampaignFolder.existing(str(base / replay.campaign)).store)
    except InputError as error:
        raise InputError(error.message, field=field, value=replay.campaign, remedy=error.remedy) from None
    try:
        known = {level.level_id for level in reader.levels()}
        wanted = [levels.labels, *([] if levels.baseline is None else [levels.baseline])]
        for level in wanted:
            if level.level_id not in known:
                raise InputError(
                    f"holds no labels at this campaign's level of theory, {json.dumps(dict(level.spec))}",
                    field=field,
                    value=replay.campaign,
                    remedy="leave `replay` out: levels of theory are never mixed",
                )
        snapshot = sound_snapshot(
            reader,
            replay.campaign,
            levels.labels.level_id,
            baseline_id=None if levels.baseline is None else levels.baseline.level_id,
        )
    finally:
        reader.close()
    is_learned = snapshot.is_arm(*TRAINING_ARMS)
    if snapshot.baseline_energy is not None:
        is_learned &= np.isfinite(snapshot.baseline_energy)
    if not is_learned.any():
        raise InputError("holds no frames to replay", field=field, value=replay.campaign)
    kept = snapshot.select(is_learned)
    return replace(kept, arm=np.full(kept.n_frames, ARMS.index(Arm.IMPORTED), dtype=np.uint8))


def keep(directory: CampaignFolder, config: CampaignConfig, point: StartingPoint | PretrainingData | None) -> None:
    """Puts a starting point, or pretraining data, where the trainer finds it."""
    start = config.training.start
    if point is None or start is None:
        return
    from alsys.training.pretraining import PretrainingData, write_pretraining
    from alsys.training.start import write_starting_point

    if isinstance(point, PretrainingData):
        write_pretraining(directory.start, point)
    elif isinstance(start, ModelStart):
        write_starting_point(directory.start, point, start.model)
