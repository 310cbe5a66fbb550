from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import CampaignConfig, parse_config
from alsys.dynamics.minima import Minimum
from alsys.errors import InputError
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labels import Label
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer
from alsys.validation.systems import KnownMinima, StartStructures

ATOMS = molecule("H2O")


def config_of(**fields: Any) -> CampaignConfig:
    system = {"name": "water", "molecule": "H2O"}
    return parse_config(
        {"name": "a", "systems": [system], "labeling": {"kind": "analytic"}, "model": {"kind": "pair"}, **fields}
    )


def frame(shift: float) -> Frame:
    return Frame.molecule(ATOMS.numbers, np.array(ATOMS.positions) + shift)


def snapshot_of(labeler: Any, rows: list[tuple[float, Arm, float]]) -> Snapshot:
    """Frames shifted by, of an arm, with an energy."""
    candidates = [Candidate(frame(shift), Source("water", arm, "m")) for shift, arm, _ in rows]
    level_id = labeler.level.level_id
    labels = [
        Label(c.frame.frame_id, level_id, energy, np.zeros((3, 3)))
        for c, (_, _, energy) in zip(candidates, rows, strict=True)
    ]
    store = open_writer()
    store.stage(candidates=candidates, labels=labels, levels=[labeler.level])
    store.commit()
    return store.snapshot(level_id)


def test_the_lowest_of_the_first_frames_is_kept_whatever_comes_later(tmp_path: Path, morse_labeler: Any) -> None:
    path, config = tmp_path / "validation" / "starts.json", config_of()
    rows = [(1.0, Arm.INITIAL, -2.0), (2.0, Arm.INITIAL, -3.0), (3.0, Arm.UNCERTAIN, -9.0)]
    starts = StartStructures(path, config, snapshot_of(morse_labeler(), rows))
    assert starts.of(config.systems[0]) == frame(2.0)
    more = snapshot_of(morse_labeler(), [*rows, (4.0, Arm.INITIAL, -20.0)])
    assert StartStructures(path, config, more).of(config.systems[0]) == frame(2.0)


def test_without_a_label_and_where_clusters_are_labelled_it_is_built_again(tmp_path: Path, morse_labeler: Any) -> None:
    config = config_of()
    empty = snapshot_of(morse_labeler(), [])
    assert StartStructures(tmp_path / "a.json", config, empty).of(config.systems[0]) == frame(0.0)
    carving = config_of(exploration={"carve": {"radius": 3.0}})
    labelled = snapshot_of(morse_labeler(), [(1.0, Arm.INITIAL, -2.0)])
    assert StartStructures(tmp_path / "b.json", carving, labelled).of(carving.systems[0]) == frame(0.0)
    lost = config_of(systems=[{"name": "water", "file": "no-such-file.xyz"}])
    with pytest.raises(InputError, match="no-such-file"):
        StartStructures(tmp_path / "c.json", lost, empty).of(lost.systems[0])


def test_a_minimum_is_kept_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "minima.json"
    found = Minimum(frame(1.0 / 3.0), -1.1, 0.004, True)
    KnownMinima(path).put("key", found)
    again = KnownMinima(path)
    assert again.get("key") == found
    assert again.get("other") is None
    path.write_text('{"key": {}}')
    with pytest.raises(InputError, match=r"minima\.json"):
        KnownMinima(path)


def test_a_damaged_file_is_named(tmp_path: Path, morse_labeler: Any) -> None:
    path = tmp_path / "starts.json"
    path.write_text('{"water": {"numbers": [8]}}')
    with pytest.raises(InputError, match=r"starts\.json"):
        StartStructures(path, config_of(), snapshot_of(morse_labeler(), []))
