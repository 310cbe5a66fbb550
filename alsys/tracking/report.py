"""`report.html`: one self-contained page on what a campaign did and how good its model is.

Everything comes from the store, the log and the bundles; a running driver is not needed. No script, no link to outside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from ase.formula import Formula
from ase.symbols import Symbols
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alsys.config import parse_config
from alsys.config.schema import CampaignConfig
from alsys.control.ledger import Ledger
from alsys.control.settings import PolicySettings
from alsys.control.status import error_text, headline, status_of
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    Event,
    ExplorationReported,
    FrameQuarantined,
    Heartbeat,
    LabelAccepted,
    LabelFailed,
    ModelPromoted,
    TrainingFailed,
    WorkerLost,
)
from alsys.frames import Frame
from alsys.store.base import StoreReader
from alsys.store.zarr import open_reader
from alsys.tracking import report_plots as plots

MAX_ROWS = 200


def write_report(campaign_dir: Path, path: Path | None = None) -> Path:
    """Writes the report of a campaign and returns where it is.

    Raises:
        InputError: Not a campaign.
    """
    record = json.loads((campaign_dir / "campaign.json").read_text(encoding="utf-8"))
    config = parse_config(record["config"], source=str(campaign_dir / "campaign.json"))
    reader = open_reader(campaign_dir / "store.zarr")
    html = render(campaign_dir, config, record, reader)
    path = path or campaign_dir / "report.html"
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(html, encoding="utf-8")
    temporary.replace(path)
    return path


def render(campaign_dir: Path, config: CampaignConfig, record: dict[str, Any], reader: StoreReader) -> str:
    """The page as text."""
    events = reader.events()
    ledger = Ledger.fold(PolicySettings.of(config), events)
    state = "running or interrupted" if ledger.stopped is None else f"stopped ({ledger.stopped.reason})"
    status = status_of(ledger, state=state, head_seq=reader.head.seq)
    models = status["models"]
    assert isinstance(models, list)
    start = events[0].t if events else 0.0
    calibration = _calibration(campaign_dir, ledger.champion)
    level = reader.levels()[-1].spec if reader.levels() else {}
    uri = f"models:/{config.model_name}@champion"
    if not config.tracking.enabled:
        uri = f"{campaign_dir}/models/v{ledger.champion:04d}"
    environment = Environment(loader=PackageLoader("alsys.tracking", "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        name=config.name,
        headline=headline(status),
        facts=_facts(config, ledger, status, level),
        structures=_structures(reader, ledger),
        plots={
            "learning": Markup(plots.learning_curve(models, ledger.champion or None)),
            "calibration": Markup(plots.deviation_against_error(calibration)),
            "labels": Markup(plots.labels_over_time(_of(events, LabelAccepted), _of(events, LabelFailed), start)),
            "utilisation": Markup(plots.utilisation(_of(events, Heartbeat), start)),
        },
        models=[_model_row(model, ledger.champion) for model in models],
        exploration=_exploration(_of(events, ExplorationReported)),
        failures=_failures(events),
        history=_history(events),
        uri=uri,
        config_hash=record.get("config_hash", ""),
        versions=", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items() if v),
        config=yaml.safe_dump(record["config"], sort_keys=False),
    )


def _of(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def _facts(config: CampaignConfig, ledger: Ledger, status: dict[str, object], level: Any) -> list[tuple[str, str]]:
    labels, utilisation = status["labels"], status["utilisation"]
    assert isinstance(labels, dict)
    assert isinstance(utilisation, dict)
    model = config.model
    return [
        ("systems", ", ".join(system.name for system in config.systems)),
        ("level of theory", ", ".join(f"{k} {v}" for k, v in level.items()) or "none yet"),
        ("model", f"committee of {model.members} {model.kind} models"),
        (
            "labels",
            f"{labels['accepted']} of {labels['target']}: {labels['training']} for training, {labels['random_arm']} in "
            f"the random arm; {labels['failed']} failed attempts, {labels['quarantined']} quarantined",
        ),
        ("mean time of a label", "-" if labels["mean_s"] is None else f"{labels['mean_s']:.3g} s"),
        ("running time", f"{ledger.totals.wall_s:.0f} s in {ledger.totals.openings} runs"),
        ("busy", ", ".join(f"{role} {share:.0%}" for role, share in utilisation.items())),
        ("ended", ledger.stopped.message if ledger.stopped else "not yet"),
        ("dataset version", str(status["head_seq"])),
    ]


def _structures(reader: StoreReader, ledger: Ledger) -> list[dict[str, object]]:
    first: dict[str, str] = {}
    for frame_id, record in ledger.frames.items():
        if record.arm != "atom":
            first.setdefault(record.system, frame_id)
    candidates = reader.candidates(list(first.values()))
    return [
        {"name": name, "formula": _formula(c.frame), "svg": Markup(plots.structure(c.frame))}
        for name, c in zip(first, candidates, strict=True)
    ]


def _formula(frame: Frame) -> str:
    return str(Formula(str(Symbols(frame.numbers))).format("hill"))


def _calibration(campaign_dir: Path, champion: int) -> list[tuple[float, float]]:
    file = campaign_dir / "models" / f"v{champion:04d}" / "calibration.json"
    if not champion or not file.is_file():
        return []
    return [(float(d), float(e)) for d, e in json.loads(file.read_text(encoding="utf-8"))]


def _model_row(model: dict[str, Any], champion: int) -> dict[str, object]:
    is_champion = model["version"] == champion
    state = "champion" if is_champion else {True: "was champion", False: "rejected", None: "new"}[model["promoted"]]
    return {
        "version": f"v{model['version']:04d}",
        "n_labels": model["n_labels"],
        "error": error_text(model).split(" meV")[0],
        "n_random": model["n_random"],
        "state": state,
        "reason": model["reason"],
        "is_champion": is_champion,
    }


def _exploration(reports: Sequence[ExplorationReported]) -> list[dict[str, str]]:
    rows = []
    for version in sorted({report.model_version for report in reports}):
        mine = [report for report in reports if report.model_version == version]
        steps = sum(report.walker_steps for report in mine)
        stops: dict[str, int] = {}
        for report in mine:
            for reason, count in report.stops.items():
                stops[reason] = stops.get(reason, 0) + count
        mean = sum(report.deviation_mean * report.walker_steps for report in mine) / max(steps, 1)
        rows.append(
            {
                "version": f"v{version:04d}",
                "steps": f"{steps:,}",
                "candidates": str(sum(report.n_candidates for report in mine)),
                "deviation": f"{1e3 * mean:.0f}",
                "stops": ", ".join(f"{count} {reason}" for reason, count in sorted(stops.items())) or "none",
            }
        )
    return rows


def _failures(events: Sequence[Event]) -> list[dict[str, str]]:
    rows = [
        {"frame": e.frame_id[:12], "kind": f"quarantined: {e.failure}", "message": e.message}
        for e in _of(events, FrameQuarantined)
    ]
    rows += [{"frame": e.worker, "kind": f"lost: {e.failure}", "message": e.message} for e in _of(events, WorkerLost)]
    rows += [
        {"frame": f"v{e.version:04d}", "kind": f"fit: {e.failure}", "message": e.message}
        for e in _of(events, TrainingFailed)
    ]
    return rows[:MAX_ROWS]


def _history(events: Sequence[Event]) -> list[dict[str, str]]:
    rows = []
    for event in events:
        if isinstance(event, CampaignOpened):
            text = f"opened by alsys {event.version} on {event.host}, writer epoch {event.epoch}"
        elif isinstance(event, ModelPromoted):
            text = f"v{event.version:04d} became champion: {event.reason}"
        elif isinstance(event, CampaignStopped):
            text = f"stopped: {event.reason}: {event.message}"
        else:
            continue
        rows.append({"time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.t)), "text": text})
    return rows[-MAX_ROWS:]
