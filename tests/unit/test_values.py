"""Identities, events and config files: what is written today must be read for ever."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml

from alsys.config import load_config, parse_config, science_fields
from alsys.config.load import config_hash
from alsys.errors import FailureKind, InputError, StoreCorrupt
from alsys.events import (
    CampaignOpened,
    ExplorationReported,
    FrameProposed,
    FramesRescored,
    LabelFailed,
    LabelStarted,
    ModelPublished,
    decode,
    encode,
)
from alsys.frames import Arm, Frame
from alsys.labels import LevelOfTheory, label_id_of

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_frame_identity_is_content_and_nothing_else() -> None:
    frame = Frame.molecule([8, 1, 1], [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert len(frame.frame_id) == 32
    assert Frame.molecule([8, 1, 1], [[-0.0, 0, 0], [0, 0, 1], [0, 1, 0]]) == frame
    moved = frame.positions.copy()
    moved[0, 0] = 1e-300
    assert frame.with_positions(moved) != frame
    assert Frame.molecule([8, 1, 1], frame.positions, charge=1, multiplicity=2) != frame
    assert not frame.positions.flags.writeable
    import pickle

    assert pickle.loads(pickle.dumps(frame)) == frame


@pytest.mark.parametrize("positions", [[[math.nan, 0, 0]], [[math.inf, 0, 0]], [[0, 0]]])
def test_frames_that_are_none_are_refused(positions: list[list[float]]) -> None:
    with pytest.raises((InputError, ValueError)):
        Frame.molecule([1], positions)


def test_level_identity_does_not_depend_on_the_order_of_keys() -> None:
    first, second = LevelOfTheory({"a": 1, "b": 2}), LevelOfTheory({"b": 2, "a": 1})
    assert first.level_id == second.level_id
    assert label_id_of("00" * 16, first.level_id) != label_id_of("01" * 16, first.level_id)


EVENTS = [
    CampaignOpened(t=1.5, epoch=3, config_hash="x", version="0"),
    FrameProposed(t=2.0, frame_id="f", arm=Arm.RANDOM, system="s", deviation=0.25, model_version=2, trajectory=2**45),
    FramesRescored(t=0.0, model_version=2, deviations={"f": 0.5}),
    LabelFailed(t=0.0, frame_id="f", failure=FailureKind.SCF_NOT_CONVERGED, message='a "quote"\n'),
    ModelPublished(t=0.0, version=1, parent=0, seq=4, n_labels=5, wall_s=1.0, metrics={"force_mae_train": 0.1}),
    ExplorationReported(
        t=0.0, worker="w", model_version=1, n_steps=5, walker_steps=50, n_candidates=1, n_above=2, wall_s=0.1,
        stops={"failed": 1},
    ),
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_events_come_back(event: object) -> None:
    line = encode(event)  # type: ignore[arg-type]
    assert b"\n" not in line
    assert decode(line) == event


def test_unknown_deviation_survives_and_transient_events_are_never_written() -> None:
    event = FrameProposed(t=0.0, frame_id="f", arm=Arm.INITIAL, system="s", deviation=math.nan)
    back = decode(encode(event))
    assert isinstance(back, FrameProposed)
    assert math.isnan(back.deviation)
    with pytest.raises(TypeError):
        encode(LabelStarted(t=0.0, worker="w", frame_ids=("f",)))


@pytest.mark.parametrize("line", [b'{"kind":"future"}', b'{"kind":"heartbeat","new":1}', b"{", b"[]", b"null", b"3"])
def test_what_is_not_understood_is_an_error(line: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        decode(line)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_valid_and_commented_line_by_line(path: Path) -> None:
    config = load_config(path)
    assert parse_config(config.model_dump(mode="json")) == config
    for line in path.read_text().splitlines():
        assert not line.strip() or "#" in line, f"{path.name}: no comment: {line!r}"
        assert not re.search(r"/(root|home|tmp)/", line)


def test_operational_fields_leave_the_hash_alone_and_science_fields_change_it() -> None:
    data = yaml.safe_load(CONFIGS[0].read_text())
    base = config_hash(parse_config(data))
    changed = {**data, "stop": {"labels": 7}, "runtime": {"kind": "in-process"}}
    assert config_hash(parse_config(changed)) == base
    assert config_hash(parse_config({**data, "seed": 99})) != base
    assert "stop.labels" not in science_fields(parse_config(data))
    assert "labeling.workers" not in science_fields(parse_config(data))
