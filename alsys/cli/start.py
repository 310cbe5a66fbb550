"""What a campaign starts from: looked up and checked before it starts, and put into its directory when it does.

A registered name is resolved once: the bundle is copied into the campaign, so that neither an alias that moves nor a
server that is away changes what a restart does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from alsys.cli.campaign import CampaignDirectory
from alsys.config import CampaignConfig
from alsys.config.start import ModelStart, ReplayConfig, TeacherStart
from alsys.errors import InputError
from alsys.frames import ARMS, TRAINING_ARMS, Arm, Frame
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

if TYPE_CHECKING:
    from alsys.training.start import StartingPoint


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of theory of a campaign: of its labels, and of the baseline beside them where it learns differences."""

    labels: LevelOfTheory
    baseline: LevelOfTheory | None


def starting_point(
    config: CampaignConfig, directory: CampaignDirectory, frames: Mapping[str, Frame], levels: Levels, base: Path
) -> StartingPoint | None:
    """What the trainer is given; None where the config names no model, or it is in the campaign's directory already.

    Args:
        config: The campaign.
        directory: Its directory.
        frames: What a labeler gets to see of each system.
        levels: Its levels of theory.
        base: Folder that relative paths are relative to: that of the campaign file.

    Raises:
        InputError: The model, the teacher or the frames to replay do not suit the campaign.
        EnvironmentProblem: A package or the tracking server is missing.
    """
    start = config.training.start
    if isinstance(start, TeacherStart):
        from alsys.training.teacher import check_teacher

        check_teacher(start, dict(frames))
    if not isinstance(start, ModelStart):
        return None
    from alsys.training.start import NOTE, StartingPoint, check_parent

    if (directory.start / NOTE).is_file():
        return None
    from alsys.interop.calculator import read_model

    is_registered = start.model.startswith("models:/")
    where = start.model if is_registered else str(base / start.model)
    state, card = read_model(where, tracking_uri=config.tracking.uri)
    elements = [chemical_symbols[z] for z in sorted({int(z) for frame in frames.values() for z in frame.numbers})]
    replay = None if start.replay is None else _replay(start.replay, levels, base)
    if replay is not None:
        elements = [
            symbol
            for z, symbol in enumerate(chemical_symbols)
            if symbol in elements or z in set(replay.numbers.tolist())
        ]
    check_parent(config, state, elements, start.model)
    given = card.get("level_of_theory")
    is_same = isinstance(given, dict) and LevelOfTheory(given).level_id == levels.labels.level_id
    return StartingPoint(state, is_same, replay)


def _replay(replay: ReplayConfig, levels: Levels, base: Path) -> Snapshot:
    """Labels of the other campaign that are learned from.

    Raises:
        InputError: It has none at this campaign's level of theory.
    """
    from alsys.store.zarr import open_reader

    field = "training.start.replay.campaign"
    try:
        reader = open_reader(CampaignDirectory.existing(str(base / replay.campaign)).store)
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
        snapshot = reader.snapshot(
            levels.labels.level_id, baseline_id=None if levels.baseline is None else levels.baseline.level_id
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


def keep(directory: CampaignDirectory, config: CampaignConfig, point: StartingPoint | None) -> None:
    """Puts a starting point where the trainer finds it."""
    start = config.training.start
    if point is None or not isinstance(start, ModelStart):
        return
    from alsys.training.start import write_starting_point

    write_starting_point(directory.start, point, start.model)
