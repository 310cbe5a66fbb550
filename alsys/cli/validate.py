"""`alsys validate`: a model of a campaign held against physics; prints its numbers."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.models import version_number
from alsys.campaign.validation import validate_model
from alsys.cli.outputs import check_file
from alsys.config import parse_config
from alsys.config.overrides import apply_overrides
from alsys.config.validation import CHECKS
from alsys.errors import AlsysError, InputError
from alsys.validation.results import ValidationRecord, flat_metrics

logger = logging.getLogger(__name__)


def validate(args: argparse.Namespace) -> int:
    """Validates one version; prints its numbers."""
    directory = CampaignFolder.existing(args.directory)
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


def _write_report(directory: CampaignFolder) -> Path | None:
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
    if (number := version_number(text)) is None:
        raise InputError("is a number, or champion", source="--model", value=text, remedy="see `alsys status`")
    return number
