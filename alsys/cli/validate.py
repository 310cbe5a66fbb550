"""`alsys validate`: a model of a campaign held against physics, with the campaign's own labeler as reference.

Needs no driver and disturbs none. Results and reference labels stay in the campaign's folder `validation`; nothing is
added to the campaign's data.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from alsys.cli.campaign import CampaignDirectory, apply_overrides
from alsys.cli.outputs import check_file
from alsys.config import CampaignConfig, parse_config
from alsys.config.validation import CHECKS
from alsys.control.ledger import Ledger
from alsys.control.settings import PolicySettings
from alsys.errors import AlsysError, InputError
from alsys.events import Event, FrameProposed, LabelAccepted
from alsys.frames import Arm
from alsys.validation.results import ValidationRecord, flat_metrics

logger = logging.getLogger(__name__)


def validate(args: argparse.Namespace) -> int:
    """Validates one version; prints its numbers."""
    directory = CampaignDirectory.existing(args.directory)
    config = directory.config()
    if args.set:
        data = apply_overrides(config.model_dump(mode="json"), args.set)
        config = parse_config(data, source="--set")
        directory.check_same(config, "--set")
    only = _checks(args.only)
    if args.labels is not None and args.labels < 0:
        raise InputError("must not be negative", source="--labels", value=args.labels)
    if args.export:
        if Path(args.export).suffix not in (".xyz", ".extxyz"):
            raise InputError("write .extxyz or .xyz", source="--export", value=args.export)
        check_file(Path(args.export), "--export")

    def tell(message: str) -> None:
        sys.stderr.write(f"{message}\n")

    version = None if args.model == "champion" else _version(args.model)
    record = validate_model(directory, config, version, only, args.labels, tell)
    report = _write_report(directory)
    _print(record, is_json=args.json)
    if report is not None:
        tell(f"report: {report}")
    if args.export:
        from alsys.validation.export import export_reference

        tell(f"{args.export}: {export_reference(directory.validation / 'labels.jsonl', Path(args.export))} frames")
    return 0


def validate_model(
    directory: CampaignDirectory,
    config: CampaignConfig,
    version: int | None = None,
    only: Sequence[str] = (),
    budget: int | None = None,
    progress: Callable[[str], None] = logger.info,
) -> ValidationRecord:
    """Validates a version, and queues its numbers for MLflow, which gets a chance to take them.

    Args:
        directory: The campaign.
        config: Its config; operational fields may differ from the record's.
        version: Model version; None for the champion.
        only: Checks; default those of the config.
        budget: New reference calculations at most; None for what the config allows.
        progress: Told what is being done.

    Raises:
        InputError: No such model, or another process is validating.
    """
    from alsys.labeling.factory import build_labeler
    from alsys.store.zarr import open_reader
    from alsys.validation.campaign import CampaignValidation, exclusive

    reader = open_reader(directory.store)
    try:
        events = reader.events()
        ledger = Ledger.fold(PolicySettings.of(config), events)
        chosen = ledger.champion if version is None else version
        if not ledger.models:
            raise InputError("has no model yet", source=str(directory.path), remedy="let the campaign train one")
        if chosen not in ledger.models:
            known = ", ".join(map(str, sorted(ledger.models)[-10:]))
            raise InputError(
                "no such version" if version is not None else "has no champion",
                source=str(directory.path),
                field="--model",
                value=version,
                remedy=f"versions are {known}",
            )
        labeling = config.labeling.model_copy(update={"baseline": None})
        with exclusive(directory.validation):
            validation = CampaignValidation(
                chosen,
                config=config,
                reader=reader,
                models=directory.models,
                folder=directory.validation,
                n_labels=_labels_of_versions(events),
                build_labeler=lambda: build_labeler(labeling),
                budget=budget,
                label_s=_seconds_of_a_label(events),
                progress=progress,
            )
            record = validation.run(only)
        progress(f"{validation.n_spent} new reference calculations, {record.n_labels} labels are kept")
    finally:
        reader.close()
    _track(directory, config, record, progress)
    return record


def validate_at_end(directory: CampaignDirectory, config: CampaignConfig, progress: Callable[[str], None]) -> None:
    """What a finished campaign does where `validation.at_end` is set; what fails here fails no campaign."""
    try:
        validate_model(directory, config, progress=progress)
    except (AlsysError, OSError) as error:
        progress(f"no validation: {error}")


def _track(
    directory: CampaignDirectory, config: CampaignConfig, record: ValidationRecord, progress: Callable[[str], None]
) -> None:
    metrics = flat_metrics(record.units)
    if not config.tracking.enabled or not metrics:
        return
    from alsys.tracking.courier import Courier
    from alsys.tracking.outbox import Outbox

    Outbox.of(directory.path).put_validation(record.version, metrics, record.unix_time)
    courier = Courier(directory.path)
    try:
        if not courier.flush(config.tracking.flush_s):
            progress("MLflow has not taken the numbers yet; the next delivery will bring them")
    finally:
        courier.close()


def _write_report(directory: CampaignDirectory) -> Path | None:
    from alsys.tracking.report import write_report

    try:
        return write_report(directory.path)
    except (AlsysError, OSError) as error:
        sys.stderr.write(f"no report: {error}\n")
        return None


def _print(record: ValidationRecord, *, is_json: bool) -> None:
    if is_json:
        units = [
            {
                "check": unit.check,
                "system": unit.system,
                "temperature": None if unit.temperature != unit.temperature else unit.temperature,
                "status": unit.status,
                "metrics": dict(unit.metrics),
                "notes": list(unit.notes),
            }
            for unit in record.units
        ]
        content = {
            "version": record.version,
            "seq": record.seq,
            "level": dict(record.level),
            "n_labels": record.n_labels,
            "units": units,
            "metrics": flat_metrics(record.units),
        }
        sys.stdout.write(json.dumps(content) + "\n")
        return
    lines = [f"validation of v{record.version:04d} (eV, eV/Angstrom, Angstrom, fs, K unless a name says otherwise)"]
    for unit in record.units:
        lines.append(f"{unit.place}: {unit.status}")
        lines += [f"  {name} {value:.4g}" for name, value in unit.metrics.items()]
        lines += [f"  note: {note}" for note in unit.notes]
    sys.stdout.write("\n".join(lines) + "\n")


def _checks(text: str | None) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    for name in chosen:
        if name not in CHECKS:
            raise InputError("no such check", source="--only", value=name, remedy=f"checks are {', '.join(CHECKS)}")
    return chosen


def _version(text: str) -> int:
    digits = text.removeprefix("v")
    if not digits.isdecimal():
        raise InputError("is a number, or champion", source="--model", value=text, remedy="see `alsys status`")
    return int(digits)


def _labels_of_versions(events: Sequence[Event]) -> dict[int, int]:
    from alsys.events import ModelPublished

    return {event.version: event.n_labels for event in events if isinstance(event, ModelPublished)}


def _seconds_of_a_label(events: Sequence[Event]) -> float:
    """Median time of a label, free atoms left out; NaN where there is none."""
    atoms = {e.frame_id for e in events if isinstance(e, FrameProposed) and e.arm is Arm.ATOM}
    times = [e.wall_s for e in events if isinstance(e, LabelAccepted) and e.frame_id not in atoms]
    return statistics.median(times) if times else float("nan")
