"""From the last label that a fit waited for to new weights in the explorers, in a real campaign, from its event log.

Each version that became champion has a timeline: the fit is due (the event after which the ledger, folded from the same
log, asks for a fit) - the trainer begins - it has fitted, measured and examined - the version is published - it is
champion - the chunk that was running under the old one ends - an explorer begins its first chunk with the new weights.
Segments are seconds:

- ``trainer_busy``: from the last training label that the fit waited for until it was due; 0 unless the fit before it,
  or its publication, was still under way.
- ``to_trainer``: commit, snapshot and the way to the trainer.
- ``gradient``: the fit's own seconds, those of its gradient steps, as the trainer counts them.
- ``examination``: dynamics under the new committee before it is published; 0 where the campaign asks for none.
- ``around_fit``: the rest of the trainer's call: tensors, errors of old and new committee, review of labels.
- ``to_disk``: the way back, and the bundle.
- ``decision``: from published to champion.
- ``chunk_in_progress``: the rest of the chunk that the explorer was in.
- ``to_explorer``: from there, or from the decision, to the first chunk with the new weights. The log holds the chunk's
  own duration and when its report arrived; the way of the report back to the driver counts here, too.
- ``first_chunk``: that chunk, which begins with loading the weights. It is not part of the latency;
  ``first_chunk_extra`` is what it took more than the median chunk of the same explorer.

``total`` runs from the label to the first chunk; ``overhead_s`` is that less ``gradient``, ``chunk_in_progress`` and
``trainer_busy``; ``beyond_budget_s`` is ``total`` less `training.budget_s`, ``chunk_in_progress`` and ``trainer_busy``.
``all_explorers`` is when the last of several explorers had them, beyond the first. Versions that never led, or after
which nothing was explored, are counted only.

    python benchmarks/latency.py --config configs/xtb.yaml --kind ray in-process --labels 80 [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from orchestration import machine

from alsys.campaign.folder import CampaignFolder
from alsys.control.commands import Idle, Train
from alsys.control.rules.decisions import decide
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.events import (
    Event,
    ExplorationReported,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
    TrainingStarted,
)
from alsys.frames import TRAINING_ARMS
from alsys.metrics import Metrics
from alsys.store.zarr import open_reader

SEGMENTS = (
    "trainer_busy",
    "to_trainer",
    "gradient",
    "examination",
    "around_fit",
    "to_disk",
    "decision",
    "chunk_in_progress",
    "to_explorer",
)
"""Parts of the latency, in order; their sum is `total`."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a fit was due, and the last training label that it waited for; unix times."""

    label: float
    due: float


def fits_due(events: Sequence[Event], settings: PolicySettings) -> dict[int, Due]:
    """When each version's fit was due: the ledger decides on the log as it did in the campaign."""
    ledger, found, label = Ledger(settings), {}, 0.0
    for event in events:
        ledger.apply(event)
        if isinstance(event, LabelAccepted) and ledger.frames[event.frame_id].arm in TRAINING_ARMS:
            label = event.t
        for command in decide(ledger, event.t, Idle(trainers=("trainer",))):
            if isinstance(command, Train):
                found[command.version] = Due(label, event.t)
                n_labels = command.n_labels
                ledger.apply(TrainingStarted(t=event.t, worker="trainer", version=command.version, n_labels=n_labels))
    return found


def segments(events: Sequence[Event], settings: PolicySettings, n_in_turn: float = 1.0) -> list[dict[str, float]]:
    """The timeline of each version that explorers got, in seconds; see the module's docstring.

    Args:
        events: A campaign's log; its fits must say when they started.
        settings: Of its policies.
        n_in_turn: Members that a trainer fits one after another, on average.
    """
    due = fits_due(events, settings)
    promoted: dict[int, float] = {}
    for event in events:
        if isinstance(event, ModelPromoted):
            promoted.setdefault(event.version, event.t)
    chunks: dict[str, list[ExplorationReported]] = {}
    for event in events:
        if isinstance(event, ExplorationReported):
            chunks.setdefault(event.worker, []).append(event)
    rows = []
    for model in events:
        if not isinstance(model, ModelPublished) or model.version not in promoted or not model.started:
            continue
        firsts = [first for own in chunks.values() if (first := _first_chunk(own, model.version)) is not None]
        if firsts:
            firsts.sort(key=lambda first: first.begun)
            rows.append(_row(model, due[model.version], promoted[model.version], firsts, n_in_turn))
    return rows


@dataclass(frozen=True, slots=True)
class _First:
    """An explorer's first chunk with a version; unix times and seconds."""

    begun: float
    wall_s: float
    extra_s: float
    before: float
    """When its chunk before that ended; 0 for none."""


def _first_chunk(own: Sequence[ExplorationReported], version: int) -> _First | None:
    usual = median(chunk.wall_s for chunk in own)
    for i, chunk in enumerate(own):
        if chunk.model_version == version:
            before = own[i - 1].t if i else 0.0
            begun = max(chunk.t - chunk.wall_s, before)
            return _First(begun, chunk.wall_s, chunk.wall_s - usual, before)
    return None


def _row(
    model: ModelPublished, due: Due, promoted: float, firsts: Sequence[_First], n_in_turn: float
) -> dict[str, float]:
    first, metrics = firsts[0], Metrics.read(model.metrics)
    call = model.finished - model.started
    gradient = call
    if "step_ms" in metrics:
        gradient = 1e-3 * metrics["step_ms"] * metrics["steps"] * n_in_turn
    examination = metrics.get("model_tests_wall_s") or 0.0
    free = max(first.before, promoted)
    row = {
        "version": float(model.version),
        "trainer_busy": due.due - due.label,
        "to_trainer": model.started - due.due,
        "gradient": gradient,
        "examination": examination,
        "around_fit": call - gradient - examination,
        "to_disk": model.t - model.finished,
        "decision": promoted - model.t,
        "chunk_in_progress": free - promoted,
        "to_explorer": first.begun - free,
    }
    row["total"] = sum(row[name] for name in SEGMENTS)
    row["overhead_s"] = row["total"] - gradient - row["chunk_in_progress"] - row["trainer_busy"]
    row["all_explorers"] = firsts[-1].begun - first.begun
    row["first_chunk"], row["first_chunk_extra"] = first.wall_s, first.extra_s
    return row


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range, ms resolution."""
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def campaign(args: argparse.Namespace, kind: str, folder: Path) -> CampaignFolder:
    """Runs one, in a process of its own."""
    settings = {
        "directory": folder,
        "tracking.enabled": "false",
        "runtime.kind": kind,
        "stop.labels": args.labels,
        "stop.wall_s": args.wall_s,
        "training.budget_s": args.budget_s,
        "training.refit_every": args.refit_every,
        "exploration.workers": args.explorers,
    }
    command = [sys.executable, "-m", "alsys.cli", "run", args.config, "--quiet"]
    for override in (*(f"{name}={value}" for name, value in settings.items()), *args.set):
        command += ["--set", override]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return CampaignFolder(folder)


def measure(args: argparse.Namespace, kind: str) -> dict[str, Any]:
    """One campaign's figures."""
    with tempfile.TemporaryDirectory() as folder:
        directory = campaign(args, kind, Path(folder) / "campaign")
        config = directory.config()
        events = open_reader(directory.store).events()
    members = config.model.members
    n_in_turn = members / min(getattr(config.training, "parallel", 1), members)
    rows = segments(events, PolicySettings.of(config), n_in_turn)
    if not rows:
        raise SystemExit("no version reached the explorers: give --labels more")
    budget = config.training.least_fit_s
    for row in rows:
        row["beyond_budget_s"] = row["total"] - budget - row["chunk_in_progress"] - row["trainer_busy"]
    names = [name for name in rows[0] if name != "version"]
    return {
        "budget_s": budget,
        "n_published": sum(isinstance(event, ModelPublished) for event in events),
        "n_reached_explorers": len(rows),
        "segments": {name: spread([row[name] for row in rows]) for name in names},
        "versions": [{name: round(value, 3) for name, value in row.items()} for row in rows],
    }


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(Path(__file__).parents[1] / "configs" / "xtb.yaml"))
    parser.add_argument("--kind", nargs="+", choices=["ray", "in-process"], default=["ray"])
    parser.add_argument("--labels", type=int, default=80)
    parser.add_argument("--wall-s", type=float, default=300.0)
    parser.add_argument("--budget-s", type=float, default=8.0)
    parser.add_argument("--refit-every", type=int, default=8)
    parser.add_argument("--explorers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="further settings, as for `alsys run`")
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    result = {"settings": vars(args), "kinds": {kind: measure(args, kind) for kind in args.kind}, "machine": machine()}
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
