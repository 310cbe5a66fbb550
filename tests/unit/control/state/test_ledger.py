"""Logs that alsys wrote before, folded and decided on as alsys did then.

`golden/NAME.jsonl.gz` is the log of a campaign of commit cd08b38: `fakes` with failed, wrong, rejected, audited and
retracted labels, an import, failed fits, promotions, a roll-back and a lost champion; `toy` two calibrated methods.
`NAME.json.gz` holds its settings and, for some beginnings of the log, the status that this commit gave and a digest of
what it would have done next: all that its bookkeeping records, then the commands.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from alsys.config import CampaignConfig, parse_config
from alsys.config.load import read_yaml
from alsys.config.overrides import apply_overrides
from alsys.control.commands import CheckLabeler, Emit, Idle
from alsys.control.rules.decisions import decide
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.control.status import coverage_text, status_of
from alsys.errors import FailureKind
from alsys.events import DropReason, Event, FramesRescored, LabelFailed, ReferenceChecked, decode_all
from alsys.testing.policies import policy_settings
from alsys.tracking.summary import summarise
from support.ledger_states import FROZEN, MAY_CHANGE, assert_report_agrees, others, state_of

pytestmark = pytest.mark.thorough

GOLDEN = Path(__file__).parent / "golden"
TOY = Path(__file__).parents[4] / "configs" / "toy.yaml"
NAMES = ("fakes", "toy")
N_BEGINNINGS = 20
IDLE = Idle(explorers=("e0", "e1"), labelers=("l0", "l1", "l2"), busy_labelers=("l3",), trainers=("t0",))
OPERATIONAL = (
    "stop.labels=7",
    "stop.wall_s=7",
    "stop.node_hours=7",
    "launch.prices={node: 7}",
    "stop.target_force_mae=7",
    "stop.target_blind_spots=0.7",
    "stop.versions_in_a_row=7",
    "stop.min_random=7",
    "stop.quiet_steps=7",
    "promotion.survival=0.7",
    "selection.max_pending=7",
    "selection.pool=7",
    "selection.max_candidates=7",
    "exploration.method_floor=0.7",
    "exploration.chunk_steps=7",
    "training.max_ahead=7",
    "training.budget_s=7",
    "training.train_on=7",
    "labeling.max_attempts=7",
    "labeling.hessians=7",
    "labeling.batch_s=7",
    "labeling.quality.audit_share=0.7",
    "labeling.quality.reference_every=7",
    "labeling.quality.enabled=false",
)
"""Every operational option that policies know."""
ADDED = {
    "uncertainty": {"coverage", "coverage_standard_error", "coverage_frames", "coverage_version"},
    "labels": {"test_frames"},
}
"""What the status of today says otherwise: coverage stays visible after a promotion; of what the random arm is."""


def log_of(name: str) -> list[Event]:
    return decode_all(gzip.decompress((GOLDEN / f"{name}.jsonl.gz").read_bytes()).splitlines())


def expected_of(name: str) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
    return expected


def toy(overrides: list[str]) -> CampaignConfig:
    return parse_config(apply_overrides(read_yaml(str(TOY)), overrides), source=str(TOY))


def settings_of(overrides: list[str]) -> PolicySettings:
    return PolicySettings.of(toy(overrides))


def next_of(ledger: Ledger) -> list[str]:
    """What the ledger would do: one line for each event that it would record, then one for each command."""
    lines: list[str] = []
    while True:
        commands = decide(ledger, 0.0, IDLE)
        events = [command.event for command in commands if isinstance(command, Emit)]
        checks = [command.worker for command in commands if isinstance(command, CheckLabeler)]
        for worker in checks:
            ledger.apply(ReferenceChecked(t=0.0, worker=worker, is_sound=True))
        if not events and not checks:
            return [*lines, *(_then(repr(command)) for command in commands)]
        for event in events:
            lines.append(_then(repr(event)))
            ledger.apply(event)


def _then(text: str) -> str:
    """In the words of that commit, numbers as every machine computes them; fits had no seconds of their own then."""
    text = re.sub(r"(Train\(.*), budget_s=[\d.]+, is_final=False\)", r"\1)", text)
    for now, then in THEN.items():
        text = text.replace(now, then)
    return _rounded(text)


def _rounded(text: str) -> str:
    """Numbers as every machine computes them."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", lambda found: f"{float(found[0]):.6g}", text)


THEN = {
    repr(DropReason.BELOW_TRUST): "'easy'",
    repr(DropReason.EVICTED): "'evicted'",
    repr(FailureKind.LABEL_NOT_REPRODUCED): "<FailureKind.LABEL_DISPUTED: 'label-disputed'>",
}
RENAMED = {
    "label_checks": "assurance",
    "failed_gate": "suspected",
    "not_reproduced": "disputed",
    "rejected": "refuted",
    "reference_checks": "canaries",
    "reference_checks_failed": "canaries_failed",
}


def digest_of(lines: list[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def beginnings(log: list[Event]) -> list[int]:
    """Spread evenly, and those at which a driver may have died before it recorded what followed."""
    odd = {n for n, event in enumerate(log, start=1) if isinstance(event, FramesRescored | LabelFailed)}
    return sorted({len(log) * k // N_BEGINNINGS for k in range(1, N_BEGINNINGS + 1)} | odd)


def known(status: dict[str, Any]) -> dict[str, Any]:
    """Without what has been added since, under the old names, as JSON, with numbers that every machine computes."""
    status = {RENAMED.get(key, key): value for key, value in status.items()}
    status["assurance"] = {RENAMED.get(key, key): value for key, value in status["assurance"].items()}
    kept = {
        key: {k: v for k, v in value.items() if k not in ADDED.get(key, ())} if isinstance(value, dict) else value
        for key, value in status.items()
        if key not in ("fit", "wall_limit_s", "hessians", "lost_work_s", "workers_waiting", "nodes", "budgets")
    }
    return json.loads(_rounded(json.dumps(kept)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_report_and_status_of_an_old_log_agree(name: str) -> None:
    log, settings = log_of(name), settings_of(expected_of(name)["settings"])
    for n in range(1, len(log) + 1, 9):
        assert_report_agrees(settings, log[:n])
    summary, status = summarise(log, settings), status_of(Ledger.fold(settings, log), state="finished", head_seq=1)
    uncertainty = status["uncertainty"]
    assert isinstance(uncertainty, dict)
    assert uncertainty["coverage_frames"] > 0, "the last known coverage stays"
    assert f"v{uncertainty['coverage_version']:04d} covers {uncertainty['coverage']:.0%}" in coverage_text(
        summary.ledger
    )


def test_every_setting_is_frozen_or_may_change() -> None:
    names = {field.name for field in dataclasses.fields(PolicySettings)}
    assert names == FROZEN | MAY_CHANGE.keys()
    one, other = (policy_settings(**{name: values[k] for name, values in MAY_CHANGE.items()}) for k in (0, 1))
    assert all(getattr(one, name) != getattr(other, name) for name in MAY_CHANGE)


def test_no_operational_option_is_among_those_that_a_log_is_folded_with() -> None:
    """What a user may change when a campaign is resumed reaches only settings that the fold does not use."""
    calibrated = "exploration.trust={kind: calibrated}"
    settings = PolicySettings.of(toy([calibrated]))
    for override in OPERATIONAL:
        changed = PolicySettings.of(toy([calibrated, override]))
        differing = {name for name in MAY_CHANGE if getattr(changed, name) != getattr(settings, name)}
        assert differing, override
        assert all(getattr(changed, name) == getattr(settings, name) for name in FROZEN), override


@pytest.mark.parametrize("name", NAMES)
def test_no_option_changes_what_a_log_means(name: str) -> None:
    log, settings = log_of(name), settings_of(expected_of(name)["settings"])
    state = state_of(settings, log)
    for option, changed in others(settings):
        assert state_of(changed, log) == state, option


@pytest.mark.parametrize("name", NAMES)
def test_an_old_log_gives_the_status_and_the_decisions_that_it_gave_then(name: str) -> None:
    log, expected = log_of(name), expected_of(name)
    settings = settings_of(expected["settings"])
    for n, status, digest in expected["beginnings"]:
        ledger = Ledger.fold(settings, log[:n])
        assert ledger.is_balanced
        assert known(status_of(ledger, state="running", head_seq=n)) == known(status), f"after {n} events"
        assert digest_of(lines := next_of(ledger)) == digest, f"after {n} events: {lines}"
