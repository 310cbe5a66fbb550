"""`report.html`: one self-contained page on what a campaign made, how good it is and how it went.

Reads `campaign.json`, the store, the log and the champion's calibration; needs no running driver and changes nothing.
The page has no script and no link to outside, follows light and dark, and escapes everything. A campaign without
labels or models gets a page that says so.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from alsys.config import CampaignConfig
from alsys.control.rules.goals import converged
from alsys.control.settings import PolicySettings
from alsys.control.state.records import ModelRecord
from alsys.control.status import budgets_of, budgets_text, coverage_text, hessians_text, random_note
from alsys.errors import InputError
from alsys.events import DataImported
from alsys.files import replace_file
from alsys.frames import Arm
from alsys.interop.mlflow_settings import shown
from alsys.labels import LevelOfTheory
from alsys.metrics import Name
from alsys.store.base import StoreReader, own_level
from alsys.tracking import report_plots as plots
from alsys.tracking.record import read_record
from alsys.tracking.structures import draw, formula
from alsys.tracking.summary import Summary, summarise
from alsys.tracking.undelivered import undelivered
from alsys.tracking.validation_section import validation_section
from alsys.units import MEV
from alsys.version import __version__

MAX_SYSTEMS = 12
"""Systems that are drawn."""
MAX_QUARANTINED = 100
"""Rows of the table of frames in quarantine, and of that of retracted labels."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A structure and what is written below it."""

    svg: Markup
    title: str
    note: str


def write_report(campaign_dir: str | Path, path: str | Path | None = None) -> Path:
    """Writes the report of a campaign, atomically.

    Args:
        campaign_dir: The campaign.
        path: Where to; default `report.html` in the campaign.

    Raises:
        InputError: Not a campaign, or a path that cannot be written.
        OSError: The campaign's own folder cannot be written.
    """
    from alsys.store.zarr import open_reader

    directory = Path(campaign_dir)
    config, record = read_record(directory)
    reader = open_reader(directory / "store.zarr")
    try:
        html = render(directory, config, record, reader)
    finally:
        reader.close()
    target = Path(path) if path is not None else directory / "report.html"
    try:
        replace_file(target, html, is_durable=False)  # it can be drawn again
    except OSError as error:
        if path is None:
            raise
        raise InputError(
            f"cannot be written: {error.strerror or error}", field="output", value=str(path),
            remedy="name a file in a folder with space",
        ) from error  # fmt: skip
    return target


def render(campaign_dir: Path, config: CampaignConfig, record: Mapping[str, Any], reader: StoreReader) -> str:
    """The page.

    Args:
        campaign_dir: The campaign; the champion's `calibration.json` and its validation are read there.
        config: Its config.
        record: The content of `campaign.json`.
        reader: Its store.
    """
    settings = PolicySettings.of(config)
    summary = summarise(reader.events(), settings)
    band = summary.trust if len(summary.trust) == 2 else (math.nan, math.nan)
    level = own_level(reader.levels(), summary.imports)
    calibration = _calibration(campaign_dir, summary)
    correlation = plots.rank_correlation(calibration)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files("alsys.tracking").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    charts = {
        "learning": plots.learning_curve(summary, config.stop.target_force_mae),
        "calibration": plots.deviation_against_error(calibration, *band),
        "coverage": plots.coverage(summary, settings.probability),
        "audits": plots.audits(summary),
        "labels": plots.labels_over_time(summary),
        "utilisation": plots.utilisation(summary),
        "exploration": plots.exploration(summary, *band),
        "stops": plots.counts(summary.stops, "Walkers stopped, by reason", "s2"),
        "failures": plots.counts(_failure_counts(summary), "Failed attempts at a label, by kind", "s6"),
        "dropped": plots.counts(summary.dropped, "Candidates dropped, by reason", "s5"),
    }
    return template.render(
        name=config.name,
        state=_state(summary),
        lead=_lead(config, summary),
        tiles=_tiles(summary),
        facts=[*_facts(config, summary, level, reader.head.seq), *_undelivered(campaign_dir, config, summary)],
        drawings=_drawings(reader, level, summary),
        charts={name: Markup(svg) for name, svg in charts.items()},
        validation=validation_section(campaign_dir, summary.champion),
        correlation=None if math.isnan(correlation) else f"{correlation:.2f}",
        models=[_model_row(model, summary.champion) for model in summary.models],
        retracted=summary.retracted[-MAX_QUARANTINED:],
        n_retracted=len(summary.retracted),
        quarantined=summary.quarantined[:MAX_QUARANTINED],
        n_quarantined=len(summary.quarantined),
        timeline=[(plain_time(entry.time), entry) for entry in summary.timeline],
        n_untold=summary.n_untold,
        usage=_usage(campaign_dir, config, summary),
        level=level.canonical if level else "",
        level_id=level.level_id if level else "",
        config=yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True),
        config_hash=str(record.get("config_hash", "")),
        versions=[(k, v) for k, v in (record.get("versions") or {}).items() if v],
        python=str(record.get("python", "")),
        alsys_version=str(record.get("alsys", __version__)),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        plain_time=plain_time,
    )


def plain_time(seconds: float) -> str:
    """A span of time for people: ``8.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def error_text(model: ModelRecord) -> str:
    """Force MAE on the random arm with its interval, meV/Å; a dash where it was not measured."""
    mae, low, high = (value / MEV for value in model.error)
    if math.isnan(mae):
        return "–"
    return f"{mae:.1f}" if math.isnan(low + high) else f"{mae:.1f} [{low:.1f}, {high:.1f}]"


def _state(summary: Summary) -> tuple[str, str]:
    """Word and tone."""
    if summary.stopped is None:
        return ("not finished", "plain") if summary.ledger.totals.openings else ("not started", "plain")
    if summary.stopped.reason == "failed":
        return "failed", "bad"
    return ("finished", "good") if summary.stopped.is_final else ("stopped", "plain")


def _lead(config: CampaignConfig, summary: Summary) -> str:
    systems = [system.name for system in config.systems]
    what = ", ".join(systems[:4]) + (f" and {len(systems) - 4} more" if len(systems) > 4 else "")
    champion = summary.champion_model
    if champion is None:
        return f"A force field for {what}: no model yet, {summary.n_labels} labels so far."
    error = error_text(champion)
    quality = f", force MAE {error} meV/Å on its random arm" if error != "–" else ", not yet measured on a random arm"
    n_versions = len(summary.models)
    return (
        f"A committee of {config.model.members} {config.model.kind} models for {what}, version {champion.version} of "
        f"{n_versions}, from {champion.n_labels} labels{quality}."
    )


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Figure, unit or bound, name."""
    champion = summary.champion_model
    tiles = []
    if champion is not None and math.isfinite(champion.error[0]):
        mae, low, high = (value / MEV for value in champion.error)
        bound = "" if math.isnan(low + high) else f"{low:.1f} to {high:.1f} (95 %)"
        tiles.append((f"{mae:.1f} meV/Å", bound, "force MAE, random arm"))
    walls = [label.wall_s for label in summary.labels if label.arm is not Arm.ATOM]
    mean = f"{sum(walls) / len(walls):.3g} s each" if walls else ""
    tiles.append((f"{summary.n_labels:,}", mean, "labels"))
    tiles.append((f"{len(summary.models)}", f"champion v{champion.version}" if champion else "", "model versions"))
    tiles.append((f"{summary.ledger.totals.walker_steps:,}", "", "walker steps"))
    quarantined = f"{len(summary.quarantined)} quarantined" if summary.quarantined else ""
    tiles.append((f"{len(summary.failures)}", quarantined, "failed attempts"))
    restarts = f"{len(summary.restarts)} restarts" if summary.restarts else ""
    tiles.append((plain_time(summary.running_s), restarts, "running time"))
    return tiles


def _facts(
    config: CampaignConfig, summary: Summary, level: LevelOfTheory | None, head_seq: int
) -> list[tuple[str, str]]:
    model, exploration = config.model, config.exploration
    temperatures = ", ".join(f"{t:g}" for t in exploration.temperatures)
    arms = (
        f"{summary.n_of(Arm.INITIAL)} initial, {summary.n_of(Arm.UNCERTAIN)} uncertain, {summary.n_of(Arm.RANDOM)} "
        f"random arm ({config.test_frames}; never trained on), {summary.n_of(Arm.ATOM)} free atoms"
    )
    note = random_note(summary.n_of(Arm.RANDOM))
    work = f" with {plain_time(lost_s)} of work" if (lost_s := summary.ledger.totals.lost_s) >= 1.0 else ""
    lost = f"{summary.n_workers_lost} workers lost{work}, {len(summary.restarts)} restarts of the driver"
    facts = [
        ("Systems", ", ".join(_system_text(system) for system in config.systems)),
        ("Level of theory", level_text(level.spec) if level else "no label yet"),
        ("Model", f"committee of {model.members} {model.kind} models, cutoff {model.r_max:g} Å"),
        (
            "Exploration",
            f"{exploration.n_workers} × {exploration.walkers} walkers, Langevin at {temperatures} K",
        ),
        ("Labels", f"{arms}; {note}" if note else arms),
        ("Candidates", f"{summary.ledger.proposed:,} proposed, {summary.dropped.total():,} dropped"),
        ("Faults survived", lost),
    ]
    if summary.imports:
        facts.append(("Imported labels", "; ".join(_import(event) for event in summary.imports)))
    if summary.n_repeated:
        facts.append(("Repeated labels", f"{summary.n_repeated}, of which {summary.n_conflicts} disagree"))
    if hessians := hessians_text(summary.ledger):
        facts.append(("Hessians", hessians))
    if summary.retracted:
        facts.append(("Retracted labels", f"{len(summary.retracted)}, left out of the dataset since"))
    if summary.label_checks or summary.audits:
        facts.append(("Labels checked", _label_checks(summary)))
    if coverage := coverage_text(summary.ledger):
        facts.append(("Coverage", coverage))
    if summary.ledger.settings.targets.are_set:
        facts.append(("Target", converged(summary.ledger).text))
    facts.append(("Spent", budgets_text(budgets_of(summary.ledger))))
    ended = "not yet" if summary.stopped is None else f"{summary.stopped.message} ({summary.stopped.reason})"
    return [*facts, ("Ended", ended), ("Dataset version", str(head_seq))]


def _undelivered(campaign_dir: Path, config: CampaignConfig, summary: Summary) -> list[tuple[str, str]]:
    versions = [model.version for model in summary.models]
    kept = [version for version in versions if (campaign_dir / "models" / f"v{version:04d}").is_dir()]
    lines = undelivered(campaign_dir, kept, is_tracked=config.tracking.enabled).lines()
    return [("Registry", "; ".join(lines))] if lines else []


def _import(event: DataImported) -> str:
    use = f"{event.n_train:,} trained on" if event.is_training else f"kept apart, level {event.level_id[:8]}"
    return f"{event.n_labels:,} from {event.source} ({event.format}; {use}; units: {event.unit_check or 'vouched for'})"


def _label_checks(summary: Summary) -> str:
    counts = summary.label_checks
    rejected = sum(not audit.is_confirmed for audit in summary.audits)
    return (
        f"{counts['failed_gate']} failed the gate, {counts['not_reproduced']} of them not reproduced; "
        f"{len(summary.audits)} audited, {rejected} rejected; "
        f"{counts['reference_checks']} labels of the reference frame, {counts['reference_checks_failed']} wrong"
    )


def level_text(spec: Mapping[str, object]) -> str:
    """A level of theory as people write it: ``pbe/def2-svp with pyscf``."""
    engine = str(spec.get("engine", spec.get("kind", "")))
    method = [str(spec[key]) for key in ("xc", "method") if spec.get(key)][:1]
    basis = f"/{spec['basis']}" if method and spec.get("basis") else ""
    dispersion = f"-{spec['dispersion']}" if method and spec.get("dispersion") else ""
    return f"{method[0]}{dispersion}{basis} with {engine}" if method else engine or json.dumps(dict(spec))


def _system_text(system: Any) -> str:
    extra = f", charge {system.charge:+d}" if system.charge else ""
    extra += f", multiplicity {system.multiplicity}" if system.multiplicity != 1 else ""
    return f"{system.name} ({system.origin}{extra})"


def _failure_counts(summary: Summary) -> Counter[str]:
    return Counter(str(failure.failure) for failure in summary.failures)


def _calibration(campaign_dir: Path, summary: Summary) -> list[tuple[float, float]]:
    """Deviation and error of random-arm frames from the champion's bundle; empty where there is none."""
    path = campaign_dir / "models" / f"v{summary.champion:04d}" / "calibration.json"
    if not summary.champion or not path.is_file():
        return []
    try:
        return [(float(deviation), float(error)) for deviation, error in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, ValueError) as error:
        raise InputError(f"is not a list of pairs: {error}", source=str(path)) from error


def _drawings(reader: StoreReader, level: LevelOfTheory | None, summary: Summary) -> list[Drawing]:
    """For each system the labelled frame of lowest energy and the one that was least certain; else the first one.

    Energies of frames that were carved out of larger ones do not compare.
    """
    drawings: list[Drawing] = []
    snapshot = reader.snapshot(level.level_id) if level is not None else None
    is_whole = snapshot.is_whole if snapshot is not None else None
    for name, first in list(summary.first_frames.items())[:MAX_SYSTEMS]:
        rows: Sequence[int] = []
        if snapshot is not None and name in snapshot.systems:
            mine = (snapshot.system == snapshot.systems.index(name)) & ~snapshot.is_arm(Arm.ATOM)
            rows = [int(row) for row in mine.nonzero()[0]]
        if snapshot is None or is_whole is None or not rows:
            frame = reader.candidates([first])[0].frame
            drawings.append(_drawing(frame, name, "first frame proposed"))
            continue
        whole = [row for row in rows if is_whole[row]]
        lowest = min(whole, key=lambda row: float(snapshot.energy[row]), default=None)
        if lowest is not None:
            drawings.append(_drawing(snapshot.frame(lowest), name, "lowest energy labelled"))
        known = [row for row in rows if math.isfinite(snapshot.deviation[row])]
        if known:
            strangest = max(known, key=lambda row: float(snapshot.deviation[row]))
            note = f"least certain: deviation {float(snapshot.deviation[strangest]):.2f} eV/Å"
            if lowest is not None and is_whole[strangest]:
                note += f", {float(snapshot.energy[strangest] - snapshot.energy[lowest]):.2f} eV above it"
            drawings.append(_drawing(snapshot.frame(strangest), name, note))
    return drawings


def _drawing(frame: Any, name: str, note: str) -> Drawing:
    title = f"{name}: {formula(frame)}"
    return Drawing(Markup(draw(frame, f"{title}, {note}")), title, note)


def _model_row(model: ModelRecord, champion: int) -> dict[str, object]:
    metrics = model.metrics

    def scaled(name: Name) -> str:
        value = metrics.get(name)
        return "–" if value is None else f"{value / MEV:.1f}"

    return {
        "version": f"v{model.version:04d}",
        "parent": f"v{model.parent:04d}" if model.parent else "–",
        "is_champion": model.version == champion,
        "verdict": {True: "promoted", False: "rejected", None: "undecided"}[model.promoted],
        "reason": model.reason,
        "n_labels": model.n_labels,
        "n_random": int(metrics.get("n_random") or 0),
        "seq": model.seq,
        "error": error_text(model),
        "energy": scaled("energy_mae_random_arm"),
        "validation": scaled("force_mae_validation"),
        "train": scaled("force_mae_train"),
        "wall": plain_time(model.wall_s),
    }


def _usage(campaign_dir: Path, config: CampaignConfig, summary: Summary) -> str:
    """Code that uses the champion; empty before there is one."""
    if not summary.champion:
        return ""
    bundle = campaign_dir / "models" / f"v{summary.champion:04d}"
    registered = f'"models:/{config.model_name}@champion"'
    lines = ["import alsys", ""]
    if config.tracking.enabled:
        server = f", tracking_uri={shown(config.tracking.uri)!r}" if config.tracking.uri else ""
        lines += [f"calc = alsys.load_calculator({registered}{server})", f"# or, without MLflow: {str(bundle)!r}"]
    else:
        lines.append(f"calc = alsys.load_calculator({str(bundle)!r})")
    lines += [
        "atoms = ...  # ASE Atoms of the kind that it was made for",
        "atoms.calc = calc",
        "atoms.get_potential_energy(), atoms.get_forces()  # eV, eV/Å",
        'calc.results["max_force_deviation"]  # how far the committee disagrees, eV/Å',
    ]
    return "\n".join(lines)
