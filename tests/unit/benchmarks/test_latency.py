"""The latency benchmark: seconds between events fall into the right segments."""

from __future__ import annotations

from importlib import import_module

import pytest

from alsys.events import (
    CampaignOpened,
    Event,
    ExplorationReported,
    FrameProposed,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
)
from alsys.frames import Arm
from alsys.testing.policies import policy_settings

SETTINGS = policy_settings(n_labels=100, first_at=2, refit_every=2, random_share=0.0)
METRICS = {"steps": 50.0, "step_ms": 20.0, "model_tests_wall_s": 0.5, "n_labels_train": 2.0}


def labels(first: int, *times: float) -> list[Event]:
    return [
        LabelAccepted(t=t, frame_id=f"f{first + i}", label_id=f"l{first + i}", worker="l", wall_s=0.1)
        for i, t in enumerate(times)
    ]


def model(version: int, t: float, started: float, n_labels: int) -> list[Event]:
    """Finished 3 s after it started, published at `t` and promoted 0.5 s later."""
    published = ModelPublished(
        t=t, version=version, parent=version - 1, seq=1, n_labels=n_labels, wall_s=3.0,
        metrics={**METRICS, "n_labels_train": float(n_labels)}, started=started, finished=started + 3.0,
    )  # fmt: skip
    return [published, ModelPromoted(t=t + 0.5, version=version, reason="")]


def chunk(t: float, version: int, wall_s: float, worker: str = "e") -> Event:
    return ExplorationReported(
        t=t, worker=worker, model_version=version, n_steps=1, walker_steps=1, n_candidates=0, n_above=0, wall_s=wall_s
    )


def log() -> list[Event]:
    return [
        CampaignOpened(t=0.0, epoch=1, config_hash="", version=""),
        *(FrameProposed(t=0.0, frame_id=f"f{i}", arm=Arm.INITIAL, system="m", deviation=0.0) for i in range(8)),
        *labels(0, 1.0, 2.0),  # the first fit is due at 2.0
        *labels(2, 3.0, 4.0),  # and the second waits for it until it has led to a champion at 7.0
        *model(1, t=6.5, started=2.75, n_labels=2),
        chunk(9.0, 1, 1.5),
        chunk(11.0, 1, 2.0),
        *model(2, t=11.5, started=8.0, n_labels=4),
        chunk(13.0, 1, 2.0),
        chunk(16.0, 2, 2.75),
        chunk(17.0, 2, 3.0, worker="late"),
        *labels(4, 18.0, 19.0),
        *model(3, t=23.0, started=19.25, n_labels=6),  # nothing is explored with it
    ]


def test_seconds_fall_into_their_segments() -> None:
    first, second = import_module("latency").segments(log(), SETTINGS, n_in_turn=2.0)
    assert {name: first[name] for name in ("version", "trainer_busy", "to_trainer", "gradient", "examination")} == {
        "version": 1.0,
        "trainer_busy": 0.0,
        "to_trainer": 0.75,
        "gradient": 2.0,
        "examination": 0.5,
    }
    assert first["around_fit"] == pytest.approx(0.5)
    assert (first["to_disk"], first["decision"]) == (0.75, 0.5)
    assert (first["chunk_in_progress"], first["to_explorer"]) == (0.0, 0.5)
    assert first["total"] == 7.5 - 2.0
    assert first["overhead_s"] == first["total"] - 2.0
    assert (second["trainer_busy"], second["to_trainer"]) == (3.0, 1.0)
    assert (second["chunk_in_progress"], second["to_explorer"]) == (1.0, 0.25)
    assert second["total"] == 13.25 - 4.0
    assert second["overhead_s"] == second["total"] - 2.0 - 1.0 - 3.0
    assert second["all_explorers"] == 0.75
    assert (second["first_chunk"], second["first_chunk_extra"]) == (2.75, 0.75)


def test_logs_from_before_fits_said_when_they_started_have_no_segments() -> None:
    events = [e for e in log() if not isinstance(e, ModelPublished)]
    old = [ModelPublished(t=6.5, version=1, parent=0, seq=1, n_labels=2, wall_s=3.0, metrics=METRICS)]
    position = next(i for i, e in enumerate(events) if isinstance(e, ModelPromoted))
    events = [*events[:position], *old, events[position], chunk(9.0, 1, 1.5)]
    assert import_module("latency").segments(events, SETTINGS) == []
