"""What a log means, for tests: the state of a ledger as plain values, and settings that must not change it.

Only what is frozen when a campaign begins may take part in folding a log (`FROZEN`); everything else decides what
happens next, and what was decided is in the log. `MAY_CHANGE` has two values for each other setting.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final

import numpy as np

from alsys.config.promotion import PromotionConfig
from alsys.config.section import PluginSection
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import status_of
from alsys.control.stop_rules import StopRules
from alsys.events import Event
from alsys.frames import Arm
from alsys.tracking.summary import summarise

FROZEN: Final = frozenset({"is_random", "is_cost_aware", "trust", "is_calibrated", "probability", "methods"})
"""Settings that the fold of a log may use."""
MAY_CHANGE: Final[Mapping[str, tuple[Any, Any]]] = {
    "is_rounds": (False, True),
    "hessians": ((), ("ethanol", "ethanol/2")),
    "n_labels": (1, 1_000_000),
    "wall_s": (1.0, None),
    "target_force_mae": (1e-6, 1e6),
    "target_blind_spots": (1e-6, 0.99),
    "versions_in_a_row": (1, 50),
    "min_random": (2, 1000),
    "promotion": (PromotionConfig(examine=False, survival=0.0), PromotionConfig(survival=1.0, drift=1e-6)),
    "quiet_steps": (1, None),
    "random_share": (0.0, 0.9),
    "max_pending": (1, 100_000),
    "pool": (1.0, 100.0),
    "max_candidates": (1, 1000),
    "is_diverse": (False, True),
    "method_floor": (0.0, 1.0),
    "first_at": (2, 1000),
    "refit_every": (1, 1000),
    "refit_growth": (0.0, 1.0),
    "max_ahead": (1, "auto"),
    "fit_s": (0.01, None),
    "final_fit_s": (1e5, None),
    "train_on": (0, 10),
    "chunk_steps": (1, 10_000),
    "max_attempts": (1, 20),
    "max_worker_kills": (1, 20),
    "max_not_reproduced": (1, 20),
    "is_part": (False, True),
    "audit_share": (0.0, 1.0),
    "reference_every": (0, 1),
    "batch_s": (0.0, 10.0),
    "max_batch": (1, 1000),
    "prefetch_below_s": (0.0, 100.0),
    "seed": (0, 12345),
    "stop_rules": (StopRules(), StopRules([PluginSection(kind="plugin", name="none-such")])),
    "test_frames": ("exploration", "dynamics at 500 K"),
    "has_target": (False, True),
    "n_members": (0, 4),
    "has_start": (False, True),
    "node_hours": (1e-9, None),
    "cost": (1e-9, None),
    "prices": ({}, {"node": 1e6}),
}


def others(settings: PolicySettings) -> Iterator[tuple[str, PolicySettings]]:
    """Settings that differ in one option, and its name; then those that differ in all of them."""
    for name, values in MAY_CHANGE.items():
        for value in values:
            yield f"{name}={value}", replace(settings, **{name: value})
    for k in range(2):
        yield f"all {k}", replace(settings, **{name: values[k] for name, values in MAY_CHANGE.items()})


def state_of(settings: PolicySettings, log: Sequence[Event]) -> object:
    """All that the ledger knows after a log, down to the order of its queues, as values that compare."""
    return _plain(Ledger.fold(settings, log))


def assert_report_agrees(settings: PolicySettings, log: Sequence[Event]) -> None:
    """Report and status of a log give the same counts, errors and coverage, and the pictures as many of each thing."""
    summary = summarise(log, settings)
    status: Any = status_of(Ledger.fold(settings, log), state="running", head_seq=0)
    labels, candidates, uncertainty = status["labels"], status["candidates"], status["uncertainty"]
    drawn = Counter(point.arm for point in summary.labels)
    drawn[Arm.IMPORTED] = labels["imported"]
    assert (summary.champion or None) == status["champion"]
    assert summary.n_labels == labels["accepted"]
    assert {arm: summary.n_of(arm) for arm in Arm} == {arm: drawn[arm] for arm in Arm}
    assert len(summary.failures) == labels["failed"]
    assert len(summary.quarantined) == labels["quarantined"]
    assert len(summary.retracted) == labels["retracted"]
    assert summary.dropped.total() == candidates["dropped"]
    assert len(summary.audits) == status["label_checks"]["audited"]
    assert sum(not audit.is_confirmed for audit in summary.audits) == status["label_checks"]["rejected"]
    assert len(summary.restarts) == max(status["openings"] - 1, 0)
    assert sum(e.walker_steps for e in summary.exploration.values()) == status["exploration"]["walker_steps"]
    assert [model.version for model in summary.models] == list(summary.published)
    errors = [None if math.isnan(model.error[0]) else model.error[0] for model in summary.models]
    assert errors == [model["force_mae_random_arm"] for model in status["models"]]
    if not summary.ledger.calibration.is_replaced and uncertainty["coverage_frames"]:
        assert uncertainty["coverage_version"] == status["champion"]
    if uncertainty["coverage_frames"] and not summary.retracted:
        assert summary.coverage[-1][1] == uncertainty["coverage"]


def _plain(value: object) -> object:
    match value:
        case np.ndarray():
            return value.tolist()
        case Mapping():
            return [(_plain(key), _plain(item)) for key, item in value.items()]
        case Set():
            return sorted(map(repr, value))
        case str() | bytes():
            return value
        case Sequence():
            return [_plain(item) for item in value]
        case float() if value != value:
            return "nan"
        case _ if type(value).__module__.startswith("alsys."):
            return [(name, _plain(item)) for name, item in _attributes(value)]
        case _:
            return value


def _attributes(value: object) -> list[tuple[str, object]]:
    if dataclasses.is_dataclass(value):
        found = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        found = list(vars(value).items())
    return [(name, item) for name, item in found if name.strip("_") not in ("settings", "handlers")]
